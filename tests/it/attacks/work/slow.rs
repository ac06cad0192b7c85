//! Servers that take long: for the answer, for the pack, or for its bytes. Each may, but only for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rescind::fetch::{FetchLimits, http_client};
use rescind::store::{Key, NewWorkItem, Priority};
use rescind::work::WorkerOptions;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Running, entry, hasty, line, sqlite, until};
use crate::source::Rig;
use crate::source::work::{Shop, noise, origin};
use crate::support::git;
use crate::support::http::Ask as _;

pub(super) const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-git-upload-pack-result\r\n\
    connection: close\r\n\r\n";

/// Response of a server to a request.
#[derive(Clone)]
pub(super) enum How {
    /// Nothing.
    Silent,
    /// A server error.
    Broken,
    /// Endless progress messages about packing.
    Packs,
    /// This many bytes at once, and then this many per second without end.
    Sends(usize, usize),
    /// Like `Sends`, for a valid pack: one blob after another, for minutes.
    Streams(usize, usize),
    /// The pack of the healthy server at this URL, passed on after this delay and at this many bytes per second.
    Passes(String, Duration, usize),
    /// These bytes, after this delay.
    Answers(Arc<[u8]>, Duration),
    /// The first pack of the healthy server at this URL, and then nothing.
    PassesOne(String),
}

/// A slow server.
pub(super) struct Slow {
    pub(super) url: String,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Slow {
    pub(super) async fn start(how: How) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (how, count) = (how.clone(), Arc::clone(&count));
                connections.spawn(async move { answer(stream, how, &count).await.err() });
            }
        });
        Self {
            url,
            asked,
            _tasks: tasks,
        }
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// A push that is fetched from here, whatever its host is.
    pub(super) fn push(&self, rig: &Rig, host: &str, n: usize) -> NewWorkItem {
        self.push_of(rig, host, &format!("mallory-{n}/shop"), n)
    }

    /// Like `push`, to this repository.
    pub(super) fn push_of(&self, rig: &Rig, host: &str, repository: &str, n: usize) -> NewWorkItem {
        NewWorkItem {
            clone_url: Some(format!("{}/{repository}.git", self.url)),
            repository: repository.to_owned(),
            ..rig.push_to(host, n, Priority::Webhook)
        }
    }
}

async fn answer(mut stream: TcpStream, how: How, asked: &AtomicUsize) -> std::io::Result<()> {
    let Some(request) = git::request(&mut stream).await? else {
        return Ok(());
    };
    let before = asked.fetch_add(1, Ordering::Relaxed);
    match how {
        How::PassesOne(good) if before == 0 => {
            pass_on(stream, &request, &good, Duration::ZERO, 10 << 20).await
        }
        How::Silent | How::PassesOne(_) => std::future::pending().await,
        How::Broken => {
            let broken =
                b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(broken).await
        }
        How::Packs => {
            stream.write_all(HEAD).await?;
            stream.write_all(&line(b"packfile\n")).await?;
            loop {
                alive(&mut stream, Duration::from_secs(1)).await?;
            }
        }
        How::Sends(at_once, rate) => {
            stream.write_all(HEAD).await?;
            stream.write_all(&line(b"packfile\n")).await?;
            for _ in 0..at_once / 60_000 {
                stream.write_all(&line(&vec![1; 60_000])).await?;
            }
            let piece = line(&vec![1; rate / 10]);
            loop {
                stream.write_all(&piece).await?;
                sleep(Duration::from_millis(100)).await;
            }
        }
        How::Streams(at_once, rate) => {
            stream.write_all(HEAD).await?;
            stream.write_all(&line(b"packfile\n")).await?;
            stream
                .write_all(&line(b"\x01PACK\0\0\0\x02\0\x10\0\0"))
                .await?;
            let mut piece = vec![1];
            entry(&mut piece, 3, &noise(7, 58_000));
            let piece = line(&piece);
            for _ in 0..at_once / piece.len() {
                stream.write_all(&piece).await?;
            }
            let each = Duration::from_millis((piece.len() * 1_000 / rate) as u64);
            loop {
                stream.write_all(&piece).await?;
                sleep(each).await;
            }
        }
        How::Passes(good, after, rate) => pass_on(stream, &request, &good, after, rate).await,
        How::Answers(bytes, after) => {
            sleep(after).await;
            stream.write_all(HEAD).await?;
            stream.write_all(&bytes).await
        }
    }
}

