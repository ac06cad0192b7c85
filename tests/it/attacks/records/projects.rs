//! Isolation of projects: knowing another project's keys gives no power over them.

use rescind::intake::{SelfReport, self_report};
use rescind::keyformat::KeyValue;
use rescind::respond::{Known, Outcome, Responder};
use rescind::store::{
    ImportOutcome, LogFilter, NewKey, Owner, PageRequest, Reason, Role, Store, StoreError,
};
use serde_json::json;
use uuid::Uuid;

use crate::api::harness::TestServer;
use crate::support::databases::on_both_databases;
use crate::support::responder::{issuer, request, responder, sighting};

/// A key of this value in a project, as an import makes it.
fn copy(value: &KeyValue, project: &str, is_public: bool) -> NewKey {
    NewKey {
        id: Uuid::now_v7(),
        project: project.to_owned(),
        digest: value.sha256(),
        format: "imported".to_owned(),
        owner: Owner::user("user-1"),
        description: "taken over".to_owned(),
        is_public,
        prefix: String::new(),
        last_four: value.last_four().to_owned(),
        policy: None,
        notify_emails: Vec::new(),
        created_at: "2026-11-22T20:46:15Z".parse().unwrap(),
        expires_at: None,
        definition: None,
    }
}

async fn import(responder: &Responder, keys: Vec<NewKey>) -> Vec<ImportOutcome> {
    issuer(responder).import(keys).await.unwrap()
}

async fn entries(store: &Store, project: &str) -> usize {
    let filter = LogFilter {
        project: Some(project.to_owned()),
        ..LogFilter::default()
    };
    store
        .list_log(&filter, &PageRequest::first())
        .await
        .unwrap()
        .items
        .len()
}

on_both_databases! {
    async fn a_value_is_revoked_in_each_project_that_holds_it(database) {
        let store = database.store().await;
        let (responder, _) = responder(&store);
        let (own, value) = issuer(&responder).issue(request("deploys")).await.unwrap();
        // Another project claims the same value twice, and a third calls it public.
        let claims = vec![copy(&value, "other", false), copy(&value, "other", false), copy(&value, "third", true)];
        let outcomes = import(&responder, claims).await;
        assert_eq!(outcomes, [ImportOutcome::Imported, ImportOutcome::Duplicate, ImportOutcome::Imported]);
        let again = NewKey { project: "default".to_owned(), ..copy(&value, "default", true) };
        let mut tx = store.begin().await.unwrap();
        assert!(matches!(tx.insert_key(again).await, Err(StoreError::Exists(_))));
        tx.rollback().await.unwrap();

        let seen = vec![sighting(&responder, &value, 1), sighting(&responder, &value, 2)];
        let answers = responder.report(seen, Reason::Leaked, "partner:github").await.unwrap();
        let [Outcome::Revoked(mine), Outcome::Revoked(other), Outcome::Public(public)] = &*answers[0].outcomes else {
            panic!("{answers:?}");
        };
        assert_eq!(mine.id, own.id);
        assert_eq!([&*mine.project, &*other.project, &*public.project], ["default", "other", "third"]);
        assert!(matches!(*answers[1].outcomes,
            [Outcome::AlreadyInvalid(_), Outcome::AlreadyInvalid(_), Outcome::Public(_)]));
        for (project, logged) in [("default", 1), ("other", 1), ("third", 0)] {
            let key = store.find_key(project, &value.sha256()).await.unwrap().unwrap();
            assert_eq!(key.revoked_at.is_some(), logged == 1, "{project}");
            assert_eq!(entries(&store, project).await, logged, "{project}");
            assert_eq!(store.occurrences(key.id, 10).await.unwrap().len(), 2);
        }
        assert_eq!(store.find_key("fourth", &value.sha256()).await.unwrap(), None);
        assert_eq!(store.verify_log().await.unwrap().unwrap().entries, 2);
    }

    async fn the_strongest_outcome_answers_a_self_report(database) {
        let store = database.store().await;
        let (responder, clock) = responder(&store);
        let value = KeyValue::new("acme_1234567890_not_minted_here");
        let reported = async || {
            let known = Known::of(&store, [value.sha256()]).await.unwrap();
            self_report(&responder, &known, value.clone(), None).await.unwrap()
        };
        assert_eq!(reported().await, SelfReport::Unknown);
        import(&responder, vec![copy(&value, "a", true)]).await;
        assert_eq!(reported().await, SelfReport::Public);
        let end = clock_now(&responder);
        import(&responder, vec![NewKey { expires_at: Some(end), ..copy(&value, "b", false) }]).await;
        clock.advance(jiff::SignedDuration::from_secs(1));
        assert_eq!(reported().await, SelfReport::Expired);
        import(&responder, vec![copy(&value, "c", false)]).await;
        assert_eq!(reported().await, SelfReport::Revoked);
        assert_eq!(reported().await, SelfReport::Revoked);
    }

    async fn peppers_are_changed_in_each_project(database) {
        let plain = database.store().await;
        let (before, _) = responder(&plain);
        let value = KeyValue::new("acme_1234567890_not_minted_here");
        import(&before, vec![copy(&value, "a", false), copy(&value, "b", false)]).await;
        let peppered = database.store_with(&["new"]).await;
        let (after, _) = responder(&peppered);
        // Under whichever pepper, the same project does not get it twice; another does.
        let more = vec![copy(&value, "a", false), copy(&value, "c", false)];
        assert_eq!(import(&after, more).await, [ImportOutcome::Duplicate, ImportOutcome::Imported]);
        // A program that still had the old configuration made a second row under the new form.
        let found = peppered.find_keys(&[value.sha256()]).await.unwrap();
        assert_eq!(found[&value.sha256()].len(), 3);
        // All of them are rewritten: without the pepper nothing is found.
        assert!(plain.find_keys(&[value.sha256()]).await.unwrap().is_empty());
        // Two programs with different peppers store the same value in one project, before either knows of the other's.
        let refused = issuer(&before).import(vec![copy(&value, "c", false)]).await;
        assert!(matches!(refused, Err(StoreError::UnknownPepper { .. })), "{refused:?}");
        let mut tx = plain.begin().await.unwrap();
        tx.insert_key(copy(&value, "c", false)).await.unwrap();
        tx.commit().await.unwrap();
        let keys = &peppered.find_keys(&[value.sha256()]).await.unwrap()[&value.sha256()];
        let projects: Vec<&str> = keys.iter().map(|key| &*key.project).collect();
        assert_eq!(projects, ["a", "b", "c"]);
        let seen = vec![sighting(&after, &value, 1)];
        let answers = after.report(seen, Reason::Leaked, "test").await.unwrap();
        assert_eq!(answers[0].keys().filter(|key| key.revoked_at.is_some()).count(), 3);
    }
}

