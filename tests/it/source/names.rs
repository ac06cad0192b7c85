//! References and repositories whose names are odd, and a `HEAD` that is no branch.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use rescind::fetch::{FetchLimits, GitFetcher, http_client};
use rescind::sandbox::git_server::Repository;
use rescind::source::{GitRemote, GitRemoteOptions, Source as _};
use rescind::store::{Key, NewWorkItem, Priority, WorkKind};
use serde_json::json;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::Rig;
use super::work::{Shop, noise};
use crate::support::databases::{Kind, TestDatabase, on_both_databases};

impl Rig {
    fn watched(&self, url: &str) -> GitRemote {
        let options = GitRemoteOptions {
            name: "docs".to_owned(),
            url: Url::parse(url).unwrap(),
            token: None,
        };
        let fetcher = GitFetcher::new(http_client().unwrap(), FetchLimits::default());
        GitRemote::new(options, self.parts(), fetcher).unwrap()
    }

    /// Leaks a key in a branch of this name.
    async fn leak_in(&self, repository: &Repository, name: &[u8]) -> Key {
        let (key, value) = self.issue(false).await;
        let path = format!("{}.env", key.id);
        repository.write(path, value.expose().as_bytes()).unwrap();
        let commit = repository.commit("Leak").unwrap();
        repository.push("kept/objects").unwrap();
        repository
            .git(&["reset", "-q", "--hard", "HEAD~1"])
            .unwrap();
        repository.push_to("", "refs/heads/kept/objects").unwrap();
        let reference = repository
            .bare()
            .join("refs/heads")
            .join(OsStr::from_bytes(name));
        fs::create_dir_all(reference.parent().unwrap()).unwrap();
        fs::write(reference, format!("{commit}\n")).unwrap();
        key
    }

    async fn leak_in_all(&self, repository: &Repository, names: &[Vec<u8>]) -> Vec<Key> {
        let mut keys = Vec::new();
        for name in names {
            keys.push(self.leak_in(repository, name).await);
        }
        keys
    }

    async fn assert_all_revoked(&self, keys: &[Key], names: &[Vec<u8>]) {
        for (key, name) in keys.iter().zip(names) {
            let name = String::from_utf8_lossy(name);
            let end = name.floor_char_boundary(40);
            assert!(self.is_revoked(key).await, "{}", &name[..end]);
        }
    }
}

fn address(shop: &Shop) -> String {
    format!("{}/acme/shop.git", shop.forge.url())
}

/// A name of 3.4 kB, which does not compress.
fn long(seed: u32) -> Vec<u8> {
    let parts: Vec<_> = (0..14)
        .map(|n| URL_SAFE_NO_PAD.encode(noise(seed * 100 + n, 180)))
        .collect();
    parts.join("/").into_bytes()
}

/// Names that git allows: not UTF-8, some of them alike when shown, two that are longer than an index holds, alike for
/// all that is kept of them, one with a key in it, and the control characters that are none of ASCII's.
fn odd(key: &str) -> Vec<Vec<u8>> {
    let longest = long(1);
    vec![
        b"caf\xe9".to_vec(),
        b"caf\xe8".to_vec(),
        [&longest, b"/a".as_slice()].concat(),
        [&longest, b"/b".as_slice()].concat(),
        format!("fix-{key}").into_bytes(),
        "a\u{85}b\u{85}".into(),
    ]
}

/// An answer of a git server with these lines.
fn lines(lines: &[&[u8]]) -> ResponseTemplate {
    let mut body = Vec::new();
    for line in lines {
        body.extend(format!("{:04x}", line.len() + 4).as_bytes());
        body.extend(*line);
    }
    body.extend(b"0000");
    ResponseTemplate::new(200).set_body_raw(body, "application/x-git-upload-pack-result")
}

on_both_databases! {
    async fn branches_of_any_name_are_read_by_a_git_source(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let (in_name, value) = rig.issue(false).await;
        let names = odd(value.expose());
        let remote = rig.watched(&address(&shop));
        remote.poll_once().await.unwrap();
        let keys = rig.leak_in_all(&shop.repository, &names).await;
        let polled = remote.poll_once().await.unwrap();
        assert_eq!((polled.events, polled.items, polled.malformed), (6, 6, 0));
        assert!(rig.is_revoked(&in_name).await);
        rig.worker("http://127.0.0.1:1").drain().await.unwrap();
        rig.assert_all_revoked(&keys, &names).await;
        // Each is known by now, also those that look alike.
        assert_eq!(remote.poll_once().await.unwrap().events, 0);
    }

    async fn branches_of_any_name_are_read_from_a_list(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let (_, value) = rig.issue(false).await;
        let names = odd(value.expose());
        // Those that are odd are added in a second piece of the list.
        for n in 0..70 {
            let branch = format!("refs/heads/a{n:02}");
            shop.repository.push_to("HEAD", &branch).unwrap();
        }
        let keys = rig.leak_in_all(&shop.repository, &names).await;
        let list = NewWorkItem {
            kind: WorkKind::References,
            ref_name: String::new(),
            before: String::new(),
            after: "event-1".to_owned(),
            ..rig.item(&shop.push(&[]))
        };
        rig.add_items(&[list]).await;
        rig.worker(&shop.forge.url()).drain().await.unwrap();
        rig.assert_all_revoked(&keys, &names).await;
        assert_eq!(database.count("SELECT COUNT(*) FROM work_items WHERE state <> 'done'").await, 0);
    }

    async fn a_line_of_a_list_that_nobody_can_use_costs_only_itself(database) {
        let rig = Rig::new(&database.store().await);
        let server = MockServer::start().await;
        let (one, two) = ("1".repeat(40), "2".repeat(40));
        let reference = |id: &str, name: &str| format!("{id} refs/heads/{name}\n").into_bytes();
        let (odd, good) = (reference(&one, "a\0b"), reference(&two, "good"));
        let answer = lines(&[&odd, b"nonsense\n", &good, b"1234 refs/heads/x\n"]);
        Mock::given(any()).respond_with(answer).mount(&server).await;
        let url = format!("{}/acme/shop.git", server.uri());
        let polled = rig.watched(&url).poll_once().await.unwrap();
        assert_eq!((polled.items, polled.malformed), (2, 2));
        let state = rig.store.load_source("docs").await.unwrap().unwrap();
        assert_eq!(state.malformed, 2);
    }
}

