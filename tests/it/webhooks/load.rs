//! Many deliveries at once, and a database that is slow, full of trouble or gone.

use std::time::{Duration, Instant};

use rescind::forge::Forge;
use serde_json::{Value, json};

use super::sender::{all, send};
use crate::api::harness::TestServer;
use crate::support::databases::{Kind, TestDatabase, on_both_databases};
use crate::support::eventually::eventually;

fn push(reference: &str) -> Value {
    json!({
        "ref": reference, "before": "1".repeat(40), "after": "2".repeat(40),
        "repository": {"id": 1, "full_name": "acme/app", "clone_url": "https://github.com/acme/app.git"},
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_amounts_to_nothing_does_not_wait_for_the_database() {
    let server = TestServer::start_with(all()).await;
    // Whoever wants to write waits for this transaction.
    let tx = server.store.begin().await.unwrap();
    let comment =
        json!({"comment": {"body": "a harmless text"}, "repository": {"full_name": "a/b"}});
    let began = Instant::now();
    for number in 0..50 {
        let id = format!("guid-{number}");
        let reply = send(&server, Forge::GitHub, "issue_comment", &id, &comment).await;
        assert_eq!(reply.status, 202);
    }
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    let waiting = send(
        &server,
        Forge::GitHub,
        "push",
        "guid",
        push("refs/heads/main"),
    );
    let waiting = tokio::time::timeout(Duration::from_millis(300), waiting).await;
    assert!(waiting.is_err(), "answered before it was stored");
    tx.rollback().await.unwrap();
    // Nobody waits for the answer any more; the push is stored all the same.
    eventually("the push is stored", async || {
        server.store.work_counts().await.unwrap().waiting == 1
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pushes_at_once_are_all_stored_before_they_are_answered() {
    let server = TestServer::start_with(all()).await;
    let sent = (0..500).map(|number| {
        let server = &server;
        async move {
            let began = Instant::now();
            let reference = format!("refs/heads/{number}");
            let reply = send(server, Forge::GitHub, "push", &reference, push(&reference)).await;
            assert_eq!(reply.status, 202, "{}", reply.text);
            began.elapsed()
        }
    });
    let mut took = futures_util::future::join_all(sent).await;
    took.sort();
    assert_eq!(server.store.work_counts().await.unwrap().waiting, 500);
    assert!(took[499] < Duration::from_secs(10), "{:?}", took[499]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_cannot_be_stored_takes_no_other_along() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let server = TestServer::on(&database, all()).await;
    let trigger =
        "CREATE TRIGGER poison BEFORE INSERT ON work_items WHEN NEW.ref_name = 'refs/heads/poison'
        BEGIN SELECT RAISE(ABORT, 'poison'); END";
    database.run(trigger).await.unwrap();
    // Held until all have arrived, so that they are one group.
    let tx = server.store.begin().await.unwrap();
    let names = ["a", "b", "poison", "c", "d"];
    let sent = names.map(|name| {
        send(
            &server,
            Forge::GitHub,
            "push",
            name,
            push(&format!("refs/heads/{name}")),
        )
    });
    let release = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        tx.rollback().await.unwrap();
    };
    let (replies, ()) = tokio::join!(futures_util::future::join_all(sent), release);
    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!(statuses, [202, 202, 500, 202, 202]);
    assert_eq!(server.store.work_counts().await.unwrap().waiting, 4);
    assert_eq!(
        database
            .count("SELECT COUNT(*) FROM webhook_deliveries")
            .await,
        4
    );
    server.stop().await;
    database.remove().await;
}

/// The database puts off one of them: as a statement that waits for a lock for too long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_the_database_puts_off_takes_no_other_along() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let server = TestServer::on(&database, all()).await;
    for sql in [
        "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.ref_name = 'refs/heads/poison' THEN RAISE 'poison' USING ERRCODE = '55P03'; END IF;
            IF NEW.ref_name = 'refs/heads/first' THEN PERFORM pg_sleep(1); END IF;
            RETURN NEW; END $$",
        "CREATE TRIGGER poison BEFORE INSERT ON work_items FOR EACH ROW EXECUTE FUNCTION poison()",
    ] {
        database.run(sql).await.unwrap();
    }
    // The others arrive while the first one is stored, so they are one group.
    let names = ["first", "a", "b", "poison", "c", "d"];
    let server_ref = &server;
    let sent = names.map(|name| async move {
        if name != "first" {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let payload = push(&format!("refs/heads/{name}"));
        send(server_ref, Forge::GitHub, "push", name, payload)
            .await
            .status
    });
    let statuses = futures_util::future::join_all(sent).await;
    assert_eq!(statuses, [202, 202, 202, 503, 202, 202]);
    assert_eq!(server.store.work_counts().await.unwrap().waiting, 5);
    server.stop().await;
    database.remove().await;
}

/// The body that GitLab sends of a push of this many branches.
fn pushed_at_once(count: usize) -> Value {
    let nested = format!("{}/", "n".repeat(90));
    let name = format!("group/{}app", nested.repeat(18));
    let changes: Vec<_> = (0..count)
        .map(|n| json!({"ref": format!("refs/heads/{n}"), "after": format!("{:040x}", n + 1)}))
        .collect();
    json!({
        "event_name": "repository_update", "project_id": 15, "changes": changes,
        "project": {"path_with_namespace": name, "git_http_url": format!("https://gitlab.example/{name}.git")},
    })
}

on_both_databases! {
    async fn a_delivery_of_many_references_is_stored_in_pieces_and_recorded_with_the_last(database) {
        let server = TestServer::on(database, all()).await;
        let payload = pushed_at_once(1_000);
        let stored = "SELECT COUNT(*) FROM work_items";
        let recorded = "SELECT COUNT(*) FROM webhook_deliveries";
        let poison = match database.kind {
            Kind::Sqlite => vec!["CREATE TRIGGER poison BEFORE INSERT ON work_items WHEN NEW.ref_name = 'refs/heads/900'
                BEGIN SELECT RAISE(ABORT, 'poison'); END"],
            Kind::Postgres => vec![
                "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF NEW.ref_name = 'refs/heads/900' THEN RAISE 'poison'; END IF; RETURN NEW; END $$",
                "CREATE TRIGGER poison BEFORE INSERT ON work_items FOR EACH ROW EXECUTE FUNCTION poison()",
            ],
        };
        for sql in poison {
            database.run(sql).await.unwrap();
        }
        let reply = send(&server, Forge::GitLab, "System Hook", "many", &payload).await;
        assert_eq!(reply.status, 500, "{}", reply.text);
        let before = database.count(stored).await;
        assert!((1..900).contains(&before), "{before}");
        assert_eq!(database.count(recorded).await, 0);

        let on = if database.kind == Kind::Postgres { " ON work_items" } else { "" };
        database.run(&format!("DROP TRIGGER poison{on}")).await.unwrap();
        for _ in 0..2 {
            let reply = send(&server, Forge::GitLab, "System Hook", "many", &payload).await;
            assert_eq!(reply.status, 202, "{}", reply.text);
            assert_eq!((database.count(stored).await, database.count(recorded).await), (1_000, 1));
        }
        let one = "SELECT COUNT(*) FROM work_items WHERE ref_name = 'refs/heads/900' AND repository LIKE 'group/nnn%'
            AND clone_url LIKE 'https://gitlab.example/group/nnn%' AND after_id LIKE '%0385'
            AND source = 'webhook:gitlab'";
        assert_eq!(database.count(one).await, 1);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_database_the_sender_is_told_to_come_again() {
    let server = TestServer::start_with(all()).await;
    let key = server.admin().await.create(json!({})).await;
    server.store.close().await;
    let comment = json!({"comment": {"body": key["value"]}});
    for (event, payload) in [
        ("push", push("refs/heads/main")),
        ("issue_comment", comment),
    ] {
        let reply = send(&server, Forge::GitHub, event, "guid", &payload).await;
        reply.error(503, "SERVICE_UNAVAILABLE");
        assert!(reply.header("retry-after").is_some());
    }
    let harmless = send(&server, Forge::GitHub, "ping", "guid", json!({"zen": "x"})).await;
    assert_eq!(harmless.status, 202);
}
