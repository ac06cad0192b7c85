//! Bodies and their shares, with moments instead of seconds.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream::FuturesUnordered;

use super::limits::{MOST_WAITING, part};
use super::*;
use crate::server::client::standing::Standing;

const MOMENT: Duration = Duration::from_millis(20);
const HOUR: Duration = Duration::from_hours(1);

/// A rate at which no body takes longer than another.
const FAST: u128 = 1 << 40;

/// A budget of 100 bytes that waits for moments only.
fn budget() -> Arc<Budget> {
    with(100, MOMENT, FAST, 10 * MOMENT)
}

fn with(total: usize, grace: Duration, rate: u128, patience: Duration) -> Arc<Budget> {
    let limits = Limits::with(total, grace, rate, patience);
    Arc::new(Budget::of("any", limits))
}

fn sender(number: u8, standing: Standing) -> Sender {
    let client = IpAddr::from([192, 0, 2, number]);
    Sender { client, standing }
}

fn stranger(number: u8) -> Sender {
    sender(number, Standing::Unknown)
}

fn used(budget: &Budget) -> usize {
    let state = budget.lock();
    let held: usize = state.held.values().map(|held| held.bytes).sum();
    let total = state.holders.total();
    assert_eq!(total.bodies as usize, state.held.len());
    assert!(state.used == held && state.used == total.bytes, "{state:?}");
    state.used
}

/// Makes room as soon as that is asked for; whether for being slow.
async fn leaves(share: Share) -> bool {
    share.turned_out().await
}

#[tokio::test]
async fn what_is_taken_is_given_back() {
    let budget = budget();
    let a = budget.share(stranger(1), 60).await.unwrap();
    let b = budget.share(stranger(2), 40).await.unwrap();
    assert_eq!(used(&budget), 100);
    a.shrink_to(10);
    assert_eq!(used(&budget), 50);
    drop(a);
    assert_eq!(used(&budget), 40);
    drop(b);
    assert_eq!(used(&budget), 0);
    assert!(budget.lock().held.is_empty());
}

#[tokio::test]
async fn whoever_gives_up_waiting_leaves_nothing_behind() {
    let budget = budget();
    let holder = budget.share(stranger(1), 100).await.unwrap();
    holder.keep();
    let waiting = budget.share(stranger(2), 10);
    assert!(
        tokio::time::timeout(Duration::from_millis(5), waiting)
            .await
            .is_err()
    );
    assert!(budget.lock().waiting.is_empty());
    let refused = budget.share(stranger(2), 10).await;
    assert_eq!(refused.unwrap_err(), NoRoom::Late);
    drop(holder);
    assert_eq!(used(&budget), 0);
    assert!(budget.lock().waiting.is_empty());
}

#[tokio::test]
async fn a_slow_one_makes_room_for_its_equals_and_a_quick_one_does_not() {
    let budget = budget();
    let quick = budget.share(stranger(1), 50).await.unwrap();
    let slow = budget.share(stranger(2), 50).await.unwrap();
    quick.arrived(50);
    slow.arrived(2);
    let newcomer = budget.share(stranger(3), 50);
    let (was_slow, newcomer) = tokio::join!(leaves(slow), newcomer);
    assert!(was_slow);
    newcomer.unwrap().arrived(50);
    let stays = tokio::time::timeout(Duration::ZERO, quick.turned_out()).await;
    assert!(stays.is_err());
}

#[tokio::test]
async fn a_whole_body_is_not_turned_out() {
    let budget = budget();
    let large = budget.share(stranger(1), 100).await.unwrap();
    large.keep();
    let known = sender(2, Standing::Known);
    let refused = tokio::select! {
        refused = budget.share(known, 10) => refused,
        _ = large.turned_out() => panic!("a whole body had to go"),
    };
    assert_eq!(refused.unwrap_err(), NoRoom::Late);
}

