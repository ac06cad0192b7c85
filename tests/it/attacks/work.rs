//! Servers and repositories that keep the workers busy: by sending slowly, by sending much, by making work
//! without end, and by taking the process with them.

mod deaths;
mod forged;
mod gateways;
mod large;
mod outages;
mod owners;
mod references;
mod restarts;
mod slow;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use rescind::fetch::{FetchLimits, GitFetcher, ObjectId, http_client};
use rescind::sandbox::git_server::Pushed;
use rescind::source::{GitRemote, GitRemoteOptions, Source as _};
use rescind::store::{
    Descendant, Fetched, Key, Lane, Lineage, NewWorkItem, PageRequest, Priority, Store,
    StoreOptions,
};
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
use crate::support::world::{Home, World};

/// Promised time from the report of a leak by a healthy source to its revocation.
const PROMISED: Duration = Duration::from_secs(10);

const LEASE: Duration = Duration::from_mins(1);

/// A server that answers each request for a pack with some bytes at once, and then with one more now and then.
pub(super) struct Dripping {
    pub(super) url: String,
    asked: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Dripping {
    pub(super) async fn start(at_once: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let open = Arc::new(AtomicUsize::new(0));
        let (count, reading) = (Arc::clone(&asked), Arc::clone(&open));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (count, reading) = (Arc::clone(&count), Arc::clone(&reading));
                connections.spawn(async move {
                    let _ = drip(stream, at_once, &count, &reading).await;
                });
            }
        });
        Self {
            url,
            asked,
            open,
            _tasks: tasks,
        }
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Returns the number of responses that are being read.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

async fn drip(
    mut stream: TcpStream,
    at_once: usize,
    asked: &AtomicUsize,
    open: &AtomicUsize,
) -> std::io::Result<()> {
    if git::request(&mut stream).await?.is_none() {
        return Ok(());
    }
    asked.fetch_add(1, Ordering::Relaxed);
    open.fetch_add(1, Ordering::Relaxed);
    let ended = drip_on(&mut stream, at_once).await;
    open.fetch_sub(1, Ordering::Relaxed);
    ended
}

/// Drips until nobody reads any more.
async fn drip_on(stream: &mut TcpStream, at_once: usize) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-git-upload-pack-result\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&line(b"packfile\n")).await?;
    let piece = line(&vec![1; 60_000]);
    for _ in 0..at_once.div_ceil(60_000) {
        stream.write_all(&piece).await?;
    }
    loop {
        sleep(Duration::from_millis(100)).await;
        stream.write_all(b"0006\x01x").await?;
    }
}

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

