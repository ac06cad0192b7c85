//! Much to write that nobody waits for, and little that somebody does.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Url;
use rescind::clock::{Clock as _, ManualClock, SharedClock};
use rescind::fetch::{FetchLimits, GitFetcher, http_client};
use rescind::respond::Responder;
use rescind::sandbox::git_server::GitServer;
use rescind::scan::{Encodings, Engine};
use rescind::store::{NewWorkItem, Priority, Reason, Store, Urgency, WorkKind};
use rescind::work::{Origin, Worker, WorkerOptions, WorkerParts};
use sqlx::{Connection as _, Executor as _, SqliteConnection};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::support::databases::{Kind, TestDatabase, on_both_databases};
use crate::support::responder::{issuer, request, responder, sighting};

/// Longer than a report takes on a busy machine, and much shorter than it took.
const SOON: Duration = Duration::from_secs(10);

/// An object id like no other.
fn blob(task: u64, number: u64) -> Vec<u8> {
    let mut id = [0; 20];
    // Spread over the index as real ones are.
    id[..8].copy_from_slice(&(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_be_bytes());
    id[8..16].copy_from_slice(&task.to_be_bytes());
    id.to_vec()
}

/// Writes down clean blobs until told to stop, or all of them.
async fn remember(
    store: Store,
    task: u64,
    blobs: u64,
    stop: Arc<AtomicBool>,
    now: jiff::Timestamp,
) {
    let ids: Vec<u64> = (0..blobs).collect();
    for piece in ids.chunks(512) {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let ids: Vec<Vec<u8>> = piece.iter().map(|number| blob(task, *number)).collect();
        let ids = ids.iter().map(Vec::as_slice).collect();
        store.remember_blobs("rules", ids, now).await.unwrap();
    }
}

/// Reports keys while others write; gives the longest time that one took.
async fn reports(responder: &Responder, count: u64) -> Duration {
    let mut longest = Duration::ZERO;
    for n in 0..count {
        let (_, value) = issuer(responder).issue(request("leaks")).await.unwrap();
        let seen = sighting(responder, &value, n);
        let started = Instant::now();
        let answers = responder
            .report(vec![seen], Reason::Leaked, "partner:test")
            .await
            .unwrap();
        longest = longest.max(started.elapsed());
        assert!(answers[0].is_secret(), "{answers:?}");
    }
    let log = responder.store().verify_log().await.unwrap().unwrap();
    assert_eq!(log.entries, count, "each of them was revoked");
    longest
}

async fn flood(database: &TestDatabase, tasks: u64, blobs: u64, count: u64) {
    let store = database.store().await;
    let (responder, clock) = responder(&store);
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for task in 0..tasks {
        writers.spawn(remember(
            store.clone(),
            task,
            blobs,
            Arc::clone(&stop),
            clock.now(),
        ));
    }
    let longest = reports(&responder, count).await;
    assert!(longest < SOON, "a report took {longest:?}");
    stop.store(true, Ordering::SeqCst);
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    store.cut_wal().await.unwrap();
    if database.kind == Kind::Sqlite {
        let wal = std::fs::metadata(database.folder().join("rescind.db-wal"))
            .unwrap()
            .len();
        assert!(wal <= 32 << 20, "the write-ahead log has {wal} bytes");
    }
}

on_both_databases! {
    async fn reports_go_before_what_saves_work(database) {
        flood(database, 8, 280_000, 25).await;
    }

    async fn forgetting_lets_others_in_between(database) {
        let store = database.store().await;
        database.run("INSERT INTO webhook_deliveries (source, delivery, received_at)
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000)
            SELECT 'old', 'd' || i, 0 FROM n").await.unwrap();
        let forgetting = store.forget_deliveries(Duration::from_hours(1));
        tokio::pin!(forgetting);
        let mut committed = 0;
        let forgotten = loop {
            tokio::select! {
                biased;
                forgotten = &mut forgetting => break forgotten.unwrap(),
                tx = store.begin() => {
                    tx.unwrap().commit().await.unwrap();
                    committed += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        assert_eq!(forgotten, 12_000);
        assert!(committed > 10, "{committed} transactions went in between");
    }
}

/// Else whoever repeats a report of very many places of a key has all others wait for each copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reports_much_waits_for_those_who_report_little() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    let (responder, _clock) = responder(&store);
    let (_, much) = issuer(&responder).issue(request("much")).await.unwrap();
    let (_, little) = issuer(&responder).issue(request("little")).await.unwrap();
    let order = std::sync::Mutex::new(Vec::new());
    let report = async |name, value, places: u64, after| {
        tokio::time::sleep(after).await;
        let seen = (0..places).map(|place| sighting(&responder, value, place));
        let reported = responder.report(seen.collect(), Reason::Leaked, "partner:test");
        assert!(reported.await.unwrap()[0].is_secret());
        order.lock().unwrap().push(name);
    };
    // Nothing can be written until all of them wait.
    let writing = store.begin().await.unwrap();
    let ends = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        writing.commit().await.unwrap();
    };
    let (at_once, then) = (Duration::ZERO, Duration::from_secs(1));
    tokio::join!(
        report("much", &much, 500, at_once),
        report("much again", &much, 500, at_once),
        report("little", &little, 1, then),
        ends,
    );
    // Every fifth place goes to whoever has waited longest.
    assert_ne!(order.into_inner().unwrap()[2], "little");
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ./test.sh --long"]
async fn reports_are_answered_as_long_as_a_flood_lasts() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let database = TestDatabase::new(kind).await;
        flood(&database, 4, 280_000, 300).await;
        database.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_urgent_writer_passes_those_who_can_wait() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    let held = store.begin().await.unwrap();
    let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
    let mut waiting = JoinSet::new();
    for urgency in [Urgency::Housekeeping, Urgency::Work, Urgency::Awaited] {
        let (store, told) = (store.with_urgency(urgency), told.clone());
        waiting.spawn(async move {
            let tx = store.begin().await.unwrap();
            told.send(urgency).unwrap();
            tx.commit().await.unwrap();
        });
        // Each of them waits before the next one comes.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    held.commit().await.unwrap();
    drop(told);
    let mut came = Vec::new();
    while let Some(urgency) = order.recv().await {
        came.push(urgency);
    }
    assert_eq!(
        came,
        [Urgency::Awaited, Urgency::Work, Urgency::Housekeeping]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_finish_delays_the_cut_of_the_log_and_nothing_else() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    let (responder, clock) = responder(&store);
    let mut reader = SqliteConnection::connect(&database.url).await.unwrap();
    reader.execute("BEGIN").await.unwrap();
    reader.execute("SELECT COUNT(*) FROM keys").await.unwrap();
    let size =
        || std::fs::metadata(database.folder().join("rescind.db-wal")).map_or(0, |wal| wal.len());
    let mut number = 0;
    while size() <= 33 << 20 {
        let ids: Vec<Vec<u8>> = (number..number + 4_096)
            .map(|number| blob(1, number))
            .collect();
        number += 4_096;
        let ids = ids.iter().map(Vec::as_slice).collect();
        store
            .remember_blobs("rules", ids, clock.now())
            .await
            .unwrap();
    }
    store.cut_wal().await.unwrap();
    assert!(size() > 32 << 20, "the reader still needs it");
    assert!(reports(&responder, 2).await < SOON);
    reader.execute("ROLLBACK").await.unwrap();
    store.cut_wal().await.unwrap();
    assert_eq!(size(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ./test.sh --long"]
async fn a_push_of_very_many_tiny_files_is_remembered_in_part_and_read_in_full() {
    const FILES: usize = 11_000;
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    let (responder, clock) = responder(&store);
    let (key, value) = issuer(&responder).issue(request("leaks")).await.unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let forge = GitServer::start(folder.path(), &TaskTracker::new())
        .await
        .unwrap();
    let repository = forge.create("acme/many").unwrap();
    for n in 0..FILES {
        repository
            .write(format!("{}/{n}", n / 500), format!("file {n}\n").as_bytes())
            .unwrap();
    }
    repository
        .write("zz/last", value.expose().as_bytes())
        .unwrap();
    repository.commit("Many").unwrap();
    let pushed = repository.push("main").unwrap();

    let shared: SharedClock = Arc::<ManualClock>::clone(&clock);
    let parts = WorkerParts {
        store: store.clone(),
        engine: Arc::new(Engine::new(responder.formats(), Encodings::ALL)),
        responder: responder.clone(),
        fetcher: GitFetcher::new(http_client().unwrap(), FetchLimits::default()),
        clock: shared,
        wake: Arc::new(Notify::new()),
    };
    let clone_url = Url::parse(&forge.url()).unwrap();
    let origins = HashMap::from([(
        "git.example".to_owned(),
        Origin {
            host: "git.example".to_owned(),
            clone_url,
            token: None,
            without_token: None,
            app: None,
        },
    )]);
    let worker = Worker::new(parts, origins.into_values(), WorkerOptions::default());
    let item = NewWorkItem {
        kind: WorkKind::Range,
        clone_url: None,
        host: "git.example".to_owned(),
        repository_id: "7".to_owned(),
        repository: "acme/many".to_owned(),
        ref_name: pushed.reference.clone(),
        before: pushed.before.to_string(),
        after: pushed.after.to_string(),
        source: "feed".to_owned(),
        priority: Priority::Firehose,
        event_at: clock.now(),
    };
    let mut tx = store.begin().await.unwrap();
    tx.add_work_items(&[item], clock.now()).await.unwrap();
    tx.commit().await.unwrap();
    worker.drain().await.unwrap();
    let key = store.key(key.id).await.unwrap().unwrap();
    assert!(key.revoked_at.is_some());
    let counts = store.work_counts().await.unwrap();
    assert_eq!((counts.done, counts.truncated), (1, 0));
    assert_eq!(
        database.count("SELECT COUNT(*) FROM scanned_blobs").await,
        10_000
    );
}
