//! Real git servers behind proxies that change what is said, in former versions of the protocol, and repositories of
//! another object format.

use std::fmt::Write as _;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use reqwest::Url;
use rescind::fetch::{
    FetchError, GitFetcher, ObjectId, RangeRequest, RepositoryName, TextKind, http_client,
};
use rescind::sandbox::git_server::{Pushed, Repository};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Place, fetcher, limits, range, shown};

/// Changes that a proxy makes.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// To this content type.
    Kind(&'static str),
    /// To this status and this content encoding.
    Passed(u16, &'static str),
    /// The header that asks for version 2 of the protocol is not passed on.
    NoVersion,
    /// A capability that git 2.27 does not know is answered with nothing.
    Old,
    /// No part of a history is sent, and whoever asks for one is answered with nothing.
    NoParts,
    /// All references are listed, whichever are asked for.
    AllReferences,
    /// A request that names version 2 is answered with a status of 500, but when the server is asked what it speaks.
    FailsAtVersion2,
    /// The header is not passed on, and what is not listed is not given.
    ListedOnly,
}

/// Starts a proxy of the forge and returns its URL. It stops with the tasks.
async fn proxy(place: &Place, change: Change) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new()
        .fallback(pass)
        .with_state((place.forge.url(), change));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, tasks)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the proxy is no part of Rescind, and asks a server of this test"
)]
async fn pass(
    State((base, change)): State<(String, Change)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let asks_for = |text: &str| body.windows(text.len()).any(|at| at == text.as_bytes());
    let is_unknown = match change {
        Change::Old => asks_for("object-format"),
        Change::NoParts => asks_for("deepen"),
        _ => false,
    };
    if is_unknown {
        let kind = "application/x-git-upload-pack-result";
        return ([(header::CONTENT_TYPE, kind)], Body::empty()).into_response();
    }
    let version = headers.get("git-protocol");
    let is_question = method == Method::GET;
    if matches!(change, Change::FailsAtVersion2) && version.is_some() && !is_question {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    if matches!(change, Change::ListedOnly) && !is_question && !asks_for("command=") {
        let greeting = http_client().unwrap().get(format!(
            "{base}/acme/shop.git/info/refs?service=git-upload-pack"
        ));
        let listed = greeting.send().await.unwrap().text().await.unwrap();
        let text = String::from_utf8_lossy(&body);
        let want = text.split_once("want ").map(|(_, rest)| &rest[..40]);
        if let Some(want) = want.filter(|want| !listed.contains(want)) {
            let kind = "application/x-git-upload-pack-result";
            let said = format!("ERR upload-pack: not our ref {want}");
            let said = format!("{:04x}{said}", said.len() + 4);
            return ([(header::CONTENT_TYPE, kind)], said).into_response();
        }
    }
    let body = match change {
        Change::AllReferences => {
            let all = String::from_utf8_lossy(&body).replace("0014ref-prefix HEAD\n", "");
            Bytes::from(all.into_bytes())
        }
        _ => body,
    };
    let client = http_client().unwrap();
    let mut request = client.request(method, format!("{base}{uri}")).body(body);
    let drops = matches!(change, Change::NoVersion | Change::ListedOnly);
    if let (Some(version), false) = (version, drops) {
        request = request.header("git-protocol", version);
    }
    let answer = request.send().await.unwrap();
    let mut kind = answer.headers()[header::CONTENT_TYPE].clone();
    if let Change::Kind(other) = change {
        kind = HeaderValue::from_static(other);
    }
    let mut body = answer.bytes().await.unwrap();
    if let Change::NoParts = change {
        // As long as before.
        let other = String::from_utf8_lossy(&body).replace("fetch=shallow", "fetch=unheard");
        if other.contains("fetch=unheard") {
            body = Bytes::from(other.into_bytes());
        }
    }
    let mut passed = ([(header::CONTENT_TYPE, kind)], Body::from(body)).into_response();
    if let Change::Passed(status, encoding) = change {
        *passed.status_mut() = StatusCode::from_u16(status).unwrap();
        let encoding = HeaderValue::from_static(encoding);
        passed
            .headers_mut()
            .insert(header::CONTENT_ENCODING, encoding);
    }
    passed
}

/// RFC 9110, sections 15.3.4 and 8.4.1.
#[tokio::test]
async fn what_a_proxy_says_of_contents_that_it_passed_on_makes_no_difference() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.write("file.txt", b"contents").unwrap();
    repository.commit("first").unwrap();
    let pushed = repository.push("main").unwrap();
    for (status, encoding) in [(200, "Identity"), (203, "IDENTITY "), (203, "")] {
        let (url, _tasks) = proxy(&place, Change::Passed(status, encoding)).await;
        let fetched = fetcher(limits()).fetch(&range(&url, &pushed)).await;
        assert_eq!(
            shown(fetched.unwrap()).whole().blobs(),
            ["file.txt: contents"]
        );
    }
    for (status, encoding) in [(200, "gzip"), (206, "identity")] {
        let (url, _tasks) = proxy(&place, Change::Passed(status, encoding)).await;
        let fetched = fetcher(limits()).fetch(&range(&url, &pushed)).await;
        assert!(fetched.is_err(), "{status} {encoding}");
    }
}

