//! Deliveries that name many keys of ours.

use rescind::forge::Forge;
use rescind::keyformat::KeyValue;
use rescind::respond::{LITTLE, Responder, Turn};
use serde_json::{Value, json};

use super::sender::{all, send};
use crate::api::harness::TestServer;
use crate::support::databases::on_both_databases;
use crate::support::eventually::eventually;
use crate::support::responder::{issuer, request, sighting};

/// Takes the turns of messages that name many keys.
async fn hold_turns(responder: &Responder, key: &KeyValue) -> [Turn; 2] {
    let seen = (0..=LITTLE as u64).map(|line| sighting(responder, key, line));
    let seen = responder.clean(seen.collect()).await;
    let mut turns = [Turn::default(), Turn::default()];
    for turn in &mut turns {
        let granted = responder.store_in_turn(turn, "partner:test", &seen);
        granted.await.unwrap();
    }
    turns
}

/// A push with a message that names each of these keys so many times.
fn push(after: usize, keys: &[KeyValue], times: usize) -> Value {
    let words: Vec<&str> = keys.iter().map(KeyValue::expose).collect();
    json!({
        "ref": "refs/heads/main", "before": "0".repeat(40), "after": format!("{after:040x}"), "commits": [],
        "head_commit": {"message": format!("{} ", words.join(" ")).repeat(times)},
        "repository": {"id": 4711, "full_name": "acme/webshop", "html_url": "https://github.com/acme/webshop",
            "clone_url": "https://github.com/acme/webshop.git"},
    })
}

on_both_databases! {
    /// Else it waited for the turn of these, and if that did not come it was lost with the forges that repeat nothing.
    async fn what_a_delivery_pushed_does_not_wait_for_the_many_keys_that_it_names(database) {
        let server = TestServer::on(database, all()).await;
        let mut keys = Vec::new();
        for _ in 0..102 {
            keys.push(issuer(&server.responder).issue(request("leaks")).await.unwrap().1);
        }
        let unseen = keys.pop().unwrap();
        // Written with the delivery, apart from it, and in the middle of it.
        let pushes = [push(1, &keys[..70], 2), push(2, &keys[..4], 75), push(3, &keys, 100)];
        let stored = "SELECT COUNT(*) FROM work_items";
        let recorded = "SELECT COUNT(*) FROM webhook_deliveries";
        for (before, push) in (0..).zip(&pushes) {
            let id = before.to_string();
            let turns = hold_turns(&server.responder, &unseen).await;
            let deliver = send(&server, Forge::GitHub, "push", &id, push);
            let others = async {
                eventually("the push is stored", async || database.count(stored).await > before).await;
                assert_eq!(database.count(recorded).await, before);
                drop(turns);
            };
            let (reply, ()) = tokio::join!(deliver, others);
            assert_eq!(reply.status, 202, "{}", reply.text);
            let reply = send(&server, Forge::GitHub, "push", &id, push).await;
            assert_eq!(reply.status, 202, "{}", reply.text);
            assert_eq!((database.count(stored).await, database.count(recorded).await), (before + 1, before + 1));
        }
        assert_eq!(server.store.log_head().await.unwrap().seq, 101);
        server.stop().await;
    }
    /// A log that is pasted into a comment may have the same one on each line.
    async fn a_key_that_leaked_many_times_is_revoked_before_the_turn_of_its_delivery(database) {
        let server = TestServer::on(database, all()).await;
        let mut issued = Vec::new();
        for _ in 0..3 {
            issued.push(issuer(&server.responder).issue(request("leaks")).await.unwrap());
        }
        let [(_, unseen), (first, one), (second, other)] = issued.try_into().unwrap();
        let turns = hold_turns(&server.responder, &unseen).await;
        let is_revoked = async |id| server.store.key(id).await.unwrap().unwrap().revoked_at.is_some();
        let push = push(1, &[one, other], 400);
        let deliver = send(&server, Forge::GitHub, "push", "1", &push);
        let others = async {
            eventually("both are revoked", async || is_revoked(first.id).await && is_revoked(second.id).await).await;
            drop(turns);
        };
        let (reply, ()) = tokio::join!(deliver, others);
        assert_eq!(reply.status, 202, "{}", reply.text);
        let seen = "SELECT CAST(SUM(sightings) AS BIGINT) FROM occurrences WHERE repository = 'acme/webshop'";
        let counted = database.count(seen).await;
        let reply = send(&server, Forge::GitHub, "push", "1", &push).await;
        assert_eq!((reply.status, database.count(seen).await), (202, counted));
        server.stop().await;
    }
}
