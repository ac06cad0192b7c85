//! Settings of a server, a database or a role that would lose a leak, or delay it.

use rescind::store::StoreError;

use super::privileges::Reports;
use crate::store::{import, new_key};
use crate::support::databases::{Kind, TestDatabase};
use crate::support::role::WithRole;

/// Settings that an administrator may have made, and what they are in a session of this program.
const SETTINGS: [(&str, &str, &str); 14] = [
    ("synchronous_commit", "off", "on"),
    (
        "default_transaction_isolation",
        "serializable",
        "read committed",
    ),
    ("transaction_isolation", "", "read committed"),
    ("default_transaction_deferrable", "on", "off"),
    ("row_security", "on", "off"),
    ("lock_timeout", "1", "6s"),
    ("idle_in_transaction_session_timeout", "1", "10s"),
    ("idle_session_timeout", "300000", "0"),
    ("standard_conforming_strings", "off", "on"),
    ("session_replication_role", "replica", "origin"),
    ("zero_damaged_pages", "on", "off"),
    ("enable_indexscan", "off", "on"),
    ("enable_bitmapscan", "off", "on"),
    ("plan_cache_mode", "force_generic_plan", "auto"),
];

/// Makes a setting of the database.
async fn set(database: &TestDatabase, name: &str, value: &str) {
    let (_, base) = database.url.rsplit_once('/').unwrap();
    let set = format!("ALTER DATABASE {base} SET {name} = '{value}'");
    database.run(&set).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_setting_of_an_administrator_loses_or_delays_a_leak() {
    let database = TestDatabase::new(Kind::Postgres).await;
    database.store().await.close().await;
    let notes = "CREATE TABLE seen (name TEXT, value TEXT);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO seen SELECT name, current_setting(name) FROM pg_settings; RETURN NEW; END $$;
        CREATE TRIGGER note AFTER INSERT ON keys FOR EACH ROW EXECUTE FUNCTION note()";
    database.run(notes).await.unwrap();
    for (name, value, _) in SETTINGS {
        if !value.is_empty() {
            set(&database, name, value).await;
        }
    }
    let store = database.store().await;
    import(&store, &[new_key(1)]).await;
    for (name, _, value) in SETTINGS {
        let seen = format!("SELECT COUNT(*) FROM seen WHERE name = '{name}' AND value = '{value}'");
        assert_eq!(database.count(&seen).await, 1, "{name} is not {value}");
    }
    store.close().await;
    // To wait for less than the standby is a choice.
    database.run("DELETE FROM seen").await.unwrap();
    set(&database, "synchronous_commit", "local").await;
    let store = database.store().await;
    import(&store, &[new_key(2)]).await;
    let local = "SELECT COUNT(*) FROM seen WHERE name = 'synchronous_commit' AND value = 'local'";
    assert_eq!(database.count(local).await, 1);
    store.close().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_hides_keys_is_an_error_that_names_its_remedy() {
    let with_role = WithRole::new("").await;
    let reports = Reports::new(&with_role.database.url, &with_role.url, 2);
    let granted = format!(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {}",
        with_role.role
    );
    with_role.run(&granted).await;
    let store = with_role.store().await;
    store.check_working().await.unwrap();
    let daemon = reports.daemon();
    with_role
        .run("ALTER TABLE keys ENABLE ROW LEVEL SECURITY")
        .await;
    let error = store.count_keys().await.unwrap_err();
    assert!(matches!(error, StoreError::Forbidden { .. }), "{error:?}");
    store.close().await;
    tokio::task::block_in_place(|| reports.are_refused(&daemon, "BYPASSRLS"));
    with_role
        .run("ALTER TABLE keys DISABLE ROW LEVEL SECURITY")
        .await;
    tokio::task::block_in_place(|| reports.are_taken(&daemon));
    assert_eq!(daemon.stop().code, Some(0));
    with_role.remove().await;
}
