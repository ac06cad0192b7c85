//! Workers that are told to stop, and workers that die: only the second is an item's fault, and stays so.

use std::time::Duration;

use rescind::store::{Lane, PageRequest, Priority, Retry, Store, WorkItem};

use super::work::{LEASE, add, claim_one, item, pass_time};
use crate::support::databases::{TestDatabase, on_both_databases};

/// A worker dies while it holds the only item.
async fn dies(store: &Store, worker: &str) {
    let held = store.claim(1, worker, Duration::ZERO).await.unwrap();
    assert_eq!(held.len(), 1);
    let reclaimed = store.reclaim("other", Duration::MAX).await.unwrap();
    assert_eq!(reclaimed, Some(1));
}

/// A worker is told to stop while it holds the only item, and has time to give it back.
async fn stops(store: &Store, worker: &str, excuses: usize) -> WorkItem {
    let held = claim_one(store, worker).await.unwrap();
    for _ in 0..excuses {
        store.excuse(worker).await.unwrap();
    }
    assert_eq!(store.release(worker).await.unwrap(), 1);
    held
}

async fn deaths(database: &TestDatabase) -> i64 {
    database.count("SELECT deaths FROM work_items").await
}

on_both_databases! {
    async fn a_stop_takes_no_earlier_death_away(database) {
        let store = database.store().await;
        add(&store, &[item(1, Priority::Webhook)]).await;
        for death in 1..=2_u32 {
            dies(&store, &format!("dies-{death}")).await;
            for stop in 0..3 {
                let held = stops(&store, &format!("stops-{death}-{stop}"), stop).await;
                assert_eq!((held.deaths, held.lane), (death, Lane::Alone));
                assert_eq!(deaths(database).await, i64::from(death));
            }
        }
        dies(&store, "dies-3").await;
        assert_eq!(store.work_counts().await.unwrap().dead, 1);
        assert_eq!(deaths(database).await, 3);
    }

    async fn an_excuse_is_of_one_claim_however_often_it_is_made(database) {
        let store = database.store().await;
        add(&store, &[item(1, Priority::Webhook)]).await;
        for worker in ["first", "second"] {
            let held = claim_one(&store, worker).await.unwrap();
            assert_eq!((held.deaths, held.lane, held.tries), (0, Lane::Ordinary, 1));
            for _ in 0..3 {
                store.excuse(worker).await.unwrap();
            }
            // It is killed before it gives anything back.
            pass_time(database).await;
            assert_eq!(store.reclaim("other", Duration::MAX).await.unwrap(), Some(1));
        }
        store.excuse("first").await.unwrap();
        dies(&store, "third").await;
        let held = claim_one(&store, "fourth").await.unwrap();
        assert_eq!((held.deaths, held.lane), (1, Lane::Alone));
    }

    async fn an_excuse_ends_with_its_claim_whatever_the_end(database) {
        let store = database.store().await;
        add(&store, &[item(1, Priority::Webhook)]).await;
        dies(&store, "dies-1").await;
        // While it winds down, what it holds may still fail, or be put off.
        let held = claim_one(&store, "fails").await.unwrap();
        store.excuse("fails").await.unwrap();
        let again = store.retry(held.id, "fails", "it failed").await.unwrap();
        assert!(matches!(again, Retry::Again(_)));
        pass_time(database).await;
        let held = claim_one(&store, "waits").await.unwrap();
        assert_eq!(held.deaths, 1);
        store.excuse("waits").await.unwrap();
        assert!(store.postpone(held.id, "waits", LEASE, "it waits").await.unwrap());
        pass_time(database).await;
        dies(&store, "dies-2").await;
        assert_eq!(deaths(database).await, 2);
        dies(&store, "dies-3").await;
        let dead = store.dead_items(None, &PageRequest::first()).await.unwrap();
        assert_eq!(dead.items[0].item.deaths, 3);
    }

    async fn it_is_known_when_the_first_lease_of_another_worker_ends(database) {
        let store = database.store().await;
        assert_eq!(store.first_lease_ends("looks").await.unwrap(), None);
        add(&store, &[item(1, Priority::Webhook), item(2, Priority::Webhook)]).await;
        store.claim(1, "long", LEASE).await.unwrap();
        assert_eq!(store.first_lease_ends("long").await.unwrap(), None, "its own");
        let ends = store.first_lease_ends("looks").await.unwrap().unwrap();
        assert!(ends > LEASE / 2 && ends <= LEASE, "{ends:?}");
        store.claim(1, "short", LEASE / 4).await.unwrap();
        let ends = store.first_lease_ends("looks").await.unwrap().unwrap();
        assert!(ends <= LEASE / 4, "{ends:?}");
        pass_time(database).await;
        assert_eq!(store.first_lease_ends("looks").await.unwrap(), Some(Duration::ZERO));
    }
}
