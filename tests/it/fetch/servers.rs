//! Servers that refuse, stall, cut the connection, or send what is no pack.

use std::sync::Arc;
use std::time::Duration;

use rescind::fetch::{FetchError, FetchLimits, FetchedPack, ObjectId, Token};
use rescind::forge::Forge;
use rescind::sandbox::git_server::Pushed;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use super::{fetcher, limits, range};
use crate::support::git;

/// Behavior of a server after it has read the request and sent its answer.
#[derive(Clone)]
enum Then {
    Close,
    Hold,
    /// Sends these bytes over and over, with a pause in between.
    Drip(&'static [u8]),
}

struct Server {
    url: String,
    seen: Arc<std::sync::Mutex<Vec<String>>>,
    _tasks: tokio::task::JoinSet<()>,
}

/// Answers every connection with `answer` and then does `then`.
async fn serve(answer: Vec<u8>, then: Then) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    let log = Arc::clone(&seen);
    tasks.spawn(async move {
        let connections = TaskTracker::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (answer, then, log) = (answer.clone(), then.clone(), Arc::clone(&log));
            connections.spawn(async move {
                let _ = connection(stream, &answer, then, &log).await;
            });
        }
    });
    Server {
        url,
        seen,
        _tasks: tasks,
    }
}

async fn connection(
    mut stream: TcpStream,
    answer: &[u8],
    then: Then,
    log: &std::sync::Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let Some(request) = git::request(&mut stream).await? else {
        return Ok(());
    };
    log.lock()
        .unwrap()
        .push(String::from_utf8_lossy(&request).into_owned());
    stream.write_all(answer).await?;
    match then {
        Then::Close => {}
        Then::Hold => std::future::pending().await,
        Then::Drip(bytes) => loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.write_all(bytes).await?;
        },
    }
    Ok(())
}

