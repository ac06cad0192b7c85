//! Locks that others hold, and operations that are given up in the middle.

use std::time::{Duration, Instant};

use rescind::store::{Priority, StoreError};
use sqlx::{Connection as _, Executor as _, SqliteConnection};

use super::PATIENCE;
use crate::store::work::{add, item};
use crate::store::{import, new_key};
use crate::support::databases::{Kind, TestDatabase, on_both_databases};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_lock_held_by_another_program_is_a_busy_database_that_recovers() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    import(&store, &[new_key(1)]).await;
    let mut other = SqliteConnection::connect(&database.url).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    // A recent commit is proof enough: a short lock of another program must not make the daemon unready.
    store.check_working().await.unwrap();
    let started = Instant::now();
    let (one, two) = tokio::join!(store.begin(), store.begin());
    for begun in [one, two] {
        let error = begun.unwrap_err();
        assert!(matches!(error, StoreError::Busy { .. }), "{error:?}");
        assert!(error.is_temporary());
    }
    assert!(
        started.elapsed() > Duration::from_secs(3),
        "they did not wait"
    );
    // Reads go on meanwhile.
    assert_eq!(store.count_keys().await.unwrap(), 1);
    other.execute("ROLLBACK").await.unwrap();
    import(&store, &[new_key(2)]).await;
    store.check_working().await.unwrap();
    assert!(started.elapsed() < PATIENCE);
}

/// Whoever else waited for the lock could not say that it is alive, and has its turn first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_to_be_dead_by_whoever_waited_for_a_lock() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let store = database.store().await;
    add(&store, &[item(1, Priority::Webhook)]).await;
    let held = store.claim(1, "alive", Duration::ZERO).await.unwrap();
    let mut other = SqliteConnection::connect(&database.url).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let patience = Duration::from_millis(100);
    let reclaiming = store.reclaim("other", patience);
    let letting_go = async {
        tokio::time::sleep(patience * 5).await;
        other.execute("ROLLBACK").await.unwrap();
    };
    assert_eq!(tokio::join!(reclaiming, letting_go).0.unwrap(), None);
    let lease = Duration::from_mins(1);
    let ids = [held[0].id];
    assert_eq!(
        store.heartbeat(&ids, "alive", lease).await.unwrap().len(),
        1
    );
    assert_eq!(store.reclaim("other", lease).await.unwrap(), Some(0));
}

on_both_databases! {
    async fn operations_given_up_at_any_moment_leave_no_transaction_and_take_no_connection(database) {
        let store = database.store().await;
        for n in 0..120_u64 {
            let change = async {
                let mut tx = store.begin().await?;
                tx.import_keys(&[new_key(n)]).await?;
                store.count_keys().await?;
                tx.commit().await
            };
            let given_up = Duration::from_micros(n * 50);
            let _ = tokio::time::timeout(given_up, change).await;
        }
        // Every connection can still be had, so that nothing is under way any more: all of it or nothing was done.
        let places = if database.kind == Kind::Sqlite { 1 } else { 16 };
        let mut open = Vec::new();
        for _ in 0..places {
            open.push(store.begin().await.unwrap());
        }
        drop(open);
        let kept = store.count_keys().await.unwrap();
        let seen = database.count("SELECT COUNT(*) FROM keys").await;
        assert_eq!(u64::try_from(seen).unwrap(), kept);
        import(&store, &[new_key(1_000)]).await;
        assert_eq!(store.count_keys().await.unwrap(), kept + 1);
    }

    async fn a_failed_statement_ends_the_transaction_for_good(database) {
        let store = database.store().await;
        import(&store, &[new_key(1)]).await;
        let (ddl, name) = match database.kind {
            Kind::Sqlite => ("CREATE TRIGGER no_more BEFORE INSERT ON keys WHEN NEW.last_four = '0003'
                BEGIN SELECT RAISE(ROLLBACK, 'gone'); END", "no_more"),
            Kind::Postgres => ("CREATE FUNCTION no_more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF NEW.last_four = '0003' THEN RAISE EXCEPTION 'gone'; END IF; RETURN NEW; END $$", "no_more"),
        };
        database.run(ddl).await.unwrap();
        if database.kind == Kind::Postgres {
            let ddl = format!("CREATE TRIGGER {name} BEFORE INSERT ON keys FOR EACH ROW EXECUTE FUNCTION {name}()");
            database.run(&ddl).await.unwrap();
        }
        // As SQLite does by itself on a full disk: the statement fails, and with it the transaction ends.
        let mut tx = store.begin().await.unwrap();
        tx.import_keys(&[new_key(2)]).await.unwrap();
        tx.import_keys(&[new_key(3)]).await.unwrap_err();
        tx.import_keys(&[new_key(4)]).await.unwrap_err();
        tx.commit().await.unwrap_err();
        assert_eq!(store.count_keys().await.unwrap(), 1);
        import(&store, &[new_key(5)]).await;
        assert_eq!(store.count_keys().await.unwrap(), 2);
    }
}