/// Stops at once, with what is under way.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_large_push_and_good_ones_for_all_other_places_do_not_hold_up_a_tiny_one() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let slow = Dripping::start(5 << 20).await;
    let origins = [
        origin("git.example", &shop.forge.url()),
        origin("slow.example", &slow.url),
    ];
    let limits = FetchLimits {
        concurrent: 4,
        ..FetchLimits::default()
    };
    let worker = rig.worker_of(origins, limits, hasty());
    rig.add_items(&[rig.push_to("slow.example", 0, Priority::Webhook)])
        .await;
    let running = Running::start(worker);
    until("the slow one began", async || slow.asked() == 1).await;
    let large: Vec<_> = (0..3)
        .map(|n| {
            let pushed = shop.push(&[("large", noise(n, 5 << 20))]);
            NewWorkItem {
                priority: Priority::Webhook,
                repository_id: format!("large-{n}"),
                ..rig.item(&pushed)
            }
        })
        .collect();
    rig.add_items(&large).await;
    let waiting = "SELECT COUNT(*) FROM work_items WHERE lane = 3";
    until("a large one waits outside", async || {
        database.count(waiting).await > 0
    })
    .await;
    let (key, tiny) = rig.leak(&shop).await;
    rig.add_items(&[tiny]).await;
    rig.wait_until_revoked(&key).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_pushes_take_turns_and_a_slow_one_is_cut_off() {
    let (_database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let slow = Dripping::start(5 << 20).await;
    let origins = [
        origin("git.example", &shop.forge.url()),
        origin("slow.example", &slow.url),
    ];
    let limits = FetchLimits {
        window: Duration::from_secs(1),
        ..FetchLimits::default()
    };
    let worker = rig.worker_of(origins, limits, hasty());
    let hostile: Vec<_> = (0..3)
        .map(|n| rig.push_to("slow.example", n, Priority::Webhook))
        .collect();
    rig.add_items(&hostile).await;
    let running = Running::start(worker);
    until("the slow ones began", async || slow.asked() >= 1).await;
    let (key, value) = rig.issue(false).await;
    let mut large = noise(1, 5 << 20);
    large.extend_from_slice(format!("\n{}\n", value.expose()).as_bytes());
    let pushed = shop.push(&[("large", large)]);
    // It is no more urgent than they are, and came later.
    let item = NewWorkItem {
        priority: Priority::Webhook,
        ..rig.item(&pushed)
    };
    rig.add_items(&[item]).await;
    until("the good one is read", async || rig.is_revoked(&key).await).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dripping_hosts_do_not_take_all_places() {
    let (_database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let slow = Dripping::start(0).await;
    let origins = [
        origin("git.example", &shop.forge.url()),
        origin("slow.example", &slow.url),
    ];
    let worker = rig.worker_of(origins, FetchLimits::default(), hasty());
    let mut hostile: Vec<_> = (0..40)
        .map(|n| rig.push_to("slow.example", n, Priority::Webhook))
        .collect();
    // Anyone with a name server has as many hosts as they like.
    hostile.extend((0..400).map(|n| NewWorkItem {
        clone_url: Some(format!("{}/acme/shop.git", slow.url)),
        ..rig.push_to(&format!("{n}.wild.example"), n, Priority::Webhook)
    }));
    rig.add_items(&hostile).await;
    let running = Running::start(worker);
    let places = WorkerOptions::default().concurrent;
    until("no more places for them", async || {
        slow.asked() >= places - places / 4
    })
    .await;
    let (key, tiny) = rig.leak(&shop).await;
    rig.add_items(&[tiny]).await;
    rig.wait_until_revoked(&key).await;
    assert!(slow.asked() < places, "{}", slow.asked());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dripping_host_is_cut_off_and_costs_no_tries() {
    let (database, rig) = sqlite().await;
    let slow = Dripping::start(0).await;
    let limits = FetchLimits {
        window: Duration::from_millis(200),
        ..FetchLimits::default()
    };
    let origins = [origin("slow.example", &slow.url)];
    let worker = rig.worker_of(origins, limits, hasty());
    let hostile: Vec<_> = (0..10)
        .map(|n| rig.push_to("slow.example", n, Priority::Webhook))
        .collect();
    rig.add_items(&hostile).await;
    timeout(Duration::from_mins(1), worker.drain())
        .await
        .expect("it is not waited for to the end")
        .unwrap();
    // Each repository was asked, since one may be better than the others, and is left alone for seconds then.
    let (asked, counts) = (slow.asked(), rig.counts().await);
    assert!((10..=13).contains(&asked), "{asked}");
    assert_eq!((counts.waiting, counts.dead), (10, 0));
    // It is the host that is in trouble: of what it is asked for in vain later, nothing is put aside.
    let tries = "SELECT COUNT(*) FROM work_items WHERE tries > 0";
    assert!(database.count(tries).await <= 2);
}

/// Makes packs without end: some new commits, and more contents than anybody takes.
fn endless_pack(n: usize) -> Vec<u8> {
    let mut pack = b"PACK\0\0\0\x02\0\0\x10\0".to_vec();
    let mut parent = String::new();
    for generation in 0..6 {
        let tree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
        let who = "A <a@example.com> 1780000000 +0000";
        let commit =
            format!("tree {tree}\n{parent}author {who}\ncommitter {who}\n\n{n} {generation}\n");
        let whole = [
            format!("commit {}\0", commit.len()).as_bytes(),
            commit.as_bytes(),
        ]
        .concat();
        let mut hasher = gix_hash::hasher(gix_hash::Kind::Sha1);
        hasher.update(&whole);
        parent = format!("parent {}\n", hasher.try_finalize().unwrap());
        entry(&mut pack, 1, commit.as_bytes());
    }
    entry(&mut pack, 3, &noise(1, 40_000));
    pack
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

/// A forge for which every range is too large, and has a middle.
async fn bottomless() -> (String, JoinSet<()>) {
    let count = Arc::new(AtomicUsize::new(0));
    let answer = axum::routing::post(move || {
        let n = count.fetch_add(1, Ordering::Relaxed);
        async move {
            let mut body = line(b"packfile\n");
            for piece in endless_pack(n).chunks(60_000) {
                body.extend(line(&[&[1], piece].concat()));
            }
            body.extend(b"0000");
            (
                [("content-type", "application/x-git-upload-pack-result")],
                body,
            )
        }
    });
    let app = axum::Router::new().fallback(answer);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, tasks)
}

on_both_databases! {
    async fn a_push_that_is_always_too_large_has_an_end(database) {
        let rig = Rig::new(&database.store().await);
        let (url, _tasks) = bottomless().await;
        let limits = FetchLimits { max_fetch_bytes: 20_000, ..FetchLimits::default() };
        let worker = rig.worker_of([origin("git.example", &url)], limits, WorkerOptions::default());
        let pushed = NewWorkItem { priority: Priority::Webhook, ..rig.item(&unheard_of(7)) };
        rig.add_items(&[pushed]).await;
        timeout(Duration::from_mins(1), worker.drain()).await.expect("an end").unwrap();
        let counts = rig.counts().await;
        assert_eq!((counts.waiting, counts.leased, counts.dead), (0, 0, 0));
        assert!((3..=255).contains(&counts.done), "{counts:?}");
        assert_eq!(counts.truncated, counts.done, "what was not read is counted");
        assert!(database.count("SELECT MAX(generation) FROM work_items").await <= 12);
        let origins = "SELECT COUNT(DISTINCT origin) FROM work_items";
        assert_eq!(database.count(origins).await, 1);
    }

    async fn parts_say_nothing_of_what_a_source_names(database) {
        let rig = Rig::new(&database.store().await);
        let genuine = NewWorkItem { priority: Priority::Webhook, ..rig.item(&unheard_of(1)) };
        let lineage = Lineage { origin: Uuid::now_v7(), generation: 1, parts_left: 4, bytes_left: 9 };
        let part = Descendant { range: genuine.clone(), is_part: true, lineage };
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

    async fn many_items_of_a_paused_host_hide_nobody(database) {
        many_of_a_paused_host(database, 10_000).await;
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
        until("some are under way", async || slow.asked() >= 3).await;
        sleep(Duration::from_millis(200)).await;
        assert_eq!(slow.asked(), 3);
        running.stop().await;
    }
}

async fn many_of_a_paused_host(database: &TestDatabase, count: u32) {
    let rig = Rig::new(&database.store().await);
    let shop = Shop::open().await;
    let busy = wiremock::MockServer::start().await;
    let later = wiremock::ResponseTemplate::new(429).insert_header("retry-after", "600");
    wiremock::Mock::given(wiremock::matchers::any())
        .respond_with(later)
        .mount(&busy)
        .await;
    let first = rig.push_to("busy.example", 0, Priority::Webhook);
    rig.add_items(&[first]).await;
    let numbers = match database.kind {
        Kind::Sqlite => format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
        ),
        Kind::Postgres => format!("WITH n (i) AS (SELECT generate_series(1, {count}))"),
    };
    let zeros = "0".repeat(28);
    // Each of a repository of its own, or two of them.
    let insert = format!(
        "INSERT INTO work_items (id, kind, host, repository_id, remote, repository, ref_name, before_id, after_id,
            source, priority, event_at, created_at, state, ready_at, tries, truncated, bytes, blobs)
        {numbers} SELECT '00000000-0000-7000-8000-' || (100000000000 + i), 'range', 'busy.example',
            CAST(i / 2 AS TEXT), CAST(i / 2 AS TEXT), 'acme/shop', 'refs/heads/main', before_id, '{zeros}' || (100000000000 + i), source, priority,
            event_at - i, created_at, 'waiting', 0, 0, truncated, 0, 0 FROM work_items, n"
    );
    database.run(&insert).await.unwrap();
    let (key, leak) = rig.leak(&shop).await;
    // Less urgent, and later than all of them.
    rig.add_items(&[NewWorkItem {
        priority: Priority::Watched,
        ..leak
    }])
    .await;
    let origins = [
        origin("git.example", &shop.forge.url()),
        origin("busy.example", &busy.uri()),
    ];
    let worker = rig.worker_of(origins, FetchLimits::default(), WorkerOptions::default());
    let begun = Instant::now();
    timeout(Duration::from_mins(1), worker.drain())
        .await
        .expect("an end")
        .unwrap();
    assert!(rig.is_revoked(&key).await);
    let (taken, asked) = (
        begun.elapsed(),
        busy.received_requests().await.unwrap().len(),
    );
    let places = WorkerOptions::default().concurrent;
    // Some of one owner's repositories have to ask for it before the host is asked less often.
    assert!(asked <= 2 * places, "{asked}");
    // A claim that reads what is in front takes seconds for all its turns; this one, milliseconds.
    assert!(taken < PROMISED, "{taken:?}");
    let begun = Instant::now();
    let paused = ["busy.example".to_owned()];
    for _ in 0..20 {
        assert_eq!(
            rig.store
                .claim_except(8, "w", LEASE, &paused)
                .await
                .unwrap(),
            []
        );
    }
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ./test.sh --long"]
async fn a_hundred_thousand_items_of_a_paused_host_hide_nobody() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let database = TestDatabase::new(kind).await;
        many_of_a_paused_host(&database, 100_000).await;
        database.remove().await;
    }
}

/// A git server that lists more branches than one poll takes.
#[tokio::test]
async fn more_references_than_one_poll_takes_are_left_for_the_next() {
    let (_database, rig) = sqlite().await;
    let mut body = Vec::new();
    for n in 0..1_500 {
        body.extend(line(format!("{n:040x} refs/heads/b{n:05}\n").as_bytes()));
    }
    body.extend(b"0000");
    let server = wiremock::MockServer::start().await;
    let answer = wiremock::ResponseTemplate::new(200)
        .set_body_raw(body, "application/x-git-upload-pack-result");
    wiremock::Mock::given(wiremock::matchers::any())
        .respond_with(answer)
        .mount(&server)
        .await;
    let options = GitRemoteOptions {
        name: "docs".to_owned(),
        url: format!("{}/acme/shop.git", server.uri()).parse().unwrap(),
        token: None,
    };
    let fetcher = GitFetcher::new(http_client().unwrap(), FetchLimits::default());
    let remote = GitRemote::new(options, rig.parts(), fetcher).unwrap();
    let polls = [1_000, 500, 0];
    for expected in polls {
        let outcome = remote.poll_once().await.unwrap();
        // The first of these names points to no commit.
        assert!(outcome.events.abs_diff(expected) <= 1, "{outcome:?}");
    }
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

pub(super) async fn end_leases(url: &str) {
    use sqlx::{Connection as _, Executor as _};
    let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
    connection
        .execute("UPDATE work_items SET ready_at = 0 WHERE leased_by IS NOT NULL")
        .await
        .unwrap();
}
