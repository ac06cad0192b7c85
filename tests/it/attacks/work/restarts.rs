//! Silent repositories while the worker knows nothing of them: it just began, or the one before it was killed.

use futures_util::future::join_all;

use super::slow::{How, Slow};
use super::*;

/// Pushes to twelve silent repositories of one owner, four to each.
fn silent(rig: &Rig, slow: &Slow) -> Vec<NewWorkItem> {
    let push = |n: usize| NewWorkItem {
        after: format!("{:040x}", 1_000 + n),
        ..slow.push_of(rig, "git.example", &format!("acme/app-{}", n % 12), n % 12)
    };
    (0..48).map(push).collect()
}

/// Starts a worker, a while after another one was killed if `killed_after`, and checks that a healthy repository of the
/// same owner is read in time.
async fn starts(killed_after: Option<Duration>, runs: Duration) {
    let (_database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let slow = Slow::start(How::Silent).await;
    let start = || {
        let origins = [origin("git.example", &shop.forge.url())];
        Running::start(rig.worker_of(origins, FetchLimits::default(), hasty()))
    };
    rig.add_items(&silent(&rig, &slow)).await;
    if let Some(after) = killed_after {
        let killed = start();
        sleep(after).await;
        drop(killed);
    }
    let running = start();
    sleep(runs).await;
    let (key, tiny) = rig.leak(&shop).await;
    rig.add_items(&[at_its_address(tiny, &shop)]).await;
    rig.wait_until_revoked(&key).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_repositories_do_not_hold_up_a_healthy_one_of_their_owner_after_a_start() {
    let seconds = Duration::from_secs;
    let cases = [
        (None, seconds(1)),
        (Some(seconds(3)), seconds(1)),
        (Some(seconds(3)), seconds(12)),
    ];
    join_all(cases.map(|(killed_after, runs)| starts(killed_after, runs))).await;
}

/// Accepted, but never begun: the places were taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_worker_never_began_is_read_in_time() {
    let (_database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let slow = Slow::start(How::Silent).await;
    let hostile: Vec<_> = (0..20).map(|n| slow.push(&rig, "git.example", n)).collect();
    let (key, tiny) = rig.leak(&shop).await;
    let start = || {
        let origins = [origin("git.example", &shop.forge.url())];
        Running::start(rig.worker_of(origins, FetchLimits::default(), hasty()))
    };
    rig.add_items(&hostile).await;
    rig.add_items(&[tiny]).await;
    let killed = start();
    until("it has begun", async || slow.asked() >= 12).await;
    drop(killed);
    let running = start();
    rig.wait_until_revoked(&key).await;
    running.stop().await;
}

on_both_databases! {
    async fn what_was_claimed_ahead_is_given_back_as_it_was(database) {
        let rig = Rig::new(&database.store().await);
        let items: Vec<_> = (0..3).map(|n| rig.push_to("git.example", n, Priority::Webhook)).collect();
        rig.add_items(&items).await;
        let take = async || {
            let held = rig.store.claim(3, "finds", LEASE).await.unwrap();
            let ids: Vec<Uuid> = held.iter().map(|item| item.id).collect();
            rig.store.release("finds").await.unwrap();
            rig.store.take_ahead(&ids, "dies", LEASE, Duration::ZERO).await.unwrap()
        };
        let held = take().await;
        assert!(held.len() == 3 && held.iter().all(|item| item.deaths == 0));
        rig.store.begin_items(&[held[0].id], "dies", Duration::ZERO).await.unwrap();
        assert_eq!(rig.store.give_back_unbegun("dies").await.unwrap(), 0, "not its own");
        assert_eq!(rig.store.give_back_unbegun("other").await.unwrap(), 2);
        let as_it_was = "SELECT COUNT(*) FROM work_items
            WHERE leased_by IS NULL AND deaths = 0 AND lane = 0 AND tries = 0 AND ready_at = 0";
        assert_eq!(database.count(as_it_was).await, 2);
        assert_eq!(rig.store.reclaim("other", Duration::MAX).await.unwrap(), Some(1));
        let alone = "SELECT COUNT(*) FROM work_items WHERE deaths = 1 AND lane = 2";
        assert_eq!(database.count(alone).await, 1);
        // What is in another lane is begun at once, and its deaths go on.
        let held = take().await;
        assert_eq!(held.iter().map(|item| item.deaths).max(), Some(1));
        assert_eq!(rig.store.give_back_unbegun("other").await.unwrap(), 2);
    }
}
