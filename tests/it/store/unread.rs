//! Contents of a branch that were not read, and are read again when something rests on it.

use rescind::store::{Descendant, Fetched, Lineage, NewWorkItem, Part, Priority, Store, WorkItem};

use super::at;
use super::work::{LEASE, add, item};
use crate::support::databases::on_both_databases;

/// The push that follows `n - 1` others.
fn push(branch: &str, n: i64) -> NewWorkItem {
    NewWorkItem {
        ref_name: branch.to_owned(),
        before: format!("{n:040}"),
        after: format!("{:040}", n + 1),
        clone_url: Some("https://git.example/acme/app.git".to_owned()),
        ..item(1, Priority::Webhook)
    }
}

async fn claim(store: &Store) -> Vec<WorkItem> {
    let mut claimed = store.claim(99, "w", LEASE).await.unwrap();
    claimed.sort_by_key(|item| item.range.after.clone());
    claimed
}

fn ranges(items: &[WorkItem]) -> Vec<NewWorkItem> {
    items.iter().map(|item| item.range.clone()).collect()
}

async fn finish(store: &Store, item: &WorkItem, fetched: Fetched, parts: &[Descendant]) -> u64 {
    let mut tx = store.begin().await.unwrap();
    assert!(tx.finish(item.id, "w", fetched).await.unwrap());
    let added = tx.add_descendants(parts, at(0)).await.unwrap();
    tx.commit().await.unwrap();
    added
}

const GONE: &str = "state = 'done', gone = TRUE, leased_by = NULL";
const DEAD: &str = "state = 'dead', tries = 8, leased_by = NULL";

