//! Database failures are reported with a remedy, and lose no data.

use rescind::store::{Store, StoreError, StoreOptions};
use tempfile::tempdir;

use super::{import, new_key};
use crate::support::databases::{Kind, TestDatabase, on_both_databases};
use crate::support::eventually::eventually;

async fn open(url: &str) -> StoreError {
    let store = Store::open(StoreOptions::new(url.to_owned())).await;
    store.expect_err("no database can be opened there")
}

#[tokio::test]
async fn urls_that_are_not_understood_are_refused_without_being_repeated() {
    for url in [
        "",
        "data/rescind.db",
        "mysql://root:hunter2@localhost/x",
        "sqlite::memory:",
        "sqlite://",
        "sqlite://x.db?mode=memory",
        "postgres://user:hunter2@[::1:notaport/x",
        "user:hunter2@localhost/x",
    ] {
        let error = open(url).await;
        assert!(matches!(error, StoreError::Url(_)), "{url}: {error:?}");
        let text = format!("{error} {error:?}");
        assert!(
            text.contains("database.url") && !text.contains("hunter2"),
            "{text}"
        );
    }
}

on_both_databases! {
    /// Every report fails without it, whatever else is committed.
    async fn a_log_without_its_head_is_not_ready_and_has_a_remedy(database) {
        let store = database.store().await;
        import(&store, &[new_key(1)]).await;
        store.check_working().await.unwrap();
        database.run("DELETE FROM log_head").await.unwrap();
        let is_ready = async || store.check_working().await.is_ok();
        eventually("it is noticed", async || !is_ready().await).await;
        import(&store, &[new_key(2)]).await;
        let error = store.check_working().await.unwrap_err();
        assert!(error.is_temporary(), "{error:?}");
        let said = error.to_string();
        let (_, remedy) = said.split_once("bring it back: ").expect("the remedy");
        database.run(remedy).await.unwrap();
        eventually("it is ready again", is_ready).await;
        assert_eq!(store.log_head().await.unwrap().seq, 0);
        store.verify_log().await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_unavailable_and_its_password_stays_secret() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = open(&format!(
        "postgres://rescind:hunter2@127.0.0.1:{port}/rescind"
    ))
    .await;
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(error.is_temporary());
    let text = format!("{error} {error:?}");
    assert!(
        text.contains(&format!("rescind@127.0.0.1:{port}/rescind")),
        "{text}"
    );
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn a_file_that_is_no_database_and_a_folder_that_is_a_file_are_named() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("notes.txt");
    std::fs::write(
        &file,
        "these are notes, and not a database at all\n".repeat(100),
    )
    .unwrap();
    let error = open(&format!("sqlite://{}", file.display())).await;
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("notes.txt"), "{error}");
    let error = open(&format!("sqlite://{}/below.db", file.display())).await;
    assert!(matches!(error, StoreError::Disk { .. }), "{error:?}");
    assert!(error.to_string().contains("notes.txt/below.db"), "{error}");
}

#[tokio::test]
async fn a_read_only_sqlite_database_is_read_but_not_written() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    import(&store, &[new_key(1)]).await;
    store.close().await;
    let url = format!("{}?mode=ro", database.url);
    let store = Store::open(StoreOptions::new(url)).await.unwrap();
    assert_eq!(store.count_keys().await.unwrap(), 1);
    let mut tx = store.begin().await.unwrap();
    let error = tx.import_keys(&[new_key(2)]).await.unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    assert!(error.is_temporary());
    assert!(error.to_string().contains("write permission"), "{error}");
}

#[tokio::test]
async fn a_read_only_or_full_postgres_database_is_named() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let store = database.store().await;
    import(&store, &[new_key(1)]).await;
    let full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON keys EXECUTE FUNCTION full_disk()";
    for part in full.split(";\n") {
        database.run(part).await.unwrap();
    }
    let mut tx = store.begin().await.unwrap();
    let error = tx.import_keys(&[new_key(2)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert!(error.to_string().contains("free some space"), "{error}");
    drop(tx);
    assert_eq!(store.count_keys().await.unwrap(), 1);
    store.close().await;
    let read_only = "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database()
        || ' SET default_transaction_read_only = on'; END $$";
    database.run(read_only).await.unwrap();
    let store = Store::open(StoreOptions::new(database.url.clone()))
        .await
        .unwrap();
    let mut tx = store.begin().await.unwrap();
    let error = tx.import_keys(&[new_key(2)]).await.unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    drop(tx);
    database.remove().await;
}

#[tokio::test]
async fn a_postgres_database_with_settings_of_its_own_takes_every_statement() {
    let database = TestDatabase::new(Kind::Postgres).await;
    for setting in [
        "standard_conforming_strings = off",
        "datestyle = 'German, DMY'",
    ] {
        let alter = format!(
            "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || $set$ SET {setting}$set$; END $$"
        );
        database.run(&alter).await.unwrap();
    }
    let store = database.store().await;
    store.check_statements().await.unwrap();
    import(&store, &[new_key(1)]).await;
    assert_eq!(store.count_keys().await.unwrap(), 1);
    store.close().await;
    database.remove().await;
}

on_both_databases! {
    async fn a_transaction_that_is_dropped_leaves_nothing(database) {
        let store = database.store().await;
        let mut tx = store.begin().await.unwrap();
        tx.import_keys(&[new_key(1)]).await.unwrap();
        drop(tx);
        let mut tx = store.begin().await.unwrap();
        tx.import_keys(&[new_key(2)]).await.unwrap();
        tx.rollback().await.unwrap();
        assert_eq!(store.count_keys().await.unwrap(), 0);
        import(&store, &[new_key(1)]).await;
        assert_eq!(store.count_keys().await.unwrap(), 1);
    }
}
