//! Work items: fetched, scanned, responded to.

mod large;
mod parts;
mod peppers;
mod rests;
mod running;
mod waits;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Url;
use rescind::fetch::{FetchLimits, GitFetcher, ObjectId, Token, http_client};
use rescind::forge::Forge;
use rescind::issuer::mint_token;
use rescind::keyformat::{FormatSet, KeyValue};
use rescind::sandbox::git_server::{GitServer, Pushed, Repository};
use rescind::store::{Key, NewWorkItem, PageRequest, Priority, Role, WorkCounts, WorkKind};
use rescind::work::{Origin, Worker, WorkerOptions, WorkerParts};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;
use wiremock::matchers::{any, method};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::{Rig, shared};
use crate::support::databases::{Kind, TestDatabase, on_both_databases};

pub(crate) struct Shop {
    pub(crate) forge: GitServer,
    pub(crate) repository: Repository,
    _folder: TempDir,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        let folder = TempDir::new().unwrap();
        let tracker = TaskTracker::new();
        let forge = GitServer::start(folder.path(), &tracker).await.unwrap();
        let repository = forge.create("acme/shop").unwrap();
        repository.write("README", b"A shop.").unwrap();
        repository.commit("Begin").unwrap();
        repository.push("main").unwrap();
        Self {
            forge,
            repository,
            _folder: folder,
        }
    }

    /// Commits files and pushes them.
    pub(crate) fn push(&self, files: &[(&str, Vec<u8>)]) -> Pushed {
        for (path, contents) in files {
            self.repository.write(path, contents).unwrap();
        }
        self.repository.commit("Change").unwrap();
        self.repository.push("main").unwrap()
    }
}

fn limits() -> FetchLimits {
    FetchLimits {
        stall: Duration::from_mins(1),
        ..FetchLimits::default()
    }
}

impl Rig {
    pub(super) fn worker(&self, base: &str) -> Worker {
        self.worker_with(base, limits(), WorkerOptions::default(), None)
    }

    fn worker_with(
        &self,
        base: &str,
        limits: FetchLimits,
        options: WorkerOptions,
        token: Option<&str>,
    ) -> Worker {
        let origin = Origin {
            token: token.map(|token| Token::new(Forge::GitHub.token_user(), token.into())),
            ..origin("git.example", base)
        };
        self.worker_of([origin], limits, options)
    }

    /// A worker for several hosts.
    pub(crate) fn worker_of(
        &self,
        origins: impl IntoIterator<Item = Origin>,
        limits: FetchLimits,
        options: WorkerOptions,
    ) -> Worker {
        let parts = WorkerParts {
            store: self.store.clone(),
            responder: self.responder.clone(),
            engine: Arc::clone(&self.engine),
            fetcher: GitFetcher::new(http_client().unwrap(), limits),
            clock: shared(&self.clock),
            wake: Arc::clone(&self.wake),
        };
        Worker::new(parts, origins, options)
    }

    pub(crate) async fn add_items(&self, items: &[NewWorkItem]) -> u64 {
        let mut tx = self.store.begin().await.unwrap();
        let added = tx.add_work_items(items, self.now()).await.unwrap();
        tx.commit().await.unwrap();
        added
    }

    async fn add(&self, pushes: &[Pushed]) {
        let items: Vec<_> = pushes.iter().map(|pushed| self.item(pushed)).collect();
        let mut tx = self.store.begin().await.unwrap();
        tx.add_work_items(&items, self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub(crate) fn item(&self, pushed: &Pushed) -> NewWorkItem {
        NewWorkItem {
            kind: WorkKind::Range,
            clone_url: None,
            host: "git.example".to_owned(),
            repository_id: "7".to_owned(),
            repository: "acme/shop".to_owned(),
            ref_name: pushed.reference.clone(),
            before: pushed.before.to_string(),
            after: pushed.after.to_string(),
            source: "feed".to_owned(),
            priority: Priority::Firehose,
            event_at: self.now(),
        }
    }

    pub(crate) async fn counts(&self) -> WorkCounts {
        self.store.work_counts().await.unwrap()
    }

    /// Returns the places where a key was seen, as `path:line`.
    async fn places(&self, key: &Key) -> Vec<String> {
        let seen = self.store.occurrences(key.id, 100).await.unwrap();
        let mut places: Vec<_> = seen
            .iter()
            .map(|seen| {
                let path = seen.place.path.as_deref().unwrap_or("-");
                let line = seen
                    .place
                    .line
                    .map_or("-".to_owned(), |line| line.to_string());
                format!("{path}:{line}")
            })
            .collect();
        places.sort();
        places
    }
}

/// A host whose repositories are cloned from `base`.
pub(crate) fn origin(host: &str, base: &str) -> Origin {
    Origin {
        app: None,
        host: host.to_owned(),
        clone_url: Url::parse(base).unwrap(),
        token: None,
        without_token: None,
    }
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state >> 56).unwrap()
    };
    (0..length).map(|_| next()).collect()
}

