//! Bodies that begin with a part of their room and get the rest as they come.

use super::*;

/// Asks for this part of a body of this size.
fn part_of(now: usize, all: usize) -> Ask {
    Ask {
        now,
        ..Ask::whole(all)
    }
}

/// Reads a body that declares `all` bytes, and sends them at once.
async fn is_read(budget: &Arc<Budget>, sender: Sender, all: usize) -> Result<Share, NoRoom> {
    let mut room = all.min(10);
    let mut share = budget.begin(sender, part_of(room, all)).await?;
    share.arrived(room);
    while room < all {
        let more = room.min(all - room);
        room += more;
        share.grow_to(room).await?;
        tokio::task::yield_now().await;
        share.arrived(more);
    }
    share.keep();
    Ok(share)
}

/// Lets what has not been awaited yet run until it waits for something else.
async fn settles() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_body_holds_what_it_was_granted_and_not_what_it_declares() {
    let budget = with(100, HOUR, FAST, HOUR);
    let mut shares = Vec::new();
    for number in 0..5 {
        let share = budget.begin(stranger(number), part_of(10, 50)).await;
        shares.push(share.unwrap());
    }
    assert_eq!(used(&budget), 50);
    // After this one none could be read to its end.
    let sixth = budget.begin(stranger(6), part_of(11, 60));
    assert!(tokio::time::timeout(MOMENT, sixth).await.is_err());
    shares[0].grow_to(20).await.unwrap();
    assert_eq!(used(&budget), 60);
}

/// None is refused for having to wait for this server, and none waits for ever.
#[tokio::test]
async fn equals_that_grow_are_all_read_at_the_first_try() {
    let budget = with(100, 10 * MOMENT, FAST, HOUR);
    let crowd = (0..40).map(|number| {
        let all = [100, 90, 35, 60][usize::from(number % 4)];
        let budget = &budget;
        async move {
            let share = is_read(budget, stranger(number), all).await;
            tokio::time::sleep(MOMENT / 10).await;
            share.map(drop)
        }
    });
    let crowd = futures_util::future::join_all(crowd);
    let crowd = tokio::time::timeout(Duration::from_mins(1), crowd).await;
    assert!(crowd.unwrap().iter().all(Result::is_ok));
    assert_eq!(used(&budget), 0);
}

/// Better ones turn out worse ones; those come again and are read in the end.
#[tokio::test]
async fn bodies_that_grow_do_not_wait_for_one_another_for_ever() {
    let budget = with(100, MOMENT, FAST, HOUR);
    let whole = (0..20).map(async |number| {
        let standing = [Standing::Suspect, Standing::Unknown, Standing::Known];
        let sender = sender(number, standing[usize::from(number % 3)]);
        while is_read(&budget, sender, 100).await.is_err() {
            tokio::time::sleep(MOMENT / 2).await;
        }
    });
    let whole = futures_util::future::join_all(whole);
    let whole = tokio::time::timeout(Duration::from_mins(1), whole).await;
    assert!(whole.is_ok());
    assert_eq!(used(&budget), 0);
}

#[tokio::test]
async fn of_two_that_could_not_both_be_read_the_second_waits_for_the_first() {
    let budget = with(100, HOUR, FAST, HOUR);
    let mut first = budget.begin(stranger(1), part_of(50, 100)).await.unwrap();
    let mut second = Box::pin(budget.begin(stranger(2), part_of(51, 100)));
    assert!(futures_util::poll!(&mut second).is_pending());
    first.grow_to(100).await.unwrap();
    assert_eq!(used(&budget), 100);
    first.shrink_to(30);
    second.await.unwrap();
    // Room that was given up is not asked for again.
    first.grow_to(100).await.unwrap();
    assert_eq!(used(&budget), 30);
}

#[tokio::test]
async fn what_can_be_read_meanwhile_passes_those_that_only_wait_for_others() {
    let budget = with(100, HOUR, FAST, HOUR);
    let running = budget.begin(stranger(1), part_of(25, 75)).await.unwrap();
    let mut stopped = budget.begin(stranger(2), part_of(25, 75)).await.unwrap();
    {
        let mut stopped = Box::pin(stopped.grow_to(50));
        assert!(futures_util::poll!(&mut stopped).is_ready());
    }
    let other = budget.begin(stranger(3), part_of(1, 75));
    let mut other = std::pin::pin!(other);
    assert!(futures_util::poll!(&mut other).is_pending());
    // Enough is free for all of it.
    let small = is_read(&budget, stranger(4), 20).await.unwrap();
    drop((running, small));
    settles().await;
    assert!(other.await.is_ok());
}

/// Else those that begin with less could keep it waiting for as long as they come.
#[tokio::test]
async fn nobody_passes_who_would_have_the_first_wait_for_longer() {
    let budget = with(100, HOUR, FAST, HOUR);
    let running = budget.begin(stranger(1), part_of(25, 75)).await.unwrap();
    let _other = budget.begin(stranger(2), part_of(20, 70)).await.unwrap();
    let mut first = Box::pin(budget.begin(stranger(3), part_of(10, 90)));
    assert!(futures_util::poll!(&mut first).is_pending());
    // There is room for it.
    let mut like_it = Box::pin(budget.begin(stranger(4), part_of(5, 90)));
    assert!(futures_util::poll!(&mut like_it).is_pending());
    drop(is_read(&budget, stranger(5), 20).await.unwrap());
    assert!(futures_util::poll!(&mut first).is_pending());
    drop(running);
    assert!(first.await.is_ok() && like_it.await.is_ok());
}

