//! A PostgreSQL whose commits wait for a standby that is away.

use std::time::{Duration, Instant};

use rescind::store::{Store, StoreOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::task::JoinSet;

use crate::cli::Binary;
use crate::store::{import, new_key};
use crate::support::cluster::Cluster;
use crate::support::eventually::eventually;

/// Sessions that the store may have, and writers that want one.
const SESSIONS: u32 = 3;
const WRITERS: u64 = 6;

/// Time for which the standby is away: two commits after another are given up meanwhile.
const AWAY: Duration = Duration::from_secs(20);

async fn wait_for_standby(admin: &mut PgConnection, standby: &str) {
    let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{standby}'");
    admin.execute(AssertSqlSafe(set)).await.unwrap();
    admin.execute("SELECT pg_reload_conf()").await.unwrap();
}

/// Sessions that wait for the standby, whether or not anybody waits for them. One more that is refused is there for a
/// moment, and never one of these.
async fn sessions(admin: &mut PgConnection) -> i64 {
    let count = "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'rescind' AND wait_event = 'SyncRep'";
    sqlx::query_scalar(count).fetch_one(admin).await.unwrap()
}

/// The server does not notice that a commit is not waited for any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_were_given_up_take_no_further_sessions() {
    let cluster = Cluster::start();
    let mut options = StoreOptions::new(cluster.url());
    options.max_connections = SESSIONS;
    let store = Store::open(options).await.unwrap();
    store.migrate().await.unwrap();
    // Whoever adds the first key adds its project, which others would wait for.
    import(&store, &[new_key(1_000_000)]).await;
    let mut admin = PgConnection::connect(&cluster.url()).await.unwrap();
    wait_for_standby(&mut admin, "nobody").await;
    let until = Instant::now() + AWAY;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let mut number = writer;
            while Instant::now() < until {
                number += WRITERS;
                let Ok(mut tx) = store.begin().await else {
                    continue;
                };
                if tx.import_keys(&[new_key(number)]).await.is_ok() {
                    let _ = tx.commit().await;
                }
            }
        });
    }
    let mut most = 0;
    while Instant::now() < until {
        most = most.max(sessions(&mut admin).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(most, i64::from(SESSIONS));

    let binary = Binary::new().with("RESCIND__DATABASE__URL", &cluster.url());
    let doctor = binary.run("doctor");
    assert_eq!(doctor.code, 1, "{doctor:?}");
    assert!(
        doctor.stdout.contains("synchronous_standby_names"),
        "{doctor:?}"
    );

    wait_for_standby(&mut admin, "").await;
    writers.join_all().await;
    eventually("it works again", async || store.check_working().await).await;
}