/// In a flood of small bodies a larger one gets its turn.
#[tokio::test]
async fn whoever_waited_comes_before_smaller_newcomers() {
    let budget = with(100, HOUR, FAST, 50 * MOMENT);
    let rest = budget.share(stranger(9), 79).await.unwrap();
    rest.keep();
    // Room for one of them at a time.
    let holder = budget.share(stranger(1), 21).await.unwrap();
    holder.keep();
    let order = Mutex::new(Vec::new());
    let ask = async |name, after, sender, bytes| {
        tokio::time::sleep(after).await;
        let share = budget.share(sender, bytes).await.unwrap();
        order.lock().unwrap().push(name);
        drop(share);
    };
    let free = async {
        tokio::time::sleep(40 * MOMENT).await;
        drop(holder);
    };
    // It waits 20 moments for smaller ones.
    tokio::join!(
        ask("larger", Duration::ZERO, stranger(2), 20),
        ask("smaller", 10 * MOMENT, stranger(3), 2),
        ask("too late", 35 * MOMENT, stranger(4), 2),
        free
    );
    let order = order.into_inner().unwrap();
    assert_eq!(order, ["smaller", "larger", "too late"]);
}

/// One client's further bodies wait for the first ones of others.
#[tokio::test]
async fn clients_take_turns() {
    let budget = with(100, HOUR, FAST, 50 * MOMENT);
    let mine = budget.share(stranger(1), 10).await.unwrap();
    let rest = budget.share(stranger(9), 90).await.unwrap();
    mine.keep();
    rest.keep();
    let order = Mutex::new(Vec::new());
    let ask = async |name, sender, bytes| {
        let share = budget.share(sender, bytes).await.unwrap();
        order.lock().unwrap().push(name);
        tokio::time::sleep(MOMENT).await;
        drop(share);
    };
    let free = async {
        tokio::time::sleep(MOMENT).await;
        drop(rest);
    };
    tokio::join!(
        ask("my second", stranger(1), 1),
        ask("another's first", stranger(2), 90),
        free
    );
    let order = order.into_inner().unwrap();
    assert_eq!(order, ["another's first", "my second"]);
}

/// Whoever repeats a large report shares the work with itself, and all of the budget waits only so long.
#[tokio::test]
async fn work_on_little_does_not_wait_for_copies_of_much() {
    let work = Budget::of_work("any", 100);
    assert!(work.limits.weight < work.limits.patience / 2);
    let known = |number| sender(number, Standing::Known);
    let in_flight = work.share(known(1), 100).await.unwrap();
    in_flight.keep();
    let order = Mutex::new(Vec::new());
    let ask = async |name, after, sender, bytes| {
        tokio::time::sleep(after).await;
        let share = work.share(sender, bytes).await.unwrap();
        share.keep();
        order.lock().unwrap().push(name);
    };
    let free = async {
        tokio::time::sleep(10 * MOMENT).await;
        drop(in_flight);
    };
    tokio::join!(
        ask("another copy", Duration::ZERO, known(1), 100),
        ask("a third copy", MOMENT, known(1), 100),
        ask("little", 2 * MOMENT, known(2), 1),
        free
    );
    let order = order.into_inner().unwrap();
    assert_eq!(order, ["little", "another copy", "a third copy"]);
}

/// A client of another range than those of other numbers.
fn afar(number: usize) -> Sender {
    let [.., high, low] = number.to_be_bytes();
    Sender {
        client: IpAddr::from([10 + high, low, 7, 7]),
        standing: Standing::Unknown,
    }
}

/// However few of each of its networks a crowd has.
#[tokio::test]
async fn a_crowd_of_a_range_waits_for_itself() {
    let budget = with(100, HOUR, FAST, HOUR);
    let of_range = |number| Sender {
        client: IpAddr::from([198, 51, number, 1]),
        standing: Standing::Unknown,
    };
    let mut crowd = Vec::new();
    for number in 0..100 {
        let share = budget.share(of_range(number), 1).await.unwrap();
        share.keep();
        crowd.push(share);
    }
    let order = Mutex::new(Vec::new());
    let ask = async |name, sender| {
        let share = budget.share(sender, 1).await.unwrap();
        order.lock().unwrap().push(name);
        drop(share);
    };
    let free = async {
        tokio::time::sleep(MOMENT).await;
        crowd.pop();
    };
    tokio::join!(
        ask("crowd", of_range(200)),
        ask("stranger", stranger(1)),
        free
    );
    assert_eq!(order.into_inner().unwrap(), ["stranger", "crowd"]);
}

