//! Git servers whose answers have no end, and come as fast as they can be sent.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use rescind::fetch::{
    FetchError, FetchLimits, GitFetcher, Guard, ObjectId, RangeRequest, guarded_client,
    verbatim_client,
};
use rescind::forge::Forge;
use rescind::sandbox::git_server::{GitServer, Repository};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::work::until;
use crate::api::harness::http_client;
use crate::cli::Binary;
use crate::serve::Daemon;
use crate::support::http::Ask as _;
use crate::webhooks::sender::{SECRET, headers};

/// Promised time from the report of a leak by a healthy source to its revocation: ten seconds on a machine that does
/// nothing else, while this one runs other tests.
const PROMISED: Duration = Duration::from_secs(30);

/// Number of hostile repositories, each of another owner. Without optimization, the parser takes ten seconds instead of
/// half a one for what comes at a stretch.
const OWNERS: usize = if cfg!(debug_assertions) { 8 } else { 20 };

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-git-upload-pack-result\r\n\
    connection: close\r\n";

/// Bytes that a server sends once, and those that it repeats after that.
struct Answer(Vec<u8>, Vec<u8>);

impl Answer {
    /// Interim responses, after which the final one is still to come.
    fn interim() -> Self {
        Self(
            Vec::new(),
            b"HTTP/1.1 102 Processing\r\n\r\n".repeat(10_000),
        )
    }

    /// Progress messages of git, of which a thousand bytes are sent as one.
    fn compressed() -> Self {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(b"000dpackfile\n").unwrap();
        let message = [b"fff0\x02".to_vec(), vec![b'.'; 0xfff0 - 5]].concat();
        gzip.write_all(&message.repeat(20)).unwrap();
        let head = [HEAD, b"content-encoding: gzip\r\n\r\n"].concat();
        Self(head, gzip.finish().unwrap())
    }

    /// An end.
    fn gone() -> Self {
        let gone = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        Self(gone.to_vec(), Vec::new())
    }

    /// Pieces of a byte, each with a head of its own.
    fn pieces() -> Self {
        let first = b"transfer-encoding: chunked\r\n\r\n16\r\n000dpackfile\nfff0\x02....\r\n";
        Self([HEAD, first].concat(), b"1\r\n.\r\n".repeat(50_000))
    }
}

/// A server on threads of its own, so that it goes on whatever becomes of the test's.
struct Endless {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
}

impl Endless {
    fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, sent) = (Arc::default(), Arc::default());
        let server = Self {
            address,
            asked: Arc::clone(&asked),
            sent: Arc::clone(&sent),
        };
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answer = Arc::clone(&answer);
                let (asked, sent) = (Arc::clone(&asked), Arc::clone(&sent));
                std::thread::spawn(move || send(stream, &answer, &asked, &sent));
            }
        });
        server
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Number of bytes that were sent in pieces.
    fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Answers a request until the client hangs up.
fn send(
    mut stream: TcpStream,
    answer: &Answer,
    asked: &AtomicUsize,
    sent: &AtomicUsize,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.ends_with(b"0000") {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..read]);
    }
    asked.fetch_add(1, Ordering::Relaxed);
    stream.write_all(&answer.0)?;
    if answer.1.is_empty() {
        return Ok(());
    }
    loop {
        stream.write_all(&answer.1)?;
        sent.fetch_add(answer.1.len(), Ordering::Relaxed);
    }
}

/// A daemon that is told of pushes to a hostile server and to a healthy one.
struct Scene {
    binary: Binary,
    daemon: Daemon,
    forge: GitServer,
    repository: Repository,
    deliveries: usize,
    _folder: TempDir,
}

