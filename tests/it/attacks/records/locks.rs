//! The same fresh keys are reported by everybody at once, in every order, to several programs on one
//! PostgreSQL: none of them may be told to come again, and none of the keys may be missed.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use rescind::clock::{Clock as _, SystemClock};
use rescind::fetch::{FetchLimits, GitFetcher, http_client};
use rescind::forge::Forge;
use rescind::keyformat::{FormatSet, KeyValue};
use rescind::respond::Outcome;
use rescind::sandbox::git_server::{GitServer, Pushed};
use rescind::scan::{Encodings, Engine};
use rescind::store::{Key, NewWorkItem, Priority, Reason, Store, WorkKind};
use rescind::work::{Origin, Worker, WorkerOptions, WorkerParts};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::api::harness::TestServer;
use crate::support::databases::{Kind, TestDatabase, on_both_databases};
use crate::support::eventually::eventually;
use crate::support::responder::{issuer, request, responder, sighting};
use crate::webhooks::sender::{all, send};

const KEYS: usize = 120;
const ROUNDS: usize = 48;
/// Number of keys in each report, delivery, and push.
const EACH: usize = 40;
const PUSHES: usize = 4;

/// Returns the values of one report: a different part of them each time, in a different order.
pub(super) fn part(values: &[KeyValue], round: usize) -> Vec<KeyValue> {
    // Steps that have no divisor in common with the number of keys visit all of them.
    let step = [1, 7, 11, 13, 17, 19, 23, 29][round % 8];
    let at = |n: usize| (round * 31 + n * step) % values.len();
    let mut part: Vec<KeyValue> = (0..EACH).map(|n| values[at(n)].clone()).collect();
    if round % 2 == 1 {
        part.reverse();
    }
    part
}

async fn issue(server: &TestServer, count: usize) -> Vec<(Key, KeyValue)> {
    let mut keys = Vec::new();
    for _ in 0..count {
        keys.push(
            issuer(&server.responder)
                .issue(request("fresh"))
                .await
                .unwrap(),
        );
    }
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_of_the_same_keys_never_lock_each_other_out() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let servers = [
        Arc::new(TestServer::on(&database, all()).await),
        Arc::new(TestServer::on(&database, all()).await),
    ];
    let keys = issue(&servers[0], KEYS).await;
    let values: Arc<Vec<KeyValue>> =
        Arc::new(keys.iter().map(|(_, value)| value.clone()).collect());
    let hosting = Hosting::new(&values).await;
    hosting.announce(&servers[0].store).await;

    let mut tasks = JoinSet::new();
    for round in 0..ROUNDS {
        let server = Arc::clone(&servers[round % 2]);
        let part = part(&values, round);
        match round % 3 {
            0 => tasks.spawn(async move {
                let responder = &server.responder;
                let seen = part
                    .iter()
                    .map(|value| sighting(responder, value, round as u64));
                let seen = seen.collect();
                let reported =
                    responder.report_from_outside(seen, |_| {}, Reason::Leaked, "partner:github");
                let answers = reported.await.unwrap();
                assert!(answers.iter().all(rescind::respond::Answer::is_secret));
            }),
            _ => tasks.spawn(async move {
                let forge = Forge::ALL[round % Forge::ALL.len()];
                let texts: Vec<&str> = part.iter().map(KeyValue::expose).collect();
                let body = json!({ "comment": { "body": texts.join("\n") } });
                let id = format!("delivery-{round}");
                let reply = send(&server, forge, "issue_comment", &id, body).await;
                assert_eq!(reply.status, 202, "{}", reply.text);
            }),
        };
    }
    for server in &servers {
        let worker = hosting.worker(server);
        tasks.spawn(async move {
            worker.drain().await.unwrap();
        });
        // Keys that leaked are presented meanwhile.
        let store = server.store.clone();
        let ids: Vec<_> = keys.iter().map(|(key, _)| key.id).collect();
        tasks.spawn(async move {
            for id in ids {
                store.record_use(id, SystemClock.now(), None).await.unwrap();
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }

    let store = &servers[0].store;
    for (key, _) in &keys {
        let key = store.key(key.id).await.unwrap().unwrap();
        assert!(
            key.revoked_at.is_some() && key.exposed_at.is_some(),
            "{key:?}"
        );
    }
    let verified = store.verify_log().await.unwrap().unwrap();
    assert_eq!(verified.entries, KEYS as u64);
    assert_eq!(store.work_counts().await.unwrap().done, PUSHES as u64);
    let doubled = "SELECT COUNT(*) FROM (SELECT key_id FROM revocation_log GROUP BY key_id
        HAVING COUNT(*) > 1) AS doubled";
    assert_eq!(database.count(doubled).await, 0);
    for server in servers {
        Arc::into_inner(server).unwrap().stop().await;
    }
    // Nothing was undone either: the order of the locks holds, and is not made up for by trying again.
    assert_eq!(deadlocks(&database).await, 0);
    database.remove().await;
}

/// Returns the number of transactions that the database rolled back to resolve deadlocks. Sessions publish their count
/// when they end, at the latest.
async fn deadlocks(database: &TestDatabase) -> i64 {
    let sessions = "SELECT COUNT(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    eventually("all sessions have ended", async || {
        database.count(sessions).await == 0
    })
    .await;
    let undone = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    database.count(undone).await
}

