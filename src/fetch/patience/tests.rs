use std::sync::Arc;

use super::*;
use crate::fetch::budget::Budget;
use crate::fetch::demand::Demand;
use crate::fetch::ledger::Payer;
use crate::fetch::place::FetchPlace;

fn patience(lane: FetchLane, outpaced: u32) -> (Patience, Arc<Demand>) {
    let demand = Arc::new(Demand::default());
    let place = FetchPlace {
        is_apart: false,
        own: Vec::new(),
        lane,
        demand: Arc::clone(&demand),
        others: Arc::clone(&demand),
        usual: Duration::ZERO,
        payer: of("mine"),
        outpaced,
        kept: None,
    };
    let budget = Arc::new(Budget::new(8));
    let mut seat = Seat::new(&budget, place);
    seat.turns = budget.turns(lane, &seat.place.payer);
    (Patience::new(seat), demand)
}

fn of(host: &str) -> Payer {
    Payer::new(host, host, "somebody", "")
}

/// Returns after how many seconds, at most 1000, a place is left by a server sending at this rate.
fn left_after(patience: &mut Patience, rate: usize) -> u64 {
    (1..=1_000)
        .find(|_| {
            patience.spend(Duration::from_secs(1));
            patience.received(rate).is_err()
        })
        .unwrap_or(1_000)
}

#[test]
fn bytes_earn_time_and_nobody_is_hurried_for_nobody() {
    use FetchLane::{Large, Medium, Ordinary};
    let kept = |lane, waiting, rate| {
        let (mut patience, demand) = patience(lane, 0);
        demand.set(waiting);
        left_after(&mut patience, rate)
    };
    for lane in [Ordinary, Medium, Large] {
        assert_eq!(kept(lane, Waiting::Nobody, 0), 1_000);
    }
    assert_eq!(kept(Ordinary, Waiting::Urgently, 0), 2);
    assert_eq!(kept(Ordinary, Waiting::Somebody, 0), 5);
    // However fast it is, the push is too large for these places.
    assert_eq!(kept(Ordinary, Waiting::Urgently, 2 << 20), 5);
    assert_eq!(kept(Large, Waiting::Somebody, 2 << 20), 32);
    assert_eq!(kept(Large, Waiting::Somebody, 0), 12);
}

#[test]
fn a_fetch_has_the_time_that_its_host_usually_takes_while_no_other_host_waits() {
    use Waiting::{Nobody, Somebody, Urgently};
    let left_after = |usual: u64, rate, by_others, own| {
        let (mut patience, demand) = patience(FetchLane::Ordinary, 0);
        demand.set(Waiting::Urgently);
        let place = &mut patience.seat.place;
        place.usual = Duration::from_secs(usual);
        place.others = Arc::default();
        place.others.set(by_others);
        place.own = vec![Arc::default()];
        place.own[0].set(own);
        left_after(&mut patience, rate)
    };
    assert_eq!(left_after(5, 0, Nobody, Nobody), 6);
    assert_eq!(left_after(5, 0, Nobody, Somebody), 6);
    assert_eq!(left_after(1, 0, Nobody, Nobody), 2);
    assert_eq!(left_after(5, 2 << 20, Nobody, Nobody), 6);
    assert_eq!(left_after(3, 2 << 20, Nobody, Nobody), 5);
    assert_eq!(left_after(5, 0, Somebody, Nobody), 2);
    assert_eq!(left_after(5, 0, Urgently, Nobody), 2);
    assert_eq!(left_after(5, 0, Nobody, Urgently), 2);
}

#[test]
fn few_places_are_left_to_those_that_had_less_of_them() {
    use FetchLane::{Large, Medium};
    // Time that each of the two used before, and time that the first one uses now.
    let kept = |lane, outpaced, before: [f64; 3], kept| {
        let (mut patience, _) = patience(lane, outpaced);
        let budget = Arc::clone(&patience.seat.budget);
        let ledger = budget.ledger(lane);
        let [mine, its, now] = before;
        ledger.charge(&of("mine"), mine);
        ledger.charge(&of("other"), its);
        patience.seat.turns = budget.turns(lane, &of("mine"));
        patience.seat.place.kept = kept;
        ledger.charge(&of("mine"), now);
        ledger.tell([of("other")]);
        left_after(&mut patience, 2 << 20)
    };
    assert_eq!(kept(Medium, 0, [9.0, 5.0, 0.0], None), 5);
    assert_eq!(kept(Medium, 0, [5.0, 9.0, 1.0], None), 1_000);
    // One that had less waits for a first turn, whatever the other one gave way to.
    for outpaced in [0, 1, 7] {
        assert_eq!(kept(Large, outpaced, [9.0, 5.0, 0.0], None), 4);
        assert_eq!(kept(Large, outpaced, [5.0, 9.0, 1.0], None), 1_000);
    }
    // One that has had less only since then waits longer.
    assert_eq!(kept(Large, 0, [5.0, 9.0, 10.0], None), 4);
    assert_eq!(kept(Large, 1, [5.0, 9.0, 10.0], None), 7);
    assert_eq!(kept(Large, 4, [5.0, 9.0, 10.0], None), 49);
    // Once it has given way often enough, it has a turn whoever waits, each longer than the last.
    assert_eq!(kept(Large, 8, [9.0, 5.0, 0.0], Some(0)), 32);
    assert_eq!(kept(Large, 16, [9.0, 5.0, 0.0], Some(1)), 62);
}

#[test]
fn for_others_of_its_owner_it_has_its_time_from_when_they_come() {
    let (mut patience, _) = patience(FetchLane::Large, 0);
    patience.spend(Duration::from_secs(500));
    patience.received(1_000).unwrap();
    let budget = Arc::clone(&patience.seat.budget);
    budget.ledger(FetchLane::Large).tell([of("mine")]);
    patience.spend(LOOK);
    patience.received(0).unwrap();
    assert_eq!(left_after(&mut patience, 0), 11);
}

#[test]
fn what_came_at_first_pays_for_nothing_later() {
    let (mut patience, demand) = patience(FetchLane::Ordinary, 0);
    patience.received(15 << 20).unwrap();
    patience.spend(Duration::from_secs(1));
    patience.received(0).unwrap();
    demand.set(Waiting::Urgently);
    patience.received(0).unwrap();
    patience.spend(Duration::from_secs(1));
    assert!(patience.received(100).is_err());
}

#[tokio::test]
async fn whoever_waits_for_the_memory_counts_too() {
    let (mut patience, _) = patience(FetchLane::Ordinary, 0);
    let budget = Arc::clone(&patience.seat.budget);
    let held = budget.admit(FetchLane::Large, &of("mine")).await.unwrap();
    patience.seat.turns.clone_from(held.turns());
    patience.holds = Some(FetchLane::Large);
    let other = of("other");
    let mut waiter = Box::pin(budget.admit(FetchLane::Large, &other));
    assert!(futures_util::poll!(&mut waiter).is_pending());
    patience.received(0).unwrap();
    budget.ledger(FetchLane::Large).charge(&of("mine"), 0.1);
    patience.spend(LARGE_TAKEN.unpaid + LOOK);
    assert!(patience.received(0).is_err());
    drop(waiter);
    patience.received(0).unwrap();
}

#[tokio::test]
async fn whoever_is_silent_is_left_while_it_is_waited_for() {
    let (mut patience, demand) = patience(FetchLane::Ordinary, 0);
    demand.set(Waiting::Urgently);
    let error = patience.wait(std::future::pending::<()>()).await;
    assert!(matches!(error, Err(FetchError::Outpaced { seconds: 1 })));
    assert!(patience.waited() < Duration::from_secs(3));
}
