//! Peppers: keys and access tokens that would not be found are noticed, those that nothing stands under can go.

use rescind::keyformat::PepperId;
use rescind::store::{NewToken, Role, Standing, Store, StoreError};
use uuid::Uuid;

use super::{at, digest, import, new_key};
use crate::support::databases::{Kind, TestDatabase, on_both_databases};

async fn add_token(store: &Store, n: u64) {
    let mut tx = store.begin().await.unwrap();
    let new = NewToken {
        id: Uuid::now_v7(),
        project: "default".to_owned(),
        digest: digest(n),
        role: Role::Viewer,
        description: String::new(),
        prefix: "rsc_sk_".to_owned(),
        last_four: "wxyz".to_owned(),
        created_at: at(1),
        expires_at: None,
        definition: None,
    };
    tx.insert_token(new).await.unwrap();
    tx.commit().await.unwrap();
}

/// Returns what is not found, as the refusal says it, or nothing if all is.
async fn lacking(store: &Store) -> Option<String> {
    match store.check_peppers().await {
        Ok(()) => None,
        Err(StoreError::UnknownPepper { peppers, .. }) => Some(peppers),
        Err(other) => panic!("{other}"),
    }
}

/// The numbers of keys and access tokens under the current pepper, each retired one, none, and unknown.
async fn counts(store: &Store) -> Vec<(u64, u64)> {
    let uses = store.pepper_uses().await.unwrap();
    let unconfigured = |standing| matches!(standing, Standing::Unconfigured(_));
    assert!(
        !uses.iter().any(|found| unconfigured(found.standing)),
        "{uses:?}"
    );
    uses.iter()
        .map(|found| (found.keys, found.tokens))
        .collect()
}

async fn id_of_current(store: &Store) -> PepperId {
    match store.pepper_uses().await.unwrap()[0].standing {
        Standing::Current(id) => id,
        other => panic!("{other:?}"),
    }
}

/// Adds a row as the tenth schema has them, with this stored digest.
async fn add_old(database: &TestDatabase, table: &str, hex: &str) {
    let blob = match database.kind {
        Kind::Sqlite => format!("x'{hex}'"),
        Kind::Postgres => format!("'\\x{hex}'::bytea"),
    };
    let id = Uuid::now_v7();
    let insert = match table {
        "keys" => format!(
            "INSERT INTO keys (id, project, digest, format, owner_type, owner_id, description, is_public, prefix,
                last_four, notify_emails, created_at)
            SELECT '{id}', 'default', {blob}, 'rescind_secret', 'user', 'u', '', 1 = 2, '', '', '[]', 1"
        ),
        _ => format!(
            "INSERT INTO tokens (id, project, digest, role, description, prefix, last_four, created_at)
            SELECT '{id}', 'default', {blob}, 'viewer', '', '', '', 1"
        ),
    };
    database.run(&insert).await.unwrap();
}