/// A push that no server has.
fn made_up(digit: char) -> Pushed {
    let id = |digit: char| ObjectId::from_hex(digit.to_string().repeat(40).as_bytes()).unwrap();
    Pushed {
        reference: "refs/heads/main".to_owned(),
        before: id('a'),
        after: id(digit),
    }
}

fn utf16(value: &KeyValue) -> Vec<u8> {
    let text = format!("\u{feff}key={}\r\n", value.expose());
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

on_both_databases! {
    async fn leaked_keys_are_revoked_and_public_ones_are_not_touched(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let mut keys = Vec::new();
        for _ in 0..6 {
            keys.push(rig.issue(false).await);
        }
        let (public, public_value) = rig.issue(true).await;
        let [plain, kubernetes, windows, passing, message, name] = &keys[..] else { unreachable!() };

        let before = shop.repository.push("main").unwrap().after;
        shop.repository.write("passing.env", format!("\nK={}", passing.1.expose()).as_bytes()).unwrap();
        shop.repository.commit("Add").unwrap();
        std::fs::remove_file(shop.repository.work().join("passing.env")).unwrap();
        let secret = format!("data:\n  key: {}\n", BASE64.encode(kubernetes.1.expose()));
        shop.repository.write("k8s/secret.yaml", secret.as_bytes()).unwrap();
        shop.repository.write("win.txt", &utf16(&windows.1)).unwrap();
        let text = format!("a\nb\n{} {}\n", plain.1.expose(), public_value.expose());
        shop.repository.write("deep/down/config.py", text.as_bytes()).unwrap();
        shop.repository.write(name.1.expose(), b"empty").unwrap();
        shop.repository.commit(&format!("Rotate {}", message.1.expose())).unwrap();
        let pushed = Pushed { before, ..shop.repository.push("main").unwrap() };

        rig.add(&[pushed]).await;
        let worker = rig.worker(&shop.forge.url());
        assert_eq!(worker.drain().await.unwrap(), 1);
        for (key, _) in &keys {
            assert!(rig.is_revoked(key).await, "{key:?}");
        }
        assert!(!rig.is_revoked(&public).await);
        assert!(rig.store.occurrences(public.id, 10).await.unwrap().is_empty());
        assert_eq!(rig.places(&plain.0).await, ["deep/down/config.py:3"]);
        assert_eq!(rig.places(&kubernetes.0).await, ["k8s/secret.yaml:2"]);
        assert_eq!(rig.places(&windows.0).await, ["win.txt:1"]);
        assert_eq!(rig.places(&passing.0).await, ["passing.env:2"]);
        assert_eq!(rig.places(&message.0).await, ["-:-"]);
        let seen = rig.store.occurrences(plain.0.id, 10).await.unwrap();
        let place = &seen[0].place;
        let commit = place.commit.as_deref().unwrap();
        let url = format!("{}/acme/shop/blob/{commit}/deep/down/config.py#L3", shop.forge.url());
        assert_eq!(place.url.as_deref(), Some(url.as_str()));
        assert_eq!((place.source.as_str(), place.repository.as_deref()), ("feed", Some("acme/shop")));
        let in_name = rig.store.occurrences(name.0.id, 10).await.unwrap();
        assert!(!format!("{in_name:?}").contains(name.1.expose()));

        let counts = rig.counts().await;
        assert_eq!((counts.done, counts.waiting, counts.leased, counts.truncated), (1, 0, 0, 0));
        let log = rig.store.verify_log().await.unwrap().unwrap();
        assert_eq!(log.entries, 6);
    }

    async fn a_leaked_access_token_is_revoked_like_a_key(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let formats = FormatSet::builtin();
        let (token, value) = mint_token(&formats, "rescind_secret", Role::Admin, rig.now()).unwrap();
        let mut tx = rig.store.begin().await.unwrap();
        tx.insert_token(token).await.unwrap();
        tx.commit().await.unwrap();
        let (key, other) = rig.issue(false).await;
        let text = format!("a={}\nb={}\nc={}\n", value.expose(), other.expose(), value.expose());
        rig.add(&[shop.push(&[("a", text.into_bytes())])]).await;
        assert_eq!(rig.worker(&shop.forge.url()).drain().await.unwrap(), 1);
        let found = rig.store.find_token(&value.sha256()).await.unwrap().unwrap();
        assert_eq!(found.revoked_at, Some(rig.now()));
        assert!(rig.is_revoked(&key).await);
    }

    async fn many_items_end_together_and_each_key_once(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let (key, value) = rig.issue(false).await;
        let leak = value.expose().as_bytes();
        let pushes: Vec<_> = (0..40).map(|n| shop.push(&[(&format!("f{n}"), leak.to_vec())])).collect();
        rig.add(&pushes).await;
        let worker = rig.worker(&shop.forge.url());
        assert_eq!(worker.drain().await.unwrap(), 40);
        assert_eq!(rig.counts().await.done, 40);
        // One blob, seen in forty pushes under forty names: only new blobs are in a push.
        assert_eq!(rig.places(&key).await, ["f0:1"]);
        assert_eq!(rig.store.verify_log().await.unwrap().unwrap().entries, 1);
    }

    async fn what_is_gone_is_done_once_it_was_asked_for_a_few_times(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let elsewhere = NewWorkItem {
            repository: "acme/not-there".to_owned(),
            priority: Priority::Watched,
            ..rig.item(&made_up('b'))
        };
        let mut tx = rig.store.begin().await.unwrap();
        let commit = NewWorkItem { priority: Priority::Webhook, ..rig.item(&made_up('c')) };
        let seen = rig.item(&made_up('d'));
        let old = NewWorkItem { priority: Priority::Backfill, ..rig.item(&made_up('e')) };
        tx.add_work_items(&[elsewhere, commit, seen, old], rig.now()).await.unwrap();
        tx.commit().await.unwrap();
        let worker = rig.worker(&shop.forge.url());
        for (time, done) in [0, 1, 1, 2, 2, 2, 4].into_iter().enumerate() {
            worker.drain().await.unwrap();
            let counts = rig.counts().await;
            let work = rig.store.source_work().await.unwrap().remove(0);
            assert_eq!(work.retrying, 4 - done, "{time}");
            let told = work.last_retry.map(|last| last.what);
            let is_told = |told: &String| told.starts_with("acme/") && told.contains("refs/heads/main, the ");
            assert_eq!(told.as_ref().is_some_and(is_told), done < 4, "{time}: {told:?}");
            assert_eq!((counts.done, counts.waiting), (done, 4 - done), "{time}");
            assert_eq!(worker.drain().await.unwrap(), 0, "it is not asked again at once");
            database.run("UPDATE work_items SET ready_at = 0").await.unwrap();
        }
        let work = rig.store.source_work().await.unwrap().remove(0);
        assert_eq!((work.done.scanned, work.done.gone, work.oldest_waiting_at), (0, 4, None));
        let (what, at) = work.last_unread.unwrap();
        assert!(what.starts_with("acme/") && what.contains("refs/heads/main, the "), "{what}");
        assert!(Some(at) >= work.scanned_at);
    }

    /// Whoever announces a commit by a name that cannot be one there keeps nobody else from being read.
    async fn names_of_another_hash_function_fail_by_themselves(database) {
        let rig = Rig::new(&database.store().await);
        let mut shop = Shop::open().await;
        shop.repository = shop.forge.create_sha256("acme/wide").unwrap();
        let of_wide = |pushed: &Pushed| NewWorkItem {
            repository: "acme/wide".to_owned(),
            priority: Priority::Webhook,
            ..rig.item(pushed)
        };
        let (first, value) = rig.issue(false).await;
        let pushed = shop.push(&[("first", value.expose().as_bytes().to_vec())]);
        let wrong: Vec<NewWorkItem> = "bcdf".chars().map(|digit| of_wide(&made_up(digit))).collect();
        rig.add_items(&wrong).await;
        let worker = rig.worker(&shop.forge.url());
        assert_eq!(worker.drain().await.unwrap(), 4);
        let named = "SELECT COUNT(*) FROM work_items WHERE tries = 1 AND last_error LIKE '%40 digits%'";
        assert_eq!(database.count(named).await, 4);
        // A name before that is none leaves the rest to be read.
        let odd = Pushed { before: made_up('e').after, ..pushed };
        rig.add_items(&[of_wide(&odd)]).await;
        assert_eq!(worker.drain().await.unwrap(), 1);
        assert!(rig.is_revoked(&first).await);
    }

    async fn what_was_denied_is_asked_for_at_once_if_it_is_named_again(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let worker = rig.worker(&shop.forge.url());
        let push = NewWorkItem { priority: Priority::Watched, ..rig.item(&made_up('b')) };
        let name = async |priority| {
            let mut tx = rig.store.begin().await.unwrap();
            let again = NewWorkItem { priority, ..push.clone() };
            tx.add_work_items(&[again], rig.now()).await.unwrap();
            tx.commit().await.unwrap();
        };
        name(Priority::Watched).await;
        assert_eq!(worker.drain().await.unwrap(), 1);
        let denials = async |n| database.count(&format!("SELECT COUNT(*) FROM work_items WHERE denials = {n}")).await;
        assert_eq!((worker.drain().await.unwrap(), denials(1).await), (0, 1));
        // A feed repeats itself.
        name(Priority::Firehose).await;
        assert_eq!(worker.drain().await.unwrap(), 0);
        for urgent in [Priority::Watched, Priority::Webhook] {
            name(urgent).await;
            assert_eq!((worker.drain().await.unwrap(), denials(1).await), (1, 1), "{urgent:?}");
        }
    }

    async fn a_host_that_asks_to_slow_down_is_left_alone(database) {
        let rig = Rig::new(&database.store().await);
        let server = MockServer::start().await;
        let slow = ResponseTemplate::new(429).insert_header("retry-after", "600");
        Mock::given(any()).respond_with(slow).mount(&server).await;
        rig.add(&[made_up('b')]).await;
        let worker = rig.worker(&server.uri());
        worker.drain().await.unwrap();
        rig.add(&[made_up('c'), made_up('d')]).await;
        worker.drain().await.unwrap();
        assert_eq!(server.received_requests().await.unwrap().len(), 1);
        let counts = rig.counts().await;
        assert_eq!((counts.waiting, counts.leased), (3, 0));
        // The tries did not count.
        database.run("UPDATE work_items SET ready_at = 0").await.unwrap();
        let items = rig.store.claim(10, "test", Duration::from_mins(1)).await.unwrap();
        assert!(items.iter().all(|item| item.tries == 1), "{items:?}");
    }

    async fn a_failing_item_is_put_aside_after_eight_tries(database) {
        let rig = Rig::new(&database.store().await);
        let server = MockServer::start().await;
        Mock::given(method("POST")).respond_with(ResponseTemplate::new(500)).expect(8).mount(&server).await;
        // It is asked what it speaks, and does not say that either.
        Mock::given(any()).respond_with(ResponseTemplate::new(500)).mount(&server).await;
        rig.add(&[made_up('b')]).await;
        let worker = rig.worker(&server.uri());
        for _ in 0..10 {
            worker.drain().await.unwrap();
            database.run("UPDATE work_items SET ready_at = 0").await.unwrap();
        }
        let dead = rig.store.dead_items(None, &PageRequest::first()).await.unwrap();
        assert_eq!(dead.items.len(), 1);
        assert_eq!(dead.items[0].error, "the server answered HTTP 500");
        server.verify().await;
    }

    async fn a_host_in_trouble_costs_its_items_no_tries(database) {
        let rig = Rig::new(&database.store().await);
        let server = MockServer::start().await;
        Mock::given(any()).respond_with(ResponseTemplate::new(502)).mount(&server).await;
        let pushes: Vec<_> = "bcdef".chars().map(made_up).collect();
        rig.add(&pushes).await;
        let worker = rig.worker(&server.uri());
        for _ in 0..10 {
            worker.drain().await.unwrap();
            database.run("UPDATE work_items SET ready_at = 0").await.unwrap();
        }
        let counts = rig.counts().await;
        assert_eq!((counts.waiting, counts.dead), (5, 0));
        // While it is left alone nothing is asked, and nothing is taken either.
        let asked = server.received_requests().await.unwrap().len();
        assert!(asked <= 5, "{asked}");
        let tries = database.count("SELECT MAX(tries) FROM work_items").await;
        assert!(tries <= 1, "{tries}");
    }

    async fn announced_references_become_ranges(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let (key, value) = rig.issue(false).await;
        let leak = value.expose().as_bytes().to_vec();
        shop.push(&[("a.txt", leak)]);
        shop.repository.git(&["rm", "-q", "a.txt"]).unwrap();
        shop.repository.commit("Remove").unwrap();
        shop.repository.push("main").unwrap();
        shop.repository.push_to("HEAD~1", "refs/heads/feature").unwrap();
        shop.repository.push_to("HEAD", "refs/tags/v1").unwrap();
        let all = NewWorkItem {
            kind: WorkKind::References,
            ref_name: String::new(),
            before: String::new(),
            after: "event-1".to_owned(),
            ..rig.item(&made_up('b'))
        };
        let one = NewWorkItem { ref_name: "refs/heads/feature".to_owned(), after: "event-2".to_owned(), ..all.clone() };
        let none = NewWorkItem { ref_name: "refs/heads/gone".to_owned(), after: "event-3".to_owned(), ..all.clone() };
        let mut tx = rig.store.begin().await.unwrap();
        tx.add_work_items(&[all, one, none], rig.now()).await.unwrap();
        tx.commit().await.unwrap();
        let worker = rig.worker(&shop.forge.url());
        worker.drain().await.unwrap();
        assert!(rig.is_revoked(&key).await);
        assert_eq!(rig.counts().await.waiting, 1, "a reference that is not there yet may come");
        drain_denied(&worker, database).await;
        // Three announcements, and three references, of which one was announced by itself as well: that of a whole
        // repository is read in any case.
        let counts = rig.counts().await;
        assert_eq!((counts.done, counts.waiting, counts.dead), (7, 0, 0));
        let ranges = "SELECT COUNT(*) FROM work_items WHERE kind = 'range' AND state = 'done'";
        assert_eq!(database.count(ranges).await, 4);
        let work = rig.store.source_work().await.unwrap().remove(0);
        assert_eq!((work.done.scanned, work.done.gone), (4, 1));
    }

    async fn what_is_too_large_is_read_in_parts(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let before = shop.push(&[]).after;
        let (key, value) = rig.issue(false).await;
        let mut pushed = None;
        for n in 0..8_u32 {
            let mut noise = noise(n, 100_000);
            if n == 5 {
                noise.extend_from_slice(b"\n");
                noise.extend_from_slice(value.expose().as_bytes());
            }
            pushed = Some(shop.push(&[(&format!("f{n}"), noise)]));
        }
        let pushed = Pushed { before, ..pushed.unwrap() };
        rig.add(&[pushed]).await;
        let limits = FetchLimits { max_fetch_bytes: 250_000, ..limits() };
        let worker = rig.worker_with(&shop.forge.url(), limits, WorkerOptions::default(), None);
        worker.drain().await.unwrap();
        assert!(rig.is_revoked(&key).await);
        let counts = rig.counts().await;
        assert!(counts.truncated > 0 && counts.done > 3 && counts.waiting == 0, "{counts:?}");
        let low = "SELECT COUNT(*) FROM work_items WHERE priority = 4";
        assert_eq!(u64::try_from(database.count(low).await).unwrap(), counts.done - 1);
    }

    async fn a_blob_is_scanned_once_for_the_same_formats(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let other = Shop::open().await;
        let pushed = shop.push(&[("a.txt", b"nothing to see".to_vec())]);
        rig.add(&[pushed]).await;
        rig.worker(&shop.forge.url()).drain().await.unwrap();
        assert_eq!(database.count("SELECT COUNT(*) FROM scanned_blobs").await, 1);
        // Another worker, another repository: what is known was kept.
        rig.add(&[other.push(&[("b.txt", b"nothing to see".to_vec()), ("c", b"new".to_vec())])]).await;
        rig.worker(&other.forge.url()).drain().await.unwrap();
        let work = rig.store.source_work().await.unwrap().remove(0);
        assert_eq!((work.done.blobs, work.done.known_blobs), (2, 1));
        assert_eq!(database.count("SELECT COUNT(*) FROM scanned_blobs").await, 2);
    }

    async fn an_address_of_its_own_is_cloned_without_anybodys_token(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let (key, value) = rig.issue(false).await;
        let pushed = shop.push(&[("a.txt", value.expose().as_bytes().to_vec())]);
        let own = NewWorkItem {
            host: "127.0.0.1:1".to_owned(),
            clone_url: Some(format!("{}/acme/shop.git", shop.forge.url())),
            ..rig.item(&pushed)
        };
        let mut tx = rig.store.begin().await.unwrap();
        tx.add_work_items(&[own], rig.now()).await.unwrap();
        tx.commit().await.unwrap();
        let options = WorkerOptions::default();
        let worker = rig.worker_with("https://git.example", limits(), options, Some("sesame"));
        worker.drain().await.unwrap();
        assert!(rig.is_revoked(&key).await);
    }
}

async fn sqlite() -> (TestDatabase, Rig) {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let rig = Rig::new(&database.store().await);
    (database, rig)
}

/// Works off all items, as often as what is denied is asked for.
async fn drain_denied(worker: &Worker, database: &TestDatabase) {
    for _ in 0..7 {
        worker.drain().await.unwrap();
        database
            .run("UPDATE work_items SET ready_at = 0")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_private_repository_is_gone_without_a_token_and_an_error_with_one() {
    let (database, rig) = sqlite().await;
    let server = MockServer::start().await;
    Mock::given(any())
        .respond_with(ResponseTemplate::new(401))
        .mount(&server)
        .await;
    rig.add(&[made_up('b')]).await;
    drain_denied(&rig.worker(&server.uri()), &database).await;
    assert_eq!(rig.counts().await.done, 1);
    rig.add(&[made_up('c')]).await;
    let options = WorkerOptions::default();
    let worker = rig.worker_with(&server.uri(), limits(), options, Some("sesame"));
    worker.drain().await.unwrap();
    let counts = rig.counts().await;
    assert_eq!((counts.done, counts.waiting), (1, 1));
}

#[tokio::test]
async fn an_item_of_an_unknown_host_waits_with_a_remedy() {
    let (database, rig) = sqlite().await;
    let mut item = rig.item(&made_up('b'));
    item.host = "elsewhere.example".to_owned();
    let mut tx = rig.store.begin().await.unwrap();
    tx.add_work_items(&[item], rig.now()).await.unwrap();
    tx.commit().await.unwrap();
    let worker = rig.worker("http://127.0.0.1:1");
    for _ in 0..8 {
        worker.drain().await.unwrap();
        database
            .run("UPDATE work_items SET ready_at = 0")
            .await
            .unwrap();
    }
    let told = "SELECT COUNT(*) FROM work_items
        WHERE state = 'waiting' AND last_error LIKE '%elsewhere.example%clone_hosts%'";
    assert_eq!(database.count(told).await, 1);
}

#[tokio::test]
async fn what_was_left_out_is_recorded() {
    let (_database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let (key, value) = rig.issue(false).await;
    let pushed = shop.push(&[
        ("small", value.expose().as_bytes().to_vec()),
        ("big", vec![b'x'; 50_000]),
    ]);
    rig.add(&[pushed]).await;
    let tight = FetchLimits {
        max_blob_bytes: 10_000,
        ..limits()
    };
    let worker = rig.worker_with(&shop.forge.url(), tight, WorkerOptions::default(), None);
    worker.drain().await.unwrap();
    let counts = rig.counts().await;
    assert_eq!((counts.done, counts.truncated), (1, 1));
    assert!(rig.is_revoked(&key).await);
}

#[tokio::test]
async fn a_million_copies_of_a_key_are_not_a_million_rows() {
    let (_database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let (key, value) = rig.issue(false).await;
    let line = format!("{}\n", value.expose());
    // Strangers with the right shape and checksum between them, more than are held at a time.
    let format = rescind::keyformat::FormatSet::builtin();
    let format = format.get("rescind_secret").unwrap();
    let mut text = line.repeat(20_000).into_bytes();
    for _ in 0..6_000 {
        text.extend_from_slice(format.mint().unwrap().expose().as_bytes());
        text.push(b'\n');
    }
    rig.add(&[shop.push(&[("copies", text)])]).await;
    rig.worker(&shop.forge.url()).drain().await.unwrap();
    assert!(rig.is_revoked(&key).await);
    assert_eq!(rig.places(&key).await.len(), 100);
}