fn clock_now(responder: &Responder) -> jiff::Timestamp {
    responder.clock().now()
}

/// The attack as an issuer of another project would make it, over the API.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_neither_learns_of_nor_takes_another_projects_keys() {
    let server = TestServer::start().await;
    let attacker = server.with_token(server.token_in(Role::Issuer, "a").await);
    let victim = server.with_token(server.token_in(Role::Issuer, "b").await);
    let planned = server.mint();
    let minted = victim.create(json!({})).await;
    let minted = minted["value"].as_str().unwrap();

    let row = |value: &str| {
        let digest = rescind::keyformat::Sha256Digest::of(value.as_bytes()).to_hex();
        format!("sha256,owner_type,owner_id\n{digest},user,u\n")
    };
    let import = async |client: &crate::api::harness::Client<'_>, value: &str| {
        let request = client.request("POST", "/api/v1/keys/import");
        let request = request.header("content-type", "text/csv").body(row(value));
        let reply = crate::api::harness::Reply::of(request).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let counts = reply.json();
        (
            counts["imported"].as_u64().unwrap(),
            counts["duplicates"].as_u64().unwrap(),
        )
    };
    // A digest that somebody holds, and one that nobody does, are answered alike.
    assert_eq!(import(&attacker, minted).await, (1, 0));
    assert_eq!(import(&attacker, planned.expose()).await, (1, 0));
    // Whoever comes later is not kept out.
    assert_eq!(import(&victim, planned.expose()).await, (1, 0));
    assert_eq!(import(&victim, planned.expose()).await, (0, 1));
    for value in [minted, planned.expose()] {
        let check = json!({ "api_key": value });
        for client in [&attacker, &victim] {
            let reply = client
                .post("/api/v1/user-api-keys/check", check.clone())
                .await;
            assert_eq!(reply.status, 200, "{}", reply.text);
        }
    }
    // Changes to the attacker's own copy do not affect the other one.
    let check = json!({ "api_key": minted });
    let copy = attacker
        .post("/api/v1/user-api-keys/check", check.clone())
        .await
        .json();
    let path = format!("/api/v1/user-api-keys/{}", copy["id"].as_str().unwrap());
    assert_eq!(
        attacker
            .patch(&path, json!({ "revoked": true }))
            .await
            .status,
        200
    );
    victim
        .patch(&path, json!({ "revoked": true }))
        .await
        .error(404, "API_KEY_NOT_FOUND");
    assert_eq!(
        victim
            .post("/api/v1/user-api-keys/check", check.clone())
            .await
            .status,
        200
    );
    // A leak is everybody's.
    let path = "/api/v1/integrations/credential-scanning/revoke";
    let body = json!({ "api_key": planned.expose() });
    assert_eq!(
        server.anonymous().post(path, body.clone()).await.status,
        200
    );
    for client in [&attacker, &victim] {
        let reply = client
            .post("/api/v1/user-api-keys/check", body.clone())
            .await;
        reply.error(401, "API_KEY_REVOKED");
    }
    server.stop().await;
}