#[tokio::test]
async fn the_larger_a_body_the_longer_it_may_take() {
    // Half a second for 50 bytes.
    let budget = with(100, MOMENT, 100, 10 * MOMENT);
    let larger = budget.share(stranger(1), 50).await.unwrap();
    let smaller = budget.share(stranger(2), 1).await.unwrap();
    larger.arrived(25);
    let newcomer = budget.share(stranger(3), 50);
    let (was_slow, newcomer) = tokio::join!(leaves(smaller), newcomer);
    assert!(was_slow && newcomer.is_ok());
    let stays = tokio::time::timeout(Duration::ZERO, larger.turned_out()).await;
    assert!(stays.is_err());
}

/// A newcomer that is first waits for none that waits itself for something else.
#[tokio::test]
async fn whoever_holds_and_waits_elsewhere_makes_room() {
    let (budget, elsewhere) = (budget(), budget());
    let holder = elsewhere.share(stranger(9), 100).await.unwrap();
    holder.keep();
    let share = budget.share(stranger(1), 100).await.unwrap();
    // All of it has come.
    share.arrived(100);
    let moves = async {
        let there = elsewhere.share(stranger(1), 10);
        let there = share.while_waiting(there).await.map(drop);
        drop(share);
        there
    };
    let (there, newcomer) = tokio::join!(moves, budget.share(stranger(2), 10));
    assert_eq!(there, Err(NoRoom::Late));
    assert!(newcomer.is_ok());
}

/// Many that begin to send and do not go on, one after the other, for as long as `until` takes.
async fn dripping(budget: &Arc<Budget>, crowd: usize, bytes: usize, until: impl Future) {
    let next = AtomicUsize::new(0);
    let drip = || async {
        loop {
            let sender = afar(next.fetch_add(1, Ordering::Relaxed));
            if let Ok(share) = budget.share(sender, bytes).await {
                share.arrived(bytes / 50);
                share.turned_out().await;
            }
        }
    };
    let crowd: FuturesUnordered<_> = (0..crowd).map(|_| drip()).collect();
    tokio::select! {
        _ = futures_util::StreamExt::count(crowd) => unreachable!(),
        _ = until => {}
    }
}

/// However many of them there are: whatever is overdue goes, not one of it whenever somebody looks.
#[tokio::test]
async fn slow_ones_of_a_crowd_all_make_room_as_soon_as_they_are_late() {
    let grace = Duration::from_millis(100);
    let budget = with(100, grace, FAST, HOUR);
    let newcomers = async {
        tokio::time::sleep(3 * grace).await;
        for number in 1..=5 {
            let began = Instant::now();
            let share = budget.share(stranger(number), 1).await.unwrap();
            // Three rounds of those before it, and the rest for a machine that is busy.
            assert!(began.elapsed() < 12 * grace, "{:?}", began.elapsed());
            drop(share);
        }
    };
    dripping(&budget, 400, 1, newcomers).await;
}

#[tokio::test]
async fn nobody_looks_for_room_while_nothing_can_become_free() {
    let budget = with(100, MOMENT, FAST, HOUR);
    let known = budget.share(sender(1, Standing::Known), 50).await.unwrap();
    // All of it has come.
    known.arrived(50);
    let whole = budget.share(stranger(2), 50).await.unwrap();
    whole.keep();
    let waits = tokio::time::timeout(2 * MOMENT, budget.share(stranger(3), 60));
    let next = async {
        tokio::time::sleep(MOMENT).await;
        budget.look()
    };
    let (waited, next) = tokio::join!(waits, next);
    assert!(waited.is_err());
    assert_eq!(next, None);
    drop(known);
}

#[tokio::test]
async fn the_next_look_is_when_the_next_body_is_late() {
    let (moment, second) = (Duration::from_millis(100), Duration::from_secs(1));
    // Half a second for 50 bytes.
    let budget = with(100, moment, 100, HOUR);
    let began = Instant::now();
    let half = budget.share(stranger(1), 50).await.unwrap();
    half.arrived(24);
    let rest = budget.share(stranger(2), 50).await.unwrap();
    rest.arrived(49);
    let waits = tokio::time::timeout(moment / 2, budget.share(stranger(3), 10));
    let next = async {
        tokio::task::yield_now().await;
        budget.look()
    };
    let (_, next) = tokio::join!(waits, next);
    // A half of what it may take, which is a half of a second and the moment that any has.
    let next = next.unwrap() - began;
    assert!(next >= 3 * moment && next < second, "{next:?}");
}

mod growth;
mod standings;
