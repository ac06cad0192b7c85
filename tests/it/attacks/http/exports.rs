//! Responses that contain the whole revocation log.

use rescind::server::Limits;
use rescind::store::Role;

use crate::api::harness::{Setup, TestServer};

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
