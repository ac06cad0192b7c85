//! State of sources: items that were shed, blobs that were scanned, items that became urgent.

use std::time::Duration;

use rescind::store::{
    Fetched, NewWorkItem, Postponed, Priority, Shedding, SourceWork, Store, StoreOptions, WorkDone,
};

use super::at;
use super::work::{add, claim_one, item};
use crate::support::databases::{Kind, TestDatabase, on_both_databases};

fn from(source: &str, item: NewWorkItem) -> NewWorkItem {
    NewWorkItem {
        source: source.to_owned(),
        ..item
    }
}

async fn work_of(store: &Store, source: &str) -> SourceWork {
    let all = store.source_work().await.unwrap();
    let found = all.into_iter().find(|work| work.source == source);
    found.unwrap_or_default()
}

const NEVER: Shedding = Shedding {
    max_waiting: 1_000_000,
    max_wait: Duration::from_hours(1),
};

on_both_databases! {
    async fn the_oldest_of_the_firehose_are_shed_and_counted(database) {
        let store = database.store().await;
        let mut items: Vec<_> = (0..10).map(|n| item(n, Priority::Firehose)).collect();
        items.extend((10..20).map(|n| from("hook", item(n, Priority::Webhook))));
        items.extend((20..30).map(|n| from("archive", item(n, Priority::Backfill))));
        add(&store, &items).await;
        assert_eq!(store.shed(&NEVER, at(0)).await.unwrap(), 0);
        let few = Shedding { max_waiting: 3, ..NEVER };
        assert_eq!(store.shed(&few, at(0)).await.unwrap(), 7);
        assert_eq!(store.shed(&few, at(0)).await.unwrap(), 0);
        let counts = store.work_counts().await.unwrap();
        assert_eq!((counts.waiting, counts.shed), (23, 7));
        let left = store.claim(100, "w", Duration::from_mins(1)).await.unwrap();
        let firehose = left.iter().filter(|item| item.range.priority == Priority::Firehose);
        let ids: Vec<_> = firehose.map(|item| item.range.repository_id.as_str()).collect();
        assert_eq!(ids, ["7", "8", "9"]);
        let work = work_of(&store, "github-public").await;
        assert_eq!((work.shed, work.waiting), (7, 3));
        assert_eq!(work_of(&store, "hook").await.shed, 0);
    }

    async fn what_waited_too_long_is_shed_unless_somebody_has_it(database) {
        let store = database.store().await;
        add(&store, &(0..4).map(|n| item(n, Priority::Firehose)).collect::<Vec<_>>()).await;
        let held = claim_one(&store, "w").await.unwrap();
        let late = at(0).checked_add(Duration::from_mins(90)).unwrap();
        assert_eq!(store.shed(&NEVER, late).await.unwrap(), 3);
        let mut tx = store.begin().await.unwrap();
        assert!(tx.finish(held.id, "w", Fetched::default()).await.unwrap());
        tx.commit().await.unwrap();
        let counts = store.work_counts().await.unwrap();
        assert_eq!((counts.waiting, counts.shed, counts.done), (0, 3, 1));
    }

    async fn what_comes_again_from_a_better_source_takes_the_better_place(database) {
        let store = database.store().await;
        add(&store, &(0..3).map(|n| item(n, Priority::Firehose)).collect::<Vec<_>>()).await;
        let one = Shedding { max_waiting: 1, ..NEVER };
        assert_eq!(store.shed(&one, at(0)).await.unwrap(), 2);
        // Once as urgent as before, once as a webhook's: one that was shed, one that waits, one new.
        add(&store, &(0..3).map(|n| item(n, Priority::Firehose)).collect::<Vec<_>>()).await;
        assert_eq!(store.work_counts().await.unwrap().shed, 2);
        let again: Vec<_> = [0, 2, 9].map(|n| from("hook", item(n, Priority::Webhook))).into();
        assert_eq!(add(&store, &again).await, 1);
        let counts = store.work_counts().await.unwrap();
        assert_eq!((counts.waiting, counts.shed), (3, 1));
        assert_eq!(work_of(&store, "github-public").await.shed, 1);
        let claimed = store.claim(9, "w", Duration::from_mins(1)).await.unwrap();
        assert!(claimed.iter().all(|item| item.range.priority == Priority::Webhook), "{claimed:?}");
        // News of two kinds at once: each item takes its own place.
        add(&store, &[item(5, Priority::Backfill), item(6, Priority::Backfill)]).await;
        add(&store, &[item(5, Priority::Webhook), item(6, Priority::Firehose)]).await;
        let claimed = store.claim(9, "w", Duration::from_mins(1)).await.unwrap();
        let places: Vec<_> = claimed.iter().map(|item| item.range.priority).collect();
        assert_eq!(places, [Priority::Webhook, Priority::Firehose]);
        // Less urgent news change nothing.
        add(&store, &[item(0, Priority::Backfill)]).await;
        assert!(claim_one(&store, "v").await.is_none());
    }

    async fn items_of_paused_hosts_stay(database) {
        let store = database.store().await;
        let elsewhere = NewWorkItem { host: "git.example".to_owned(), ..item(1, Priority::Webhook) };
        add(&store, &[elsewhere, item(2, Priority::Firehose)]).await;
        let paused = ["git.example".to_owned()];
        let lease = Duration::from_mins(1);
        let claimed = store.claim_except(5, "w", lease, &paused).await.unwrap();
        let hosts: Vec<_> = claimed.iter().map(|item| item.range.host.as_str()).collect();
        assert_eq!(hosts, ["github.com"]);
        assert_eq!(claim_one(&store, "w").await.unwrap().range.host, "git.example");
    }

    async fn what_was_done_adds_up_by_source(database) {
        let store = database.store().await;
        add(&store, &[item(1, Priority::Firehose), from("hook", item(2, Priority::Webhook))]).await;
        let done = WorkDone { scanned: 2, blobs: 5, known_blobs: 1, truncated: 1, gone: 1, oldest_event_at: Some(at(0)) };
        let mut tx = store.begin().await.unwrap();
        tx.add_work_done("hook", done).await.unwrap();
        tx.add_work_done("hook", done).await.unwrap();
        tx.commit().await.unwrap();
        let work = work_of(&store, "hook").await;
        let twice = WorkDone { scanned: 4, blobs: 10, known_blobs: 2, truncated: 2, gone: 2, oldest_event_at: None };
        assert_eq!((work.done, work.waiting, work.dead), (twice, 1, 0));
        assert!(work.lag.unwrap() > Duration::from_secs(1) && work.scanned_at.is_some());
        let work = work_of(&store, "github-public").await;
        assert_eq!((work.done, work.waiting, work.lag), (WorkDone::default(), 1, None));
    }

    async fn clean_blobs_are_remembered_for_their_formats(database) {
        let store = database.store().await;
        let ids: Vec<[u8; 20]> = (0..700_u16).map(|n| std::array::from_fn(|i| n.to_be_bytes()[i % 2])).collect();
        let mut tx = store.begin().await.unwrap();
        for _ in 0..2 {
            let ids = ids.iter().chain(&ids).map(<[u8; 20]>::as_slice).collect();
            tx.add_scanned_blobs("v1", ids, at(0)).await.unwrap();
        }
        tx.add_scanned_blobs("v2", vec![&ids[0]], at(5)).await.unwrap();
        tx.commit().await.unwrap();
        let mut known = store.scanned_blobs("v1", 10_000).await.unwrap();
        known.sort();
        assert_eq!(known, ids);
        assert_eq!(store.scanned_blobs("v1", 10).await.unwrap().len(), 10);
        assert_eq!(store.scanned_blobs("v2", 10).await.unwrap(), [ids[0]]);
        assert_eq!(store.forget_scanned_blobs(701).await.unwrap(), 0);
        assert_eq!(store.forget_scanned_blobs(0).await.unwrap(), 700);
        assert_eq!(store.scanned_blobs("v2", 10).await.unwrap().len(), 1);
    }

    async fn what_is_tried_again_and_again_counts_as_waiting_and_what_is_denied_does_not(database) {
        let store = database.store().await;
        add(&store, &[item(1, Priority::Webhook), item(2, Priority::Webhook)]).await;
        let held = store.claim(2, "w", Duration::from_mins(1)).await.unwrap();
        let later = Postponed { id: held[0].id, wait: Duration::from_mins(2), why: "404", is_denial: true };
        store.postpone_all(&[later], "w").await.unwrap();
        store.retry(held[1].id, "w", "the answer is no git").await.unwrap();
        let oldest = async || work_of(&store, &held[0].range.source).await.oldest_waiting_at;
        assert_eq!(oldest().await, Some(held[1].created_at));
        database.run("DELETE FROM work_items WHERE tries > 0").await.unwrap();
        assert_eq!(oldest().await, None);
    }

    async fn a_failure_is_told_until_something_is_read(database) {
        let store = database.store().await;
        let item = |n| from("hook", item(n, Priority::Webhook));
        add(&store, &[item(1), item(2), item(3), item(4)]).await;
        let lease = Duration::from_mins(1);
        let held = store.claim(4, "w", lease).await.unwrap();
        let told = async || {
            let work = work_of(&store, "hook").await;
            (work.failed, work.last_failure)
        };
        // Neither failed: there is no room, or nothing to read.
        store.postpone(held[0].id, "w", Duration::ZERO, "no room").await.unwrap();
        let denied = Postponed { id: held[1].id, wait: Duration::ZERO, why: "404", is_denial: true };
        store.postpone_all(&[denied], "w").await.unwrap();
        assert_eq!(told().await, (0, None));
        store.retry(held[2].id, "w", "the pack is damaged").await.unwrap();
        let failed = (1, Some("the pack is damaged".to_owned()));
        assert_eq!(told().await, failed);
        // Nor is it forgotten while it is tried again.
        database.run("UPDATE work_items SET ready_at = 0 WHERE tries > 0 AND leased_by IS NULL").await.unwrap();
        assert_eq!(store.claim(4, "w", lease).await.unwrap().len(), 3);
        assert_eq!(told().await, failed);
        let mut tx = store.begin().await.unwrap();
        tx.add_work_done("hook", WorkDone::default()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(told().await, (1, None));
        store.retry(held[2].id, "w", "it is damaged again").await.unwrap();
        assert_eq!(told().await, (1, Some("it is damaged again".to_owned())));
    }

    async fn what_waits_because_it_could_not_be_read_is_told_with_the_last_reason(database) {
        let store = database.store().await;
        let item = |n| from("hook", item(n, Priority::Webhook));
        add(&store, &[item(1), item(2), item(3), item(4)]).await;
        let lease = Duration::from_mins(1);
        let held = store.claim(4, "w", lease).await.unwrap();
        let told = async || {
            let work = work_of(&store, "hook").await;
            (work.retrying, work.last_retry)
        };
        let why = |n: usize, why: &str| format!("{}, {}, {why}", held[n].range.repository, held[n].range.ref_name);
        store.postpone(held[0].id, "w", Duration::ZERO, "no room").await.unwrap();
        assert_eq!(told().await, (0, None));
        let denied = Postponed { id: held[1].id, wait: Duration::from_secs(5), why: "HTTP 404", is_denial: true };
        store.postpone_all(&[denied], "w").await.unwrap();
        let (count, last) = told().await;
        let last = last.unwrap();
        assert_eq!((count, last.what), (1, why(1, "HTTP 404")));
        let denied_at = database.count("SELECT ready_at - wait FROM work_items WHERE denials > 0").await;
        assert_eq!(last.at.unwrap().as_microsecond(), denied_at);
        store.retry(held[2].id, "w", "the pack is damaged").await.unwrap();
        let (count, last) = told().await;
        assert_eq!((count, last.unwrap().what), (2, why(2, "the pack is damaged")));
        // Whatever else was read meanwhile.
        let mut tx = store.begin().await.unwrap();
        tx.add_work_done("hook", WorkDone::default()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(told().await.0, 2);
        // While both are tried again, the time of the last try is not known.
        database.run("UPDATE work_items SET ready_at = 0 WHERE leased_by IS NULL").await.unwrap();
        let ends_of_waits = told().await.1.unwrap();
        assert_eq!(ends_of_waits.at, None);
        assert_eq!(store.claim(4, "w", lease).await.unwrap().len(), 3);
        let (count, last) = told().await;
        assert_eq!((count, last.unwrap().at), (2, None));
    }

    async fn all_dead_items_of_a_source_are_revived(database) {
        let store = database.store().await;
        add(&store, &[item(1, Priority::Firehose), from("hook", item(2, Priority::Webhook))]).await;
        database.run("UPDATE work_items SET state = 'dead', finished_at = 1, tries = 8, last_error = 'x'").await.unwrap();
        assert_eq!(work_of(&store, "hook").await.dead, 1);
        let page = rescind::store::PageRequest::first();
        assert_eq!(store.dead_items(Some("hook"), &page).await.unwrap().items.len(), 1);
        assert_eq!(store.dead_items(None, &page).await.unwrap().items.len(), 2);
        assert_eq!(store.revive_all("hook").await.unwrap(), 1);
        assert_eq!(store.revive_all("hook").await.unwrap(), 0);
        assert_eq!(claim_one(&store, "w").await.unwrap().tries, 1);
    }
}

/// Work that an older version left is taken over, not lost.
#[tokio::test]
async fn the_first_schema_is_brought_up_with_its_work() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    database.migrate_to(1).await;
    let zeros = "0".repeat(40);
    let ones = "1".repeat(40);
    let at = at(1).as_microsecond();
    let insert = format!(
        "INSERT INTO work_items (id, host, repository_id, repository, ref_name, before_id, after_id, source,
            priority, event_at, created_at, state, ready_at, tries, truncated, bytes, blobs)
        VALUES ('0198f000-0000-7000-8000-000000000001', 'github.com', '1', 'acme/app-1', 'refs/heads/main',
            '{zeros}', '{ones}', 'github-public', 3, {at}, {at}, 'waiting', 0, 0, 0, 0, 0)"
    );
    database.run(&insert).await.unwrap();
    let options = StoreOptions::new(database.url.clone());
    let store = Store::open(options).await.unwrap();
    assert!(store.migrate().await.unwrap() > 0);
    assert_eq!(add(&store, &[item(1, Priority::Firehose)]).await, 0);
    assert_eq!(
        claim_one(&store, "w").await.unwrap().range,
        item(1, Priority::Firehose)
    );
    store.check_statements().await.unwrap();
}