async fn sqlite() -> (TestDatabase, Rig) {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let rig = Rig::new(&database.store().await);
    (database, rig)
}

#[tokio::test]
async fn a_new_branch_is_read_whatever_is_left_of_its_name() {
    let (_database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let (_, value) = rig.issue(false).await;
    let (_, is_public) = rig.issue(true).await;
    let mut names = odd(value.expose());
    names.push(format!("demo-{}", is_public.expose()).into_bytes());
    let mut keys = rig.leak_in_all(&shop.repository, &names).await;
    let mut told: Vec<_> = names
        .iter()
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    // A default branch of which only the redacted name is known.
    let (_, value) = rig.issue(false).await;
    let default = format!("default-{}", value.expose());
    keys.push(rig.leak_in(&shop.repository, default.as_bytes()).await);
    fs::write(
        shop.repository.bare().join("HEAD"),
        format!("ref: refs/heads/{default}\n"),
    )
    .unwrap();
    names.push(default.clone().into_bytes());
    told.push(default);
    let events: Vec<_> = told
        .iter()
        .enumerate()
        .map(|(n, name)| {
            json!({
                "id": format!("{}", 40_000_000_000_u64 + n as u64), "type": "CreateEvent",
                "actor": {"id": 1, "login": "octocat"}, "repo": {"id": 7, "name": "acme/shop"},
                "payload": {"ref": name, "ref_type": "branch", "master_branch": "main"},
                "public": true, "created_at": "2026-11-22T07:50:26Z",
            })
        })
        .collect();
    let feed = MockServer::start().await;
    let answer = ResponseTemplate::new(200).set_body_json(&events);
    Mock::given(any()).respond_with(answer).mount(&feed).await;
    let polled = rig.source(&feed.uri()).poll_once().await.unwrap();
    assert_eq!(polled.malformed, 0);
    rig.worker(&shop.forge.url()).drain().await.unwrap();
    rig.assert_all_revoked(&keys, &names).await;
}

#[tokio::test]
async fn the_history_behind_a_detached_head_is_read() {
    let (_database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let (key, value) = rig.issue(false).await;
    shop.push(&[("key.txt", value.expose().as_bytes().to_vec())]);
    let pushed = shop.push(&[("later.txt", b"nothing".to_vec())]);
    fs::write(
        shop.repository.bare().join("HEAD"),
        format!("{}\n", pushed.after),
    )
    .unwrap();
    rig.watched(&address(&shop)).poll_once().await.unwrap();
    rig.worker("http://127.0.0.1:1").drain().await.unwrap();
    assert!(rig.is_revoked(&key).await);
}

#[tokio::test]
async fn the_first_push_to_a_repository_that_was_empty_is_no_backfill() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let repository = shop.forge.create("acme/new").unwrap();
    let remote = rig.watched(&format!("{}/acme/new.git", shop.forge.url()));
    assert_eq!(remote.poll_once().await.unwrap().events, 0);
    repository.write("README", b"New.").unwrap();
    repository.commit("Begin").unwrap();
    repository.push("main").unwrap();
    assert_eq!(remote.poll_once().await.unwrap().items, 1);
    let watched = Priority::Watched as i64;
    let count = format!("SELECT COUNT(*) FROM work_items WHERE priority = {watched}");
    assert_eq!(database.count(&count).await, 1);
}

#[tokio::test]
async fn a_repository_may_be_at_any_path() {
    let (database, rig) = sqlite().await;
    let server = MockServer::start().await;
    let line = format!("{} refs/heads/main\n", "1".repeat(40));
    let answer = lines(&[line.as_bytes()]);
    Mock::given(any()).respond_with(answer).mount(&server).await;
    let long = format!("team/{}", "n".repeat(700));
    for (at, path) in ["team/c++", "org/My%20Project/_git/R", &long, "x", "a@b/c:d"]
        .iter()
        .enumerate()
    {
        let url = format!("{}/{path}.git", server.uri());
        let polled = rig.watched(&url).poll_once().await.unwrap();
        assert_eq!((polled.items, polled.malformed), (1, 0), "{path}");
        let kept = format!("SELECT COUNT(*) FROM work_items WHERE clone_url = '{url}'");
        assert_eq!(database.count(&kept).await, 1, "{at}");
    }
}
