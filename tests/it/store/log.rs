//! The revocation log: nobody changes it unnoticed.

use rescind::respond::Responder;
use rescind::store::{
    Action, LogEntry, LogFilter, PageRequest, Problem, Reason, Store, VerifyError, verify_lines,
};
use sqlx::{Connection as _, Executor as _};

use crate::support::databases::{Kind, TestDatabase, on_both_databases};
use crate::support::eventually::eventually;
use crate::support::responder::{issuer, request, responder, rotate_request, sighting};

/// Makes `n` entries of different kinds; gives the responder.
pub(super) async fn append(store: &Store, n: usize) -> Responder {
    let (responder, clock) = responder(store);
    for round in 0..n {
        let description = format!("key \"{round}\"\\ \t\n ünïcode \u{1f511} \u{fffd}\u{7f}");
        let (key, value) = issuer(&responder)
            .issue(request(&description))
            .await
            .unwrap();
        match round % 3 {
            0 => {
                let seen = vec![sighting(&responder, &value, 3)];
                responder
                    .report(seen, Reason::Leaked, "source:github-public")
                    .await
                    .unwrap();
            }
            1 => {
                responder.revoke(key.id, "cli").await.unwrap().unwrap();
            }
            _ => {
                let overlap = std::time::Duration::from_hours(1);
                issuer(&responder)
                    .rotate(rotate_request(key.id, overlap))
                    .await
                    .unwrap();
            }
        }
        clock.advance(jiff::SignedDuration::from_micros(1_234_567));
    }
    responder
}

async fn export(store: &Store) -> String {
    let mut lines = String::new();
    let mut after = 0;
    loop {
        let entries = store.log_after(after, 2).await.unwrap();
        let Some(last) = entries.last() else {
            return lines;
        };
        after = last.seq;
        for entry in &entries {
            lines.push_str(&entry.to_json_line());
            lines.push('\n');
        }
    }
}

fn first_bad(lines: &str) -> (u64, Problem) {
    match verify_lines(lines.as_bytes()) {
        Err(VerifyError::Broken(broken)) => (broken.position, broken.problem),
        other => panic!("a broken chain was expected, not {other:?}"),
    }
}

on_both_databases! {
    async fn the_chain_verifies_in_the_database_and_outside(database) {
        let store = database.store().await;
        let empty = store.verify_log().await.unwrap().unwrap();
        assert_eq!((empty.entries, empty.head), (0, "0".repeat(64)));
        append(&store, 7).await;
        let inside = store.verify_log().await.unwrap().unwrap();
        assert_eq!(inside.entries, 7);
        let outside = verify_lines(export(&store).await.as_bytes()).unwrap();
        assert_eq!(inside, outside);
        let head = store.log_head().await.unwrap();
        assert_eq!((head.seq, head.hash), (inside.entries, inside.head));
        let entry = store.log_entry(1).await.unwrap().unwrap();
        assert_eq!(entry.prev_hash, "0".repeat(64));
        assert_eq!(store.log_entry(8).await.unwrap(), None);
    }

    async fn lists_are_newest_first_and_keep_to_the_filter(database) {
        let store = database.store().await;
        append(&store, 7).await;
        let page = store.list_log(&LogFilter::default(), &PageRequest::new(5, None)).await.unwrap();
        let seqs: Vec<u64> = page.items.iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, [7, 6, 5, 4, 3]);
        let rest = PageRequest::new(5, page.next_cursor);
        let rest = store.list_log(&LogFilter::default(), &rest).await.unwrap();
        assert_eq!(rest.items.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(rest.next_cursor, None);
        let count = async |filter: LogFilter| {
            store.list_log(&filter, &PageRequest::first()).await.unwrap().items.len()
        };
        let all = LogFilter::default;
        let third = store.log_entry(3).await.unwrap().unwrap();
        assert_eq!(count(LogFilter { action: Some(Action::Rotated), ..all() }).await, 2);
        assert_eq!(count(LogFilter { reason: Some(Reason::Manual), ..all() }).await, 2);
        assert_eq!(count(LogFilter { key_id: Some(third.key_id), ..all() }).await, 1);
        assert_eq!(count(LogFilter { since: Some(third.at), ..all() }).await, 5);
        assert_eq!(count(LogFilter { until: Some(third.at), ..all() }).await, 2);
        assert_eq!(count(LogFilter { project: Some("other".to_owned()), ..all() }).await, 0);
        assert_eq!(store.log_of_key(third.key_id, 10).await.unwrap(), [third]);
    }

    async fn a_change_behind_the_programs_back_is_named(database) {
        let store = database.store().await;
        append(&store, 5).await;
        let guard = match database.kind {
            Kind::Sqlite => vec![
                "DROP TRIGGER revocation_log_is_not_changed",
                "DROP TRIGGER revocation_log_is_kept",
            ],
            Kind::Postgres => vec!["DROP TRIGGER revocation_log_is_append_only ON revocation_log"],
        };
        for drop in guard {
            database.run(drop).await.unwrap();
        }
        let changed = async |change: &str, back: &str| {
            database.run(change).await.unwrap();
            let broken = store.verify_log().await.unwrap().unwrap_err();
            database.run(back).await.unwrap();
            store.verify_log().await.unwrap().unwrap();
            (broken.position, broken.problem)
        };
        let column = async |column: &str, other: &str| {
            let broken = changed(
                &format!("UPDATE revocation_log SET {column} = {column} {other} WHERE seq = 3"),
                &format!("UPDATE revocation_log SET {column} = REPLACE({column}, 'x', '') WHERE seq = 3"),
            )
            .await;
            assert_eq!(broken.0, 3, "{column}");
            broken.1
        };
        assert!(matches!(column("action", "|| 'x'").await, Problem::Column("action")));
        assert!(matches!(column("reason", "|| 'x'").await, Problem::Column("reason")));
        assert!(matches!(column("hash", "|| 'x'").await, Problem::Hash { .. }));
        assert!(matches!(column("prev_hash", "|| 'x'").await, Problem::Hash { .. }));
        let (position, problem) = changed(
            "UPDATE revocation_log SET at = at + 1 WHERE seq = 2",
            "UPDATE revocation_log SET at = at - 1 WHERE seq = 2",
        )
        .await;
        assert_eq!((position, problem), (2, Problem::Column("at")));
        let (position, problem) = changed(
            "UPDATE revocation_log SET entry = REPLACE(entry, 'user-1', 'user-2') WHERE seq = 4",
            "UPDATE revocation_log SET entry = REPLACE(entry, 'user-2', 'user-1') WHERE seq = 4",
        )
        .await;
        assert!(position == 4 && matches!(problem, Problem::Hash { .. }), "{problem}");
        let (position, problem) = changed(
            "UPDATE log_head SET seq = seq + 1",
            "UPDATE log_head SET seq = seq - 1",
        )
        .await;
        assert!(position == 5 && matches!(problem, Problem::Head { seq: 6, .. }), "{problem}");
        database.run("DELETE FROM revocation_log WHERE seq = 5").await.unwrap();
        let broken = store.verify_log().await.unwrap().unwrap_err();
        assert!(matches!(broken.problem, Problem::Head { seq: 5, .. }), "{broken}");
        database.run("DELETE FROM revocation_log WHERE seq = 3").await.unwrap();
        let broken = store.verify_log().await.unwrap().unwrap_err();
        assert_eq!((broken.position, broken.seq), (3, Some(4)));
        assert_eq!(broken.problem, Problem::Seq { expected: 3 });
    }
}

