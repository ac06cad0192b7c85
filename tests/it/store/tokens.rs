//! Access tokens: found by digest under every pepper, and exactly one first one.

use jiff::Timestamp;
use rescind::store::{NewToken, PageRequest, Role, StoreError};
use uuid::Uuid;

use super::{at, digest};
use crate::support::databases::on_both_databases;

fn new_token(n: u64, expires_at: Option<Timestamp>) -> NewToken {
    NewToken {
        id: Uuid::now_v7(),
        project: "default".to_owned(),
        digest: digest(n),
        role: Role::Operator,
        description: format!("token {n}"),
        prefix: "rsc_sk_".to_owned(),
        last_four: "wxyz".to_owned(),
        created_at: at(n.try_into().unwrap()),
        expires_at,
        definition: None,
    }
}

on_both_databases! {
    async fn a_token_is_found_listed_and_revoked(database) {
        let store = database.store_with(&["old"]).await;
        assert!(!store.any_token_exists().await.unwrap());
        let mut tx = store.begin().await.unwrap();
        let stored = tx.insert_token(new_token(1, Some(at(10)))).await.unwrap();
        tx.insert_token(new_token(2, None)).await.unwrap();
        assert!(matches!(tx.insert_token(new_token(2, None)).await, Err(StoreError::Exists(_))));
        tx.commit().await.unwrap();
        assert!(store.any_token_exists().await.unwrap());
        assert!(stored.is_valid(at(9)) && !stored.is_valid(at(10)));
        let rotated = database.store_with(&["new", "old"]).await;
        assert_eq!(rotated.find_token(&digest(1)).await.unwrap(), Some(stored.clone()));
        let newest = database.store_with(&["new"]).await;
        assert_eq!(newest.find_token(&digest(1)).await.unwrap(), Some(stored.clone()));
        assert_eq!(newest.find_token(&digest(2)).await.unwrap(), None);
        let page = store.list_tokens(Some("default"), &PageRequest::new(1, None)).await.unwrap();
        assert_eq!(page.items[0].description, "token 2");
        let rest = store.list_tokens(None, &PageRequest::new(9, page.next_cursor)).await.unwrap();
        assert_eq!(rest.items, std::slice::from_ref(&stored));
        assert!(store.list_tokens(Some("other"), &PageRequest::first()).await.unwrap().items.is_empty());
        for second in [20, 30] {
            let mut tx = store.begin().await.unwrap();
            let revoked = tx.revoke_token(stored.id, at(second)).await.unwrap().unwrap();
            tx.commit().await.unwrap();
            assert_eq!(revoked.revoked_at, Some(at(20)));
            assert!(!revoked.is_valid(at(5)));
        }
        let mut tx = store.begin().await.unwrap();
        assert_eq!(tx.revoke_token(Uuid::nil(), at(1)).await.unwrap(), None);
    }

    async fn of_many_first_starts_one_gets_its_token_in(database) {
        let store = database.store().await;
        let mut starts = tokio::task::JoinSet::new();
        for n in 0..12 {
            let store = store.clone();
            starts.spawn(async move {
                let mut tx = store.begin().await.unwrap();
                let token = tx.bootstrap_token(new_token(n, None)).await.unwrap();
                tx.commit().await.unwrap();
                token.is_some()
            });
        }
        let winners = starts.join_all().await.into_iter().filter(|won| *won).count();
        assert_eq!(winners, 1);
        assert_eq!(store.list_tokens(None, &PageRequest::first()).await.unwrap().items.len(), 1);
    }
}
