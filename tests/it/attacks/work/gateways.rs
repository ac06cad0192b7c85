//! A gateway whose servers are down, an API that gives no tokens, and repositories that ask to be left alone: none of
//! them delays a leak once it can be read.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;

use rescind::clock::SystemClock;
use rescind::fetch::http_client;
use rescind::github::{AppAuth, Installation, InstallationId};
use rescind::work::Origin;
use serde_json::json;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::slow::{How, Slow};
use super::*;

/// Behavior of a gateway while its servers are down.
#[derive(Clone, Copy)]
enum Down {
    /// Answers with this status.
    Answers(&'static str),
    /// Answers with this body, whatever it is asked for.
    Says(&'static str),
    /// Closes each connection when a request came.
    Closes,
}

/// A gateway in front of a server.
struct Gateway {
    url: String,
    is_up: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Gateway {
    async fn before(server: &str, down: Down) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = server.trim_start_matches("http://").to_owned();
        let is_up = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicUsize::new(0));
        let (up, count, mut tasks) = (Arc::clone(&is_up), Arc::clone(&asked), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let (server, up) = (server.clone(), Arc::clone(&up));
                connections.spawn(async move { pass(stream, &server, &up, down).await.err() });
            }
        });
        Self {
            url,
            is_up,
            asked,
            _tasks: tasks,
        }
    }

    fn come_up(&self) -> Instant {
        self.is_up.store(true, Ordering::Relaxed);
        Instant::now()
    }
}

async fn pass(
    mut client: TcpStream,
    server: &str,
    up: &AtomicBool,
    down: Down,
) -> std::io::Result<()> {
    if up.load(Ordering::Relaxed) {
        let mut server = TcpStream::connect(server).await?;
        let goes_down = async {
            while up.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            passed = tokio::io::copy_bidirectional(&mut client, &mut server) => return passed.map(drop),
            () = goes_down => return Ok(()),
        }
    }
    git::request(&mut client).await?;
    let (status, body) = match down {
        Down::Answers(status) => (status, ""),
        Down::Says(body) => ("200 OK", body),
        Down::Closes => return Ok(()),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/x-git-upload-pack-result\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    client.write_all(answer.as_bytes()).await
}

/// Has a host be down for a while, and checks that everything is read soon after it came up. An item may be tried up to
/// `most_tries` times before the fault is known to be the host's.
async fn outage(gateway: Gateway, origin: Origin, shop: Shop, lasts: Duration, most_tries: i64) {
    let (database, rig) = sqlite().await;
    let (early, item) = rig.leak(&shop).await;
    rig.add_items(&[item]).await;
    for n in 0..4 {
        let item = rig.push_to("git.example", n, Priority::Webhook);
        rig.add_items(&[item]).await;
    }
    let running = Running::start(rig.worker_of([origin], FetchLimits::default(), hasty()));
    until("it is told", async || {
        let work = rig.store.source_work().await.unwrap();
        work.iter().any(|work| work.waits_for.is_some())
    })
    .await;
    sleep(lasts).await;
    let done = "SELECT COUNT(*) FROM work_items WHERE state <> 'waiting'";
    assert_eq!(database.count(done).await, 0);
    let tries = "SELECT MAX(tries - CASE WHEN leased_by IS NULL THEN 0 ELSE 1 END) FROM work_items";
    assert!(database.count(tries).await <= most_tries, "no try counts");
    let (late, item) = rig.leak(&shop).await;
    rig.add_items(&[item]).await;
    let up = gateway.come_up();
    rig.wait_until_revoked(&early).await;
    rig.wait_until_revoked(&late).await;
    assert!(up.elapsed() <= PROMISED, "{:?}", up.elapsed());
    running.stop().await;
    database.remove().await;
}

/// For so long that pauses which double would be longer than what is promised.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_for_a_gateway_is_read_as_soon_as_it_answers() {
    let ways = [
        Down::Answers("502 Bad Gateway"),
        Down::Answers("503 Service Unavailable"),
        Down::Answers("504 Gateway Timeout"),
        Down::Closes,
    ];
    let outages = ways.map(async |down| {
        let shop = Shop::open().await;
        let gateway = Gateway::before(&shop.forge.url(), down).await;
        let origin = origin("git.example", &gateway.url);
        outage(gateway, origin, shop, Duration::from_secs(16), 0).await;
    });
    futures_util::future::join_all(outages).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_for_a_token_is_read_as_soon_as_there_is_one() {
    let api = MockServer::start().await;
    let token = json!({"token": "ghs_x", "expires_at": "2099-01-01T00:00:00Z"});
    let answer = ResponseTemplate::new(201).set_body_json(token);
    Mock::given(any()).respond_with(answer).mount(&api).await;
    let shop = Shop::open().await;
    let gateway = Gateway::before(&api.uri(), Down::Answers("503 Service Unavailable")).await;
    let key = include_str!("../../../../fixtures/github/app_test_key.pem");
    let installation = Installation::new(
        Arc::new(AppAuth::new(1, &key.into()).unwrap()),
        InstallationId::Known(2),
        http_client().unwrap(),
        gateway.url.parse().unwrap(),
        Arc::new(SystemClock),
    );
    let origin = Origin {
        app: Some(Arc::new(installation)),
        ..origin("git.example", &shop.forge.url())
    };
    outage(gateway, origin, shop, Duration::from_secs(6), 0).await;
}

/// An ingress without its servers, a token without access, a page for people, and noise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_for_a_host_that_gave_nothing_to_read_is_read_as_soon_as_it_does() {
    let ways = [
        (Down::Answers("404 Not Found"), 0),
        (Down::Answers("401 Unauthorized"), 0),
        (Down::Answers("403 Forbidden"), 1),
        (Down::Says("<html><body>We are back soon.</body></html>"), 1),
        (Down::Says("\x01\x02\x03\x04 no git"), 1),
    ];
    let outages = ways.map(async |(down, most_tries)| {
        let shop = Shop::open().await;
        let gateway = Gateway::before(&shop.forge.url(), down).await;
        let origin = origin("git.example", &gateway.url);
        outage(gateway, origin, shop, Duration::from_secs(16), most_tries).await;
    });
    futures_util::future::join_all(outages).await;
}

