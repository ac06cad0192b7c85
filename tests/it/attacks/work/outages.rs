//! A database that is away for longer than leases last is no death of whoever holds something, and a forge that was
//! away is read as soon as there is a way to it.

use std::time::Duration;

use rescind::fetch::FetchLimits;
use rescind::store::{HostWait, Priority, Store, StoreOptions};
use rescind::work::{Worker, WorkerOptions};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Dripping, PROMISED, Running, hasty, until};
use crate::attacks::database::proxy::Proxy;
use crate::source::Rig;
use crate::source::work::{Shop, origin};
use crate::support::databases::{Kind, TestDatabase, on_both_databases};

const LEASE: Duration = Duration::from_secs(4);

/// A rig whose way to the database can be cut.
async fn behind(proxy: &Proxy, database: &TestDatabase) -> Rig {
    let url = proxy.url(&database.url);
    Rig::new(&Store::open(StoreOptions::new(url)).await.unwrap())
}

fn worker(rig: &Rig, server: &Dripping, idle: Duration) -> Worker {
    let options = WorkerOptions {
        lease: LEASE,
        idle,
        ..WorkerOptions::default()
    };
    let origins = [origin("slow.example", &server.url)];
    rig.worker_of(origins, FetchLimits::default(), options)
}

async fn deaths(database: &TestDatabase) -> i64 {
    database.count("SELECT deaths FROM work_items").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_database_is_no_death_and_a_death_is_one() {
    let database = TestDatabase::new(Kind::Postgres).await;
    database.store().await;
    let proxies = [
        Proxy::before(&database.url).await,
        Proxy::before(&database.url).await,
    ];
    let holder = behind(&proxies[0], &database).await;
    let other = behind(&proxies[1], &database).await;
    let slow = Dripping::start(0).await;
    let item = holder.push_to("slow.example", 1, Priority::Webhook);
    holder.add_items(&[item]).await;
    let holding = Running::start(worker(&holder, &slow, Duration::from_secs(1)));
    until("it is asked for", async || slow.asked() == 1).await;
    // It looks much more often than the other one says that it is alive.
    let looking = Running::start(worker(&other, &slow, Duration::from_millis(20)));
    // As long as it may be doubted that it began beside others.
    sleep(LEASE).await;
    for proxy in &proxies {
        proxy.freeze_all();
    }
    sleep(LEASE + Duration::from_secs(1)).await;
    // The one that only looks is back first.
    proxies[1].thaw();
    sleep(Duration::from_secs(1)).await;
    proxies[0].thaw();
    sleep(LEASE + LEASE / 2).await;
    assert_eq!(deaths(&database).await, 0);
    assert_eq!(slow.asked(), 1, "it was begun again");
    // Without a word.
    drop(holding);
    until("the other one has it", async || slow.asked() == 2).await;
    assert_eq!(deaths(&database).await, 1);
    drop(looking);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_at_a_stop_is_excused_once_the_database_is_back() {
    let database = TestDatabase::new(Kind::Postgres).await;
    database.store().await;
    let proxy = Proxy::before(&database.url).await;
    let rig = behind(&proxy, &database).await;
    let slow = Dripping::start(0).await;
    let item = rig.push_to("slow.example", 1, Priority::Webhook);
    rig.add_items(&[item]).await;
    let running = Running::start(worker(&rig, &slow, Duration::from_secs(1)));
    until("it is asked for", async || slow.asked() == 1).await;
    proxy.set_trap(b"deaths = -1 - deaths");
    running.stop.cancel();
    until("the excuse is on its way", async || proxy.caught() == 1).await;
    proxy.cut();
    until("it is excused", async || deaths(&database).await < 0).await;
    running.stop().await;
    assert_eq!(deaths(&database).await, 0, "it was given back");
    database.remove().await;
}

/// Leads from one address to another, as long as it is not dropped.
async fn way(from: &str, to: &str) -> JoinSet<()> {
    let listener = TcpListener::bind(from).await.unwrap();
    let to = to.trim_start_matches("http://").to_owned();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let to = to.clone();
            connections.spawn(async move {
                let mut server = TcpStream::connect(&to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    tasks
}

async fn waits_for(rig: &Rig) -> Option<HostWait> {
    let work = rig.store.source_work().await.unwrap();
    work.into_iter().find_map(|work| work.waits_for)
}

on_both_databases! {
    async fn what_waited_for_a_forge_is_read_as_soon_as_there_is_a_way_to_it(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let address = {
            let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
            free.local_addr().unwrap().to_string()
        };
        let origins = [origin("git.example", &format!("http://{address}"))];
        let worker = rig.worker_of(origins, FetchLimits::default(), hasty());
        let (early, item) = rig.leak(&shop).await;
        rig.add_items(&[item]).await;
        for n in 0..4 {
            rig.add_items(&[rig.push_to("git.example", n, Priority::Webhook)]).await;
        }
        let running = Running::start(worker);
        until("it is left alone", async || waits_for(&rig).await.is_some()).await;
        let wait = waits_for(&rig).await.unwrap();
        assert_eq!(wait.host, "git.example");
        assert!(wait.why.contains("the connection failed"), "{wait}");
        // For so long that a pause which doubles each time would be longer than what is promised.
        sleep(Duration::from_secs(6)).await;
        let tries = database.count("SELECT MAX(tries - CASE WHEN leased_by IS NULL THEN 0 ELSE 1 END) FROM work_items");
        assert_eq!(tries.await, 0, "no try counts");

        let (late, item) = rig.leak(&shop).await;
        rig.add_items(&[item]).await;
        let there_again = Instant::now();
        let _way = way(&address, &shop.forge.url()).await;
        rig.wait_until_revoked(&early).await;
        rig.wait_until_revoked(&late).await;
        assert!(there_again.elapsed() <= PROMISED);
        until("it is told no longer", async || waits_for(&rig).await.is_none()).await;
        running.stop().await;
    }
}
