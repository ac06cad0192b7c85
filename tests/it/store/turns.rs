//! Order of the queue: nobody waits for the items of another, and no item waits forever.

use std::time::Duration;

use rescind::store::{
    Descendant, Fetched, Lane, Lineage, NewWorkItem, PageRequest, Priority, Queue, Store, WorkItem,
};

use super::at;
pub(crate) use super::work::add;
use super::work::item;
use crate::support::databases::{Kind, TestDatabase, on_both_databases};

const LEASE: Duration = Duration::from_mins(1);

/// A push to a repository, told from others by its number.
pub(crate) fn push(repository: &str, n: usize) -> NewWorkItem {
    NewWorkItem {
        repository_id: format!("id-of-{repository}"),
        repository: repository.to_owned(),
        after: format!("{n:040x}"),
        ..item(i64::try_from(n).unwrap(), Priority::Webhook)
    }
}

fn pushes<R: AsRef<str>>(repositories: impl Iterator<Item = R>) -> Vec<NewWorkItem> {
    let pushes = repositories.enumerate();
    pushes.map(|(n, of)| push(of.as_ref(), n)).collect()
}

/// One push to each of so many repositories of an owner.
fn spread(owner: &str, n: usize) -> Vec<NewWorkItem> {
    pushes((0..n).map(|n| format!("{owner}/app-{n}")))
}

async fn end(store: &Store, item: &WorkItem, fetched: Fetched) {
    let mut tx = store.begin().await.unwrap();
    assert!(tx.finish(item.id, "w", fetched).await.unwrap());
    tx.commit().await.unwrap();
}

/// Takes so many items; gives the names of their repositories.
async fn take(store: &Store, n: u32) -> Vec<String> {
    let claimed = store.claim(n, "w", LEASE).await.unwrap();
    claimed
        .into_iter()
        .map(|item| item.range.repository)
        .collect()
}

/// So many waiting items of one repository each, of owners who have `each`, written behind the program's back.
pub(crate) async fn fill(database: &TestDatabase, store: &Store, count: u32, each: u32) {
    add(store, &[push("first/app", 0)]).await;
    let numbers = match database.kind {
        Kind::Sqlite => format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
        ),
        Kind::Postgres => format!("WITH n (i) AS (SELECT generate_series(1, {count}))"),
    };
    let fill = format!(
        "INSERT INTO work_items (id, kind, host, repository_id, remote, repository, ref_name, before_id, after_id,
            source, priority, event_at, created_at, state, ready_at, tries, truncated, bytes, blobs, owner, turn)
        {numbers} SELECT '00000000-0000-7000-8000-' || (100000000000 + i), 'range', host, 'r' || i, 'r' || i,
            'o' || (i / {each}) || '/app', ref_name, before_id, after_id, source, priority, event_at, created_at,
            'waiting', 0, 0, truncated, 0, 0, 'o' || (i / {each}), i % {each} FROM work_items, n"
    );
    database.run(&fill).await.unwrap();
}

