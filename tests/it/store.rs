//! The store does the same on a SQLite file and on PostgreSQL.

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
}

#[cfg(unix)]
#[tokio::test]
async fn sqlite_file_and_folder_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let database = TestDatabase::new(Kind::Sqlite).await;
    let path = database.folder().join("made/for/it.db");
    let options = rescind::store::StoreOptions::new(format!("sqlite://{}", path.display()));
    let store = rescind::store::Store::open(options).await.unwrap();
    store.migrate().await.unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&path.with_extension("db-wal")), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
}