#[tokio::test]
async fn parameters_and_case_of_the_content_type_make_no_difference() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.write("file.txt", b"contents").unwrap();
    repository.commit("first").unwrap();
    let pushed = repository.push("main").unwrap();
    for kind in [
        "application/x-git-upload-pack-result; charset=utf-8",
        "Application/X-Git-Upload-Pack-Result",
    ] {
        let (url, _tasks) = proxy(&place, Change::Kind(kind)).await;
        let fetched = fetcher(limits())
            .fetch(&range(&url, &pushed))
            .await
            .unwrap();
        assert_eq!(shown(fetched).whole().blobs(), ["file.txt: contents"]);
    }
    let (url, _tasks) = proxy(&place, Change::Kind("text/html")).await;
    let error = fetcher(limits()).fetch(&range(&url, &pushed)).await;
    assert!(matches!(error, Err(FetchError::Protocol(_))));
}

/// Git before 2.28 exits at a capability that it does not know.
#[tokio::test]
async fn a_server_is_asked_for_nothing_that_it_does_not_know() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.write("file.txt", b"contents").unwrap();
    repository.commit("first").unwrap();
    let pushed = repository.push("main").unwrap();
    let (url, _tasks) = proxy(&place, Change::Old).await;
    let fetched = fetcher(limits()).fetch(&range(&url, &pushed)).await;
    let fetched = shown(fetched.unwrap());
    assert_eq!(fetched.whole().blobs(), ["file.txt: contents"]);
}

/// The last commits of a branch that was merged cannot be asked for, so they are left out.
#[tokio::test]
async fn a_server_that_sends_no_part_of_a_history_is_not_asked_for_one() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.write("file.txt", b"contents").unwrap();
    repository.commit("first").unwrap();
    repository.push("main").unwrap();
    let pushed = repository.push("merged").unwrap();
    for (change, is_cut) in [
        (Change::NoParts, true),
        (Change::Passed(200, "identity"), false),
    ] {
        let (url, _tasks) = proxy(&place, change).await;
        let request = RangeRequest {
            is_sampled: true,
            ..range(&url, &pushed)
        };
        let fetched = shown(fetcher(limits()).fetch(&request).await.unwrap());
        assert_eq!(
            (fetched.left_out.cut, fetched.texts.is_empty()),
            (is_cut, is_cut)
        );
    }
}

/// By gitprotocol-v2, the prefixes that a client names are a request only.
#[tokio::test]
async fn the_head_of_a_list_of_all_references_is_enough_for_a_new_branch() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.commit("first").unwrap();
    let first = repository.push("main").unwrap();
    let bare = repository.bare().to_path_buf();
    let mut packed = String::from("# pack-refs with: peeled fully-peeled sorted\n");
    for number in 0..2_000 {
        let _ = writeln!(packed, "{} refs/heads/branch-{number:04}", first.after);
    }
    std::fs::write(bare.join("packed-refs"), packed).unwrap();
    repository.write("file.txt", b"contents").unwrap();
    repository.commit("second").unwrap();
    let pushed = repository.push("topic").unwrap();
    let (url, _tasks) = proxy(&place, Change::AllReferences).await;
    let fetched = fetcher(limits()).fetch(&range(&url, &pushed)).await;
    let fetched = shown(fetched.unwrap());
    assert_eq!(fetched.whole().blobs(), ["file.txt: contents"]);
}

