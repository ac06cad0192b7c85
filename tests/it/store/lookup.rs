//! Look-ups of many callers go together, and still each gets its own answer.

use rescind::store::{Lookup, StoreError};

use super::{at, digest, import, new_key};
use crate::support::databases::{Kind, TestDatabase, on_both_databases};

/// PostgreSQL refuses to run a statement as it was prepared before: each connection has prepared it.
#[tokio::test]
async fn a_column_may_get_another_type_while_statements_are_prepared() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let store = database.store().await;
    let key = new_key(1);
    import(&store, std::slice::from_ref(&key)).await;
    let (responder, _) = crate::support::responder::responder(&store);
    let use_all = async || {
        let mut uses = tokio::task::JoinSet::new();
        for _ in 0..12 {
            let store = store.clone();
            uses.spawn(async move { store.find_keys(&[digest(1)]).await.map(|keys| keys.len()) });
        }
        for found in uses.join_all().await {
            assert_eq!(found.unwrap(), 1);
        }
    };
    for length in [4_001, 4_002] {
        for _ in 0..2 {
            use_all().await;
            responder.revoke(key.id, "test").await.unwrap();
        }
        let other = format!("ALTER TABLE keys ALTER COLUMN description TYPE varchar({length})");
        database.run(&other).await.unwrap();
        use_all().await;
        responder.revoke(key.id, "test").await.unwrap();
    }
    drop((store, responder));
    database.remove().await;
}

on_both_databases! {
    async fn everybody_gets_the_right_answer(database) {
        let store = database.store_with(&["pepper"]).await;
        let rows: Vec<_> = (0..500).map(new_key).collect();
        import(&store, &rows).await;
        let (lookup, task) = Lookup::new(store);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(task.run());
        let mut callers = tokio::task::JoinSet::new();
        for n in 0..1_000 {
            let lookup = lookup.clone();
            callers.spawn(async move {
                let key = lookup.key("default", digest(n)).await.unwrap();
                assert_eq!(key.map(|key| key.description), (n < 500).then(|| format!("key {n}")));
                assert_eq!(lookup.token(digest(n)).await.unwrap(), None);
            });
        }
        for n in 0..100 {
            // A caller that goes away before its answer comes is nobody's trouble.
            let lookup = lookup.clone();
            callers.spawn(async move {
                tokio::select! {
                    biased;
                    _ = lookup.key("default", digest(n)) => {}
                    () = std::future::ready(()) => {}
                }
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller.unwrap();
        }
        drop(lookup);
        tasks.join_next().await.unwrap().unwrap();
    }

    async fn a_revocation_is_seen_at_once(database) {
        let store = database.store().await;
        let new = new_key(1);
        import(&store, std::slice::from_ref(&new)).await;
        let (lookup, task) = Lookup::new(store.clone());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(task.run());
        let (responder, _) = crate::support::responder::responder(&store);
        assert_eq!(lookup.key("default", digest(1)).await.unwrap().unwrap().why_invalid(at(2)), None);
        responder.revoke(new.id, "test").await.unwrap().unwrap();
        assert!(lookup.key("default", digest(1)).await.unwrap().unwrap().revoked_at.is_some());
        drop(lookup);
        tasks.join_next().await.unwrap().unwrap();
    }

    async fn failures_reach_every_caller(database) {
        let store = database.store().await;
        let (lookup, task) = Lookup::new(store.clone());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(task.run());
        store.close().await;
        let (one, other) = tokio::join!(lookup.key("default", digest(1)), lookup.token(digest(2)));
        assert!(matches!(&*one.unwrap_err(), StoreError::Unavailable { .. }));
        assert!(matches!(&*other.unwrap_err(), StoreError::Unavailable { .. }));
        tasks.shutdown().await;
        let ended = lookup.key("default", digest(1)).await.unwrap_err();
        assert!(ended.is_temporary(), "{ended}");
    }
}
