use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::eventually::eventually_blocking;
use crate::fetch::FetchLane;
use crate::fetch::budget::Budget;
use crate::fetch::demand::Waiting;
use crate::fetch::heavy::WAITING_VISITS;
use crate::fetch::ledger::Payer;
use crate::fetch::place::{FetchPlace, TURN};

fn heavy(seat: &Seat) -> std::thread::JoinHandle<bool> {
    let seat = seat.clone();
    std::thread::spawn(move || Weight::new(&seat).work(LIGHT_WORK + 1).is_ok())
}

/// Threads that want the lane take turns, and only a limited number of them wait in ordinary places.
#[test]
fn one_heavy_visit_at_a_time_and_few_that_wait() {
    let seat = Seat::alone();
    let mut first = Weight::new(&seat);
    assert!(first.hold(LIGHT_VISIT + 1).unwrap());
    assert!(!first.hold(HEAVY_VISIT).unwrap());
    let lane = &seat.budget.heavy;
    let waiting: Vec<_> = (0..WAITING_VISITS).map(|_| heavy(&seat)).collect();
    eventually_blocking("all of them wait", || {
        lane.ledger.waiting() >= WAITING_VISITS
    });
    assert!(!heavy(&seat).join().unwrap());
    let medium = Seat {
        place: FetchPlace {
            lane: FetchLane::Medium,
            ..FetchPlace::default()
        },
        ..seat.clone()
    };
    let patient = heavy(&medium);
    eventually_blocking("the patient one waits, too", || {
        lane.ledger.waiting() > WAITING_VISITS
    });
    let mut light = Weight::new(&seat);
    assert!(light.hold(LIGHT_VISIT).unwrap());
    light.work(LIGHT_WORK).unwrap();
    drop(first);
    assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
    assert!(patient.join().unwrap());
}

fn large(alone: &Seat, host: &str, outpaced: u32) -> Seat {
    Seat {
        place: FetchPlace {
            lane: FetchLane::Large,
            payer: Payer::new(host, host, "somebody", ""),
            outpaced,
            ..FetchPlace::default()
        },
        ..alone.clone()
    }
}

/// Works on until that is refused.
fn refused(visit: &mut Weight) -> FetchError {
    loop {
        if let Err(error) = visit.work(0) {
            return error;
        }
    }
}

fn works_on(visit: &mut Weight) {
    let until = visit.busy + LOOK_BUSY * 2;
    while visit.busy < until {
        visit.work(0).unwrap();
    }
}

/// A visit in the large lane that had to leave it before has a longer turn, unless one waits that had less before.
#[test]
fn a_longer_turn_is_for_when_nobody_waits_that_had_less() {
    let alone = Seat::alone();
    let lane = &alone.budget.heavy;
    lane.ledger
        .charge(&Payer::new("a", "a", "somebody", ""), 5.0);
    let mut first = Weight::new(&large(&alone, "a", 3));
    first.work(LIGHT_WORK + 1).unwrap();
    first.busy = TURN * 2;
    let equal = heavy(&large(&alone, "a", 3));
    eventually_blocking("one waits", || lane.ledger.waiting() >= 1);
    works_on(&mut first);
    let fresh = heavy(&large(&alone, "b", 0));
    eventually_blocking("two wait", || lane.ledger.waiting() >= 2);
    assert!(matches!(refused(&mut first), FetchError::Outpaced { .. }));
    drop(first);
    assert!(fresh.join().unwrap() && equal.join().unwrap());
}

#[test]
fn a_heavy_visit_gives_way_to_none_that_had_more() {
    let alone = Seat::alone();
    let lane = &alone.budget.heavy;
    lane.ledger
        .charge(&Payer::new("b", "b", "somebody", ""), 60.0);
    let mut first = Weight::new(&large(&alone, "a", 0));
    first.work(LIGHT_WORK + 1).unwrap();
    first.busy = TURN * 9;
    let busy = heavy(&large(&alone, "b", 0));
    eventually_blocking("one waits", || lane.ledger.waiting() >= 1);
    works_on(&mut first);
    drop(first);
    assert!(busy.join().unwrap());
}

/// The place is wanted by others than the lane of heavy visits.
#[test]
fn what_is_read_in_the_large_place_leaves_it_too() {
    let mut seat = large(&Seat::alone(), "a", 0);
    let budget = Arc::clone(&seat.budget);
    seat.turns = budget.turns(FetchLane::Large, &seat.place.payer);
    let ledger = budget.ledger(FetchLane::Large);
    ledger.tell([Payer::new("b", "b", "somebody", "")]);
    let begun = Instant::now();
    let mut visit = Weight::new(&seat);
    assert!(matches!(refused(&mut visit), FetchError::Outpaced { .. }));
    let (longest, taken) = (Duration::from_secs(3), begun.elapsed());
    assert!(taken > longest && taken < longest * 5, "{taken:?}");
}

#[test]
fn an_ordinary_place_is_not_kept_for_the_lane() {
    let seat = Seat::new(&Arc::new(Budget::new(8)), FetchPlace::default());
    let mut first = Weight::new(&seat);
    first.work(LIGHT_WORK + 1).unwrap();
    let begun = Instant::now();
    let waiting = heavy(&seat);
    // It waits a few seconds, unless others want its place.
    seat.place.demand.set(Waiting::Somebody);
    assert!(!waiting.join().unwrap());
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(seat.budget.heavy.ledger.waiting(), 0);
}

#[test]
fn slow_texts_are_heavy_and_leave_when_others_have_waited() {
    let seat = Seat::alone();
    let mut slow = Weight::new(&seat);
    slow.work(1).unwrap();
    assert!(!slow.is_heavy());
    slow.busy = LIGHT_TIME;
    while !slow.is_heavy() {
        slow.work(0).unwrap();
    }
    slow.busy = TURN;
    slow.work(0).unwrap();
    let waiting = heavy(&seat);
    eventually_blocking("one waits", || seat.budget.heavy.ledger.waiting() > 0);
    let ended = refused(&mut slow);
    assert!(matches!(ended, FetchError::Outpaced { seconds: 2.. }));
    drop(slow);
    assert!(waiting.join().unwrap());
}
