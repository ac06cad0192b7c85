//! Work items: each range once, each item with one worker at a time, none lost.

use std::collections::HashSet;
use std::time::Duration;

use rescind::clock::{Clock as _, SystemClock};
use rescind::store::{
    Fetched, Lane, NewWorkItem, PageRequest, Priority, Queue, Retry, SourceState, Store, WorkItem,
    WorkKind,
};
use uuid::Uuid;

use super::at;
use crate::support::databases::{TestDatabase, on_both_databases};

pub(super) const LEASE: Duration = Duration::from_mins(1);

pub(crate) fn item(n: i64, priority: Priority) -> NewWorkItem {
    NewWorkItem {
        kind: WorkKind::Range,
        clone_url: None,
        host: "github.com".to_owned(),
        repository_id: n.to_string(),
        repository: format!("acme/app-{n}"),
        ref_name: "refs/heads/main".to_owned(),
        before: "0".repeat(40),
        after: "1".repeat(40),
        source: "github-public".to_owned(),
        priority,
        event_at: at(n),
    }
}

pub(crate) async fn add(store: &Store, items: &[NewWorkItem]) -> u64 {
    let mut tx = store.begin().await.unwrap();
    let added = tx.add_work_items(items, at(0)).await.unwrap();
    tx.commit().await.unwrap();
    added
}

pub(super) async fn claim_one(store: &Store, worker: &str) -> Option<WorkItem> {
    store.claim(1, worker, LEASE).await.unwrap().pop()
}

/// Lets every wait and every lease end now.
pub(super) async fn pass_time(database: &TestDatabase) {
    database
        .run("UPDATE work_items SET ready_at = 0 WHERE state = 'waiting'")
        .await
        .unwrap();
}