#[tokio::test]
async fn every_flipped_byte_of_an_export_is_named() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    append(&store, 2).await;
    let good = export(&store).await.into_bytes();
    let verified = verify_lines(&*good).unwrap();
    assert_eq!(verified.entries, 2);
    let mut line = 1;
    for at in 0..good.len() {
        for flip in [0x01, 0x04, 0x20, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            match verify_lines(&*bad) {
                Err(VerifyError::Broken(broken)) => {
                    let near = String::from_utf8_lossy(&good[at.saturating_sub(20)..at]);
                    assert_eq!(
                        broken.position, line,
                        "byte {at} ^ {flip}, after {near}: {broken}"
                    );
                }
                other => panic!("byte {at} ^ {flip} went unseen: {other:?}"),
            }
        }
        line += u64::from(good[at] == b'\n');
    }
}

#[tokio::test]
async fn entries_left_out_added_or_moved_are_named() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    append(&store, 4).await;
    let good = export(&store).await;
    let lines: Vec<&str> = good.lines().collect();
    let joined = |order: &[usize]| {
        order
            .iter()
            .fold(String::new(), |all, &n| all + lines[n] + "\n")
    };
    assert_eq!(
        first_bad(&joined(&[0, 2, 3])),
        (2, Problem::Seq { expected: 2 })
    );
    assert_eq!(
        first_bad(&joined(&[0, 0, 1])),
        (2, Problem::Seq { expected: 2 })
    );
    assert_eq!(
        first_bad(&joined(&[1, 2])),
        (1, Problem::Seq { expected: 1 })
    );
    assert_eq!(
        first_bad(&joined(&[0, 2, 1, 3])),
        (2, Problem::Seq { expected: 2 })
    );
    // Cutting the end off shows in the count and the head only.
    let cut = verify_lines(joined(&[0, 1]).as_bytes()).unwrap();
    assert_ne!(cut.head, verify_lines(good.as_bytes()).unwrap().head);

    let with = |from: &str, to: &str| {
        let line = lines[1].replacen(from, to, 1);
        assert_ne!(line, lines[1]);
        first_bad(&format!("{}\n{line}\n{}\n", lines[0], lines[2]))
    };
    for (from, to) in [
        ("{", "{\"extra\":1,"),
        ("{", "{\"seq\":2,"),
        ("\"actor\"", "\"policy\":null,\"actor\""),
        ("\"seq\":2", "\"seq\":2.0"),
        ("\"seq\":2", "\"seq\":\"2\""),
        ("Z\"", "+00:00\""),
        ("\"format\":", "\"formad\":"),
    ] {
        let (position, problem) = with(from, to);
        let named = matches!(problem, Problem::NotAnEntry(_) | Problem::Hash { .. });
        assert!(position == 2 && named, "{from} -> {to}: {problem}");
    }
    let (position, problem) = first_bad(&format!("{}\n\n", lines[0]));
    assert!(position == 2 && matches!(problem, Problem::NotAnEntry(_)));
    let (position, problem) = first_bad(&format!("{} {}\n", lines[0], "x".repeat(2 << 20)));
    assert!(position == 1 && matches!(problem, Problem::NotAnEntry(_)));
}