on_both_databases! {
    async fn the_next_push_of_a_branch_has_what_was_not_read_before_it_read_again(database) {
        let store = database.store().await;
        for (n, ended) in [DEAD, GONE].into_iter().enumerate() {
            let of = |branch: &str, n_of: i64| NewWorkItem {
                repository: format!("acme/{n}"),
                ..push(branch, n_of)
            };
            add(&store, &[of("main", 1), of("other", 1)]).await;
            claim(&store).await;
            let end = format!("UPDATE work_items SET {ended} WHERE state = 'waiting'");
            database.run(&end).await.unwrap();
            // A public feed shows but a part.
            add(&store, &[NewWorkItem { priority: Priority::Firehose, ..of("main", 2) }]).await;
            assert_eq!(ranges(&claim(&store).await), [NewWorkItem { priority: Priority::Firehose, ..of("main", 2) }]);
            assert_eq!(add(&store, &[of("main", 3)]).await, 1);
            let again = claim(&store).await;
            assert_eq!(ranges(&again), [of("main", 1), of("main", 3)], "{ended}");
            assert_eq!(again[0].tries, 1);
            database.run("DELETE FROM work_items").await.unwrap();
        }
    }

    async fn what_workers_died_of_and_what_a_forced_push_dropped_stays_as_it_is(database) {
        let store = database.store().await;
        let died = "state = 'dead', deaths = 3, leased_by = NULL";
        let excused = "state = 'dead', deaths = -4, leased_by = NULL";
        let dropped = "state = 'done', gone = TRUE, dropped = TRUE, leased_by = NULL";
        for ended in [died, excused, dropped] {
            add(&store, &[push("main", 1)]).await;
            claim(&store).await;
            database.run(&format!("UPDATE work_items SET {ended}")).await.unwrap();
            add(&store, &[push("main", 2)]).await;
            assert_eq!(ranges(&claim(&store).await), [push("main", 2)], "{ended}");
            database.run("DELETE FROM work_items").await.unwrap();
        }
    }

    /// Each time those that ended longest ago.
    async fn a_push_has_few_others_read_again(database) {
        let store = database.store().await;
        let old: Vec<_> = (1..=10).map(|n| push("main", n)).collect();
        add(&store, &old).await;
        claim(&store).await;
        let died = "UPDATE work_items SET state = 'dead', leased_by = NULL, finished_at = 9 - event_at, event_at = 0
            WHERE state = 'waiting'";
        database.run(died).await.unwrap();
        for round in 0..2 {
            add(&store, &[push("main", 100 + round)]).await;
            let again = claim(&store).await;
            assert_eq!(again.len(), 5);
            database.run("UPDATE work_items SET state = 'dead', leased_by = NULL, finished_at = 99 WHERE state = 'waiting'").await.unwrap();
        }
        let first = "SELECT COUNT(*) FROM work_items WHERE finished_at = 99";
        assert_eq!(database.count(first).await, 10);
    }

    async fn a_new_branch_has_what_was_not_read_of_the_default_branch_read_again(database) {
        let store = database.store().await;
        for ended in [DEAD, GONE] {
            let whole = NewWorkItem { before: "0".repeat(40), ..push("main", 0) };
            add(&store, std::slice::from_ref(&whole)).await;
            let main = claim(&store).await.remove(0);
            finish(&store, &main, Fetched::default(), &[]).await;
            add(&store, &[push("main", 1)]).await;
            claim(&store).await;
            database.run(&format!("UPDATE work_items SET {ended} WHERE state = 'waiting'")).await.unwrap();
            let feature = NewWorkItem { before: "0".repeat(40), ..push("feature", 5) };
            add(&store, std::slice::from_ref(&feature)).await;
            let feature = claim(&store).await.remove(0);
            assert!(store.rest_on(&feature, "main").await.unwrap().is_some());
            assert_eq!(ranges(&claim(&store).await), [push("main", 1)], "{ended}");
            database.run("DELETE FROM work_items").await.unwrap();
        }
    }

    async fn a_part_that_used_up_its_budget_is_read_again_with_that_of_a_push(database) {
        let store = database.store().await;
        add(&store, &[push("main", 1)]).await;
        let whole = claim(&store).await.remove(0);
        let lineage = Lineage { origin: whole.id, generation: 1, parts_left: 0, bytes_left: 9 };
        let part = Descendant {
            parent: whole.id,
            range: NewWorkItem { after: "7".repeat(40), ..push("main", 1) },
            part: Some(Part::default()),
            lineage,
        };
        let cut = Fetched { truncated: true, ..Fetched::default() };
        assert_eq!(finish(&store, &whole, cut, std::slice::from_ref(&part)).await, 1);
        let held = claim(&store).await.remove(0);
        assert_eq!(held.lineage, Some(lineage));
        finish(&store, &held, Fetched { unread: true, ..cut }, &[]).await;
        assert_eq!(store.work_counts().await.unwrap().truncated, 2);
        add(&store, &[push("main", 2)]).await;
        let again = claim(&store).await;
        assert_eq!(ranges(&again), [push("main", 2), part.range]);
        let full = Lineage { parts_left: u32::MAX, bytes_left: u64::MAX, ..lineage };
        assert_eq!(again[1].lineage, Some(full));
        // Once it is read, it is not read anew each time.
        finish(&store, &again[1], Fetched::default(), &[]).await;
        add(&store, &[push("main", 3)]).await;
        assert_eq!(ranges(&claim(&store).await), [push("main", 3)]);
    }

    async fn what_had_no_room_for_its_parts_is_read_again(database) {
        let store = database.store().await;
        add(&store, &[push("main", 1)]).await;
        let held = claim(&store).await.remove(0);
        let part = |n: i64| Descendant {
            parent: held.id,
            range: NewWorkItem { priority: Priority::Backfill, ..push("main", 1_000 + n) },
            part: Some(Part::default()),
            lineage: Lineage { origin: held.id, generation: 1, parts_left: 6, bytes_left: 9 },
        };
        let parts: Vec<_> = (0..10_001).map(part).collect();
        assert_eq!(finish(&store, &held, Fetched::default(), &parts).await, 10_000);
        database.run("UPDATE work_items SET state = 'done' WHERE part_of <> ''").await.unwrap();
        add(&store, &[push("main", 2)]).await;
        assert_eq!(ranges(&claim(&store).await), [push("main", 1), push("main", 2)]);
    }
}
