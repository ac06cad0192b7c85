//! One repository that is looked at on a schedule.

mod heads;

use std::fmt::Write as _;
use std::fs::File;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use reqwest::Url;
use rescind::fetch::{FetchLimits, GitFetcher, Token, http_client};
use rescind::forge::Forge;
use rescind::source::{GitRemote, GitRemoteOptions, PollError, Source as _, SourceParts};
use rescind::store::Priority;
use rescind::work::WorkerOptions;
use wiremock::matchers::{any, header};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::work::{Shop, noise};
use super::{Rig, shared};
use crate::support::databases::{Kind, TestDatabase, on_both_databases};

impl Rig {
    fn remote(&self, url: &str) -> GitRemote {
        self.remote_with(url, None)
    }

    fn remote_with(&self, url: &str, token: Option<&str>) -> GitRemote {
        let client = http_client().unwrap();
        let parts = SourceParts {
            client: client.clone(),
            store: self.store.clone(),
            responder: self.responder.clone(),
            engine: Arc::clone(&self.engine),
            clock: shared(&self.clock),
            wake: Arc::clone(&self.wake),
            is_scheduled: self.is_scheduled,
        };
        let options = GitRemoteOptions {
            name: "docs".to_owned(),
            url: Url::parse(url).unwrap(),
            token: token.map(|token| Token::new(Forge::GitHub.token_user(), token.into())),
        };
        GitRemote::new(
            options,
            parts,
            GitFetcher::new(client, FetchLimits::default()),
        )
        .unwrap()
    }

    async fn work_off(&self) -> usize {
        self.worker("http://127.0.0.1:1").drain().await.unwrap()
    }
}

fn address(shop: &Shop) -> String {
    format!("{}/acme/shop.git", shop.forge.url())
}

on_both_databases! {
    async fn a_clock_that_was_ahead_once_stops_nothing(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let month = SignedDuration::from_hours(24 * 30);
        rig.clock.advance(month);
        let next = rig.remote(&address(&shop)).poll_once().await.unwrap().next_after;
        rig.clock.advance(-month);
        // After a restart.
        let due_in = rig.remote(&address(&shop)).due_in().await.unwrap();
        assert_eq!(due_in, Some(next));
    }

    async fn what_moved_since_the_last_look_is_read(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let (old, value) = rig.issue(false).await;
        shop.push(&[("old.txt", value.expose().as_bytes().to_vec())]);
        shop.repository.push_to("HEAD~1", "refs/heads/side").unwrap();
        let remote = rig.remote(&address(&shop));

        // At first all that there is, when nothing else waits.
        let first = remote.poll_once().await.unwrap();
        assert_eq!((first.events, first.items), (2, 2));
        let low = format!("SELECT COUNT(*) FROM work_items WHERE priority = {}", Priority::Backfill as i64);
        assert_eq!(database.count(&low).await, 2);
        assert_eq!(rig.work_off().await, 2);
        assert!(rig.is_revoked(&old).await);
        let again = remote.poll_once().await.unwrap();
        assert_eq!((again.events, again.items), (0, 0));

        // Then what is new: a push, a branch; what was pushed over as well.
        let (new, value) = rig.issue(false).await;
        let base = shop.repository.resolve("HEAD").unwrap().to_string();
        shop.push(&[("new.txt", value.expose().as_bytes().to_vec())]);
        shop.repository.push_to("HEAD", "refs/tags/v1").unwrap();
        assert_eq!(remote.poll_once().await.unwrap().items, 2);
        assert_eq!(database.count(&low).await, 2);
        rig.work_off().await;
        assert!(rig.is_revoked(&new).await);

        let (dropped, value) = rig.issue(false).await;
        shop.push(&[("dropped.txt", value.expose().as_bytes().to_vec())]);
        assert_eq!(remote.poll_once().await.unwrap().items, 1);
        shop.repository.git(&["reset", "-q", "--hard", &base]).unwrap();
        shop.push(&[("other.txt", b"nothing".to_vec())]);
        assert_eq!(remote.poll_once().await.unwrap().items, 1);
        rig.work_off().await;
        assert!(rig.is_revoked(&dropped).await);
        assert_eq!(rig.counts().await.dead, 0);
    }
}

