//! Bodies and their shares, with moments instead of seconds.

use super::*;

const MOMENT: Duration = Duration::from_millis(20);
const HOUR: Duration = Duration::from_hours(1);

/// A budget of 100 bytes that waits for moments only.
fn budget() -> Arc<Budget> {
    Budget::with(100, MOMENT, MOMENT, 10 * MOMENT)
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
    let clients: usize = state.clients.values().map(|holds| holds.bytes).sum();
    let bodies: u32 = state.clients.values().map(|holds| holds.bodies).sum();
    assert_eq!(bodies as usize, state.held.len());
    assert!(state.used == held && state.used == clients, "{state:?}");
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
    assert!(budget.lock().held.is_empty() && budget.lock().clients.is_empty());
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
    assert_eq!(refused.unwrap_err(), NoRoom);
    drop(holder);
    assert_eq!(used(&budget), 0);
    assert!(budget.lock().waiting.is_empty());
}

#[tokio::test]
async fn whoever_proved_himself_waits_for_no_stranger() {
    // Strangers that are quick, and whose turn would be first.
    let budget = Budget::with(100, HOUR, HOUR, HOUR);
    for (worse, better) in [
        (Standing::Suspect, Standing::Unknown),
        (Standing::Unknown, Standing::Neighbor),
        (Standing::Unknown, Standing::Known),
        (Standing::Suspect, Standing::Known),
    ] {
        let small = budget.share(sender(1, worse), 10).await.unwrap();
        let large = budget.share(sender(2, worse), 90).await.unwrap();
        let waiting = budget.share(sender(3, worse), 5);
        let known = async {
            let share = budget.share(sender(4, better), 80).await.unwrap();
            share.keep();
        };
        let (slow, (), waited) = tokio::join!(leaves(large), known, waiting);
        assert!(!slow && waited.is_ok());
        let stays = tokio::time::timeout(Duration::ZERO, small.turned_out()).await;
        assert!(stays.is_err(), "the smaller one had to go as well");
    }
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
async fn a_slow_one_stays_for_somebody_worse() {
    let budget = budget();
    let slow = budget.share(sender(1, Standing::Known), 100).await.unwrap();
    let refused = budget.share(stranger(2), 10).await;
    assert_eq!(refused.unwrap_err(), NoRoom);
    let stays = tokio::time::timeout(Duration::ZERO, slow.turned_out()).await;
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
    assert_eq!(refused.unwrap_err(), NoRoom);
}

#[tokio::test]
async fn what_becomes_free_goes_to_the_best_and_then_to_whoever_holds_the_least() {
    let budget = Budget::with(100, HOUR, HOUR, HOUR);
    let mine = budget.share(stranger(1), 40).await.unwrap();
    let rest = budget.share(stranger(9), 60).await.unwrap();
    rest.keep();
    mine.keep();
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
        ask("suspect", sender(2, Standing::Suspect), 30),
        ask("mine", stranger(1), 35),
        ask("larger", stranger(3), 50),
        ask("smaller", stranger(4), 40),
        ask("known", sender(5, Standing::Known), 60),
        free
    );
    let order = order.into_inner().unwrap();
    assert_eq!(order, ["known", "smaller", "larger", "mine", "suspect"]);
}

/// In a flood of small bodies a larger one gets its turn.
#[tokio::test]
async fn whoever_waited_comes_before_smaller_newcomers() {
    let budget = Budget::with(100, HOUR, HOUR, 50 * MOMENT);
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
    let budget = Budget::with(100, HOUR, HOUR, 50 * MOMENT);
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

/// A crowd of one network does not turn out somebody else, however large his body is.
#[tokio::test]
async fn whoever_waits_most_often_goes_first() {
    let budget = Budget::with(100, HOUR, HOUR, HOUR);
    let holder = budget.share(stranger(1), 100).await.unwrap();
    holder.keep();
    let crowd = (0..MOST_WAITING).map(|number| {
        let number = u8::try_from(number).unwrap();
        Box::pin(budget.share(stranger(number), 1))
    });
    let other = Sender {
        client: IpAddr::from([198, 51, 100, 1]),
        standing: Standing::Unknown,
    };
    tokio::select! {
        biased;
        (first, ..) = futures_util::future::select_all(crowd) => {
            assert_eq!(first.unwrap_err(), NoRoom);
        }
        other = budget.share(other, 90) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn too_many_do_not_even_wait_and_the_last_go_first() {
    let budget = Budget::with(100, HOUR, HOUR, HOUR);
    let holder = budget.share(stranger(1), 100).await.unwrap();
    holder.keep();
    let suspects = (0..MOST_WAITING).map(|_| {
        let suspect = sender(2, Standing::Suspect);
        Box::pin(budget.share(suspect, 1))
    });
    tokio::select! {
        biased;
        (first, ..) = futures_util::future::select_all(suspects) => {
            assert_eq!(first.unwrap_err(), NoRoom);
        }
        known = budget.share(sender(3, Standing::Known), 100) => panic!("{known:?}"),
    }
}