on_both_databases! {
    async fn many_repositories_of_one_owner_are_one_owners(database) {
        let store = database.store().await;
        add(&store, &spread("loud", 1_500)).await;
        add(&store, &[push("quiet/app", 9_000)]).await;
        let first = take(&store, 2).await;
        assert!(first.contains(&"quiet/app".to_owned()), "{first:?}");
        // Also when many of them were taken before, and in whatever case the forge writes the name.
        take(&store, 300).await;
        add(&store, &spread("Loud", 1_501)[1_500..]).await;
        add(&store, &[push("late/app", 9_001)]).await;
        let next = take(&store, 3).await;
        assert!(next.contains(&"late/app".to_owned()), "{next:?}");
        assert!(!next.contains(&"Loud/app-1500".to_owned()), "{next:?}");
    }

    async fn a_quiet_repository_does_not_wait_for_its_owners_other_ones(database) {
        let store = database.store().await;
        add(&store, &pushes((0..400).map(|_| "acme/monorepo"))).await;
        add(&store, &[push("acme/quiet", 9_000), push("acme/quiet", 9_001)]).await;
        let first = take(&store, 8).await;
        assert_eq!(first.iter().filter(|name| *name == "acme/quiet").count(), 2, "{first:?}");
        // All rows of an owner together have a few turns of each step, not one for each of his repositories.
        add(&store, &pushes((0..100).map(|n| format!("other/app-{}", n % 10)))).await;
        let next = take(&store, 40).await;
        let of_other = next.iter().filter(|name| name.starts_with("other/")).count();
        assert!((10..=32).contains(&of_other), "{of_other} of {next:?}");
    }

    /// Someone who always has one item waiting does not come before what waits already, each time.
    async fn newcomers_do_not_hold_up_what_waits(database) {
        let store = database.store().await;
        add(&store, &pushes((0..40).map(|_| "victim/app"))).await;
        let (mut rounds, mut left) = (0, 40);
        while left > 0 {
            rounds += 1;
            assert!(rounds <= 300, "{left} still wait");
            add(&store, &[push("steady/app", 1_000 + rounds)]).await;
            let claimed = store.claim(1, "w", LEASE).await.unwrap().remove(0);
            end(&store, &claimed, Fetched::default()).await;
            left -= usize::from(claimed.range.repository == "victim/app");
        }
        assert!(rounds >= 60, "the newcomer has turns as well: {rounds}");
    }

    async fn what_comes_again_has_a_turn_where_it_comes_to(database) {
        let store = database.store().await;
        // Far behind in the feed.
        let mut feed = spread("acme", 300);
        for item in &mut feed {
            item.priority = Priority::Firehose;
        }
        add(&store, &feed).await;
        add(&store, &spread("loud", 200)).await;
        let told = NewWorkItem { priority: Priority::Webhook, ..feed[299].clone() };
        assert_eq!(add(&store, &[told]).await, 0);
        let first = take(&store, 2).await;
        assert!(first.contains(&"acme/app-299".to_owned()), "{first:?}");
        store.release("w").await.unwrap();
        // Revived dead-lettered items take their place among the others, not ahead of all of them.
        let turn = "SET state = 'dead', last_error = 'x', finished_at = 1, turn = 0 WHERE repository LIKE 'loud/app-1__'";
        database.run(&format!("UPDATE work_items {turn}")).await.unwrap();
        let dead = store.dead_items(None, &PageRequest::first()).await.unwrap().items.remove(0);
        let source = dead.item.range.source;
        assert!(!store.revive_of("another", dead.item.id).await.unwrap());
        assert!(store.revive_of(&source, dead.item.id).await.unwrap());
        assert_eq!(store.revive_all(&source).await.unwrap(), 99);
        add(&store, &[push("quiet/app", 9_000)]).await;
        let first = take(&store, 4).await;
        assert!(first.contains(&"quiet/app".to_owned()), "{first:?}");
    }

    async fn what_has_all_its_places_hides_nobody(database) {
        let store = database.store().await;
        add(&store, &pushes((0..400).map(|_| "busy/app"))).await;
        add(&store, &spread("fast", 100)).await;
        let queue = Queue {
            lane: Lane::Ordinary,
            priority: Priority::Webhook,
            host: "github.com".to_owned(),
        };
        let fast = store.front(&queue, 100, &["busy/app - id-of-busy/app"]).await.unwrap();
        let fast: Vec<_> = fast.into_iter().map(|item| item.id).collect();
        assert_eq!(store.take(&fast, "w", LEASE).await.unwrap().len(), 100);
        add(&store, &[push("new/app", 9_001)]).await;
        // Dozens of the busy one are before it.
        let all = store.front(&queue, 30, &[]).await.unwrap();
        assert!(all.iter().all(|item| item.remote == push("busy/app", 0).remote()), "{all:?}");
        let front = store.front(&queue, 1, &["busy/app - id-of-busy/app"]).await.unwrap();
        assert_eq!(front[0].remote, push("new/app", 0).remote());
    }

    /// An item that holds its queue back must not let newcomers take the queue's turn.
    async fn an_item_that_failed_does_not_stop_the_time_of_its_queue(database) {
        let store = database.store().await;
        add(&store, &[push("broken/app", 9_000)]).await;
        let broken = store.claim(1, "w", LEASE).await.unwrap().remove(0);
        assert!(store.postpone(broken.id, "w", LEASE, "a hiccup").await.unwrap());
        add(&store, &spread("loud", 50)).await;
        let taken = store.claim(30, "w", LEASE).await.unwrap();
        for item in &taken {
            end(&store, item, Fetched::default()).await;
        }
        add(&store, &[push("new/app", 9_001)]).await;
        let turn = |of: &str| format!("SELECT turn FROM work_items WHERE repository = '{of}'");
        let (next, new) = (turn("loud/app-30"), turn("new/app"));
        assert_eq!(database.count(&new).await, database.count(&next).await);
    }

    async fn a_full_host_takes_what_quiet_repositories_and_owners_have(database) {
        let store = database.store().await;
        fill(database, &store, 49_998, 10_000).await;
        let many = |repository: &str, n: usize| -> Vec<_> { (0..n).map(|n| push(repository, n + 1)).collect() };
        assert_eq!(add(&store, &many("o1/big", 17)).await, 16);
        assert_eq!(add(&store, &many("o1/big", 20)).await, 0);
        assert_eq!(add(&store, &many("o1/quiet", 20)).await, 16);
        // An owner who has little is not refused for what others have.
        assert_eq!(add(&store, &many("small/app", 300)).await, 256);
        assert_eq!(add(&store, &many("small/quiet", 20)).await, 16);
        let refused = store.source_work().await.unwrap().iter().map(|work| work.refused).sum::<u64>();
        assert_eq!(refused, 1 + 4 + 4 + 44 + 4);
        let told = store.source_work().await.unwrap().into_iter().find_map(|work| work.last_unread);
        assert!(told.unwrap().0.contains("too much of its repository"));
        // An item that is already queued needs no room, and its priority is raised.
        let known = NewWorkItem { priority: Priority::Partner, ..push("o1/big", 1) };
        assert_eq!(add(&store, &[known, push("o1/big", 2)]).await, 0);
        assert_eq!(take(&store, 1).await, ["o1/big"]);
        let again = store.source_work().await.unwrap().iter().map(|work| work.refused).sum::<u64>();
        assert_eq!(again, refused);
    }

    async fn one_owner_does_not_fill_a_host(database) {
        let store = database.store().await;
        fill(database, &store, 24_970, 100_000).await;
        let more: Vec<_> = (0..40).map(|n| push("o0/big", n + 1)).collect();
        assert_eq!(add(&store, &more).await, 30);
        database.run("UPDATE work_items SET lane = 1").await.unwrap();
        assert_eq!(add(&store, &[push("o0/big", 50)]).await, 0);
        let quiet: Vec<_> = (0..20).map(|n| push("o0/quiet", n + 1)).collect();
        assert_eq!(add(&store, &quiet).await, 16);
        let others: Vec<_> = (0..300).map(|n| push("other/big", n + 1)).collect();
        assert_eq!(add(&store, &others).await, 300);
    }

    /// A list of references of which not all find room was not read to its end.
    async fn a_list_without_room_is_truncated(database) {
        let store = database.store().await;
        add(&store, &[push("acme/app", 0)]).await;
        let held = store.claim(1, "w", LEASE).await.unwrap().remove(0);
        let lineage = Lineage { origin: held.id, generation: 1, parts_left: 6, bytes_left: 9 };
        let listed = |n| Descendant {
            parent: held.id,
            range: NewWorkItem { priority: Priority::Backfill, ..push("acme/app", n) },
            part: None,
            lineage,
        };
        let listed: Vec<_> = (1..=10_001).map(listed).collect();
        let mut tx = store.begin().await.unwrap();
        assert!(tx.finish(held.id, "w", Fetched::default()).await.unwrap());
        assert_eq!(tx.add_descendants(&listed, at(1)).await.unwrap(), 10_000);
        tx.commit().await.unwrap();
        assert_eq!(store.work_counts().await.unwrap().truncated, 1);
        // So much of a backfill does not keep a push out.
        assert_eq!(add(&store, &[push("acme/app", 20_000)]).await, 1);
    }
}

/// Owners can be made up, so what each of them has in any case has an end as well.
#[tokio::test]
async fn a_host_has_an_end() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    fill(&database, &store, 199_998, 100).await;
    let new: Vec<_> = (0..3).map(|n| push(&format!("new-{n}/app"), n)).collect();
    assert_eq!(add(&store, &new).await, 1);
    // Nor is there more room once they turned out to be slow.
    database
        .run("UPDATE work_items SET lane = 3 WHERE lane = 0")
        .await
        .unwrap();
    let more: Vec<_> = (3..9).map(|n| push(&format!("new-{n}/app"), n)).collect();
    assert_eq!(add(&store, &more).await, 0);
    database.remove().await;
}