impl Scene {
    async fn set(hostile: &Endless) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tasks = TaskTracker::new();
        let forge = GitServer::start(folder.path(), &tasks).await.unwrap();
        let repository = forge.create("acme/app").unwrap();
        repository.write("README", b"An app.").unwrap();
        repository.commit("Begin").unwrap();
        repository.push("main").unwrap();
        let binary = Binary::new().with("HOOK_SECRET", SECRET);
        binary.write(
            "config.toml",
            format!(
                "[webhooks.gitea]\nsecrets = [{{ env = \"HOOK_SECRET\" }}]\nclone_hosts = [\"{}\", \"{}\"]\n",
                forge.url(),
                hostile.url()
            ),
        );
        let daemon = Daemon::start(&binary, &["serve"]);
        Self {
            binary,
            daemon,
            forge,
            repository,
            deliveries: 0,
            _folder: folder,
        }
    }

    async fn deliver(&mut self, payload: &Value) {
        self.deliveries += 1;
        let id = self.deliveries.to_string();
        let body = payload.to_string();
        let mut request =
            http_client().post(format!("http://{}/webhooks/gitea", self.daemon.address));
        for (name, value) in headers(Forge::Gitea, "push", &id, body.as_bytes()) {
            request = request.header(name, value);
        }
        let answer = request.body(body).timeout(PROMISED).ask().await;
        assert_eq!(answer.expect("an answer in time").status(), 202);
    }

    /// Tells of a push to the hostile server.
    async fn announce(&mut self, hostile: &Endless, owner: usize) {
        let name = format!("mallory-{owner}/app");
        let payload = json!({
            "ref": "refs/heads/main", "before": format!("{:040x}", 1), "after": format!("{:040x}", owner + 2),
            "repository": {"id": 1_000 + owner, "full_name": name,
                "clone_url": format!("{}/{name}.git", hostile.url())},
        });
        self.deliver(&payload).await;
    }

    /// Pushes a key to the healthy server, tells of it, and waits until it is revoked.
    async fn leak(&mut self) {
        let key = self.binary.run("keys create --user u --description x").ok();
        self.repository.write("leak.env", key.as_bytes()).unwrap();
        self.repository.commit("Leak").unwrap();
        let pushed = self.repository.push("main").unwrap();
        let payload = json!({
            "ref": pushed.reference, "before": pushed.before.to_string(), "after": pushed.after.to_string(),
            "repository": {"id": 7, "full_name": "acme/app", "clone_url": format!("{}/acme/app.git", self.forge.url())},
        });
        let revoked = async {
            self.deliver(&payload).await;
            let check = ["keys", "check", "--json"];
            while !self
                .binary
                .run_with(check, &key)
                .stdout
                .contains("\"revoked\"")
            {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        timeout(PROMISED, revoked).await.expect("revoked in time");
    }

    async fn is_up(&self) {
        let healthz = http_client().get(format!("http://{}/healthz", self.daemon.address));
        let answer = healthz.timeout(PROMISED).ask().await;
        assert_eq!(answer.expect("an answer in time").status(), 200);
    }
}

async fn others_go_on(answer: Answer) {
    let hostile = Endless::start(answer);
    let mut scene = Scene::set(&hostile).await;
    for owner in 0..OWNERS {
        scene.announce(&hostile, owner).await;
    }
    until("many are asked for", async || hostile.asked() >= OWNERS / 2).await;
    for _ in 0..3 {
        scene.leak().await;
        scene.is_up().await;
    }
}

/// The attack as it is met: pushes of many owners, which the same server answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_interim_answers_hold_up_nobody_else() {
    others_go_on(Answer::interim()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_pieces_of_a_byte_hold_up_nobody_else() {
    others_go_on(Answer::pieces()).await;
}

fn range(server: &Endless, owner: usize) -> RangeRequest {
    RangeRequest {
        clone_url: format!("{}/mallory-{owner}/app.git", server.url())
            .parse()
            .unwrap(),
        token: None,
        reference: "refs/heads/main".to_owned(),
        before: ObjectId::null(gix_hash::Kind::Sha1),
        after: ObjectId::from_hex(&[b'a'; 40]).unwrap(),
        others: Vec::new(),
        haves: Vec::new(),
        is_sampled: false,
    }
}

/// Returns the number of bytes that a hostile server sends to this thread while a healthy one answers.
async fn sent_meanwhile(answer: Answer, fetcher: GitFetcher) -> usize {
    let (hostile, healthy) = (Endless::start(answer), Endless::start(Answer::gone()));
    let mut in_flight = tokio::task::JoinSet::new();
    for owner in 0..4 {
        let (fetcher, range) = (fetcher.clone(), range(&hostile, owner));
        in_flight.spawn(async move { fetcher.fetch(&range).await });
    }
    until("all are asked for", async || hostile.asked() == 4).await;
    let before = hostile.sent();
    until("it is sent", async || hostile.sent() > before).await;
    let before = hostile.sent();
    let answered = fetcher.fetch(&range(&healthy, 0)).await;
    assert!(
        matches!(answered, Err(FetchError::Gone { .. })),
        "{answered:?}"
    );
    let ended = in_flight.try_join_next();
    assert!(ended.is_none(), "they still come: {ended:?}");
    hostile.sent() - before
}

/// The parser reads on for as long as there are more of them, 50 MB of each connection, before anything else is done on
/// its thread.
#[tokio::test]
async fn interim_answers_are_not_parsed_on_the_threads_of_others() {
    let client = guarded_client(&Guard::operator()).unwrap();
    let fetcher = GitFetcher::new(client, FetchLimits::default());
    let sent = sent_meanwhile(Answer::interim(), fetcher).await;
    assert!(sent < 100 << 20, "{sent}");
}

#[tokio::test]
async fn a_compressed_pack_is_refused() {
    let hostile = Endless::start(Answer::compressed());
    let client = verbatim_client(&Guard::operator()).unwrap();
    let fetcher = GitFetcher::new(client, FetchLimits::default());
    let error = fetcher
        .fetch(&range(&hostile, 0))
        .await
        .expect_err("refused");
    assert!(
        matches!(error, FetchError::Protocol(why) if why.contains("compressed")),
        "{error}"
    );
}

/// Over HTTP/2, interim responses are kept until somebody takes them, as many as come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_is_not_offered() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let hello = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // A record of TLS: its type, version and length, and as many bytes.
        let mut head = [0; 5];
        stream.read_exact(&mut head).unwrap();
        let mut record = vec![0; u16::from_be_bytes([head[3], head[4]]).into()];
        stream.read_exact(&mut record).unwrap();
        record
    });
    let answer = rescind::fetch::http_client().unwrap().get(url).ask().await;
    assert!(answer.is_err());
    let hello = hello.join().unwrap();
    // The list of protocols (RFC 7301 section 3.1), with its length.
    let only = b"\x00\x09\x08http/1.1";
    assert!(hello.windows(only.len()).any(|part| part == only));
}