/// Else newcomers could keep it waiting for as long as they come.
#[tokio::test]
async fn whoever_lacks_free_room_holds_up_those_that_come_later() {
    let budget = with(100, HOUR, FAST, HOUR);
    let mut first = budget.begin(stranger(1), part_of(10, 60)).await.unwrap();
    let others = budget.share(stranger(2), 70).await.unwrap();
    others.keep();
    let grown = first.grow_to(60);
    let mut grown = std::pin::pin!(grown);
    assert!(futures_util::poll!(&mut grown).is_pending());
    let mut newcomer = Box::pin(budget.share(stranger(3), 5));
    assert!(futures_util::poll!(&mut newcomer).is_pending());
    drop(others);
    assert!(grown.await.is_ok() && newcomer.await.is_ok());
}

/// Else who trickles would have a moment more whenever his room grows.
#[tokio::test]
async fn the_time_of_a_client_is_counted_over_all_of_its_body() {
    let grace = Duration::from_millis(300);
    let budget = with(100, grace, FAST, 10 * grace);
    let others = budget.share(stranger(9), 15).await.unwrap();
    others.keep();
    let mut share = budget.begin(stranger(1), part_of(10, 90)).await.unwrap();
    let began = Instant::now();
    for room in [20, 40, 80] {
        tokio::time::sleep(grace / 3).await;
        share.arrived(room / 2 - if room > 20 { room / 4 } else { 0 });
        share.grow_to(room).await.unwrap();
    }
    let newcomer = budget.share(stranger(2), 6);
    let (was_slow, newcomer) = tokio::join!(leaves(share), newcomer);
    assert!(was_slow && newcomer.is_ok());
    // Not a whole one since it grew.
    assert!(began.elapsed() < 2 * grace, "{:?}", began.elapsed());
}

#[tokio::test]
async fn who_waits_for_this_server_is_not_slow() {
    let budget = with(100, MOMENT, FAST, HOUR);
    let mut share = budget.begin(stranger(1), part_of(10, 60)).await.unwrap();
    share.arrived(10);
    let others = budget.share(stranger(2), 80).await.unwrap();
    others.keep();
    let newcomers = async {
        let refused = tokio::time::timeout(10 * MOMENT, budget.share(stranger(3), 20)).await;
        assert!(refused.is_err());
        drop(others);
    };
    let (grown, ()) = tokio::join!(share.grow_to(60), newcomers);
    assert_eq!(grown, Ok(()));
}

#[tokio::test]
async fn the_time_that_a_body_waits_is_bounded_in_total() {
    let budget = with(100, HOUR, FAST, 10 * MOMENT);
    let mut share = budget.begin(stranger(1), part_of(10, 60)).await.unwrap();
    let began = Instant::now();
    for room in [20, 30] {
        let others = budget.share(stranger(2), 100 - room + 5).await.unwrap();
        others.keep();
        let free = async {
            tokio::time::sleep(4 * MOMENT).await;
            drop(others);
        };
        let (grown, ()) = tokio::join!(share.grow_to(room), free);
        assert_eq!(grown, Ok(()));
    }
    let others = budget.share(stranger(2), 65).await.unwrap();
    others.keep();
    assert_eq!(share.grow_to(60).await, Err(NoRoom::Late));
    assert!(share.waited >= 8 * MOMENT);
    assert!(began.elapsed() < 18 * MOMENT, "{:?}", began.elapsed());
}

/// Most of a body has come of each, and more of them wait than could be read side by side.
#[tokio::test]
async fn those_that_stop_after_much_of_it_make_room_one_after_the_other() {
    let grace = Duration::from_millis(200);
    let budget = with(1000, grace, FAST, 100 * grace);
    let next = AtomicUsize::new(0);
    let stops = || async {
        loop {
            let sender = afar(next.fetch_add(1, Ordering::Relaxed));
            let Ok(mut share) = budget.begin(sender, part_of(10, 80)).await else {
                continue;
            };
            share.arrived(10);
            if share.grow_to(20).await.is_ok() {
                share.turned_out().await;
            }
        }
    };
    let crowd: FuturesUnordered<_> = (0..200).map(|_| stops()).collect();
    let newcomers = async {
        tokio::time::sleep(3 * grace).await;
        for number in 1..=3 {
            let began = Instant::now();
            let share = is_read(&budget, stranger(number), 70).await.unwrap();
            assert!(began.elapsed() < 30 * grace, "{:?}", began.elapsed());
            drop(share);
        }
    };
    tokio::select! {
        _ = futures_util::StreamExt::count(crowd) => unreachable!(),
        () = newcomers => {}
    }
}