/// A git server with pushes that hold parts of the keys.
struct Hosting {
    forge: GitServer,
    pushes: Vec<Pushed>,
    _folder: TempDir,
}

impl Hosting {
    async fn new(values: &[KeyValue]) -> Self {
        let folder = TempDir::new().unwrap();
        let forge = GitServer::start(folder.path(), &TaskTracker::new())
            .await
            .unwrap();
        let repository = forge.create("acme/shop").unwrap();
        repository.write("README", b"A shop.").unwrap();
        repository.commit("Begin").unwrap();
        repository.push("main").unwrap();
        let pushes = (0..PUSHES).map(|push| {
            for (number, value) in part(values, push).iter().enumerate() {
                let path = format!("{push}/{number}.env");
                repository.write(path, value.expose().as_bytes()).unwrap();
            }
            repository.commit("Change").unwrap();
            repository.push("main").unwrap()
        });
        Self {
            pushes: pushes.collect(),
            forge,
            _folder: folder,
        }
    }

    async fn announce(&self, store: &Store) {
        let items: Vec<_> = self.pushes.iter().map(item).collect();
        let mut tx = store.begin().await.unwrap();
        tx.add_work_items(&items, SystemClock.now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    fn worker(&self, server: &TestServer) -> Worker {
        let parts = WorkerParts {
            store: server.store.clone(),
            responder: server.responder.clone(),
            engine: Arc::new(Engine::new(&FormatSet::builtin(), Encodings::ALL)),
            fetcher: GitFetcher::new(http_client().unwrap(), FetchLimits::default()),
            clock: Arc::new(SystemClock),
            wake: Arc::new(Notify::new()),
        };
        let origin = Origin {
            host: "git.example".to_owned(),
            clone_url: Url::parse(&self.forge.url()).unwrap(),
            token: None,
            without_token: None,
            app: None,
        };
        // Few at a time, so that both workers get some.
        let options = WorkerOptions {
            concurrent: 3,
            ..WorkerOptions::default()
        };
        Worker::new(parts, [origin], options)
    }
}

fn item(pushed: &Pushed) -> NewWorkItem {
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
        event_at: SystemClock.now(),
    }
}

/// A deadlock that no order of ours can prevent, since a stranger makes it: the transaction is begun again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_the_database_undid_is_begun_again() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let store = database.store().await;
    let (responder, _) = responder(&store);
    let mut keys = Vec::new();
    for _ in 0..2 {
        keys.push(issuer(&responder).issue(request("fresh")).await.unwrap());
    }
    keys.sort_by_key(|(key, _)| key.id);
    let seen = keys.iter().map(|(_, value)| sighting(&responder, value, 1));
    let seen: Vec<_> = seen.collect();
    // The stranger takes the last of the keys, and wants the first when the report has it. The report is the
    // one that is undone: it waits for a lock a second before the other does.
    let [first, last] = [keys[0].0.id, keys[1].0.id];
    let stranger = format!(
        "DO $$ BEGIN
            SET LOCAL deadlock_timeout = '30s';
            PERFORM 1 FROM keys WHERE id = '{last}' FOR UPDATE;
            PERFORM pg_sleep(1);
            PERFORM 1 FROM keys WHERE id = '{first}' FOR UPDATE;
        END $$"
    );
    let reporting = async {
        let asleep = "SELECT COUNT(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event = 'PgSleep'";
        eventually("the stranger has the last key", async || {
            database.count(asleep).await > 0
        })
        .await;
        responder.report(seen, Reason::Leaked, "test").await
    };
    let (strange, reported) = tokio::join!(database.run(&stranger), reporting);
    strange.unwrap();
    for answer in reported.unwrap() {
        assert!(matches!(*answer.outcomes, [Outcome::Revoked(_)]));
    }
    store.close().await;
    assert!(
        deadlocks(&database).await > 0,
        "nothing was undone: this test tests nothing"
    );
    let store = database.store().await;
    assert_eq!(store.verify_log().await.unwrap().unwrap().entries, 2);
    database.remove().await;
}

