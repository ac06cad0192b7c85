//! Order and eviction by standing: proved senders, strangers and those that wasted room.

use super::*;

#[tokio::test]
async fn whoever_proved_himself_waits_for_no_stranger() {
    // Strangers that are quick, and whose turn would be first.
    let budget = with(100, HOUR, FAST, HOUR);
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
            let share = budget.share(sender(4, better), 70).await.unwrap();
            share.keep();
        };
        let (slow, (), waited) = tokio::join!(leaves(large), known, waiting);
        assert!(!slow && waited.is_ok());
        let stays = tokio::time::timeout(Duration::ZERO, small.turned_out()).await;
        assert!(stays.is_err(), "the smaller one had to go as well");
    }
}

/// However often it proved itself: else whoever repeats something genuine could keep all others out.
#[tokio::test]
async fn a_slow_one_makes_room_for_anybody() {
    let budget = budget();
    for worse in [Standing::Unknown, Standing::Slow, Standing::Suspect] {
        let slow = budget.share(sender(1, Standing::Known), 75).await.unwrap();
        let quick = budget.share(sender(2, Standing::Known), 25).await.unwrap();
        quick.arrived(25);
        let (was_slow, other) = tokio::join!(leaves(slow), budget.share(sender(3, worse), 10));
        assert!(was_slow && other.is_ok());
        let stays = tokio::time::timeout(Duration::ZERO, quick.turned_out()).await;
        assert!(stays.is_err());
    }
}

/// A forger's large body that waits for another one does not cost what would not make enough room.
#[tokio::test]
async fn a_slow_one_does_not_go_for_nothing() {
    let budget = with(100, MOMENT, FAST, HOUR);
    let slow = budget.share(stranger(1), 20).await.unwrap();
    let whole = budget
        .share(sender(2, Standing::Suspect), 70)
        .await
        .unwrap();
    whole.keep();
    let large = budget.share(sender(3, Standing::Suspect), 80);
    let end = async {
        let stays = tokio::time::timeout(10 * MOMENT, slow.turned_out()).await;
        assert!(stays.is_err());
        // Now that there would be enough it does go.
        drop(whole);
        let next = budget.share(sender(4, Standing::Suspect), 20);
        let (was_slow, _next) = tokio::join!(leaves(slow), next);
        assert!(was_slow);
    };
    let (large, ()) = tokio::join!(large, end);
    drop(large.unwrap());
}

#[tokio::test]
async fn beyond_their_part_proved_senders_are_as_strangers() {
    let budget = with(100, HOUR, FAST, HOUR);
    let known = |number| sender(number, Standing::Known);
    let mut shares = Vec::new();
    for (number, bytes) in [(1, 40), (2, 35), (3, 25)] {
        let share = budget.share(known(number), bytes).await.unwrap();
        share.keep();
        shares.push(share);
    }
    assert_eq!(budget.lock().of_proved, 100);
    let order = Mutex::new(Vec::new());
    let ask = async |name, sender, bytes| {
        let share = budget.share(sender, bytes).await.unwrap();
        order.lock().unwrap().push(name);
        tokio::time::sleep(MOMENT).await;
        drop(share);
    };
    let free = async {
        for share in shares.drain(..).rev() {
            tokio::time::sleep(2 * MOMENT).await;
            drop(share);
        }
    };
    tokio::join!(
        ask("known and larger", known(4), 25),
        ask("stranger", stranger(5), 20),
        ask("known", known(6), 24),
        free
    );
    // The first 25 bytes are beyond the part, the next 35 are not.
    let order = order.into_inner().unwrap();
    assert_eq!(order, ["stranger", "known", "known and larger"]);
    assert_eq!(budget.lock().of_proved, 0);
}

/// A body that no part holds would wait for ever.
#[test]
fn the_part_of_proved_senders_has_room_for_the_largest_body() {
    for (total, largest, part) in [(32, 25, 25), (32, 8, 24), (100, 1, 75)] {
        assert_eq!(Budget::new("any", total, largest).limits.of_proved, part);
    }
}

