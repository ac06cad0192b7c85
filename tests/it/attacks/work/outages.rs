//! A database that is away for longer than leases last is no death of whoever holds something.

use std::time::Duration;

use rescind::fetch::FetchLimits;
use rescind::source::{Worker, WorkerOptions};
use rescind::store::{Priority, Store, StoreOptions};
use tokio::time::sleep;

use super::{Dripping, Running, until};
use crate::attacks::database::proxy::Proxy;
use crate::source::House;
use crate::source::work::origin;
use crate::support::databases::{Kind, TestDatabase};

const LEASE: Duration = Duration::from_secs(4);

/// A house whose way to the database can be cut.
async fn behind(proxy: &Proxy, database: &TestDatabase) -> House {
    let url = proxy.url(&database.url);
    House::new(&Store::open(StoreOptions::new(url)).await.unwrap())
}

fn worker(house: &House, server: &Dripping, idle: Duration) -> Worker {
    let options = WorkerOptions {
        lease: LEASE,
        idle,
        ..WorkerOptions::default()
    };
    let origins = [origin("slow.example", &server.url)];
    house.worker_of(origins, FetchLimits::default(), options)
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
    let house = behind(&proxy, &database).await;
    let slow = Dripping::start(0).await;
    let item = house.push_to("slow.example", 1, Priority::Webhook);
    house.add_items(&[item]).await;
    let running = Running::start(worker(&house, &slow, Duration::from_secs(1)));
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
