//! Servers that send a byte now and then, and large pushes beside small ones.

use super::*;

/// A server that answers each request for a pack with some bytes at once, and then with one more now and then.
pub(in crate::attacks) struct Dripping {
    pub(in crate::attacks) url: String,
    asked: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Dripping {
    pub(in crate::attacks) async fn start(at_once: usize) -> Self {
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

    pub(in crate::attacks) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Returns the number of responses that are being read.
    pub(in crate::attacks) fn open(&self) -> usize {
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
