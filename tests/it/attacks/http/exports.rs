//! Responses that contain the whole revocation log.

use std::time::Duration;

use rescind::server::Limits;
use rescind::store::Role;
use sqlx::{Connection as _, Executor as _};

use crate::api::harness::{Setup, TestServer};
use crate::support::databases::{Kind, TestDatabase};

const EXPORT: &str = "/api/v1/revocations/export";
const VERIFY: &str = "/api/v1/revocations/verify";

async fn server(whole_log: usize) -> TestServer {
    let limits = Limits {
        whole_log,
        ..Setup::default().limits
    };
    TestServer::start_with(Setup {
        limits,
        ..Setup::default()
    })
    .await
}

#[tokio::test]
async fn the_whole_log_is_read_for_a_few_at_a_time() {
    let full = server(0).await;
    let viewer = full.client(Role::Viewer).await;
    for path in [EXPORT, VERIFY] {
        let reply = viewer.get(path).await;
        reply.error(503, "SERVICE_UNAVAILABLE");
        assert!(reply.header("retry-after").is_some());
    }
    // A reader that has read all of it gives its place back.
    let free = server(1).await;
    let viewer = free.client(Role::Viewer).await;
    for path in [EXPORT, VERIFY, EXPORT, VERIFY] {
        assert_eq!(viewer.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_takes_too_long_to_verify_is_referred_to_the_command_line() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let limits = Limits {
        request_time: Duration::from_secs(2),
        ..Setup::default().limits
    };
    let setup = Setup {
        limits,
        ..Setup::default()
    };
    let server = TestServer::on(&database, setup).await;
    let viewer = server.client(Role::Viewer).await;
    let mut holder = sqlx::PgConnection::connect(&database.url).await.unwrap();
    let hold = "BEGIN; LOCK TABLE revocation_log IN ACCESS EXCLUSIVE MODE";
    holder.execute(sqlx::raw_sql(hold)).await.unwrap();
    let reply = viewer.get(VERIFY).await;
    reply.error(503, "SERVICE_UNAVAILABLE");
    assert!(reply.text.contains("rescind log verify"), "{}", reply.text);
    holder.close().await.unwrap();
    assert_eq!(viewer.get(VERIFY).await.status, 200);
    server.stop().await;
    database.remove().await;
}