/// Answers each request with what `answer` makes of its head and body, over the same connection.
async fn serve_each(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
    tasks.spawn(async move {
        let connections = TaskTracker::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
            connections.spawn(async move {
                while let Ok(Some(request)) = git::any_request(&mut stream).await {
                    let said = answer(&request);
                    log.lock().unwrap().push(request);
                    if stream.write_all(&said).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Server {
        url,
        seen,
        _tasks: tasks,
    }
}

fn status(line: &str, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 {line}\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n")
        .into_bytes()
}

fn result(body: &[u8]) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-git-upload-pack-result\r\nconnection: close\r\n";
    [
        format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes(),
        body,
    ]
    .concat()
}

fn endless() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-git-upload-pack-result\r\n\r\n".to_vec()
}

fn line(data: &[u8]) -> Vec<u8> {
    [format!("{:04x}", data.len() + 4).as_bytes(), data].concat()
}

/// An answer with these bytes as its pack.
fn packed(pack: &[u8]) -> Vec<u8> {
    let mut body = line(b"packfile\n");
    for piece in pack.chunks(60_000) {
        body.extend(line(&[&[1], piece].concat()));
    }
    body.extend(b"0000");
    result(&body)
}

fn pushed() -> Pushed {
    let id = |digit: &str| ObjectId::from_hex(digit.repeat(40).as_bytes()).unwrap();
    Pushed {
        reference: "refs/heads/main".to_owned(),
        before: id("1"),
        after: id("2"),
    }
}

async fn fetch_with(server: &Server, limits: FetchLimits) -> Result<FetchedPack, FetchError> {
    fetcher(limits).fetch(&range(&server.url, &pushed())).await
}

async fn error_of(answer: Vec<u8>) -> FetchError {
    let server = serve(answer, Then::Close).await;
    fetch_with(&server, limits()).await.unwrap_err()
}

#[tokio::test]
async fn each_status_is_told_apart() {
    for (answer, expected) in [
        (status("404 Not Found", ""), "gone"),
        (status("410 Gone", ""), "gone"),
        (status("451 Unavailable", ""), "gone"),
        (status("401 Unauthorized", ""), "refuses access (HTTP 401)"),
        (status("403 Forbidden", ""), "refuses access (HTTP 403)"),
        (status("500 Oops", ""), "HTTP 500"),
        (status("502 Oops", ""), "HTTP 502"),
        (status("204 No Content", ""), "HTTP 204"),
        (status("302 Found", ""), "redirects to no valid address"),
        (
            status("302 Found", "location: http://localhost:1/x\r\n"),
            "redirects to another server",
        ),
        (
            status("301 Moved", "location: /acme/shop.git/git-upload-pack\r\n"),
            "redirects too often",
        ),
    ] {
        let error = error_of(answer).await.to_string();
        assert!(
            error.contains(expected),
            "{error} should contain {expected}"
        );
    }
}

#[tokio::test]
async fn waits_are_taken_from_the_answer() {
    let wait = |error| match error {
        FetchError::RateLimited { retry_after, .. } => retry_after,
        other => panic!("not rate-limited: {other}"),
    };
    let seconds = |n| Some(Duration::from_secs(n));
    let told = status("429 Too Many", "retry-after: 17\r\n");
    assert_eq!(wait(error_of(told).await), seconds(17));
    let untold = status("429 Too Many", "");
    assert_eq!(wait(error_of(untold).await), None);
    let secondary = status("403 Forbidden", "retry-after: 60\r\n");
    assert_eq!(wait(error_of(secondary).await), seconds(60));
}

/// A renamed repository, as GitHub answers for it.
#[tokio::test]
async fn a_redirect_on_the_same_host_is_followed_with_the_body() {
    let app = axum::Router::new()
        .route(
            "/acme/shop.git/git-upload-pack",
            axum::routing::post(|| async {
                let to = [("location", "/acme/store.git/git-upload-pack")];
                (axum::http::StatusCode::MOVED_PERMANENTLY, to)
            }),
        )
        .route(
            "/acme/store.git/git-upload-pack",
            axum::routing::post(|body: String| async move {
                let message = line(format!("ERR got {} bytes", body.len()).as_bytes());
                let kind = [("content-type", "application/x-git-upload-pack-result")];
                (kind, message)
            }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    let error = fetcher(limits())
        .fetch(&range(&url, &pushed()))
        .await
        .unwrap_err();
    let FetchError::Refused(message) = error else {
        panic!("not followed: {error}");
    };
    let bytes = message.split(' ').nth(1).unwrap().parse::<usize>().unwrap();
    assert!(bytes > 100, "{message}");
}

/// The target of a repository's redirect says nothing about the repository's host.
#[tokio::test]
async fn only_a_first_connection_that_fails_is_the_hosts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let fetch = async |url: &str| {
        let error = fetcher(limits()).fetch(&range(url, &pushed())).await;
        error.unwrap_err()
    };
    let error = fetch(&format!("http://{address}")).await;
    assert!(matches!(error, FetchError::Unreachable(_)), "{error:?}");
    let app = axum::Router::new().fallback(move |uri: axum::http::Uri| async move {
        let to = [("location", format!("https://{address}{uri}"))];
        (axum::http::StatusCode::MOVED_PERMANENTLY, to)
    });
    let listener = TcpListener::bind(address).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    let error = fetch(&format!("http://{address}")).await;
    assert!(matches!(error, FetchError::Network(_)), "{error:?}");
}

#[tokio::test]
async fn the_token_is_sent_with_the_first_request() {
    let server = serve(status("401 Unauthorized", ""), Then::Close).await;
    let mut request = range(&server.url, &pushed());
    request.token = Some(Token::new(Forge::GitHub.token_user(), "sesame".into()));
    let error = fetcher(limits()).fetch(&request).await.unwrap_err();
    assert!(!format!("{error} {error:?} {request:?}").contains("sesame"));
    let seen = server.seen.lock().unwrap().join("\n").to_lowercase();
    // base64("x-access-token:sesame")
    assert!(
        seen.contains("authorization: basic ec1hy2nlc3mtdg9rzw46c2vzyw1l"),
        "{seen}"
    );
    assert!(seen.contains("git-protocol: version=2"), "{seen}");
}

#[tokio::test]
async fn the_token_is_presented_as_its_forge_wants() {
    // base64 of x-access-token:t, oauth2:t, t:x-oauth-basic, x-token-auth:t
    let expected = [
        "eC1hY2Nlc3MtdG9rZW46dA==",
        "b2F1dGgyOnQ=",
        "dDp4LW9hdXRoLWJhc2lj",
        "eC10b2tlbi1hdXRoOnQ=",
    ];
    for (forge, expected) in Forge::ALL.into_iter().zip(expected) {
        let server = serve(status("401 Unauthorized", ""), Then::Close).await;
        let mut request = range(&server.url, &pushed());
        request.token = Some(Token::new(forge.token_user(), "t".into()));
        fetcher(limits()).fetch(&request).await.unwrap_err();
        let seen = server.seen.lock().unwrap().join("\n");
        assert!(seen.contains(&format!("Basic {expected}")), "{seen}");
    }
}

#[tokio::test]
async fn what_is_no_git_answer_is_named() {
    let html = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 5\r\n\r\nhello";
    let error = error_of(html.to_vec()).await.to_string();
    assert!(error.contains("not from git-upload-pack"), "{error}");
    for body in [
        b"zzzz".as_slice(),
        b"0003",
        b"fff5xxxx",
        b"000ehello\n0000",
        b"000dpackfile\n0006\x09x0000",
    ] {
        let error = error_of(result(body)).await;
        assert!(matches!(error, FetchError::Protocol(_)), "{error}");
    }
}

#[tokio::test]
async fn a_servers_own_error_is_passed_on() {
    let body = [
        line(b"packfile\n"),
        line(b"\x03no space left"),
        b"0000".to_vec(),
    ]
    .concat();
    let error = error_of(result(&body)).await.to_string();
    assert_eq!(error, "the git server reports: no space left");
}

#[tokio::test]
async fn a_server_that_stalls_is_left() {
    let quick = FetchLimits {
        stall: Duration::from_millis(50),
        ..limits()
    };
    for answer in [
        Vec::new(),
        endless(),
        [endless(), line(b"packfile\n")].concat(),
    ] {
        let server = serve(answer, Then::Hold).await;
        let error = fetch_with(&server, quick.clone()).await.unwrap_err();
        assert!(matches!(error, FetchError::Stalled { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_only_keeps_alive_is_left_in_the_end() {
    let quick = FetchLimits {
        total: Duration::from_millis(200),
        ..limits()
    };
    let answer = [endless(), line(b"packfile\n")].concat();
    let server = serve(answer, Then::Drip(b"0005\x02")).await;
    let error = fetch_with(&server, quick).await.unwrap_err();
    assert!(matches!(error, FetchError::TooSlow { .. }), "{error}");
}

#[tokio::test]
async fn a_cut_connection_is_no_short_pack() {
    let whole = packed(&[7; 1000]);
    // Without a whole head it is nobody's answer.
    for keep in [0, 20] {
        let error = error_of(whole[..keep].to_vec()).await;
        assert!(matches!(error, FetchError::Unanswered(_)), "{error}");
    }
    for keep in [whole.len() / 2, whole.len() - 1] {
        let error = error_of(whole[..keep].to_vec()).await;
        assert!(matches!(error, FetchError::Network(_)), "{keep}: {error}");
    }
    // Also when the end of the body is the end of the connection.
    let open_ended = [endless(), line(b"packfile\n"), line(b"\x01PACK")].concat();
    let error = error_of(open_ended).await;
    assert!(matches!(error, FetchError::Network(_)), "{error}");
}

#[tokio::test]
async fn nobody_listening_is_a_network_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = fetcher(limits())
        .fetch(&range(&url, &pushed()))
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn a_damaged_pack_is_named() {
    for (pack, expected) in [
        (b"".as_slice(), "shorter"),
        (b"PACK\0\0\0\x02\0\0\0\x01", "shorter"),
        (&[0; 64], "checksum"),
    ] {
        let error = error_of(packed(pack)).await;
        assert!(matches!(error, FetchError::Corrupt(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn an_endless_answer_ends_at_the_byte_limit() {
    let tight = FetchLimits {
        max_fetch_bytes: 10_000,
        ..limits()
    };
    let noise: &'static [u8] = Box::leak(line(&[1; 5000]).into_boxed_slice());
    let answer = [
        endless(),
        line(b"packfile\n"),
        line(b"\x01PACK\0\0\0\x02\xff\xff\xff\xff"),
    ]
    .concat();
    let server = serve(answer, Then::Drip(noise)).await;
    // The bytes after the header are not an object, which is reported as such.
    let error = fetch_with(&server, tight).await.unwrap_err();
    assert!(matches!(error, FetchError::Corrupt(_)), "{error}");
}

/// Returns the beginning of an answer with more than 512 KiB of references.
fn long_list() -> Vec<u8> {
    let mut answer = endless();
    for n in 0..600 {
        let name = format!("{n:04}{}", "z".repeat(1_000));
        answer.extend(line(
            format!("{:040x} refs/heads/{name}\n", n + 1).as_bytes(),
        ));
    }
    answer
}

#[tokio::test]
async fn a_long_list_that_drips_gives_way_and_is_read_in_the_end() {
    const REFERENCE: &[u8] = b"003f0123456789012345678901234567890123456789 refs/tags/drip";
    let drips = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let ends = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/acme/slow.git", listener.local_addr().unwrap());
    let (dripped, has_to_end) = (Arc::clone(&drips), Arc::clone(&ends));
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        use std::sync::atomic::Ordering::Relaxed;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            git::request(&mut stream).await.unwrap();
            stream.write_all(&long_list()).await.unwrap();
            while !has_to_end.load(Relaxed) && stream.write_all(REFERENCE).await.is_ok() {
                dripped.fetch_add(1, Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let _ = stream.write_all(b"0000").await;
        }
    });
    let limits = FetchLimits {
        rate: 1,
        ..FetchLimits::default()
    };
    let fetcher = fetcher(limits);
    let slow = fetcher.clone();
    let mut slow_task = tokio::task::JoinSet::new();
    slow_task.spawn(async move {
        let url = reqwest::Url::parse(&url).unwrap();
        slow.references_in_turn(&url, None)
            .await
            .map(|(list, _)| list)
    });
    crate::support::eventually::eventually("the slow list is being read", async || {
        drips.load(std::sync::atomic::Ordering::Relaxed) > 20
    })
    .await;
    let fast = serve([long_list(), b"0000".to_vec()].concat(), Then::Close).await;
    let url = reqwest::Url::parse(&format!("{}/acme/fast.git", fast.url)).unwrap();
    let listed = fetcher.references_in_turn(&url, None);
    let listed = tokio::time::timeout(Duration::from_mins(2), listed).await;
    let (listed, place) = listed.expect("the slow list gave way").unwrap();
    // Once before it had the place.
    assert!(fast.seen.lock().unwrap().len() > 1);
    assert_eq!(listed.list.len(), 600);
    assert!(slow_task.try_join_next().is_none());
    drop(place);
    ends.store(true, std::sync::atomic::Ordering::Relaxed);
    let listed = slow_task.join_next().await.unwrap().unwrap().unwrap();
    assert!(listed.list.len() >= 600);
}

/// An answer of this kind, whose length is told.
fn of_kind(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-git-upload-pack-{kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Makes a list of references of exactly `limit` bytes but for the last few, at whose end `wanted` is, and goes on
/// beyond it.
fn filled(mut list: Vec<u8>, wanted: &[u8], limit: usize) -> Vec<u8> {
    let other = |length: usize| {
        let name = "z".repeat(length - 57);
        line(format!("{:040x} refs/heads/{name}\n", 7).as_bytes())
    };
    assert_eq!(other(100).len(), 100);
    // Room for another line behind it, which says that there is no more to it.
    let end = limit - wanted.len() - 64 - 3;
    while end - list.len() > 1_200 {
        list.extend(other(1_000));
    }
    let left = end - list.len();
    list.extend(other(left));
    list.extend(wanted);
    list.extend(other(64));
    assert_eq!(list.len(), limit - 3);
    for _ in 0..600 {
        list.extend(other(1_000));
    }
    list.extend(b"0000");
    list
}

const TIP: &str = "3333333333333333333333333333333333333333";

/// What is received at once ends anywhere: here nearly always beyond the limit.
#[tokio::test]
async fn the_head_of_a_list_that_goes_beyond_the_limit_is_taken_if_it_stands_within() {
    const MAX_LIST: usize = 64 << 10;
    let list = line(format!("{TIP} HEAD symref-target:refs/heads/trunk\n").as_bytes());
    let list = filled(Vec::new(), &list, MAX_LIST);
    let server = serve_each(move |request| {
        if request.contains("command=ls-refs") {
            of_kind("result", &list)
        } else if request.contains("command=fetch") {
            of_kind("result", &line(b"ERR no more of it"))
        } else {
            of_kind(
                "advertisement",
                &[
                    line(b"version 2\n"),
                    line(b"ls-refs\n"),
                    line(b"fetch=shallow\n"),
                    b"0000".to_vec(),
                ]
                .concat(),
            )
        }
    })
    .await;
    let new_branch = Pushed {
        before: ObjectId::from_hex(&[b'0'; 40]).unwrap(),
        ..pushed()
    };
    let error = fetcher(limits())
        .fetch(&range(&server.url, &new_branch))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no more of it"), "{error}");
    let seen = server.seen.lock().unwrap().join("\n");
    assert!(seen.contains(&format!("have {TIP}")), "{seen}");
}

/// A server of version 0 lists everything whenever it is asked.
#[tokio::test]
async fn the_tip_of_a_reference_is_taken_of_a_list_that_goes_beyond_the_limit() {
    const MAX_REFERENCES: usize = 16 << 20;
    let greeting = [
        line(b"# service=git-upload-pack\n"),
        b"0000".to_vec(),
        line(format!("{TIP} HEAD\0symref=HEAD:refs/heads/trunk ofs-delta shallow\n").as_bytes()),
    ]
    .concat();
    let wanted = line(format!("{TIP} refs/heads/main\n").as_bytes());
    let list = filled(greeting, &wanted, MAX_REFERENCES);
    let server = serve_each(move |request| {
        if request.starts_with("GET") {
            of_kind("advertisement", &list)
        } else if request.contains("command=") {
            // It has never heard of version 2.
            of_kind("result", b"")
        } else {
            of_kind("result", &line(b"ERR upload-pack: not our ref"))
        }
    })
    .await;
    let error = fetch_with(&server, limits()).await.unwrap_err();
    let seen = server.seen.lock().unwrap().join("\n");
    assert!(seen.contains(&format!("want {TIP}")), "{error}");
}