on_both_databases! {
    async fn a_range_is_added_once_whoever_sees_it(database) {
        let store = database.store().await;
        let mut items: Vec<_> = (0..300).map(|n| item(n, Priority::Firehose)).collect();
        assert_eq!(add(&store, &items).await, 300);
        for item in &mut items {
            "webhook".clone_into(&mut item.source);
            item.priority = Priority::Webhook;
        }
        let mut other_ref = item(0, Priority::Firehose);
        "refs/heads/other".clone_into(&mut other_ref.ref_name);
        items.push(other_ref.clone());
        items.push(other_ref);
        assert_eq!(add(&store, &items).await, 1);
        let counts = store.work_counts().await.unwrap();
        assert_eq!((counts.waiting, counts.oldest_event_at), (301, Some(at(0))));
    }

    /// Whoever signs one announcement chooses what it names.
    async fn the_same_range_read_from_elsewhere_is_another_item(database) {
        let store = database.store().await;
        let genuine = item(1, Priority::Webhook);
        let long = "x".repeat(1_500);
        let elsewhere = [
            NewWorkItem { repository: "mallory/app-1".to_owned(), ..genuine.clone() },
            NewWorkItem { clone_url: Some("https://github.com/mallory/x.git".to_owned()), ..genuine.clone() },
            NewWorkItem { clone_url: Some(format!("https://github.com/{long}")), ..genuine.clone() },
            NewWorkItem { clone_url: Some(format!("https://github.com/{long}x")), ..genuine.clone() },
        ];
        for state in ["waiting", "done", "shed"] {
            database.run("DELETE FROM work_items").await.unwrap();
            assert_eq!(add(&store, &elsewhere).await, 4);
            let ended = format!("UPDATE work_items SET state = '{state}', finished_at = 1");
            database.run(&ended).await.unwrap();
            assert_eq!(add(&store, &elsewhere).await, 0, "{state}");
            assert_eq!(add(&store, std::slice::from_ref(&genuine)).await, 1, "{state}");
            assert_eq!(add(&store, std::slice::from_ref(&genuine)).await, 0, "{state}");
        }
    }

    /// Its server may be well again.
    async fn what_was_dead_lettered_is_read_again_once_it_is_announced_again(database) {
        let store = database.store().await;
        let announced = item(1, Priority::Webhook);
        add(&store, std::slice::from_ref(&announced)).await;
        let dead_after = |deaths: u32| {
            format!("UPDATE work_items SET state = 'dead', finished_at = 1, tries = 8, deaths = {deaths}")
        };
        let state = async || store.claim(1, "w", LEASE).await.unwrap().len();
        database.run(&dead_after(0)).await.unwrap();
        // A feed shows its events for hours.
        add(&store, &[item(1, Priority::Firehose)]).await;
        assert_eq!(state().await, 0);
        add(&store, std::slice::from_ref(&announced)).await;
        assert_eq!(state().await, 1);
        assert_eq!(database.count("SELECT tries FROM work_items").await, 1);
        // What kills its workers is for somebody to look at.
        database.run(&dead_after(3)).await.unwrap();
        add(&store, std::slice::from_ref(&announced)).await;
        assert_eq!(state().await, 0);
    }

    async fn what_was_read_keeps_no_address_unless_it_may_come_again(database) {
        let store = database.store().await;
        let items = [1, 2, 3].map(|n| NewWorkItem {
            clone_url: Some(format!("https://git.example/acme/app-{n}.git")),
            ..item(n, Priority::Watched)
        });
        add(&store, &items).await;
        for gone in [false, true] {
            let held = claim_one(&store, "w").await.unwrap();
            let mut tx = store.begin().await.unwrap();
            let fetched = Fetched { gone, ..Fetched::default() };
            assert!(tx.finish(held.id, "w", fetched).await.unwrap());
            tx.commit().await.unwrap();
        }
        let with = |states: &str| {
            format!("SELECT COUNT(*) FROM work_items WHERE clone_url IS NOT NULL AND state {states}")
        };
        assert_eq!(database.count(&with("= 'done' AND gone")).await, 1);
        assert_eq!(database.count(&with("= 'done' AND NOT gone")).await, 0);
        assert_eq!(database.count(&with("= 'waiting'")).await, 1);
    }

    async fn items_and_cursor_are_kept_together_or_not_at_all(database) {
        let store = database.store().await;
        let mut state = SourceState {
            name: "github-public".to_owned(),
            kind: "github_events".to_owned(),
            cursor: "{\"etag\":\"abc\"}".to_owned(),
            polled_at: Some(at(1)),
            events: 30,
            rate_remaining: Some(59),
            ..SourceState::default()
        };
        let mut tx = store.begin().await.unwrap();
        tx.add_work_items(&[item(1, Priority::Firehose)], at(1)).await.unwrap();
        tx.save_source(&state).await.unwrap();
        drop(tx);
        assert_eq!(store.load_source("github-public").await.unwrap(), None);
        assert_eq!(store.work_counts().await.unwrap().waiting, 0);
        for cursor in ["first", "second"] {
            cursor.clone_into(&mut state.cursor);
            state.error = (cursor == "first").then(|| "503".to_owned());
            let mut tx = store.begin().await.unwrap();
            tx.add_work_items(&[item(1, Priority::Firehose)], at(1)).await.unwrap();
            tx.save_source(&state).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(store.load_source("github-public").await.unwrap().as_ref(), Some(&state));
        }
        state.cursor.clear();
        assert_eq!(store.list_sources().await.unwrap(), [state]);
        assert_eq!(store.work_counts().await.unwrap().waiting, 1);
    }

    async fn the_most_urgent_come_first_and_the_oldest_among_equals(database) {
        let store = database.store().await;
        let items = [
            item(5, Priority::Firehose),
            item(9, Priority::Backfill),
            item(4, Priority::Firehose),
            item(8, Priority::Webhook),
            item(7, Priority::Partner),
            item(6, Priority::Watched),
        ];
        add(&store, &items).await;
        let mut order = Vec::new();
        for n in [2, 1, 10] {
            let claimed = store.claim(n, "w", LEASE).await.unwrap();
            assert!(claimed.len() <= n as usize);
            order.extend(claimed.into_iter().map(|item| item.range.repository_id));
        }
        assert_eq!(order, ["7", "8", "6", "4", "5", "9"]);
        assert_eq!(claim_one(&store, "w").await, None);
        let counts = store.work_counts().await.unwrap();
        assert_eq!((counts.waiting, counts.leased), (0, 6));
    }

    async fn concurrent_workers_never_hold_the_same_item(database) {
        let store = database.store().await;
        let items: Vec<_> = (0..200).map(|n| item(n, Priority::Firehose)).collect();
        add(&store, &items).await;
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..8 {
            let store = store.clone();
            workers.spawn(async move {
                let name = format!("worker-{worker}");
                let mut mine = Vec::new();
                loop {
                    let claimed = store.claim(7, &name, LEASE).await.unwrap();
                    if claimed.is_empty() {
                        return mine;
                    }
                    for item in claimed {
                        let mut tx = store.begin().await.unwrap();
                        assert!(tx.finish(item.id, &name, Fetched::default()).await.unwrap());
                        tx.commit().await.unwrap();
                        mine.push(item.id);
                    }
                }
            });
        }
        let all: Vec<Uuid> = workers.join_all().await.into_iter().flatten().collect();
        assert_eq!(all.len(), 200);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 200);
        assert_eq!(store.work_counts().await.unwrap().done, 200);
    }

    async fn an_item_whose_worker_died_is_taken_again(database) {
        let store = database.store().await;
        add(&store, &[item(1, Priority::Firehose)]).await;
        let first = store.claim(1, "dies", Duration::ZERO).await.unwrap().pop().unwrap();
        let second = claim_one(&store, "lives").await.unwrap();
        assert_eq!((first.id, second.tries), (second.id, 2));
        // Anything the dead worker would still do is refused.
        assert!(store.heartbeat(&[first.id], "dies", LEASE).await.unwrap().is_empty());
        assert_eq!(store.retry(first.id, "dies", "late").await.unwrap(), Retry::Lost);
        assert!(!store.postpone(first.id, "dies", Duration::ZERO, "late").await.unwrap());
        let mut tx = store.begin().await.unwrap();
        assert!(!tx.finish(first.id, "dies", Fetched::default()).await.unwrap());
        drop(tx);
        assert_eq!(store.heartbeat(&[first.id, Uuid::nil()], "lives", LEASE).await.unwrap(), HashSet::from([first.id]));
        let fetched = Fetched { truncated: true, bytes: 12, blobs: 3, ..Fetched::default() };
        let mut tx = store.begin().await.unwrap();
        assert!(tx.finish(second.id, "lives", fetched).await.unwrap());
        tx.commit().await.unwrap();
        let counts = store.work_counts().await.unwrap();
        assert_eq!((counts.done, counts.truncated, counts.leased), (1, 1, 0));
        // The same push announced again is still known.
        assert_eq!(add(&store, &[item(1, Priority::Firehose)]).await, 0);
    }

    async fn a_heartbeat_keeps_an_item(database) {
        let store = database.store().await;
        add(&store, &[item(1, Priority::Firehose)]).await;
        let held = store.claim(1, "w", Duration::ZERO).await.unwrap().pop().unwrap();
        assert_eq!(store.heartbeat(&[held.id], "w", LEASE).await.unwrap().len(), 1);
        assert_eq!(claim_one(&store, "other").await, None);
    }

    async fn a_failed_item_waits_longer_each_time_and_ends_aside(database) {
        let store = database.store().await;
        add(&store, &[item(1, Priority::Firehose)]).await;
        let mut waits = Vec::new();
        for n in 1..=8 {
            pass_time(database).await;
            let item = claim_one(&store, "w").await.unwrap();
            assert_eq!(item.tries, n);
            let before = SystemClock.now();
            match store.retry(item.id, "w", &format!("failure {n}")).await.unwrap() {
                Retry::Again(ready) => {
                    waits.push(ready.duration_since(before).as_secs());
                    assert_eq!(claim_one(&store, "w").await, None);
                }
                Retry::Dead => assert_eq!(n, 8),
                Retry::Lost => panic!("the item was held"),
            }
        }
        // 5 s doubled each time, less half of it at most, and a second for the clocks' edges.
        for (n, wait) in waits.iter().enumerate() {
            assert!(*wait >= 5 * (1 << n) / 2 - 1, "{waits:?}");
        }
        assert_eq!(waits.len(), 7);
        pass_time(database).await;
        assert_eq!(claim_one(&store, "w").await, None);
        let dead = store.dead_items(None, &PageRequest::first()).await.unwrap().items.pop().unwrap();
        assert_eq!((&*dead.error, dead.item.tries), ("failure 8", 8));
        assert!(store.revive(dead.item.id).await.unwrap());
        assert!(!store.revive(dead.item.id).await.unwrap());
        assert_eq!(claim_one(&store, "w").await.unwrap().tries, 1);
    }

    async fn an_item_that_kills_every_worker_is_read_alone_and_ends_aside(database) {
        let store = database.store().await;
        add(&store, &[item(1, Priority::Partner), item(2, Priority::Firehose)]).await;
        for n in 0..3 {
            let claimed = store.claim(1, &format!("dies-{n}"), Duration::ZERO).await.unwrap();
            assert_eq!(claimed[0].range.repository_id, "1");
            assert_eq!(claimed[0].deaths, n);
            assert_eq!(claimed[0].lane == Lane::Alone, n > 0);
        }
        let claimed = store.claim(2, "lives", LEASE).await.unwrap();
        assert_eq!(claimed.len(), 1);
        assert_eq!(claimed[0].range.repository_id, "2");
        let counts = store.work_counts().await.unwrap();
        assert_eq!((counts.dead, counts.leased), (1, 1));
        let dead = store.dead_items(None, &PageRequest::first()).await.unwrap().items.pop().unwrap();
        assert!(dead.error.contains("died 3 times without an error"), "{}", dead.error);
        // By hand it is tried again, alone.
        assert!(store.revive(dead.item.id).await.unwrap());
        assert_eq!(claim_one(&store, "brave").await.unwrap().lane, Lane::Alone);
    }

    async fn waiting_for_a_server_and_shutting_down_cost_no_try(database) {
        let store = database.store().await;
        add(&store, &[item(1, Priority::Firehose), item(2, Priority::Firehose)]).await;
        let held = store.claim(2, "w", LEASE).await.unwrap();
        assert!(store.postpone(held[0].id, "w", LEASE, "429").await.unwrap());
        assert_eq!(store.release("w").await.unwrap(), 1);
        assert_eq!(store.release("w").await.unwrap(), 0);
        let again = store.claim(2, "other", LEASE).await.unwrap();
        assert_eq!(again.len(), 1);
        assert_eq!((again[0].id, again[0].tries), (held[1].id, 1));
        pass_time(database).await;
        let again = store.claim(2, "third", LEASE).await.unwrap();
        assert_eq!(again.iter().find(|item| item.id == held[0].id).unwrap().tries, 1);
    }

    async fn done_items_are_forgotten_after_their_time(database) {
        let store = database.store().await;
        add(&store, &[item(1, Priority::Firehose), item(2, Priority::Firehose)]).await;
        let held = claim_one(&store, "w").await.unwrap();
        let mut tx = store.begin().await.unwrap();
        tx.finish(held.id, "w", Fetched::default()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(store.forget_done(Duration::from_hours(1)).await.unwrap(), 0);
        database.run("UPDATE work_items SET finished_at = 0 WHERE state = 'done'").await.unwrap();
        assert_eq!(store.forget_done(Duration::from_hours(1)).await.unwrap(), 1);
        assert_eq!(store.work_counts().await.unwrap().waiting, 1);
    }

    async fn of_many_done_items_the_oldest_are_forgotten(database) {
        let store = database.store().await;
        let items: Vec<_> = (1..=8).map(|n| item(n, Priority::Firehose)).collect();
        add(&store, &items).await;
        database.run("UPDATE work_items SET state = 'done', finished_at = CAST(repository_id AS BIGINT) \
            WHERE repository_id <> '8'").await.unwrap();
        database.run("UPDATE work_items SET state = 'shed' WHERE repository_id IN ('2', '5')").await.unwrap();
        for (keep, forgotten) in [(8, 0), (7, 0), (3, 4), (3, 0)] {
            assert_eq!(store.forget_done_beyond(keep).await.unwrap(), forgotten, "{keep}");
        }
        let kept = "SELECT COUNT(*) FROM work_items WHERE finished_at IN (5, 6, 7) OR state = 'waiting'";
        assert_eq!(database.count(kept).await, 4);
    }

    /// Its repository's turn, too: others that push without end do not come before it.
    async fn an_item_that_was_put_off_keeps_its_turn(database) {
        let store = database.store().await;
        let mut items: Vec<_> = (0..40).map(|n| NewWorkItem {
            repository_id: "noisy".to_owned(),
            repository: "acme/noisy".to_owned(),
            ..item(n, Priority::Webhook)
        }).collect();
        let mut quiet = item(99, Priority::Webhook);
        "quiet".clone_into(&mut quiet.repository_id);
        items.push(quiet);
        add(&store, &items).await;
        let claimed = store.claim(50, "w", Duration::from_mins(1)).await.unwrap();
        let quiet = claimed.iter().find(|item| item.range.repository_id == "quiet").unwrap();
        assert!(store.postpone(quiet.id, "w", Duration::ZERO, "a hiccup").await.unwrap());
        store.release("w").await.unwrap();
        let queue = Queue { lane: Lane::Ordinary, priority: Priority::Webhook, host: quiet.range.host.clone() };
        let front = store.front(&queue, 2, &[]).await.unwrap();
        assert!(front.iter().any(|item| item.remote.ends_with("quiet")), "{front:?}");
    }
}