/// The state is as earlier versions stored it: by names.
#[tokio::test]
async fn what_an_earlier_version_has_seen_is_not_read_again() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let remote = rig.remote(&address(&shop));
    shop.repository.push_to("HEAD", "refs/heads/side").unwrap();
    remote.poll_once().await.unwrap();
    let old = shop.repository.resolve("HEAD").unwrap().to_string();
    let mut state = rig.store.load_source("docs").await.unwrap().unwrap();
    assert!(!state.cursor.contains("refs/heads"), "{}", state.cursor);
    let known = serde_json::json!({
        "address": address(&shop), "begun": true,
        "references": {"refs/heads/main": old, "refs/heads/side": old, "refs/heads/gone": old},
    });
    state.cursor = known.to_string();
    let mut tx = rig.store.begin().await.unwrap();
    tx.save_source(&state).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(remote.poll_once().await.unwrap().events, 0);
    shop.push(&[("new.txt", b"new".to_vec())]);
    assert_eq!(remote.poll_once().await.unwrap().items, 1);
    let moved = format!("SELECT COUNT(*) FROM work_items WHERE before_id = '{old}'");
    assert_eq!(database.count(&moved).await, 1);
}

/// Adds branches to a repository, each with a file of its own.
fn add_branches(shop: &Shop, count: usize, contents: impl Fn(usize) -> String) {
    let base = shop.repository.resolve("HEAD").unwrap();
    let mut stream = String::new();
    for n in 0..count {
        let text = contents(n);
        let _ = write!(
            stream,
            "commit refs/heads/b{n:04}\ncommitter x <x@example.com> 0 +0000\ndata 1\nx\nfrom {base}\n\
             M 100644 inline f{n}\ndata {}\n{text}\n",
            text.len()
        );
    }
    let file = shop.repository.work().join("stream");
    std::fs::write(&file, stream).unwrap();
    let imported = Command::new("git")
        .args(["fast-import", "--quiet"])
        .current_dir(shop.repository.bare())
        .stdin(File::open(&file).unwrap())
        .status();
    assert!(imported.unwrap().success());
    std::fs::remove_file(file).unwrap();
}

on_both_databases! {
    async fn many_branches_are_read_in_few_requests(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let mut keys = Vec::new();
        for _ in 0..3 {
            keys.push(rig.issue(false).await);
        }
        add_branches(&shop, 900, |n| match n % 300 {
            7 => keys[n / 300].1.expose().to_owned(),
            _ => format!("file {n}"),
        });
        let url = address(&shop);
        let before = shop.forge.requests();
        assert_eq!(rig.remote(&url).poll_once().await.unwrap().items, 901);
        rig.work_off().await;
        let requests = shop.forge.requests() - before;
        assert!(requests < 40, "{requests}");
        for (key, _) in &keys {
            assert!(rig.is_revoked(key).await);
        }
        let counts = rig.counts().await;
        assert_eq!((counts.done, counts.waiting, counts.dead, counts.truncated), (901, 0, 0, 0));
        let work = rig.store.source_work().await.unwrap().remove(0);
        // One that is taken by itself while it is read with others is read twice.
        assert_eq!(work.done.scanned, 901);
        assert!(work.done.blobs >= 901, "{work:?}");
        // All but the default branch rest on it.
        let resting = "SELECT COUNT(*) FROM work_items WHERE rested_on = 'refs/heads/main'";
        assert_eq!(database.count(resting).await, 900);
    }

    async fn what_a_poll_leaves_is_told_and_taken_by_the_next(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        add_branches(&shop, 1_009, |n| format!("file {n}"));
        let source = rig.remote(&address(&shop));
        let first = source.poll_once().await.unwrap();
        assert_eq!((first.items, first.more), (1_000, true));
        let told = async || {
            let state = rig.store.list_sources().await.unwrap().remove(0);
            state.error
        };
        let error = told().await.unwrap();
        assert!(error.starts_with("10 more branches and tags moved"), "{error}");
        let second = source.poll_once().await.unwrap();
        assert_eq!((second.items, second.more, told().await), (10, false, None));
    }

    async fn branches_that_are_too_large_together_are_read_apart(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let (key, value) = rig.issue(false).await;
        add_branches(&shop, 40, |n| match n {
            33 => value.expose().to_owned(),
            _ => hex::encode(noise(u32::try_from(n).unwrap(), 20_000)),
        });
        assert_eq!(rig.remote(&address(&shop)).poll_once().await.unwrap().items, 41);
        // One of them is not there any more.
        shop.repository.git(&["push", "-q", shop.repository.bare().to_str().unwrap(), ":refs/heads/b0003"]).unwrap();
        let limits = FetchLimits { max_fetch_bytes: 100_000, ..FetchLimits::default() };
        let worker = rig.worker_of([], limits, WorkerOptions::default());
        worker.drain().await.unwrap();
        assert!(rig.is_revoked(&key).await);
        let counts = rig.counts().await;
        assert_eq!((counts.done + counts.waiting, counts.dead, counts.truncated), (41, 0, 0));
    }
}