on_both_databases! {
    /// Two transactions that raise the same shed item: one of them takes it off the count.
    async fn an_item_that_is_raised_twice_at_once_is_uncounted_once(database) {
        let store = database.store().await;
        let shed = NewWorkItem { repository_id: "1".to_owned(), ..made_up(Priority::Firehose) };
        add(&store, &shed).await;
        let all = rescind::store::Shedding { max_waiting: 0, max_wait: Duration::from_hours(1) };
        assert_eq!(store.shed(&all, SystemClock.now()).await.unwrap(), 1);
        let named = NewWorkItem { priority: Priority::Webhook, ..shed.clone() };
        if database.kind == Kind::Postgres {
            let mut first = store.begin().await.unwrap();
            first.add_work_items(std::slice::from_ref(&named), SystemClock.now()).await.unwrap();
            let second = add(&store, &named);
            let commit = async {
                let waiting = "SELECT COUNT(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock'";
                eventually("the second waits", async || database.count(waiting).await > 0).await;
                first.commit().await.unwrap();
            };
            tokio::join!(second, commit);
        } else {
            add(&store, &named).await;
            add(&store, &named).await;
        }
        assert_eq!(database.count("SELECT shed FROM source_work").await, 0);
        let counts = store.work_counts().await.unwrap();
        assert_eq!((counts.waiting, counts.shed), (1, 0));
        // A count that somebody lowered before does not go below nothing.
        database.run("UPDATE work_items SET state = 'shed', priority = 3, finished_at = 1").await.unwrap();
        add(&store, &named).await;
        assert_eq!(database.count("SELECT shed FROM source_work").await, 0);
    }

    async fn dead_items_are_put_back_together(database) {
        let store = database.store().await;
        for number in 1..=3 {
            add(&store, &NewWorkItem { repository_id: number.to_string(), ..made_up(Priority::Firehose) }).await;
        }
        database.run("UPDATE work_items SET state = 'dead', finished_at = 1, tries = 8, last_error = 'x'").await.unwrap();
        let dead = store.dead_items(None, &rescind::store::PageRequest::first()).await.unwrap().items;
        let mut ids: Vec<_> = dead.iter().map(|dead| dead.item.id).collect();
        ids.truncate(2);
        ids.push(uuid::Uuid::nil());
        let revived = store.revive_these(&ids).await.unwrap();
        assert_eq!(revived, ids[..2].iter().copied().collect());
        assert_eq!(store.work_counts().await.unwrap().dead, 1);
    }
}

pub(super) fn made_up(priority: Priority) -> NewWorkItem {
    NewWorkItem {
        ref_name: "refs/heads/main".to_owned(),
        before: "0".repeat(40),
        after: "1".repeat(40),
        priority,
        kind: WorkKind::Range,
        clone_url: None,
        host: "git.example".to_owned(),
        repository_id: "7".to_owned(),
        repository: "acme/shop".to_owned(),
        source: "feed".to_owned(),
        event_at: SystemClock.now(),
    }
}

pub(super) async fn add(store: &Store, item: &NewWorkItem) {
    let mut tx = store.begin().await.unwrap();
    tx.add_work_items(std::slice::from_ref(item), SystemClock.now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
}
