//! Real git servers behind proxies that change what is said, and repositories of another object format.

use std::fmt::Write as _;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rescind::fetch::{FetchError, RangeRequest, http_client};
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
    let body = match change {
        Change::AllReferences => {
            let all = String::from_utf8_lossy(&body).replace("0014ref-prefix HEAD\n", "");
            Bytes::from(all.into_bytes())
        }
        _ => body,
    };
    let client = http_client().unwrap();
    let mut request = client.request(method, format!("{base}{uri}")).body(body);
    let version = headers.get("git-protocol");
    if let (Some(version), false) = (version, matches!(change, Change::NoVersion)) {
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

#[tokio::test]
async fn a_server_that_is_not_asked_for_version_2_is_told_from_one_that_breaks_off() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.commit("first").unwrap();
    repository.push("main").unwrap();
    repository.commit("second").unwrap();
    let pushed = repository.push("main").unwrap();
    let (url, _tasks) = proxy(&place, Change::NoVersion).await;
    let fetcher = fetcher(limits());
    let request = range(&url, &pushed);
    let of_range = fetcher.fetch(&request).await.unwrap_err();
    let of_list = fetcher.references(&request.clone_url, None).await;
    for error in [of_range, of_list.unwrap_err()] {
        assert_eq!(
            error.to_string(),
            "the server answers in protocol version 0: does a proxy drop the header Git-Protocol?"
        );
    }
}

#[tokio::test]
async fn a_repository_of_sha_256_is_named_as_what_it_is() {
    let place = Place::new().await;
    let repository = place.repository();
    repository.commit("first").unwrap();
    let pushed = repository.push("main").unwrap();
    std::fs::remove_dir_all(repository.bare()).unwrap();
    let bare = repository.bare().to_str().unwrap();
    let format = "--object-format=sha256";
    repository
        .git(&["init", "-q", "--bare", format, bare])
        .unwrap();
    let fetcher = fetcher(limits());
    let request = place.request(&pushed);
    let of_range = fetcher.fetch(&request).await.unwrap_err();
    let of_list = fetcher.references(&request.clone_url, None).await;
    for error in [of_range, of_list.unwrap_err()] {
        let named = "repositories with SHA-256 object names are not supported";
        assert_eq!(error.to_string(), named);
    }
}
