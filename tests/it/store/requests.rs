//! Requests that name themselves.

use rescind::store::{NamedRequest, Remembered, Store};
use uuid::Uuid;

use crate::support::databases::on_both_databases;

fn named(name: u8, content: u8) -> NamedRequest {
    NamedRequest {
        name: [name; 32],
        content: [content; 32],
    }
}

async fn remember(store: &Store, request: NamedRequest, key: Uuid) -> Remembered {
    let mut tx = store.begin().await.unwrap();
    let remembered = tx.remember_request(&request, key).await.unwrap();
    tx.commit().await.unwrap();
    remembered
}

const COUNT: &str = "SELECT COUNT(*) FROM idempotent_requests";

on_both_databases! {
    async fn a_request_is_remembered_with_what_it_made_for_a_day(database) {
        let store = database.store().await;
        let [first, second] = [(); 2].map(|()| Uuid::now_v7());
        // What is undone is not remembered.
        let mut tx = store.begin().await.unwrap();
        assert_eq!(tx.remember_request(&named(1, 1), second).await.unwrap(), Remembered::New);
        tx.rollback().await.unwrap();
        assert_eq!(remember(&store, named(1, 1), first).await, Remembered::New);
        assert_eq!(remember(&store, named(1, 1), second).await, Remembered::Made(first));
        assert_eq!(remember(&store, named(1, 2), second).await, Remembered::Other);
        assert_eq!(remember(&store, named(2, 1), second).await, Remembered::New);

        let hours = |hours: i64| format!(
            "UPDATE idempotent_requests SET created_at = created_at - {}", hours * 3_600_000_000
        );
        database.run(&hours(23)).await.unwrap();
        assert_eq!(remember(&store, named(1, 1), second).await, Remembered::Made(first));
        database.run(&hours(1)).await.unwrap();
        // Forgotten, whether or not it was deleted.
        assert_eq!(remember(&store, named(1, 2), second).await, Remembered::New);
        assert_eq!(remember(&store, named(1, 2), first).await, Remembered::Made(second));
        assert_eq!(store.forget_requests(100).await.unwrap(), (1, 0));
        assert_eq!(database.count(COUNT).await, 1);
    }

    async fn no_more_requests_are_remembered_than_are_kept(database) {
        let store = database.store().await;
        for name in 0..5 {
            remember(&store, named(name, 0), Uuid::now_v7()).await;
            let age = "UPDATE idempotent_requests SET created_at = created_at - 1000000";
            database.run(age).await.unwrap();
        }
        assert_eq!(store.forget_requests(2).await.unwrap(), (0, 3));
        assert_eq!(database.count(COUNT).await, 2);
        assert!(matches!(remember(&store, named(4, 0), Uuid::nil()).await, Remembered::Made(_)));
        assert_eq!(remember(&store, named(2, 0), Uuid::nil()).await, Remembered::New);
    }
}
