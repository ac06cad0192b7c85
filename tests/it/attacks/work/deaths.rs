//! Items that were in flight when the process was killed, most of which are not to blame.

use std::time::Duration;

use rescind::clock::{Clock as _, SystemClock};
use rescind::fetch::FetchLimits;
use rescind::store::{Key, Lane, NewWorkItem, PageRequest, Priority, Store, StoreOptions};
use tokio::time::{Instant, sleep};

use super::slow::{How, Slow};
use super::{Dripping, PROMISED, Running, hasty, sqlite, until};
use crate::attacks::database::proxy::Proxy;
use crate::source::Rig;
use crate::source::work::{Shop, noise, origin};
use crate::support::databases::{TestDatabase, on_both_databases};
use crate::support::world::{Home, World};

/// Time after a kill at which the last lease ends. The rest of what is promised is for the fetch.
const LEASE_ENDS: Duration = Duration::from_secs(7);

/// As many as are in flight in one worker.
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

/// A push of which so many workers died, with a key in a small file and one at the end of a file of this size.
async fn cut_leaks(rig: &Rig, shop: &Shop, deaths: u32, size: usize) -> [Key; 2] {
    let (small, value) = rig.issue(false).await;
    let (large, hidden) = rig.issue(false).await;
    let hidden = format!("\n{}\n", hidden.expose());
    let pushed = shop.push(&[
        (
            &format!("dump-{deaths}"),
            [noise(deaths, size), hidden.into_bytes()].concat(),
        ),
        (
            &format!("leak-{deaths}.env"),
            value.expose().as_bytes().to_vec(),
        ),
    ]);
    rig.add_items(&[rig.item(&pushed)]).await;
    for _ in 0..deaths {
        let held = rig.store.claim(1, "dies", Duration::ZERO).await;
        assert_eq!(held.unwrap().len(), 1);
        let reclaimed = rig.store.reclaim("other", Duration::MAX).await;
        assert_eq!(reclaimed.unwrap(), Some(1));
    }
    [small, large]
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

    async fn what_was_fetched_at_a_kill_is_revoked_soon_after_the_restart(database) {
        let world = World::new().await;
        let forge = world.forge.url();
        let way = Proxy::before(&forge).await;
        let config = world.config(&database.url).replace(&forge, &way.url(&forge));
        let home = Home::new(|_| config);
        let daemon = home.serve();
        let rig = Rig::new(&database.store().await);
        let (key, value) = rig.issue(false).await;
        way.freeze_all();
        world.push(&[("leak.env", value.expose().as_bytes().to_vec())], "Leak");
        let begun = "SELECT COUNT(*) FROM work_items WHERE leased_by IS NOT NULL AND deaths >= 0";
        until("it is begun", async || database.count(begun).await == 1).await;
        daemon.kill();
        let killed = SystemClock.now().as_microsecond();
        let ends = database.count("SELECT MAX(ready_at) FROM work_items WHERE leased_by IS NOT NULL").await;
        let held = Duration::from_micros(u64::try_from(ends - killed).unwrap());
        assert!(held <= LEASE_ENDS, "{held:?}");
        way.thaw();
        let restarted = Instant::now();
        let daemon = home.serve();
        rig.wait_until_revoked(&key).await;
        let taken = restarted.elapsed();
        eprintln!("{:?}: the lease had {held:?} left, the key was revoked after {taken:?}", database.kind);
        assert!(taken <= PROMISED, "{taken:?}");
        assert!(daemon.stop().success());
    }

    async fn what_only_tighter_limits_leave_out_is_read_all_the_same(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        // Each death is followed by another push, and each file exceeds what the deaths leave of the limit.
        let limits = FetchLimits { max_blob_bytes: 64 << 10, ..FetchLimits::default() };
        for (deaths, size) in [(1, 40 << 10), (2, 10 << 10)] {
            let [small, large] = cut_leaks(&rig, &shop, deaths, size).await;
            let origins = [origin("git.example", &shop.forge.url())];
            let before = shop.forge.requests();
            let worker = rig.worker_of(origins, limits.clone(), hasty());
            assert_eq!(worker.drain().await.unwrap(), 1);
            assert!(rig.is_revoked(&small).await && rig.is_revoked(&large).await, "{deaths} deaths");
            assert_eq!(shop.forge.requests() - before, 2);
        }
        let whole = "SELECT COUNT(*) FROM work_items WHERE state = 'done' AND NOT truncated AND deaths > 0";
        assert_eq!(database.count(whole).await, 2);
    }

    async fn what_tighter_limits_leave_is_revoked_before_the_rest_is_read(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let limits = FetchLimits { max_blob_bytes: 64 << 10, ..FetchLimits::default() };
        let [small, large] = cut_leaks(&rig, &shop, 1, 40 << 10).await;
        let hanging = Slow::start(How::PassesOne(shop.forge.url())).await;
        let origins = [origin("git.example", &hanging.url)];
        let running = Running::start(rig.worker_of(origins, limits, hasty()));
        until("the first key is revoked", async || rig.is_revoked(&small).await).await;
        until("the rest is asked for", async || hanging.asked() == 2).await;
        assert!(!rig.is_revoked(&large).await);
        let held = "SELECT COUNT(*) FROM work_items WHERE state = 'waiting' AND leased_by IS NOT NULL";
        assert_eq!(database.count(held).await, 1);
        running.stop().await;
    }

    async fn all_that_was_in_flight_is_done_after_a_crash(database) {
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

/// Each death leaves behind what was in flight: pushes of servers that never answer, and a small one among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_servers_do_not_keep_what_is_read_alone_waiting() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let silent = Slow::start(How::Silent).await;
    let mut items: Vec<_> = (0..11)
        .map(|n| silent.push(&rig, "slow.example", n))
        .collect();
    let (key, item) = rig.leak(&shop).await;
    items.push(item);
    rig.add_items(&items).await;
    let deaths = "UPDATE work_items SET lane = 2, deaths = CASE WHEN repository_id IN \
        ('hostile-0', 'hostile-1', 'hostile-2') OR host = 'git.example' THEN 2 ELSE 1 END";
    database.run(deaths).await.unwrap();
    let origins = [
        origin("git.example", &shop.forge.url()),
        origin("slow.example", &silent.url),
    ];
    let running = Running::start(rig.worker_of(origins, FetchLimits::default(), hasty()));
    until("it is read", async || rig.is_revoked(&key).await).await;
    running.stop().await;
}

/// The real binary dies with an item each time, as for want of memory; others are done, and in the end the item
/// is put aside and says why.
#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_takes_the_daemon_with_it_is_put_aside_with_its_reason() {
    let world = World::new().await;
    let home = Home::new(|database| world.config(database));
    let hanging = Dripping::start(0).await;
    let daemon = home.serve();
    let url = format!(
        "sqlite://{}",
        home.folder.path().join("rescind.db").display()
    );
    let store = Store::open(StoreOptions::new(url.clone())).await.unwrap();
    let rig = Rig::new(&store);
    let deadly = NewWorkItem {
        clone_url: Some(format!("{}/acme/deadly.git", hanging.url)),
        ..rig.push_to("deadly.example", 1, Priority::Watched)
    };
    rig.add_items(&[deadly]).await;
    let mut daemon = Some(daemon);
    for death in 1..=3 {
        until("it is asked for", async || hanging.asked() == death).await;
        let (key, value) = rig.issue(false).await;
        let path = format!("leak-{death}.env");
        world.push(&[(&path, value.expose().as_bytes().to_vec())], "Leak");
        until("others are read", async || rig.is_revoked(&key).await).await;
        daemon.take().unwrap().kill();
        // Its lease ends.
        end_leases(&url).await;
        daemon = Some(home.serve());
        if death < 3 {
            let held = async || {
                let counts = store.work_counts().await.unwrap();
                counts.leased == 1
            };
            until("it is taken again", held).await;
        }
    }
    until("it is put aside", async || {
        store.work_counts().await.unwrap().dead == 1
    })
    .await;
    let dead = store.dead_items(None, &PageRequest::first()).await.unwrap();
    let dead = &dead.items[0];
    assert_eq!((dead.item.deaths, dead.item.lane), (3, Lane::Alone));
    assert!(
        dead.error.contains("died 3 times without an error"),
        "{dead:?}"
    );
    assert_eq!(hanging.asked(), 3);
    assert!(daemon.unwrap().stop().success());
    let shown = home.rescind(&["sources", "dead"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("died 3 times"), "{shown}");
}

pub(in crate::attacks) async fn end_leases(url: &str) {
    use sqlx::{Connection as _, Executor as _};
    let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
    connection
        .execute("UPDATE work_items SET ready_at = 0 WHERE leased_by IS NOT NULL")
        .await
        .unwrap();
}