/// Reads all kinds of pushes from a server, and a list.
async fn read_everything(repository: &Repository, url: &str, fetcher: &GitFetcher) {
    let push = |file: &str, branch: &str| {
        repository.write(file, file.as_bytes()).unwrap();
        repository.commit(file).unwrap();
        repository.push(branch).unwrap()
    };
    let read = async |pushed: &Pushed| shown(fetcher.fetch(&range(url, pushed)).await.unwrap());
    let first = push("first", "main");
    assert_eq!(read(&first).await.whole().blobs(), ["first: first"]);
    let second = push("second", "main");
    assert_eq!(read(&second).await.whole().blobs(), ["second: second"]);
    // A new branch, of which the default branch has the rest.
    let topic = push("topic", "topic");
    assert_eq!(read(&topic).await.whole().blobs(), ["topic: topic"]);
    let moved = push("more", "topic");
    assert_eq!(read(&moved).await.whole().blobs(), ["more: more"]);
    let only = Pushed {
        before: first.after,
        ..moved.clone()
    };
    let both = ["more: more", "second: second", "topic: topic"];
    assert_eq!(read(&only).await.whole().blobs(), both);
    // A forced push, and what it dropped.
    repository
        .git(&["reset", "-q", "--hard", "HEAD~1"])
        .unwrap();
    let forced = push("forced", "topic");
    let came = read(&forced).await.whole();
    assert!(came.dropped);
    assert_eq!(came.blobs(), ["forced: forced"]);
    // A commit before that is unknown.
    let unknown = Pushed {
        before: ObjectId::from_hex("b".repeat(forced.after.to_string().len()).as_bytes()).unwrap(),
        ..forced.clone()
    };
    let since_main = ["forced: forced", "topic: topic"];
    assert_eq!(read(&unknown).await.whole().blobs(), since_main);
    // A branch that was merged before it was read, in whole and as a sample.
    repository.push("main").unwrap();
    let merged = repository.push("merged").unwrap();
    assert!(read(&merged).await.texts.is_empty());
    let sampled = RangeRequest {
        is_sampled: true,
        ..range(url, &merged)
    };
    let sampled = shown(fetcher.fetch(&sampled).await.unwrap()).whole();
    assert!(sampled.blobs().contains(&"forced: forced".to_owned()));

    repository.git(&["tag", "-a", "-m", "a tag", "v1"]).unwrap();
    let tag = repository.push_to("v1", "refs/tags/v1").unwrap();
    repository.push_to("HEAD", "refs/pull/7/head").unwrap();
    assert_eq!(read(&tag).await.of(TextKind::Tag).count(), 1);
    let request = range(url, &tag);
    let listed = fetcher.references(&request.clone_url, None).await.unwrap();
    let names = listed.list.iter().map(|(name, id)| (&**name, *id));
    let expected = [
        ("refs/heads/main", forced.after),
        ("refs/heads/merged", forced.after),
        ("refs/heads/topic", forced.after),
        ("refs/tags/v1", tag.after),
    ];
    assert!(names.eq(expected), "{listed:?}");
    assert_eq!(
        (listed.head.as_deref(), listed.malformed),
        (Some("refs/heads/main"), 0)
    );
}

#[tokio::test]
async fn everything_is_read_in_version_0_if_the_header_for_version_2_is_dropped() {
    let place = Place::new().await;
    let repository = place.repository();
    let (url, _tasks) = proxy(&place, Change::NoVersion).await;
    read_everything(&repository, &url, &fetcher(limits())).await;
}

#[tokio::test]
async fn everything_is_read_of_a_repository_of_sha_256() {
    for is_old in [false, true] {
        let place = Place::new().await;
        let repository = place.forge.create_sha256("acme/shop").unwrap();
        if is_old {
            place.forge.speak_version_0();
        }
        let url = place.forge.url();
        read_everything(&repository, &url, &fetcher(limits())).await;
        // A list is the first that is asked for.
        let fetcher = fetcher(limits());
        let clone_url = RepositoryName::parse("acme/shop").unwrap();
        let clone_url = clone_url.clone_url(&Url::parse(&url).unwrap()).unwrap();
        for _ in 0..2 {
            let listed = fetcher.references(&clone_url, None).await.unwrap();
            assert_eq!(listed.list.len(), 4, "{is_old}");
        }
    }
}