/// Like a status of 500, in other words: as long as nobody is answered, none of it counts as a try.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_in_trouble_costs_no_tries_however_it_says_so() {
    let ways = [
        Down::Answers("500 Internal Server Error"),
        Down::Answers("408 Request Timeout"),
        Down::Answers("423 Locked"),
        Down::Says("0021ERR internal API unreachable\n0000"),
        Down::Says("000dpackfile\n001b\x03fatal: out of threads\n0000"),
    ];
    let outages = ways.map(async |down| {
        let (database, rig) = sqlite().await;
        let shop = Shop::open().await;
        let gateway = Gateway::before(&shop.forge.url(), down).await;
        let items: Vec<_> = (0..7)
            .map(|n| rig.push_to("git.example", n, Priority::Webhook))
            .collect();
        rig.add_items(&items).await;
        let origins = [origin("git.example", &gateway.url)];
        let running = Running::start(rig.worker_of(origins, FetchLimits::default(), hasty()));
        // One of them was tried twice before, at least.
        until("they are tried", async || {
            gateway.asked.load(Ordering::Relaxed) > 2 * items.len()
        })
        .await;
        let tries =
            "SELECT MAX(tries - CASE WHEN leased_by IS NULL THEN 0 ELSE 1 END) FROM work_items";
        assert!(database.count(tries).await <= 1);
        running.stop().await;
        database.remove().await;
    });
    futures_util::future::join_all(outages).await;
}

