//! Keys under a pepper that a worker lacks.

use rescind::keyformat::Peppers;
use rescind::store::{Store, StoreError, StoreOptions};

use super::{Rig, Shop};
use crate::support::databases::on_both_databases;

on_both_databases! {
    /// It would end what holds them as clean, and another process can read it.
    async fn work_is_left_to_whoever_has_the_pepper(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let other = StoreOptions {
            peppers: Peppers::new(vec!["the pepper of another process".into()]),
            ..StoreOptions::new(database.url.clone())
        };
        let other = Rig::new(&Store::open(other).await.unwrap());
        let (key, value) = other.issue(false).await;
        let pushed = shop.push(&[("a.txt", value.expose().as_bytes().to_vec())]);
        rig.add(&[pushed]).await;
        for _ in 0..3 {
            let refused = rig.worker(&shop.forge.url()).drain().await.unwrap_err();
            assert!(matches!(refused, StoreError::UnknownPepper { .. }), "{refused}");
        }
        assert_eq!(database.count("SELECT MAX(tries) FROM work_items").await, 0);
        other.worker(&shop.forge.url()).drain().await.unwrap();
        assert!(other.is_revoked(&key).await);
    }
}