#[tokio::test]
async fn a_commit_with_a_name_of_another_length_says_nothing_of_the_repository() {
    for is_old in [false, true] {
        for is_wide in [false, true] {
            let place = Place::new().await;
            let repository = if is_wide {
                place.forge.create_sha256("acme/shop").unwrap()
            } else {
                place.repository()
            };
            if is_old {
                place.forge.speak_version_0();
            }
            let url = place.forge.url();
            let fetcher = fetcher(limits());
            repository.write("a", b"a").unwrap();
            repository.commit("a").unwrap();
            let pushed = repository.push("main").unwrap();
            let digits = if is_wide { 40 } else { 64 };
            let other = |digit: &str| ObjectId::from_hex(digit.repeat(digits).as_bytes()).unwrap();
            for _ in 0..2 {
                let wrong = Pushed {
                    after: other("a"),
                    ..pushed.clone()
                };
                let error = fetcher.fetch(&range(&url, &wrong)).await.unwrap_err();
                let is_named = match error {
                    FetchError::OtherHash { digits: told } => told == digits,
                    // A server of version 0 does not look at the rest of the name.
                    FetchError::CommitGone => is_old && !is_wide,
                    _ => false,
                };
                assert!(is_named, "{is_old} {is_wide}: {error}");
                let odd = Pushed {
                    before: other("b"),
                    ..pushed.clone()
                };
                let read = fetcher.fetch(&range(&url, &odd)).await.unwrap();
                assert_eq!(shown(read).whole().blobs(), ["a: a"], "{is_old} {is_wide}");
            }
        }
    }
}

/// Gogs answers a request of version 2 with a status of 500.
#[tokio::test]
async fn everything_is_read_of_a_server_that_fails_at_version_2() {
    let place = Place::new().await;
    let repository = place.repository();
    place.forge.speak_version_0();
    let (url, _tasks) = proxy(&place, Change::FailsAtVersion2).await;
    read_everything(&repository, &url, &fetcher(limits())).await;
}

#[tokio::test]
async fn what_a_server_speaks_is_asked_once() {
    let place = Place::new().await;
    let repository = place.repository();
    let push = || {
        repository.commit("more").unwrap();
        repository.push("main").unwrap()
    };
    place.forge.speak_version_0();
    push();
    let fetcher = fetcher(limits());
    let mut asked = Vec::new();
    for _ in 0..3 {
        let (pushed, before) = (push(), place.forge.requests());
        let pack = fetcher.fetch(&place.request(&pushed)).await.unwrap();
        assert!(pack.bytes() > 0);
        asked.push(place.forge.requests() - before);
    }
    // The request that is not understood, the question, and the request again.
    assert_eq!(asked, [3, 1, 1]);
    // Another repository of the host.
    let other = place.forge.create("acme/other").unwrap();
    other.commit("first").unwrap();
    other.push("main").unwrap();
    let before = place.forge.requests();
    let url = format!("{}/acme/other.git", place.forge.url());
    let url = Url::parse(&url).unwrap();
    assert_eq!(fetcher.references(&url, None).await.unwrap().list.len(), 1);
    assert_eq!(place.forge.requests() - before, 1);
}

#[tokio::test]
async fn what_is_not_listed_any_more_is_read_with_what_followed_it() {
    let place = Place::new().await;
    let repository = place.repository();
    let push = |file: &str| {
        repository.write(file, file.as_bytes()).unwrap();
        repository.commit(file).unwrap();
        repository.push("main").unwrap()
    };
    push("first");
    let (second, last) = (push("second"), push("third"));
    let (url, _tasks) = proxy(&place, Change::ListedOnly).await;
    let fetcher = fetcher(limits());
    let pack = fetcher.fetch(&range(&url, &second)).await.unwrap();
    let since = ["second: second", "third: third"];
    assert_eq!(shown(pack).whole().blobs(), since);
    let pack = fetcher.fetch(&range(&url, &last)).await.unwrap();
    assert_eq!(shown(pack).whole().blobs(), ["third: third"]);
    // The branch does not lead to it any more.
    repository
        .git(&["reset", "-q", "--hard", "HEAD~2"])
        .unwrap();
    push("fourth");
    let error = fetcher.fetch(&range(&url, &second)).await.unwrap_err();
    assert!(matches!(error, FetchError::CommitGone), "{error}");
}
