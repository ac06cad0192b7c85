//! Creating, migrating and checking a database.

use rescind::store::{Store, StoreError, StoreOptions};

use super::log::append;
use super::{import, new_key};
use crate::support::databases::{Kind, TestDatabase, on_both_databases};

on_both_databases! {
    async fn every_statement_fits_the_schema(database) {
        let store = database.store().await;
        store.check_ready().await.unwrap();
        assert!(store.check_statements().await.unwrap() > 40);
    }

    async fn a_statement_that_no_longer_fits_is_named(database) {
        let store = database.store().await;
        database.run("ALTER TABLE sources RENAME COLUMN gaps TO holes").await.unwrap();
        let error = store.check_statements().await.unwrap_err().to_string();
        assert!(error.contains("LOAD") && error.contains("gaps"), "{error}");
    }

    /// `doctor` compares a database with these lists.
    async fn a_fresh_database_has_what_the_lists_name_and_nothing_else(database) {
        let store = database.store().await;
        assert_eq!(store.missing_objects().await.unwrap(), Vec::<String>::new());
        let (listed, count) = match database.kind {
            Kind::Sqlite => (
                include_str!("../../../src/store/migrations/sqlite_objects.txt"),
                "SELECT COUNT(*) FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'",
            ),
            Kind::Postgres => (
                include_str!("../../../src/store/migrations/postgres_objects.txt"),
                "WITH ours AS (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r')
                SELECT (SELECT COUNT(*) FROM ours)
                    + (SELECT COUNT(*) FROM pg_constraint JOIN ours ON conrelid = ours.oid WHERE contype <> 'n')
                    + (SELECT COUNT(*) FROM pg_index JOIN ours ON indrelid = ours.oid WHERE NOT EXISTS
                        (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid AND contype <> 'f'))
                    + (SELECT COUNT(*) FROM pg_trigger JOIN ours ON tgrelid = ours.oid WHERE NOT tgisinternal)",
            ),
        };
        let listed = i64::try_from(listed.lines().count()).unwrap();
        assert_eq!(database.count(count).await, listed);
        store.close().await;
    }

    async fn an_empty_database_is_not_ready_until_migrated(database) {
        let store = Store::open(StoreOptions::new(database.url.clone())).await.unwrap();
        let error = store.check_ready().await.unwrap_err();
        assert!(matches!(error, StoreError::NotMigrated { found: 0, .. }), "{error}");
        assert!(error.to_string().contains("rescind migrate"));
        assert!(store.migrate().await.unwrap() > 0);
        store.check_ready().await.unwrap();
        assert_eq!(store.migrate().await.unwrap(), 0);
    }

    async fn many_first_starts_at_once_migrate_once(database) {
        let mut starts = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let url = database.url.clone();
            starts.spawn(async move {
                let store = Store::open(StoreOptions::new(url)).await.unwrap();
                store.migrate().await.unwrap();
                store.check_ready().await.unwrap();
            });
        }
        while let Some(start) = starts.join_next().await {
            start.unwrap();
        }
    }

    async fn a_database_newer_than_the_program_is_refused(database) {
        database.store().await.close().await;
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
            VALUES (99, 'from the future', TRUE, '', 0)";
        database.run(newer).await.unwrap();
        let error = Store::open(StoreOptions::new(database.url.clone())).await.unwrap_err();
        assert!(matches!(error, StoreError::NewerDatabase { found: 99, .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("99") && text.contains("newer rescind"), "{text}");
    }

    async fn keys_and_log_entries_cannot_be_deleted_or_changed(database) {
        let store = database.store().await;
        import(&store, &[new_key(1)]).await;
        let error = database.run("DELETE FROM keys").await.unwrap_err().to_string();
        assert!(error.contains("never deleted"), "{error}");
        append(&store, 3).await;
        for change in ["UPDATE revocation_log SET hash = ''", "DELETE FROM revocation_log"] {
            let error = database.run(change).await.unwrap_err().to_string();
            assert!(error.contains("append-only"), "{error}");
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn sqlite_file_and_folder_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let database = TestDatabase::new(Kind::Sqlite).await;
    let path = database.folder().join("made/for/it.db");
    let options = StoreOptions::new(format!("sqlite://{}", path.display()));
    let store = Store::open(options).await.unwrap();
    store.migrate().await.unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&path.with_extension("db-wal")), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
}
