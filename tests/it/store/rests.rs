//! Branches whose readings rest on each other.

use std::time::Duration;

use rescind::store::{
    Fetched, NewWorkItem, Priority, ReadTo, Retry, Shedding, Store, WorkItem, WorkKind,
};

use super::at;
use super::work::{LEASE, add, item, pass_time};
use crate::support::databases::on_both_databases;

fn branch(name: &str) -> NewWorkItem {
    NewWorkItem {
        ref_name: name.to_owned(),
        ..item(1, Priority::Webhook)
    }
}

async fn rests(store: &Store, item: &WorkItem, head: &str) -> bool {
    store.rest_on(item, head).await.unwrap().is_some()
}

async fn finish(store: &Store, item: &WorkItem) -> bool {
    let mut tx = store.begin().await.unwrap();
    let is_done = tx.finish(item.id, "w", Fetched::default()).await.unwrap();
    tx.commit().await.unwrap();
    is_done
}

/// Claims everything, in the order of the branches.
async fn claim(store: &Store) -> Vec<WorkItem> {
    let mut claimed = store.claim(12, "w", LEASE).await.unwrap();
    claimed.sort_by_key(|item| item.range.ref_name.clone());
    claimed
}

on_both_databases! {
    async fn no_reading_rests_on_itself(database) {
        let store = database.store().await;
        let names = ["a", "b", "c"];
        add(&store, &names.map(branch)).await;
        let mut claimed = store.claim(3, "w", LEASE).await.unwrap();
        claimed.sort_by_key(|item| item.range.ref_name.clone());
        let [a, b, c] = &claimed[..] else { panic!("{claimed:?}") };
        assert!(!rests(&store, a, "a").await);
        assert!(rests(&store, a, "b").await);
        assert!(rests(&store, b, "c").await);
        assert!(!rests(&store, c, "a").await);
        assert!(!rests(&store, c, "b").await);
        // What was refused is not recorded, and what changes its mind is not held to it.
        assert!(rests(&store, c, "old").await);
        assert!(rests(&store, b, "old").await);
        assert!(rests(&store, c, "b").await);
        // Of another repository.
        let other = NewWorkItem { ref_name: "b".to_owned(), ..item(2, Priority::Webhook) };
        add(&store, &[other]).await;
        let other = store.claim(1, "w", LEASE).await.unwrap().remove(0);
        assert!(rests(&store, &other, "a").await);
    }

    async fn two_that_ask_at_once_do_not_rest_on_each_other(database) {
        let store = database.store().await;
        for n in 0..20 {
            let of = |name: &str| NewWorkItem { repository: format!("acme/{n}"), ..branch(name) };
            add(&store, &[of("a"), of("b")]).await;
            let pair = store.claim(2, "w", LEASE).await.unwrap();
            let head = |at: usize| pair[1 - at].range.ref_name.clone();
            let (one, other) = (head(0), head(1));
            let (one, other) = tokio::join!(rests(&store, &pair[0], &one), rests(&store, &pair[1], &other));
            assert!(!(one && other), "{n}");
        }
    }

    async fn a_long_chain_is_not_followed(database) {
        let store = database.store().await;
        let names: Vec<String> = (0..12).map(|n| format!("{n:02}")).collect();
        let items: Vec<_> = names.iter().map(|name| branch(name)).collect();
        add(&store, &items).await;
        pass_time(database).await;
        let mut claimed = store.claim(12, "w", LEASE).await.unwrap();
        claimed.sort_by_key(|item| item.range.ref_name.clone());
        let mut rested = Vec::new();
        for (item, head) in claimed[1..].iter().zip(&names) {
            rested.push(rests(&store, item, head).await);
        }
        assert!(rested[0] && rested.contains(&false), "{rested:?}");
    }

    async fn what_rests_on_a_branch_that_is_lost_later_is_read_again(database) {
        let store = database.store().await;
        let broken = "UPDATE work_items SET tries = 8 WHERE ref_name = 'a' AND state = 'waiting'";
        let died = "UPDATE work_items SET deaths = 2, ready_at = 0 WHERE ref_name = 'a' AND state = 'waiting'";
        let left = "UPDATE work_items SET leased_by = NULL WHERE ref_name = 'a' AND state = 'waiting'";
        for (n, prepared) in [broken, died, left].into_iter().enumerate() {
            let of = |name: &str| NewWorkItem {
                repository: format!("acme/{n}"),
                clone_url: Some(format!("https://git.example/acme/{n}.git")),
                priority: Priority::Firehose,
                ..branch(name)
            };
            add(&store, &["a", "b", "c", "d", "e"].map(of)).await;
            let claimed = claim(&store).await;
            let [a, b, c, on_b, on_old] = &claimed[..] else { panic!("{claimed:?}") };
            assert!(rests(&store, b, "a").await && rests(&store, c, "a").await);
            assert!(rests(&store, on_b, "b").await && rests(&store, on_old, "old").await);
            for item in [b, on_b, on_old] {
                assert!(finish(&store, item).await);
            }
            database.run(prepared).await.unwrap();
            match n {
                0 => assert_eq!(store.retry(a.id, "w", "broken").await.unwrap(), Retry::Dead),
                1 => assert_eq!(store.reclaim("other", Duration::MAX).await.unwrap(), Some(1)),
                _ => {
                    let all = Shedding { max_waiting: 0, max_wait: Duration::from_hours(1) };
                    assert_eq!(store.shed(&all, at(0)).await.unwrap(), 1);
                }
            }
            // `c` is being read. What rests on `b` does so on what is read again.
            assert!(!finish(&store, c).await);
            let again = claim(&store).await;
            let ranges: Vec<NewWorkItem> = again.iter().map(|item| item.range.clone()).collect();
            assert_eq!(ranges, [b, c].map(|item| item.range.clone()), "{n}");
            for item in &again {
                assert_eq!(item.tries, 1);
                assert!(!rests(&store, item, "a").await);
                assert!(finish(&store, item).await);
            }
            assert!(claim(&store).await.is_empty());
        }
    }

    async fn a_branch_counts_as_read_up_to_what_was_announced_last(database) {
        let store = database.store().await;
        let id = |digit: &str| digit.repeat(40);
        let push = |before: &str, after: &str, n: i64| NewWorkItem {
            before: id(before),
            after: id(after),
            event_at: at(n),
            ..branch("main")
        };
        let list = NewWorkItem {
            kind: WorkKind::References,
            before: String::new(),
            after: "event".to_owned(),
            ..push("0", "0", 9)
        };
        add(&store, &[NewWorkItem { event_at: at(0), ..branch("feature") }, list]).await;
        let claimed = claim(&store).await;
        let feature = &claimed[0];
        assert_eq!(store.rest_on(feature, "main").await.unwrap(), Some(ReadTo::Present));
        for (pushed, last) in [
            (push("1", "2", 2), "2"),
            (push("3", "1", 1), "2"),
            (push("2", "4", 4), "4"),
            (push("4", "0", 5), "4"),
            (NewWorkItem { repository: "acme/other".to_owned(), ..push("2", "6", 6) }, "4"),
        ] {
            add(&store, &[pushed]).await;
            let read_to = store.rest_on(feature, "main").await.unwrap();
            assert_eq!(read_to, Some(ReadTo::Commit(id(last))));
        }
    }
}