/// Opens a shop on a server of version 0, or of version 2, with a repository of SHA-256, or of SHA-1.
async fn shop(is_old: bool, is_wide: bool) -> Shop {
    let mut shop = Shop::open().await;
    if is_old {
        shop.forge.speak_version_0();
    }
    if is_wide {
        shop.repository = shop.forge.create_sha256("acme/wide").unwrap();
    }
    shop
}

/// By the length of their names, objects of SHA-256 are told from those of SHA-1.
#[tokio::test]
async fn repositories_of_sha_256_and_servers_of_version_0_are_read_as_others_are() {
    for (is_old, is_wide) in [(false, true), (true, false), (true, true)] {
        let (database, rig) = sqlite().await;
        let shop = shop(is_old, is_wide).await;
        let url = format!("{}/{}.git", shop.forge.url(), shop.repository.name());
        let mut after = Vec::new();
        for file in ["old.txt", "new.txt", "newer.txt"] {
            let (key, value) = rig.issue(false).await;
            let pushed = shop.push(&[(file, value.expose().as_bytes().to_vec())]);
            let polled = rig.remote(&url).poll_once().await.unwrap();
            assert_eq!(polled.items, 1, "{file} {is_old} {is_wide}");
            rig.work_off().await;
            assert!(rig.is_revoked(&key).await, "{file} {is_old} {is_wide}");
            let link = format!("/blob/{}/{file}#L1", pushed.after);
            let linked = format!("SELECT COUNT(*) FROM occurrences WHERE url LIKE '%{link}'");
            assert_eq!(database.count(&linked).await, 1, "{link}");
            after.push(pushed.after.to_string());
        }
        assert_eq!(after[0].len(), if is_wide { 64 } else { 40 });
        assert_eq!(rig.remote(&url).poll_once().await.unwrap().events, 0);
        assert_eq!(rig.counts().await.dead, 0);
        // Known blobs are known by their whole names.
        let known = format!(
            "SELECT COUNT(*) FROM scanned_blobs WHERE length(blob) <> {}",
            after[0].len() / 2
        );
        assert_eq!(database.count(&known).await, 0);
    }
}

async fn sqlite() -> (TestDatabase, Rig) {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let rig = Rig::new(&database.store().await);
    (database, rig)
}

#[tokio::test]
async fn a_key_in_the_name_of_a_branch_is_revoked_and_not_kept() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let (key, value) = rig.issue(false).await;
    let remote = rig.remote(&address(&shop));
    let name = format!("refs/heads/{}", value.expose());
    shop.repository.push_to("HEAD", &name).unwrap();
    remote.poll_once().await.unwrap();
    assert!(rig.is_revoked(&key).await);
    assert_eq!(remote.poll_once().await.unwrap().events, 0);
    let kept = format!(
        "SELECT (SELECT COUNT(*) FROM sources WHERE cursor LIKE '%{0}%')
            + (SELECT COUNT(*) FROM work_items WHERE ref_name LIKE '%{0}%')",
        value.expose()
    );
    assert_eq!(database.count(&kept).await, 0);
}