#[tokio::test]
async fn better_ones_that_keep_coming_do_not_keep_a_worse_one_out() {
    let budget = with(100, MOMENT, FAST, HOUR);
    // Strangers that are quick enough, and more of them than there is room for.
    let next = AtomicUsize::new(0);
    let stranger = || async {
        loop {
            let sender = afar(next.fetch_add(1, Ordering::Relaxed) % 5000);
            if let Ok(share) = budget.share(sender, 1).await {
                share.arrived(1);
                tokio::time::sleep(MOMENT / 4).await;
            }
        }
    };
    let strangers: FuturesUnordered<_> = (0..200).map(|_| stranger()).collect();
    let worse = async {
        tokio::time::sleep(MOMENT).await;
        for standing in [Standing::Slow, Standing::Suspect] {
            let share = budget.share(sender(1, standing), 1);
            let share = tokio::time::timeout(Duration::from_secs(10), share).await;
            let share = share.expect("a turn").unwrap();
            share.arrived(1);
            // It has waited for them, and need not go at once for those that came since.
            tokio::time::sleep(2 * PAUSE).await;
            let stays = tokio::time::timeout(Duration::ZERO, share.turned_out()).await;
            assert!(stays.is_err());
        }
    };
    tokio::select! {
        _ = futures_util::StreamExt::count(strangers) => unreachable!(),
        () = worse => {}
    }
}

#[tokio::test]
async fn what_becomes_free_goes_to_the_best_and_then_to_whoever_holds_the_least() {
    let budget = with(100, HOUR, FAST, HOUR);
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

/// A crowd of one network does not turn out somebody else, however large his body is.
#[tokio::test]
async fn whoever_waits_most_often_goes_first() {
    let budget = with(100, HOUR, FAST, HOUR);
    let holder = budget.share(stranger(1), 100).await.unwrap();
    holder.keep();
    let crowd = (0..MOST_WAITING).map(|number| {
        let number = u8::try_from(number % 256).unwrap();
        Box::pin(budget.share(stranger(number), 1))
    });
    let other = Sender {
        client: IpAddr::from([198, 51, 100, 1]),
        standing: Standing::Unknown,
    };
    tokio::select! {
        biased;
        (first, ..) = futures_util::future::select_all(crowd) => {
            assert_eq!(first.unwrap_err(), NoRoom::Crowded);
        }
        other = budget.share(other, 90) => panic!("{other:?}"),
    }
}

/// Of proved senders that wait, too: they take no place from a stranger beyond their part.
#[tokio::test]
async fn proved_senders_leave_places_to_wait_in_to_others() {
    let budget = with(100, HOUR, FAST, HOUR);
    let holder = budget.share(stranger(1), 100).await.unwrap();
    holder.keep();
    let mut waiting = Vec::new();
    let few = part(MOST_WAITING) / 4;
    for number in 0..MOST_WAITING + 64 {
        let is_known = number >= few;
        let standing = [Standing::Unknown, Standing::Known][usize::from(is_known)];
        let sender = Sender {
            standing,
            ..afar(number)
        };
        let mut share = Box::pin(budget.share(sender, 1));
        let _ = futures_util::poll!(&mut share);
        waiting.push(share);
    }
    let state = budget.lock();
    let strangers = state
        .waiting
        .values()
        .filter(|waiting| !waiting.sender.is_proved());
    assert_eq!(
        (strangers.count(), state.waiting.len()),
        (few, MOST_WAITING)
    );
}

#[tokio::test]
async fn too_many_do_not_even_wait_and_the_last_go_first() {
    let budget = with(100, HOUR, FAST, HOUR);
    let holder = budget.share(stranger(1), 100).await.unwrap();
    holder.keep();
    let suspects = (0..MOST_WAITING).map(|_| {
        let suspect = sender(2, Standing::Suspect);
        Box::pin(budget.share(suspect, 1))
    });
    tokio::select! {
        biased;
        (first, ..) = futures_util::future::select_all(suspects) => {
            assert_eq!(first.unwrap_err(), NoRoom::Crowded);
        }
        known = budget.share(sender(3, Standing::Known), 100) => panic!("{known:?}"),
    }
}

/// Else whoever comes again at once would have all places to wait in.
#[tokio::test]
async fn whoever_comes_last_is_not_the_one_who_has_to_go() {
    let budget = with(100, HOUR, FAST, HOUR);
    let holder = budget.share(stranger(1), 100).await.unwrap();
    holder.keep();
    let mut waiting = Vec::new();
    for number in 0..MOST_WAITING + 3 {
        let mut share = Box::pin(budget.share(afar(number), 1));
        assert!(futures_util::poll!(&mut share).is_pending() || number >= MOST_WAITING);
        waiting.push(share);
    }
    assert_eq!(budget.lock().waiting.len(), MOST_WAITING);
    // Each of the last ones by a chance of one in a thousand.
    let last = waiting.split_off(MOST_WAITING);
    let mut stayed = 0;
    for mut share in last {
        stayed += usize::from(futures_util::poll!(&mut share).is_pending());
    }
    assert!(stayed > 0);
}
