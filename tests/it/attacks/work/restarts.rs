//! Silent repositories while the worker knows nothing of them: it just began, or the one before it was killed.

use futures_util::future::join_all;

use super::slow::{How, Slow};
use super::*;

/// Pushes to twelve silent repositories of one owner, four to each.
fn silent(house: &House, slow: &Slow) -> Vec<NewWorkItem> {
    let push = |n: usize| NewWorkItem {
        repository: format!("acme/app-{}", n % 12),
        after: format!("{:040x}", 1_000 + n),
        ..slow.push(house, "git.example", n % 12)
    };
    (0..48).map(push).collect()
}

/// Starts a worker, a while after another one was killed if `killed_after`, and checks that a healthy repository of the
/// same owner is read in time.
async fn starts(killed_after: Option<Duration>, runs: Duration) {
    let (_database, house) = sqlite().await;
    let shop = Shop::open().await;
    let slow = Slow::start(How::Silent).await;
    let start = || {
        let origins = [origin("git.example", &shop.forge.url())];
        Running::start(house.worker_of(origins, FetchLimits::default(), hasty()))
    };
    house.add_items(&silent(&house, &slow)).await;
    if let Some(after) = killed_after {
        let killed = start();
        sleep(after).await;
        drop(killed);
    }
    let running = start();
    sleep(runs).await;
    let (key, tiny) = house.leak(&shop).await;
    house.add_items(&[tiny]).await;
    house.wait_until_revoked(&key).await;
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