#[tokio::test]
async fn a_server_in_trouble_is_noted_and_the_cursor_stays() {
    let (_database, rig) = sqlite().await;
    let server = MockServer::start().await;
    let remote = rig.remote(&format!("{}/acme/shop.git", server.uri()));
    // Refusals are waited for ever longer, outages are not, and do not count.
    for (status, wait) in [
        (500, 15..=30),
        (404, 15..=15),
        (502, 15..=30),
        (401, 30..=30),
        (503, 15..=30),
        (404, 60..=60),
        (504, 15..=30),
    ] {
        server.reset().await;
        let answer = ResponseTemplate::new(status);
        Mock::given(any()).respond_with(answer).mount(&server).await;
        let failure = remote.poll_once().await.unwrap_err();
        assert!(matches!(failure.error, PollError::Remote(_)), "{failure}");
        let next_after = failure.next_after.as_secs();
        assert!(wait.contains(&next_after), "{status}: {next_after}");
        // Whatever it was, it may be mended by the time of a restart.
        assert_eq!(remote.due_in().await.unwrap(), None, "{status}");
        let state = rig.store.load_source("docs").await.unwrap().unwrap();
        assert!(state.error.unwrap().contains(&status.to_string()));
        assert_eq!((state.kind.as_str(), state.succeeded_at), ("git", None));
    }
    server.reset().await;
    let slow = ResponseTemplate::new(429).insert_header("retry-after", "3600");
    Mock::given(any()).respond_with(slow).mount(&server).await;
    let failure = remote.poll_once().await.unwrap_err();
    assert_eq!(failure.next_after, Duration::from_hours(1));
    let due_in = remote.due_in().await.unwrap();
    assert_eq!(due_in, Some(Duration::from_hours(1)));
}

#[tokio::test]
async fn a_schedule_says_when_unless_the_server_does() {
    let (_database, mut rig) = sqlite().await;
    rig.is_scheduled = true;
    let shop = Shop::open().await;
    let outcome = rig.remote(&address(&shop)).poll_once().await.unwrap();
    assert_eq!(outcome.next_after, Duration::ZERO);
    let server = MockServer::start().await;
    let remote = rig.remote(&format!("{}/acme/shop.git", server.uri()));
    let answer = ResponseTemplate::new;
    let limited = answer(429).insert_header("retry-after", "3600");
    for (answer, wait, is_told) in [(answer(401), 15, false), (limited, 3600, true)] {
        server.reset().await;
        Mock::given(any()).respond_with(answer).mount(&server).await;
        let failure = remote.poll_once().await.unwrap_err();
        assert_eq!(failure.next_after.as_secs(), wait, "{failure}");
        let due_in = remote.due_in().await.unwrap();
        let told = if is_told {
            failure.next_after
        } else {
            Duration::ZERO
        };
        assert_eq!(due_in.unwrap_or_default(), told);
    }
}

#[tokio::test]
async fn the_token_goes_along() {
    let (_database, rig) = sqlite().await;
    let server = MockServer::start().await;
    // x-access-token:sesame
    let expected = header("authorization", "Basic eC1hY2Nlc3MtdG9rZW46c2VzYW1l");
    let answer = ResponseTemplate::new(200)
        .set_body_raw(b"0000".to_vec(), "application/x-git-upload-pack-result");
    Mock::given(expected)
        .respond_with(answer)
        .mount(&server)
        .await;
    let url = format!("{}/shop.git", server.uri());
    let empty = rig
        .remote_with(&url, Some("sesame"))
        .poll_once()
        .await
        .unwrap();
    assert_eq!((empty.events, empty.items), (0, 0));
}