/// For a moment only, of a host that was well until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_is_denied_for_a_moment_is_read() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let gateway = Gateway::before(&shop.forge.url(), Down::Answers("404 Not Found")).await;
    gateway.come_up();
    let origins = [origin("git.example", &gateway.url)];
    let running = Running::start(rig.worker_of(origins, FetchLimits::default(), hasty()));
    let (first, item) = rig.leak(&shop).await;
    rig.add_items(&[item]).await;
    rig.wait_until_revoked(&first).await;
    gateway.is_up.store(false, Ordering::Relaxed);
    // No connection is left over from before.
    sleep(Duration::from_millis(500)).await;
    let (key, item) = rig.leak(&shop).await;
    rig.add_items(&[item]).await;
    until("it is denied", async || {
        let denied = "SELECT COUNT(*) FROM work_items WHERE denials > 0";
        database.count(denied).await == 1
    })
    .await;
    gateway.come_up();
    rig.wait_until_revoked(&key).await;
    running.stop().await;
    database.remove().await;
}

/// Starts a server that asks everybody to wait for so many seconds.
async fn asking_for(seconds: &str) -> MockServer {
    let server = MockServer::start().await;
    let slower = ResponseTemplate::new(429).insert_header("retry-after", seconds);
    let mock = Mock::given(any()).respond_with(slower);
    mock.mount(&server).await;
    server
}

/// Returns a push to a repository on this server.
fn push_at(server: &MockServer, rig: &Rig, repository: String, n: usize) -> NewWorkItem {
    NewWorkItem {
        clone_url: Some(format!("{}/{repository}.git", server.uri())),
        repository,
        ..rig.push_to("git.example", n, Priority::Webhook)
    }
}

/// A day, which is as long as anybody may ask for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_some_repositories_ask_for_pauses_no_other_of_their_host() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let hostile = asking_for("86400").await;
    let pushes = (0..8).map(|n| push_at(&hostile, &rig, format!("mallory/app-{n}"), n));
    rig.add_items(&pushes.collect::<Vec<_>>()).await;
    let origins = [origin("git.example", &shop.forge.url())];
    let running = Running::start(rig.worker_of(origins, FetchLimits::default(), hasty()));
    let asked = async || hostile.received_requests().await.unwrap().len();
    until("they all ask for it", async || asked().await == 8).await;
    let (key, tiny) = rig.leak(&shop).await;
    rig.add_items(&[tiny]).await;
    rig.wait_until_revoked(&key).await;
    assert_eq!(asked().await, 8, "they are left alone");
    let tries = "SELECT MAX(tries) FROM work_items WHERE state = 'waiting'";
    assert_eq!(database.count(tries).await, 0);
    running.stop().await;
    database.remove().await;
}

/// Each of an owner of its own, at a host that nobody else was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_answer_as_a_gateway_does_do_not_hold_a_quiet_host() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let broken = Slow::start(How::Broken).await;
    let pushes: Vec<_> = (0..40)
        .map(|n| broken.push(&rig, "git.example", n))
        .collect();
    rig.add_items(&pushes).await;
    let origins = [origin("git.example", &shop.forge.url())];
    let running = Running::start(rig.worker_of(origins, FetchLimits::default(), hasty()));
    until("they are asked", async || broken.asked() >= 8).await;
    let tries = "SELECT MAX(tries - CASE WHEN leased_by IS NULL THEN 0 ELSE 1 END) FROM work_items
        WHERE state = 'waiting'";
    assert_eq!(database.count(tries).await, 0, "no try counts");
    let (key, tiny) = rig.leak(&shop).await;
    rig.add_items(&[tiny]).await;
    rig.wait_until_revoked(&key).await;
    // From now on their host answers others, so that the fault may be theirs. None was tried twice since.
    assert!(database.count(tries).await <= 1);
    running.stop().await;
    database.remove().await;
}

/// Whatever else they answer: what they have in common with the quiet one is the host alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_answer_as_a_host_in_trouble_does_do_not_hold_a_quiet_host() {
    for status in [401, 403, 404, 429, 503] {
        let (database, rig) = sqlite().await;
        let shop = Shop::open().await;
        let hostile = MockServer::start().await;
        let answer = ResponseTemplate::new(status).insert_header("retry-after", "60");
        Mock::given(any())
            .respond_with(answer)
            .mount(&hostile)
            .await;
        let pushes = (0..40).map(|n| push_at(&hostile, &rig, format!("mallory-{n}/app"), n));
        rig.add_items(&pushes.collect::<Vec<_>>()).await;
        let origins = [origin("git.example", &shop.forge.url())];
        let running = Running::start(rig.worker_of(origins, FetchLimits::default(), hasty()));
        let asked = async || hostile.received_requests().await.unwrap().len();
        until("they are asked", async || asked().await >= 8).await;
        let (key, tiny) = rig.leak(&shop).await;
        rig.add_items(&[tiny]).await;
        rig.wait_until_revoked(&key).await;
        running.stop().await;
        database.remove().await;
    }
}