on_both_databases! {
    /// Else a signed report of a live key is answered `false_positive`.
    async fn keys_that_would_not_be_found_are_refused(database) {
        let store = database.store_with(&["a"]).await;
        import(&store, &[new_key(1), new_key(2)]).await;
        add_token(&store, 7).await;
        store.check_working().await.unwrap();
        let id = id_of_current(&store).await;
        for peppers in [&["b"][..], &[], &["b", "c"]] {
            let wrong = database.store_with(peppers).await;
            assert!(wrong.find_key("default", &digest(1)).await.unwrap().is_none());
            let error = wrong.check_peppers().await.unwrap_err();
            assert!(error.is_temporary() && matches!(error, StoreError::UnknownPepper { .. }), "{error}");
            let said = error.to_string();
            assert!(said.contains(&format!("pepper {id} with 2 keys and 1 access token")), "{said}");
            assert!(said.contains("to keys.peppers as a retired one"), "{said}");
            let error = wrong.check_working().await.unwrap_err();
            assert!(matches!(error, StoreError::UnknownPepper { .. }), "{error}");
        }
        for peppers in [&["b", "a"][..], &["c", "b", "a"]] {
            assert_eq!(lacking(&database.store_with(peppers).await).await, None);
        }
    }

    async fn a_retired_pepper_can_go_once_nothing_stands_under_it(database) {
        let old = database.store_with(&["a"]).await;
        import(&old, &[new_key(1), new_key(2)]).await;
        add_token(&old, 7).await;
        let id = id_of_current(&old).await;
        let both = database.store_with(&["b", "a"]).await;
        import(&both, &[new_key(1), new_key(3)]).await;
        assert_eq!(counts(&both).await, [(1, 0), (2, 1), (0, 0), (0, 0)]);
        let new = database.store_with(&["b"]).await;
        both.find_key("default", &digest(1)).await.unwrap().unwrap();
        assert_eq!(lacking(&new).await, Some(format!("pepper {id} with 1 key and 1 access token")));
        both.find_token(&digest(7)).await.unwrap().unwrap();
        assert_eq!(lacking(&new).await, Some(format!("pepper {id} with 1 key")));
        both.known_keys(&[digest(2)]).await.unwrap();
        assert_eq!(lacking(&new).await, None);
        new.check_working().await.unwrap();
        assert_eq!(counts(&new).await, [(3, 1), (0, 0), (0, 0)]);
        assert_eq!(new.find_keys(&[digest(1), digest(2), digest(3)]).await.unwrap().len(), 3);
        // What was stored under the pepper that is gone now counts again.
        import(&old, &[new_key(4)]).await;
        assert_eq!(lacking(&new).await, Some(format!("pepper {id} with 1 key")));
    }

    async fn a_pepper_that_is_introduced_finds_what_stands_under_none(database) {
        let plain = database.store().await;
        import(&plain, &[new_key(1), new_key(2)]).await;
        assert_eq!(counts(&plain).await, [(2, 0), (0, 0)]);
        assert_eq!(database.count("SELECT COUNT(*) FROM peppers").await, 0);
        let first = database.store_with(&["a"]).await;
        assert_eq!(lacking(&first).await, None);
        first.find_key("default", &digest(1)).await.unwrap().unwrap();
        assert_eq!(counts(&first).await, [(1, 0), (1, 0), (0, 0)]);
        // The other process goes on, and is not silent about what it would not find.
        plain.find_key("default", &digest(2)).await.unwrap().unwrap();
        assert!(lacking(&plain).await.is_some_and(|said| said.ends_with("with 1 key")));
        let error = plain.check_working().await.unwrap_err();
        assert!(matches!(error, StoreError::UnknownPepper { .. }), "{error}");
    }

    async fn a_pepper_counts_only_once_a_digest_is_stored_under_it(database) {
        let plain = database.store().await;
        let store = database.store_with(&["a"]).await;
        let mut tx = store.begin().await.unwrap();
        tx.import_keys(&[new_key(1)]).await.unwrap();
        drop(tx);
        assert_eq!(database.count("SELECT COUNT(*) FROM peppers").await, 0);
        import(&store, &[new_key(1)]).await;
        assert!(lacking(&plain).await.is_some());
        database.run("UPDATE keys SET pepper = 0").await.unwrap();
        assert_eq!(database.count("SELECT COUNT(*) FROM peppers").await, 1);
        assert_eq!(lacking(&plain).await, None);
    }

    /// They may stand under any pepper, and tell once they are looked up.
    async fn rows_of_the_tenth_schema_say_what_they_stand_under_once_they_are_found(database) {
        database.migrate_to(10).await;
        database.run("INSERT INTO projects (id, created_at) VALUES ('default', 1)").await.unwrap();
        let hex = |peppers: &[&str], n: u64| {
            let peppers = peppers.iter().map(|&pepper| pepper.into()).collect();
            hex::encode(rescind::keyformat::Peppers::new(peppers).stored(&digest(n)).0)
        };
        add_old(database, "keys", &hex(&["a"], 1)).await;
        add_old(database, "keys", &hex(&["b"], 2)).await;
        add_old(database, "keys", &hex(&[], 3)).await;
        add_old(database, "tokens", &hex(&["b"], 7)).await;
        let store = database.store_with(&["b", "a"]).await;
        assert_eq!(lacking(&store).await, None);
        assert_eq!(counts(&store).await, [(0, 0), (0, 0), (0, 0), (3, 1)]);
        assert_eq!(lacking(&database.store().await).await, None);
        let found = store.find_keys(&[digest(1), digest(2), digest(3), digest(4)]).await.unwrap();
        assert_eq!(found.len(), 3);
        store.find_token(&digest(7)).await.unwrap().unwrap();
        assert_eq!(counts(&store).await, [(3, 1), (0, 0), (0, 0), (0, 0)]);
        let current = database.store_with(&["b"]).await;
        assert_eq!(lacking(&current).await, None);
        assert_eq!(current.find_keys(&[digest(1), digest(2), digest(3)]).await.unwrap().len(), 3);
        assert!(lacking(&database.store_with(&["a"]).await).await.is_some());
    }

    async fn without_peppers_old_rows_say_so_once_they_are_found(database) {
        database.migrate_to(10).await;
        database.run("INSERT INTO projects (id, created_at) VALUES ('default', 1)").await.unwrap();
        add_old(database, "keys", &digest(1).to_hex()).await;
        let store = database.store().await;
        assert_eq!(counts(&store).await, [(0, 0), (1, 0)]);
        store.find_key("default", &digest(1)).await.unwrap().unwrap();
        assert_eq!(counts(&store).await, [(1, 0), (0, 0)]);
        assert_eq!(database.count("SELECT COUNT(*) FROM peppers").await, 0);
    }
}
