//! Many items at once: skipped, put off and revived.

use std::collections::HashSet;

use rescind::store::{Lane, NewWorkItem, Postponed, Priority, Queue, Store, WorkItem};

use super::work::{LEASE, add, item};
use crate::support::databases::on_both_databases;

/// Adds items of as many repositories, and claims them.
async fn claimed(store: &Store, count: i64) -> Vec<WorkItem> {
    let items: Vec<_> = (0..count).map(|n| item(n, Priority::Webhook)).collect();
    add(store, &items).await;
    let n = u32::try_from(count).unwrap();
    let claimed = store.claim(n, "w", LEASE).await.unwrap();
    assert_eq!(claimed.len(), items.len());
    claimed
}

on_both_databases! {
    async fn however_many_repositories_are_skipped_they_hide_no_other(database) {
        let store = database.store().await;
        let items: Vec<NewWorkItem> = (0..2_101).map(|n| item(n, Priority::Webhook)).collect();
        add(&store, &items).await;
        let except: Vec<String> = items[..2_100].iter().map(NewWorkItem::remote).collect();
        let except: Vec<&str> = except.iter().map(String::as_str).collect();
        let queue = Queue {
            lane: Lane::Ordinary,
            priority: Priority::Webhook,
            host: "github.com".to_owned(),
        };
        let front = store.front(&queue, 64, &except).await.unwrap();
        let front: Vec<&str> = front.iter().map(|next| &*next.remote).collect();
        assert_eq!(front, [items[2_100].remote()]);
    }

    async fn what_is_put_off_together_waits_as_long_as_each_has_to(database) {
        let store = database.store().await;
        let items = claimed(&store, 200).await;
        let later: Vec<Postponed<'_>> = items
            .iter()
            .enumerate()
            .map(|(at, item)| Postponed {
                is_denial: false,
                id: item.id,
                wait: if at < 150 { LEASE } else { std::time::Duration::ZERO },
                why: "its host is down",
            })
            .collect();
        // Of another worker, nothing.
        assert_eq!(store.postpone_all(&later, "other").await.unwrap(), 0);
        assert_eq!(store.postpone_all(&later, "w").await.unwrap(), 200);
        assert_eq!(store.postpone_all(&later, "w").await.unwrap(), 0);
        let again = store.claim(300, "w", LEASE).await.unwrap();
        let ids: HashSet<_> = again.iter().map(|item| item.id).collect();
        let expected: HashSet<_> = later[150..].iter().map(|later| later.id).collect();
        assert_eq!(ids, expected);
        assert!(again.iter().all(|item| item.tries == 1), "no try counts");
        let told = "SELECT COUNT(*) FROM work_items WHERE last_error = 'its host is down'";
        assert_eq!(database.count(told).await, 200);
    }

    async fn all_dead_items_of_a_source_are_revived_in_pieces(database) {
        let store = database.store().await;
        let mut items: Vec<_> = (0..1_300).map(|n| item(n, Priority::Webhook)).collect();
        "other".clone_into(&mut items[7].source);
        add(&store, &items).await;
        database.run("UPDATE work_items SET state = 'dead'").await.unwrap();
        assert_eq!(store.revive_all("github-public").await.unwrap(), 1_299);
        assert_eq!(store.revive_all("github-public").await.unwrap(), 0);
        let counts = store.work_counts().await.unwrap();
        assert_eq!((counts.waiting, counts.dead), (1_299, 1));
    }
}