#[tokio::test]
async fn an_entry_rewritten_with_its_hash_breaks_the_link_after_it() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    append(&store, 3).await;
    let good = export(&store).await;
    let lines: Vec<&str> = good.lines().collect();
    // As a forger would do it in twenty lines of code.
    let mut forged: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
    forged["owner_id"] = "somebody else".into();
    let members = forged.as_object_mut().unwrap();
    let prev = members.remove("prev_hash").unwrap();
    members.remove("hash");
    let text = rescind::store::canonical_json(&forged);
    let hash = rescind::keyformat::Sha256Digest::of(
        format!("{}{text}", prev.as_str().unwrap()).as_bytes(),
    );
    forged["prev_hash"] = prev;
    forged["hash"] = hash.to_hex().into();
    let (position, problem) = first_bad(&format!("{}\n{forged}\n{}\n", lines[0], lines[2]));
    assert_eq!(
        (position, problem),
        (
            3,
            Problem::Link {
                expected: hash.to_hex()
            }
        )
    );
    // Members in another order and space between them are the same entry.
    let spaced = lines[1]
        .replace("\":", "\" : ")
        .replace("\\\"1\\\"", "\\u0022\\u0031\\u0022");
    assert_ne!(spaced, lines[1]);
    verify_lines(format!("{}\n{spaced}\n{}\n", lines[0], lines[2]).as_bytes()).unwrap();
}

#[tokio::test]
async fn a_csv_row_holds_every_field_and_no_formula() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    let responder = append(&store, 0).await;
    let (_, value) = issuer(&responder)
        .issue(request("=HYPERLINK(\"http://evil\")"))
        .await
        .unwrap();
    let seen = vec![sighting(&responder, &value, 3)];
    responder
        .report(seen, Reason::Leaked, "partner:github")
        .await
        .unwrap();
    let entry: LogEntry = store.log_entry(1).await.unwrap().unwrap();
    let row = entry.to_csv_row();
    let field = |name: &str| {
        let at = rescind::store::CSV_HEADER
            .iter()
            .position(|column| *column == name);
        row[at.unwrap()].clone()
    };
    assert_eq!(field("seq"), "1");
    assert_eq!(field("at"), "2026-11-22T20:46:15.000000Z");
    assert_eq!(field("description"), "'=HYPERLINK(\"http://evil\")");
    for full_width in ["＝1", "＋1", "－1", "＠A1"] {
        let mut entry = entry.clone();
        full_width.clone_into(&mut entry.description);
        assert!(entry.to_csv_row().contains(&format!("'{full_width}")));
    }
    assert_eq!(field("occurrence_path"), "config/prod.env");
    assert_eq!(field("occurrence_line"), "3");
    assert_eq!(field("hash"), entry.hash);
    let json: serde_json::Value = serde_json::to_value(&entry).unwrap();
    let names = json
        .as_object()
        .unwrap()
        .keys()
        .flat_map(|name| match &json[name] {
            serde_json::Value::Object(inner) => inner
                .keys()
                .map(|inner| format!("{name}_{inner}"))
                .collect(),
            _ => vec![name.clone()],
        });
    for name in names {
        assert!(!field(&name).is_empty(), "{name}");
    }
}

/// Each of them would have a connection, and a processor, that reports and checks of keys need.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_read_the_whole_log_at_a_time() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let store = database.store().await;
    append(&store, 2).await;
    let mut holder = sqlx::PgConnection::connect(&database.url).await.unwrap();
    let hold = "BEGIN; LOCK TABLE revocation_log IN ACCESS EXCLUSIVE MODE";
    holder.execute(sqlx::raw_sql(hold)).await.unwrap();
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let store = store.clone();
        readers.spawn(async move { drop(store.verify_log().await) });
    }
    let waiting = async |text: &str| {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                AND wait_event_type = 'Lock' AND query LIKE '%{text}%'"
        );
        database.count(&sql).await
    };
    let verifying = "revocation_log l LEFT JOIN";
    eventually("two read the log", async || waiting(verifying).await >= 2).await;
    // What was asked for later has reached the database, and so would have the other readers.
    let mut later = tokio::task::JoinSet::new();
    for seq in [1, 2] {
        let store = store.clone();
        later.spawn(async move { drop(store.log_entry(seq).await) });
    }
    eventually("entries are looked up", async || {
        waiting("WHERE seq = ").await == 2
    })
    .await;
    assert_eq!(waiting(verifying).await, 2);
    holder.close().await.unwrap();
    readers.shutdown().await;
    later.shutdown().await;
    assert_eq!(store.verify_log().await.unwrap().unwrap().entries, 2);
    store.close().await;
    database.remove().await;
}
