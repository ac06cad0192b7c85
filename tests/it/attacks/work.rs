//! Servers and repositories that keep the workers busy: by sending slowly, by sending much, by making work
//! without end, and by taking the process with them.

mod deaths;
mod dripping;
mod endless;
mod forced;
mod forged;
mod gateways;
mod large;
mod outages;
mod owners;
mod paused;
mod references;
mod restarts;
mod slow;
mod together;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use rescind::fetch::{FetchLimits, ObjectId};
use rescind::sandbox::git_server::Pushed;
use rescind::store::{Descendant, Fetched, Key, Lineage, NewWorkItem, Part, Priority};
use rescind::work::{Worker, WorkerOptions};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::source::Rig;
use crate::source::work::{Shop, noise, origin};
use crate::support::databases::{Kind, TestDatabase, on_both_databases};
use crate::support::git;
pub(super) use deaths::end_leases;
pub(super) use dripping::Dripping;

/// Promised time from the report of a leak by a healthy source to its revocation.
const PROMISED: Duration = Duration::from_secs(10);

const LEASE: Duration = Duration::from_mins(1);

fn line(data: &[u8]) -> Vec<u8> {
    [format!("{:04x}", data.len() + 4).as_bytes(), data].concat()
}

/// A push of which the forge knows nothing.
fn unheard_of(n: usize) -> Pushed {
    let id = |n: usize| ObjectId::from_hex(format!("{n:040x}").as_bytes()).unwrap();
    Pushed {
        reference: "refs/heads/main".to_owned(),
        before: id(1),
        after: id(n + 2),
    }
}

impl Rig {
    /// A push to a repository of its own at some host.
    pub(super) fn push_to(&self, host: &str, n: usize, priority: Priority) -> NewWorkItem {
        NewWorkItem {
            host: host.to_owned(),
            repository_id: format!("hostile-{n}"),
            priority,
            ..self.item(&unheard_of(n))
        }
    }

    /// A push of a key, as a webhook tells of it.
    async fn leak(&self, shop: &Shop) -> (Key, NewWorkItem) {
        let (key, value) = self.issue(false).await;
        let pushed = shop.push(&[("leak.env", value.expose().as_bytes().to_vec())]);
        let item = NewWorkItem {
            source: "webhook:github".to_owned(),
            priority: Priority::Webhook,
            ..self.item(&pushed)
        };
        (key, item)
    }

    async fn wait_until_revoked(&self, key: &Key) {
        let revoked = async {
            while !self.is_revoked(key).await {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PROMISED, revoked).await.expect("revoked in time");
    }
}

/// The same push with the address that it has anyway, which says who its owner is.
fn at_its_address(item: NewWorkItem, shop: &Shop) -> NewWorkItem {
    let clone_url = Some(format!("{}/{}.git", shop.forge.url(), item.repository));
    NewWorkItem { clone_url, ..item }
}

/// Stops at once, with what is in flight.
fn hasty() -> WorkerOptions {
    WorkerOptions {
        patience: Duration::from_millis(10),
        ..WorkerOptions::default()
    }
}

struct Running {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Running {
    fn start(worker: Worker) -> Self {
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let stopped = stop.clone();
        tasks.spawn(async move { worker.run(&stopped).await });
        Self { stop, tasks }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

async fn sqlite() -> (TestDatabase, Rig) {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let rig = Rig::new(&database.store().await);
    (database, rig)
}

/// Waits until something is so, with a bound that no machine needs.
pub(super) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_mins(1), waiting)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

fn entry(pack: &mut Vec<u8>, kind: u8, data: &[u8]) {
    let mut size = data.len();
    let mut byte = kind << 4 | u8::try_from(size & 15).unwrap();
    size >>= 4;
    while size > 0 {
        pack.push(byte | 0x80);
        byte = u8::try_from(size & 0x7f).unwrap();
        size >>= 7;
    }
    pack.push(byte);
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(data).unwrap();
    pack.extend(zlib.finish().unwrap());
}

on_both_databases! {
    async fn parts_say_nothing_of_what_a_source_names(database) {
        let rig = Rig::new(&database.store().await);
        let genuine = NewWorkItem { priority: Priority::Webhook, ..rig.item(&unheard_of(1)) };
        let lineage = Lineage { origin: Uuid::now_v7(), generation: 1, parts_left: 4, bytes_left: 9 };
        let part = Descendant { parent: lineage.origin, range: genuine.clone(), part: Some(Part::default()), lineage };
        let mut tx = rig.store.begin().await.unwrap();
        assert_eq!(tx.add_descendants(&[part.clone(), part.clone()], rig.now()).await.unwrap(), 1);
        tx.commit().await.unwrap();
        let held = rig.store.claim(9, "w", LEASE).await.unwrap().remove(0);
        assert_eq!(held.lineage, Some(lineage));
        let mut tx = rig.store.begin().await.unwrap();
        let fetched = Fetched { truncated: true, ..Fetched::default() };
        assert!(tx.finish(held.id, "w", fetched).await.unwrap());
        tx.commit().await.unwrap();
        // The end of the part is not the end of the push.
        assert_eq!(rig.add_items(std::slice::from_ref(&genuine)).await, 1);
        // An item that was gone when a feed named it is tried again when an urgent source names it.
        let held = rig.store.claim(9, "w", LEASE).await.unwrap().remove(0);
        let mut tx = rig.store.begin().await.unwrap();
        let gone = Fetched { gone: true, ..Fetched::default() };
        assert!(tx.finish(held.id, "w", gone).await.unwrap());
        tx.commit().await.unwrap();
        let seldom = NewWorkItem { priority: Priority::Firehose, ..genuine.clone() };
        rig.add_items(&[seldom]).await;
        assert_eq!(rig.counts().await.waiting, 0);
        rig.add_items(&[genuine]).await;
        assert_eq!(rig.counts().await.waiting, 1);
    }

    async fn a_repository_waits_in_turns_and_has_a_bound(database) {
        let rig = Rig::new(&database.store().await);
        let many: Vec<_> = (0..10_003)
            .map(|n| NewWorkItem { repository_id: "hostile".to_owned(), ..rig.push_to("git.example", n, Priority::Webhook) })
            .collect();
        assert_eq!(rig.add_items(&many).await, 10_000);
        let work = rig.store.source_work().await.unwrap().remove(0);
        assert_eq!((work.waiting, work.refused), (10_000, 3));
        // Another one of the same host, later than all of them, is the second to be taken.
        let other = NewWorkItem { repository_id: "other".to_owned(), ..many[0].clone() };
        assert_eq!(rig.add_items(&[other]).await, 1);
        let first = rig.store.claim(2, "w", LEASE).await.unwrap();
        assert!(first.iter().any(|item| item.range.repository_id == "other"), "{first:?}");
        // A worker takes two of the first one, and no more.
        rig.store.release("w").await.unwrap();
        let slow = Dripping::start(0).await;
        let worker = rig.worker_of([origin("git.example", &slow.url)], FetchLimits::default(), hasty());
        let running = Running::start(worker);
        until("some are in flight", async || slow.asked() >= 3).await;
        sleep(Duration::from_millis(200)).await;
        assert_eq!(slow.asked(), 3);
        running.stop().await;
    }
}
