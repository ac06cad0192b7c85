//! Requests with an `Idempotency-Key`.

use futures_util::future::join_all;
use rescind::store::Role;
use serde_json::{Value, json};

use super::harness::{Client, Reply, Setup, TestServer};
use crate::support::databases::on_both_databases;

const USER: &str = "/api/v1/user-api-keys";
const TEAM: &str = "/api/v1/team-api-keys";

async fn send(client: &Client<'_>, path: &str, name: &str, body: &Value) -> Reply {
    let request = client.request("POST", path).json(body);
    Reply::of(request.header("idempotency-key", name)).await
}

fn new(description: &str) -> Value {
    json!({"user_id": "u-1", "description": description, "expires_at_millis": null})
}

on_both_databases! {
    async fn a_request_that_is_sent_again_creates_one_key(database) {
        let server = TestServer::on(database, Setup::default()).await;
        let admin = server.admin().await;
        let first = send(&admin, USER, "order-1", &new("CI")).await;
        assert_eq!((first.status, first.header("idempotency-replayed")), (200, None));
        let first = first.json();
        let value = first["value"].as_str().expect("the whole value");

        // In quotation marks, as the draft has it, and with its fields in another order, it is the same.
        let body = json!({"expires_at_millis": null, "description": "CI", "is_public": false, "user_id": "u-1"});
        for name in ["order-1", "\"order-1\""] {
            let again = send(&admin, USER, name, &body).await;
            assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")));
            let mut expected = first.clone();
            expected["value"] = json!({"last_four": &value[value.len() - 4..]});
            assert_eq!(again.json(), expected);
        }
        assert_eq!(server.store.count_keys().await.unwrap(), 1);

        // It says what became of the key.
        let path = format!("{USER}/{}", first["id"].as_str().unwrap());
        assert_eq!(admin.patch(&path, json!({"revoked": true})).await.status, 200);
        let again = send(&admin, USER, "order-1", &new("CI")).await.json();
        assert!(again["manually_revoked_at_millis"].is_i64(), "{again}");

        // Another request of that name is refused, whatever differs; others' names are their own.
        let mut team = new("CI");
        team["team_id"] = team.as_object_mut().unwrap().remove("user_id").unwrap();
        for (path, body) in [(USER, new("CD")), (TEAM, team)] {
            send(&admin, path, "order-1", &body).await.error(422, "IDEMPOTENCY_KEY_REUSED");
        }
        let rotation = format!("{path}/rotate");
        let overlap = json!({"overlap_seconds": 0});
        send(&admin, &rotation, "order-1", &overlap).await.error(422, "IDEMPOTENCY_KEY_REUSED");
        let other = server.client(Role::Issuer).await;
        assert!(send(&other, USER, "order-1", &new("CI")).await.json()["value"].is_string());
        assert!(send(&admin, USER, "order-2", &new("CI")).await.json()["value"].is_string());
        // Without a name each is a request of its own.
        assert!(admin.post(USER, new("CI")).await.json()["value"].is_string());
        assert_eq!(server.store.count_keys().await.unwrap(), 4);
        let rows = "SELECT COUNT(*) FROM idempotent_requests";
        assert_eq!(database.count(rows).await, 3);
        server.stop().await;
    }

    async fn a_rotation_that_is_sent_again_rotates_once(database) {
        let server = TestServer::on(database, Setup::default()).await;
        let admin = server.admin().await;
        let old = admin.create(json!({})).await;
        let path = format!("{USER}/{}/rotate", old["id"].as_str().unwrap());
        let body = json!({"overlap_seconds": 60});
        let first = send(&admin, &path, "rotation", &body).await.json();
        assert!(first["value"].is_string(), "{first}");
        let again = send(&admin, &path, "rotation", &body).await;
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        let again = again.json();
        assert_eq!(again["id"], first["id"]);
        assert!(again["value"]["last_four"].is_string(), "{again}");
        // What failed is not remembered: it is tried again, and would succeed once it can.
        let replaced = send(&admin, &path, "another", &body).await;
        replaced.error(409, "CONFLICT");
        send(&admin, &path, "another", &json!({"overlap_seconds": 61})).await.error(409, "CONFLICT");
        assert_eq!(server.store.count_keys().await.unwrap(), 2);
        server.stop().await;
    }

    async fn of_requests_at_once_one_creates_the_key(database) {
        let server = TestServer::on(database, Setup::default()).await;
        let admin = server.admin().await;
        let body = new("CI");
        let replies = join_all((0..12).map(|_| send(&admin, USER, "at once", &body))).await;
        let views: Vec<_> = replies.iter().map(Reply::json).collect();
        assert!(views.iter().all(|view| view["id"] == views[0]["id"]), "{views:?}");
        let whole = views.iter().filter(|view| view["value"].is_string()).count();
        assert_eq!(whole, 1, "{views:?}");
        assert_eq!(server.store.count_keys().await.unwrap(), 1);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_name_that_is_none_is_refused() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let long = "n".repeat(256);
    for name in ["", "\"\"", &long, "naïve"] {
        let error = send(&admin, USER, name, &new("CI")).await;
        let error = error.error(400, "SCHEMA_ERROR");
        assert_eq!(error["details"]["field"], "Idempotency-Key", "{name}");
    }
    assert_eq!(server.store.count_keys().await.unwrap(), 0);
    assert_eq!(send(&admin, USER, &long[1..], &new("CI")).await.status, 200);
}