/// Says that it is still there, as git does while it puts a pack together.
async fn alive(stream: &mut TcpStream, long: Duration) -> std::io::Result<()> {
    for _ in 0..long.as_millis() / 100 {
        stream.write_all(b"0005\x01").await?;
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

pub(super) async fn pass_on(
    mut stream: TcpStream,
    request: &[u8],
    good: &str,
    after: Duration,
    rate: usize,
) -> std::io::Result<()> {
    let body = request.windows(4).position(|at| at == b"\r\n\r\n").unwrap() + 4;
    let asked = http_client()
        .unwrap()
        .post(format!("{good}/acme/shop.git/git-upload-pack"))
        .header("git-protocol", "version=2")
        .header("content-type", "application/x-git-upload-pack-request")
        .body(request[body..].to_vec());
    let whole = asked.ask().await.unwrap().bytes().await.unwrap();
    let begin = b"packfile\n";
    let pack = whole.windows(begin.len()).position(|at| at == begin);
    let pack = pack.map_or(whole.len(), |at| at + begin.len());
    stream.write_all(HEAD).await?;
    stream.write_all(&whole[..pack]).await?;
    alive(&mut stream, after).await?;
    for piece in whole[pack..].chunks(rate / 10) {
        stream.write_all(piece).await?;
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

impl Rig {
    /// A push of a key in a file of this size.
    async fn large_leak(&self, shop: &Shop, seed: u32, size: usize) -> (Key, NewWorkItem) {
        let (key, value) = self.issue(false).await;
        let mut contents = noise(seed, size);
        contents.extend_from_slice(format!("\n{}\n", value.expose()).as_bytes());
        let pushed = shop.push(&[(&format!("large-{seed}"), contents)]);
        let item = NewWorkItem {
            repository_id: format!("large-{seed}"),
            priority: Priority::Webhook,
            ..self.item(&pushed)
        };
        (key, item)
    }
}

/// Pushes of others to the same host that fail, or take as long as they like, are no fault of its other repositories.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_repositories_do_not_hold_up_others_of_their_host() {
    for how in [How::Broken, How::Silent, How::Packs] {
        let (_database, rig) = sqlite().await;
        let shop = Shop::open().await;
        let slow = Slow::start(how).await;
        let origins = [origin("git.example", &shop.forge.url())];
        let worker = rig.worker_of(origins, FetchLimits::default(), hasty());
        // More than there are places.
        let hostile: Vec<_> = (0..12).map(|n| slow.push(&rig, "git.example", n)).collect();
        rig.add_items(&hostile).await;
        let running = Running::start(worker);
        until("they are asked for", async || slow.asked() >= 6).await;
        for _ in 0..2 {
            let (key, tiny) = rig.leak(&shop).await;
            rig.add_items(&[tiny]).await;
            rig.wait_until_revoked(&key).await;
        }
        let counts = rig.counts().await;
        assert_eq!(counts.dead, 0, "they are tried again");
        running.stop().await;
    }
}

/// Fast enough for one place, but not for the only one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_large_pushes_do_not_hold_up_a_fast_one_of_another_host() {
    let (_database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let slow = Slow::start(How::Sends(10 << 20, 300 << 10)).await;
    let origins = [
        origin("git.example", &shop.forge.url()),
        origin("slow.example", &slow.url),
    ];
    let worker = rig.worker_of(origins, FetchLimits::default(), hasty());
    let hostile: Vec<_> = (0..3).map(|n| slow.push(&rig, "slow.example", n)).collect();
    rig.add_items(&hostile).await;
    let (key, large) = rig.large_leak(&shop, 1, 5 << 20).await;
    let running = Running::start(worker);
    until("they are all asked for", async || slow.asked() >= 3).await;
    sleep(Duration::from_secs(1)).await;
    rig.add_items(&[large]).await;
    rig.wait_until_revoked(&key).await;
    assert_eq!(rig.counts().await.dead, 0);
    running.stop().await;
}

/// Nothing is lost by being slow: it is read beside others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_servers_are_read_to_the_end_all_the_same() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let packs = How::Passes(shop.forge.url(), Duration::from_secs(3), 8 << 20);
    let sends = How::Passes(shop.forge.url(), Duration::ZERO, 600 << 10);
    let (packs, sends) = (Slow::start(packs).await, Slow::start(sends).await);
    let origins = [
        origin("git.example", &shop.forge.url()),
        origin("packs.example", &packs.url),
        origin("sends.example", &sends.url),
    ];
    let limits = FetchLimits {
        window: Duration::from_secs(1),
        ..FetchLimits::default()
    };
    let worker = rig.worker_of(origins, limits, WorkerOptions::default());
    let mut keys = Vec::new();
    for seed in 1..=4 {
        let host = ["packs.example", "sends.example"][seed as usize % 2];
        let (key, item) = rig.large_leak(&shop, seed, 3 << 20).await;
        let host = host.to_owned();
        rig.add_items(&[NewWorkItem { host, ..item }]).await;
        keys.push(key);
    }
    timeout(Duration::from_mins(2), worker.drain())
        .await
        .expect("an end")
        .unwrap();
    for key in &keys {
        assert!(rig.is_revoked(key).await);
    }
    assert_eq!(rig.counts().await.done, 4);
    // Pushes that take longer than a window to pack continued among the slow ones, without a try.
    let tries = "SELECT MAX(tries) FROM work_items";
    assert_eq!(database.count(tries).await, 1);
    let moved = "SELECT COUNT(*) FROM work_items WHERE lane = 1";
    assert!(database.count(moved).await >= 2);
}

/// A host that takes equally long for everything is not slow because many of its pushes come at once.
#[tokio::test(flavor = "multi_thread")]
async fn many_pushes_of_a_host_that_is_evenly_slow_do_not_give_way_to_one_another() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let (key, value) = rig.issue(false).await;
    let pushed = shop.push(&[("key", value.expose().as_bytes().to_vec())]);
    let ask = [
        line(b"command=fetch\n"),
        b"0001".to_vec(),
        line(format!("want {}\n", pushed.after).as_bytes()),
        line(format!("have {}\n", pushed.before).as_bytes()),
        line(b"done\n"),
        b"0000".to_vec(),
    ];
    let url = format!("{}/acme/shop.git/git-upload-pack", shop.forge.url());
    let asked = http_client()
        .unwrap()
        .post(url)
        .header("git-protocol", "version=2")
        .header("content-type", "application/x-git-upload-pack-request")
        .body(ask.concat());
    let answer = asked.ask().await.unwrap().bytes().await.unwrap();
    let answer = How::Answers(Arc::from(&answer[..]), Duration::from_secs(2));
    let even = Slow::start(answer).await;
    let worker = rig.worker_of(
        [origin("git.example", &even.url)],
        FetchLimits::default(),
        WorkerOptions::default(),
    );
    let items = (0..30).map(|n| NewWorkItem {
        before: pushed.before.to_string(),
        after: pushed.after.to_string(),
        ..even.push(&rig, "git.example", n)
    });
    rig.add_items(&items.collect::<Vec<_>>()).await;
    let begun = tokio::time::Instant::now();
    worker.drain().await.unwrap();
    eprintln!("30 pushes, 2 s for each answer: {:?}", begun.elapsed());
    assert!(rig.is_revoked(&key).await);
    assert_eq!(rig.counts().await.done, 30);
    let left = "SELECT COUNT(*) FROM work_items WHERE lane <> 0";
    assert_eq!(database.count(left).await, 0);
    database.remove().await;
}