/// A host that denies them does so at once, so they are asked for one after the other, and not one every two seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_owners_whose_repositories_are_gone_do_not_hold_a_quiet_host() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let hostile = MockServer::start().await;
    Mock::given(any())
        .respond_with(ResponseTemplate::new(404))
        .mount(&hostile)
        .await;
    let pushes = |range: std::ops::Range<usize>| {
        let pushes = range.map(|n| push_at(&hostile, &rig, format!("mallory-{n}/app"), n));
        pushes.collect::<Vec<_>>()
    };
    rig.add_items(&pushes(0..150)).await;
    let origins = [origin("git.example", &shop.forge.url())];
    let running = Running::start(rig.worker_of(origins, FetchLimits::default(), hasty()));
    let asked = async || hostile.received_requests().await.unwrap().len();
    until("they are asked", async || asked().await >= 8).await;
    // Neither the newest nor the one that has waited the longest.
    let (key, tiny) = rig.leak(&shop).await;
    rig.add_items(&[tiny]).await;
    rig.add_items(&pushes(150..300)).await;
    rig.wait_until_revoked(&key).await;
    running.stop().await;
    database.remove().await;
}

/// For so long that a pause that doubles is longer than what is promised.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_go_on_asking_for_time_do_not_hold_a_quiet_host() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let hostile = asking_for("60").await;
    let pushes = (0..100).map(|n| push_at(&hostile, &rig, format!("mallory-{n}/app"), n));
    rig.add_items(&pushes.collect::<Vec<_>>()).await;
    let origins = [origin("git.example", &shop.forge.url())];
    let running = Running::start(rig.worker_of(origins, FetchLimits::default(), hasty()));
    let asked = async || hostile.received_requests().await.unwrap();
    until("they ask for it", async || asked().await.len() >= 8).await;
    sleep(Duration::from_secs(10)).await;
    let (key, tiny) = rig.leak(&shop).await;
    rig.add_items(&[tiny]).await;
    // Each place for once, and then one every two seconds and two at the end of each pause.
    let meanwhile = asked().await.len();
    assert!(meanwhile <= 12 + 16, "{meanwhile}");
    rig.wait_until_revoked(&key).await;
    let asked: Vec<String> = asked()
        .await
        .iter()
        .map(|request| request.url.path().to_owned())
        .collect();
    let different: HashSet<&String> = asked.iter().collect();
    assert_eq!(different.len(), asked.len(), "none is asked again");
    running.stop().await;
    database.remove().await;
}

/// Again and again, as soon as they may be asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repositories_that_ask_for_no_time_at_all_are_left_alone_ever_longer() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let hostile = asking_for("0").await;
    let pushes = (0..12).map(|n| push_at(&hostile, &rig, format!("mallory-{n}/app"), n));
    rig.add_items(&pushes.collect::<Vec<_>>()).await;
    let origins = [origin("git.example", &shop.forge.url())];
    let running = Running::start(rig.worker_of(origins, FetchLimits::default(), hasty()));
    let asked = async || hostile.received_requests().await.unwrap().len();
    until("they all ask for it", async || asked().await >= 12).await;
    let (key, tiny) = rig.leak(&shop).await;
    rig.add_items(&[tiny]).await;
    rig.wait_until_revoked(&key).await;
    sleep(Duration::from_secs(5)).await;
    // After 1, 3, 7 and 15 seconds at the earliest, however slow this machine is.
    assert!(asked().await <= 12 * 5, "{}", asked().await);
    running.stop().await;
    database.remove().await;
}
