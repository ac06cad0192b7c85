//! A backup that is put back while the daemon runs: until all of it is there, no leak is nobody's.

use std::time::{Duration, Instant};

use super::privileges::Reports;
use super::until;
use crate::support::databases::{Kind, TestDatabase, on_both_databases};

/// Longer than the time between two examinations of the tables.
const SEVERAL_LOOKS: Duration = Duration::from_millis(2_500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_answered_from_tables_that_are_being_filled() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let reports = Reports::new(&database.url, &database.url, 3);
    let daemon = reports.daemon();
    let anew = "CREATE TABLE keys (LIKE before_keys INCLUDING DEFAULTS)";
    let away = "ALTER TABLE keys RENAME TO before_keys";
    let back = "DROP TABLE keys; ALTER TABLE before_keys RENAME TO keys";
    let refused = || {
        let begun = Instant::now();
        while begun.elapsed() < SEVERAL_LOOKS {
            for key in 0..3 {
                let answer = reports.report(&daemon, key);
                assert_eq!(answer.0, 503, "{}", answer.1);
                assert!(answer.1.contains("lacks tables"), "{}", answer.1);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let ready = || daemon.get("/readyz", None);
        until("readiness", ready, |(status, _)| *status == 503);
    };
    // Somebody meets a table that is not there, and then one that is empty.
    database.run(away).await.unwrap();
    let answer = tokio::task::block_in_place(|| reports.report(&daemon, 0));
    assert_eq!(answer.0, 503, "{}", answer.1);
    database.run(anew).await.unwrap();
    tokio::task::block_in_place(refused);
    database.run(back).await.unwrap();
    tokio::task::block_in_place(|| reports.are_taken(&daemon));
    // Nobody asks while the table is not there.
    database.run(&format!("{away}; {anew}")).await.unwrap();
    tokio::task::block_in_place(refused);
    database.run(back).await.unwrap();
    for key in 1..3 {
        let report = || reports.report(&daemon, key);
        let taken =
            tokio::task::block_in_place(|| until("a report", report, |(status, _)| *status == 200));
        assert!(taken.1.contains("true"), "{}", taken.1);
    }
    assert_eq!(daemon.stop().code, Some(0));
    database.remove().await;
}

on_both_databases! {
    async fn a_constraint_or_an_index_that_is_missing_is_named(database) {
        let store = database.store().await;
        assert_eq!(store.missing_objects().await.unwrap(), Vec::<String>::new());
        database.run("DROP INDEX keys_by_age").await.unwrap();
        let mut expected = vec!["index keys_by_age of keys".to_owned()];
        if database.kind == Kind::Postgres {
            for name in ["keys_project_fkey", "keys_pkey"] {
                database.run(&format!("ALTER TABLE keys DROP CONSTRAINT {name} CASCADE")).await.unwrap();
            }
            database.run("ALTER TABLE keys DISABLE TRIGGER keys_are_kept").await.unwrap();
            expected = [
                // Those of other tables refer to the primary key.
                "constraint incidents_key_id_fkey of incidents",
                "constraint keys_pkey of keys",
                "constraint keys_project_fkey of keys",
                "constraint keys_replaced_by_fkey of keys",
                "constraint occurrences_key_id_fkey of occurrences",
                "constraint revocation_log_key_id_fkey of revocation_log",
                "constraint uses_after_exposure_key_id_fkey of uses_after_exposure",
                "index keys_by_age of keys",
                "trigger keys_are_kept of keys",
            ]
            .map(str::to_owned)
            .to_vec();
        }
        assert_eq!(store.missing_objects().await.unwrap(), expected);
        let doctor = crate::cli::Binary::new()
            .with("RESCIND__DATABASE__URL", &database.url)
            .run("doctor");
        assert_eq!(doctor.code, 1, "{doctor:?}");
        for object in expected {
            assert!(doctor.stdout.contains(&object), "{object}: {doctor:?}");
        }
        store.close().await;
    }
}
