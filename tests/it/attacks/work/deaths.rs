//! Items that were in flight when the process was killed, most of which are not to blame.

use std::time::Duration;

use rescind::fetch::FetchLimits;
use rescind::store::{Lane, Priority};
use tokio::time::sleep;

use super::{Dripping, Running, hasty, until};
use crate::source::Rig;
use crate::source::work::{Shop, origin};
use crate::support::databases::{TestDatabase, on_both_databases};

/// As many as are under way in one worker.
const UNDER_WAY: u32 = 16;

/// Items of repositories of their own, of which so many workers died.
async fn left_by_the_dead(database: &TestDatabase, deaths: u32) -> Rig {
    let rig = Rig::new(&database.store().await);
    let items: Vec<_> = (0..UNDER_WAY as usize)
        .map(|n| rig.push_to("slow.example", n, Priority::Webhook))
        .collect();
    rig.add_items(&items).await;
    for _ in 0..deaths {
        let held = rig.store.claim(UNDER_WAY, "dies", Duration::ZERO).await;
        assert_eq!(held.unwrap().len(), items.len());
        let reclaimed = rig.store.reclaim("other", Duration::MAX).await;
        assert_eq!(reclaimed.unwrap(), Some(items.len()));
    }
    rig
}

/// Checks that exactly `expected` of them are read at a time.
async fn at_a_time(database: &TestDatabase, deaths: u32, expected: usize) {
    let rig = left_by_the_dead(database, deaths).await;
    let slow = Dripping::start(0).await;
    let origins = [origin("slow.example", &slow.url)];
    let worker = rig.worker_of(origins, FetchLimits::default(), hasty());
    let running = Running::start(worker);
    // At a time: one after the other they would all be asked for in the end.
    until("they are read", async || slow.open() >= expected).await;
    // Time for more of them.
    sleep(Duration::from_secs(1)).await;
    assert_eq!((slow.open(), slow.asked()), (expected, expected));
    running.stop().await;
}

on_both_databases! {
    async fn after_one_death_four_are_read_at_a_time(database) {
        at_a_time(database, 1, 4).await;
    }

    async fn after_two_deaths_each_is_read_alone(database) {
        at_a_time(database, 2, 1).await;
    }

    async fn all_that_was_under_way_is_done_after_a_crash(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let (mut items, mut keys) = (Vec::new(), Vec::new());
        for n in 0..UNDER_WAY {
            let (key, item) = rig.leak(&shop).await;
            keys.push(key);
            items.push(rescind::store::NewWorkItem { repository_id: n.to_string(), ..item });
        }
        rig.add_items(&items).await;
        let held = rig.store.claim(UNDER_WAY, "dies", Duration::ZERO).await.unwrap();
        assert!(held.iter().all(|item| item.lane == Lane::Ordinary));
        let origins = [origin("git.example", &shop.forge.url())];
        let worker = rig.worker_of(origins, FetchLimits::default(), hasty());
        assert_eq!(worker.drain().await.unwrap(), items.len());
        for key in &keys {
            assert!(rig.is_revoked(key).await);
        }
        assert_eq!(database.count("SELECT COUNT(*) FROM work_items WHERE deaths = 1 AND state = 'done'").await, 16);
    }
}