/// A work item of the fourth or fifth version, with what differs between them.
fn old_item(n: usize, repository: &str, state: &str, column: &str, value: usize) -> String {
    format!(
        "INSERT INTO work_items (id, kind, host, repository_id, repository, ref_name, before_id, after_id,
            source, priority, event_at, created_at, state, ready_at, tries, truncated, bytes, blobs, {column})
        SELECT '0198f000-0000-7000-8000-00000000000{n}', 'range', 'github.com', '{repository}', '{repository}',
            'refs/heads/main', '{:040}', '{n:040}', 'feed', 1, {n}, 0, '{state}', 0, 0, tries.no, 0, 0, {value}
        FROM (SELECT 1 = 2 AS no) AS tries",
        0
    )
}

on_both_databases! {
    /// Items left waiting by the fourth schema keep their order, and take turns by owner.
    async fn work_of_the_fourth_schema_has_turns(database) {
        database.migrate_to(4).await;
        let rows = [
            (1, "Loud/one", "waiting", 0), (2, "loud/one", "waiting", 1), (3, "loud/two", "waiting", 0),
            (4, "group/deep/app", "waiting", 0), (5, "loud/done", "done", 7),
        ];
        for (n, repository, state, turn) in rows {
            database.run(&old_item(n, repository, state, "turn", turn)).await.unwrap();
        }
        let store = database.store().await;
        store.check_statements().await.unwrap();
        let with = |condition: &str| format!("SELECT COUNT(*) FROM work_items WHERE {condition}");
        for (condition, count) in [
            ("owner = 'loud'", 4), ("owner = 'group' AND turn = 0", 1), ("turn = 7 AND state = 'done'", 1),
            ("repository = 'Loud/one' AND turn = 0", 1), ("repository = 'loud/two' AND turn = 1", 1),
            ("repository = 'loud/one' AND turn = 2", 1), ("level <> 0", 0),
        ] {
            assert_eq!(database.count(&with(condition)).await, count, "{condition}");
        }
        let order = store.claim(9, "w", Duration::from_mins(1)).await.unwrap();
        assert_eq!(order.len(), 4);
    }

    /// Items that the fifth schema moved to other lanes stay there, beside a lane that it did not have.
    async fn work_of_the_fifth_schema_stays_in_its_lane(database) {
        database.migrate_to(5).await;
        for n in 0..3 {
            let item = old_item(n + 1, "acme/shop", "waiting", "lane", n);
            database.run(&item).await.unwrap();
        }
        let medium = "UPDATE work_items SET lane = 3 WHERE lane = 0";
        assert!(database.run(medium).await.is_err());
        let store = database.store().await;
        store.check_statements().await.unwrap();
        for lane in 0..3 {
            let with = format!("SELECT COUNT(*) FROM work_items WHERE lane = {lane} AND after_id LIKE '%0{}'", lane + 1);
            assert_eq!(database.count(&with).await, 1, "{lane}");
        }
        assert_eq!(database.run(medium).await.unwrap(), 1);
        assert!(database.run("UPDATE work_items SET lane = 4").await.is_err());
        assert_eq!(store.claim(9, "w", Duration::from_mins(1)).await.unwrap().len(), 3);
    }

    /// Items that the seventh schema knew by their identifiers are known by what they name, and keep all else.
    async fn work_of_the_seventh_schema_is_known_by_its_remote(database) {
        database.migrate_to(7).await;
        for (n, url) in [(1, "NULL"), (2, "'https://git.example/acme/two.git'"), (3, "'https://git.example/long'")] {
            database.run(&old_item(n, &format!("acme/app-{n}"), "waiting", "deaths", n)).await.unwrap();
            let more = format!("UPDATE work_items SET clone_url = {url}, owner = 'acme', level = {n}, turn = {n}, lane = {n}, \
                bytes = {n}, part_of = 'p', origin = '0198f000-0000-7000-8000-00000000000a', generation = {n}, \
                parts_left = {n}, bytes_left = {n} WHERE after_id LIKE '%0{n}'");
            database.run(&more).await.unwrap();
        }
        let long = format!("https://git.example/{}", "x".repeat(300));
        database.run(&format!("UPDATE work_items SET clone_url = '{long}' WHERE deaths = 3")).await.unwrap();
        let all = "SELECT COUNT(*) FROM work_items WHERE owner = 'acme' AND level = deaths AND turn = deaths AND lane = deaths \
            AND bytes = deaths AND generation = deaths AND parts_left = deaths AND bytes_left = deaths AND part_of = 'p'";
        assert_eq!(database.count(all).await, 3);
        let store = database.store().await;
        store.check_statements().await.unwrap();
        assert_eq!(database.count(all).await, 3);
        for (n, remote) in [
            (1, "remote = 'acme/app-1 - acme/app-1'"),
            (2, "remote = 'acme/app-2 https://git.example/acme/two.git acme/app-2'"),
            (3, "remote LIKE 'sha256:%'"),
        ] {
            let with = format!("SELECT COUNT(*) FROM work_items WHERE deaths = {n} AND {remote}");
            assert_eq!(database.count(&with).await, 1, "{n}");
        }
        // Named again, they are the same.
        database.run("UPDATE work_items SET part_of = '', lane = 0").await.unwrap();
        let claimed = store.claim(9, "w", Duration::from_mins(1)).await.unwrap();
        assert_eq!(claimed.len(), 3);
        let known: Vec<_> = claimed.into_iter().map(|item| item.range).filter(|range| range.repository != "acme/app-3").collect();
        assert_eq!(add(&store, &known).await, 0);
    }
}
