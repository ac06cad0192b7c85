//! Reports during which the database fails.

use serde_json::json;

use super::signer::{Origin, Signer};
use crate::api::harness::TestServer;
use crate::support::databases::{Kind, TestDatabase};

/// Keys are revoked as they are found, so that the answer must not say that nothing was changed.
#[tokio::test]
async fn a_report_that_fails_in_its_middle_can_be_sent_again_and_what_was_revoked_stays_so() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let signer = Signer::new("k1");
    let origin = Origin::start(&[signer.listed()]).await;
    let server = TestServer::on(&database, origin.setup()).await;
    let admin = server.admin().await;
    let (first, last) = (admin.create(json!({})).await, admin.create(json!({})).await);
    let value = last["value"].as_str().unwrap();
    let full = format!(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER full_disk BEFORE UPDATE ON keys FOR EACH ROW WHEN (NEW.last_four = '{}')
        EXECUTE FUNCTION full_disk()",
        &value[value.len() - 4..]
    );
    for part in full.split(";\n") {
        database.run(part).await.unwrap();
    }
    let body = json!([{"x": first["value"]}, {"token": value}]).to_string();
    for logged in [1, 1] {
        let reply = signer.send(&server, body.clone()).await;
        let error = reply.error(503, "SERVICE_UNAVAILABLE");
        let told = error["error"].as_str().unwrap();
        assert!(!told.to_lowercase().contains("nothing was"), "{told}");
        assert!(told.contains("safe to send the report again"), "{told}");
        assert!(told.contains("what was revoked stays revoked"), "{told}");
        assert_eq!(server.store.log_head().await.unwrap().seq, logged);
    }
    database
        .run("DROP TRIGGER full_disk ON keys")
        .await
        .unwrap();
    let reply = signer.send(&server, body).await;
    assert_eq!(reply.json()[1]["label"], "true_positive");
    assert_eq!(server.store.log_head().await.unwrap().seq, 2);
    server.stop().await;
    database.remove().await;
}
