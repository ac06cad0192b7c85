//! Attempts to have Rescind send requests to where somebody from outside wants them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rescind::fetch::{
    FetchError, FetchLimits, GitFetcher, Guard, ObjectId, RangeRequest, Token, TokenUser,
    guarded_client, http_client,
};
use rescind::forge::Forge;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::api::harness;
use crate::cli::Binary;
use crate::serve::Daemon;
use crate::support::eventually::eventually;
use crate::support::http::Ask as _;
use crate::webhooks::sender::{SECRET, headers};

/// Something inside the operator's network that must not be asked.
struct Inside {
    port: u16,
    connections: Arc<AtomicUsize>,
    _task: tokio::task::JoinSet<()>,
}

impl Inside {
    /// Counts connections, reads a request, and answers it with this.
    async fn start(answer: impl Fn(u16) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let answer = answer(port);
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 8192]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self {
            port,
            connections,
            _task: task,
        }
    }

    async fn silent() -> Self {
        Self::start(|_| gone()).await
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn gone() -> String {
    "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
}

fn moved(to: &str) -> String {
    format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
}

fn range(clone_url: &str) -> RangeRequest {
    RangeRequest {
        clone_url: clone_url.parse().expect("a URL"),
        token: Some(Token::new(TokenUser::Itself, "a token".into())),
        reference: "refs/heads/main".to_owned(),
        before: ObjectId::null(gix_hash::Kind::Sha1),
        after: ObjectId::from_hex(&[b'a'; 40]).expect("an id"),
        others: Vec::new(),
        haves: Vec::new(),
        is_sampled: false,
    }
}

fn fetcher(guard: &Guard) -> GitFetcher {
    let client = guarded_client(guard).expect("an HTTP client");
    let limits = FetchLimits {
        stall: Duration::from_secs(10),
        ..FetchLimits::default()
    };
    GitFetcher::new(client, limits).guarded_by(guard.clone())
}

#[tokio::test]
async fn neither_names_nor_addresses_lead_inside_unless_the_operator_named_them() {
    let inside = Inside::silent().await;
    let port = inside.port;
    let ways_in = [
        format!("http://localhost:{port}"),
        format!("http://localhost.:{port}"),
        format!("http://127.0.0.1:{port}"),
        format!("http://127.1:{port}"),
        format!("http://2130706433:{port}"),
        format!("http://0x7f000001:{port}"),
        format!("http://0177.0.0.1:{port}"),
        format!("http://0.0.0.0:{port}"),
        format!("http://[::ffff:127.0.0.1]:{port}"),
        format!("http://[::1]:{port}"),
        format!("http://[64:ff9b::7f00:1]:{port}"),
    ];
    let elsewhere = "https://git.example".parse().expect("a URL");
    for guard in [Guard::public_only(), Guard::trusting([&elsewhere])] {
        for way in &ways_in {
            let error = fetcher(&guard)
                .fetch(&range(&format!("{way}/acme/app.git")))
                .await;
            let error = error.expect_err("nothing is fetched");
            assert_eq!(inside.connections(), 0, "{way}: {error}");
            let is_refused = matches!(
                error,
                FetchError::NotAdmitted(_) | FetchError::Unreachable(_)
            );
            assert!(is_refused, "{way}: {error}");
        }
    }
    let mut asked = 0;
    for way in [&ways_in[0], &ways_in[2], &ways_in[3]] {
        let guard = Guard::trusting([&way.parse().expect("a URL")]);
        let error = fetcher(&guard)
            .fetch(&range(&format!("{way}/acme/app.git")))
            .await;
        asked += 1;
        assert_eq!(inside.connections(), asked, "{way}: {error:?}");
    }
}

#[tokio::test]
async fn a_redirect_leads_to_no_other_server() {
    let inside = Inside::silent().await;
    let port = inside.port;
    for elsewhere in [
        format!("https://127.0.0.1:{port}/x"),
        format!("http://127.0.0.1:{port}/x"),
        format!("https://localhost:{port}/x"),
        format!("//127.0.0.1:{port}/x"),
        format!("http://user:pass@127.0.0.1:{port}/x"),
        "https://127.0.0.1/x".to_owned(),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        let server = Inside::start(|_| moved(&elsewhere)).await;
        let limits = FetchLimits::default();
        let fetcher = GitFetcher::new(http_client().expect("an HTTP client"), limits);
        let url = format!("http://127.0.0.1:{}/acme/app.git", server.port);
        let error = fetcher.fetch(&range(&url)).await.expect_err("a redirect");
        assert!(
            matches!(error, FetchError::Protocol(_)),
            "{elsewhere}: {error}"
        );
        assert_eq!(
            // The request, and the question what the server speaks.
            (server.connections(), inside.connections()),
            (2, 0),
            "{elsewhere}"
        );
    }
    // To TLS at the same port it is followed: this server answers that with what is no TLS.
    let server = Inside::start(|port| moved(&format!("https://127.0.0.1:{port}/x"))).await;
    let fetcher = GitFetcher::new(
        http_client().expect("an HTTP client"),
        FetchLimits::default(),
    );
    let url = format!("http://127.0.0.1:{}/acme/app.git", server.port);
    let error = fetcher.fetch(&range(&url)).await.expect_err("no TLS");
    assert!(matches!(error, FetchError::Network(_)), "{error}");
    assert_eq!(server.connections(), 2);
}

async fn send(daemon: &Daemon, forge: Forge, id: &str, port: u16) {
    let server = format!("http://127.0.0.1:{port}");
    let payload = json!({
        "ref": "refs/heads/main",
        "before": "883efe034920928c47fe18598c01249d1a9fdabd",
        "after": "7a8f3ac80e2ad2f6842cb86f576d4bfe2c03e300",
        "object_kind": "push", "project_id": 1,
        "project": {"path_with_namespace": "acme/app", "git_http_url": format!("{server}/acme/app.git")},
        "repository": {"id": 1, "full_name": "acme/app", "uuid": "{1}", "clone_url": format!("{server}/acme/app.git"),
            "links": {"html": {"href": format!("{server}/acme/app")}}},
        "push": {"changes": [{"new": {"type": "branch", "name": "main", "target": {"hash": "7a8f3ac80e2ad2f6842cb86f576d4bfe2c03e300"}}}]},
    });
    let event = match forge {
        Forge::GitLab => "Push Hook",
        Forge::Bitbucket => "repo:push",
        Forge::GitHub | Forge::Gitea => "push",
    };
    let body = payload.to_string();
    let mut request = harness::http_client()
        .post(format!(
            "http://{}/webhooks/{}",
            daemon.address,
            forge.name()
        ))
        .header("content-type", "application/json");
    for (name, value) in headers(forge, event, id, body.as_bytes()) {
        request = request.header(name, value);
    }
    let answer = request.body(body).ask().await.expect("an answer");
    assert_eq!(answer.status(), 202, "{forge:?}");
}

#[tokio::test]
async fn a_signed_payload_does_not_choose_what_is_asked() {
    let inside = Inside::silent().await;
    let binary = Binary::new().with("HOOK_SECRET", SECRET);
    let forges = Forge::ALL.map(Forge::name);
    let secrets = forges
        .map(|forge| format!("[webhooks.{forge}]\nsecrets = [{{ env = \"HOOK_SECRET\" }}]\n"));
    binary.write("config.toml", secrets.concat());
    let mut daemon = Daemon::start(&binary, &["serve"]);
    for forge in Forge::ALL {
        send(&daemon, forge, "1", inside.port).await;
        daemon.wait_for("which nobody allowed");
    }
    assert!(daemon.stop().code == Some(0));
    let doctor = binary.run("doctor").stdout;
    assert!(
        doctor.contains("webhooks.gitea.clone_url, or clone_hosts"),
        "{doctor}"
    );
    // Hosts that the operator allows are contacted.
    let host = format!("clone_hosts = [\"http://127.0.0.1:{}\"]\n", inside.port);
    binary.write(
        "config.toml",
        secrets.map(|secrets| secrets + &host).concat(),
    );
    let daemon = Daemon::start(&binary, &["serve"]);
    assert_eq!(inside.connections(), 0);
    send(&daemon, Forge::Gitea, "2", inside.port).await;
    eventually("the allowed host is asked", async || {
        inside.connections() > 0
    })
    .await;
    assert!(binary.run("config show").ok().contains(host.trim()));
}
