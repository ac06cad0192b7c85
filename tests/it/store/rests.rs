//! Branches whose readings rest on each other.

use rescind::store::{NewWorkItem, Priority};

use super::work::{LEASE, add, item, pass_time};
use crate::support::databases::on_both_databases;

fn branch(name: &str) -> NewWorkItem {
    NewWorkItem {
        ref_name: name.to_owned(),
        ..item(1, Priority::Webhook)
    }
}

on_both_databases! {
    async fn no_reading_rests_on_itself(database) {
        let store = database.store().await;
        let names = ["a", "b", "c"];
        add(&store, &names.map(branch)).await;
        let mut claimed = store.claim(3, "w", LEASE).await.unwrap();
        claimed.sort_by_key(|item| item.range.ref_name.clone());
        let [a, b, c] = &claimed[..] else { panic!("{claimed:?}") };
        assert!(!store.rest_on(a, "a").await.unwrap());
        assert!(store.rest_on(a, "b").await.unwrap());
        assert!(store.rest_on(b, "c").await.unwrap());
        assert!(!store.rest_on(c, "a").await.unwrap());
        assert!(!store.rest_on(c, "b").await.unwrap());
        // What was refused is not recorded, and what changes its mind is not held to it.
        assert!(store.rest_on(c, "old").await.unwrap());
        assert!(store.rest_on(b, "old").await.unwrap());
        assert!(store.rest_on(c, "b").await.unwrap());
        // Of another repository.
        let other = NewWorkItem { ref_name: "b".to_owned(), ..item(2, Priority::Webhook) };
        add(&store, &[other]).await;
        let other = store.claim(1, "w", LEASE).await.unwrap().remove(0);
        assert!(store.rest_on(&other, "a").await.unwrap());
    }

    async fn two_that_ask_at_once_do_not_rest_on_each_other(database) {
        let store = database.store().await;
        for n in 0..20 {
            let of = |name: &str| NewWorkItem { repository: format!("acme/{n}"), ..branch(name) };
            add(&store, &[of("a"), of("b")]).await;
            let pair = store.claim(2, "w", LEASE).await.unwrap();
            let head = |at: usize| pair[1 - at].range.ref_name.clone();
            let (one, other) = (head(0), head(1));
            let (one, other) = tokio::join!(store.rest_on(&pair[0], &one), store.rest_on(&pair[1], &other));
            assert!(!(one.unwrap() && other.unwrap()), "{n}");
        }
    }

    async fn a_long_chain_is_not_followed(database) {
        let store = database.store().await;
        let names: Vec<String> = (0..12).map(|n| format!("{n:02}")).collect();
        let items: Vec<_> = names.iter().map(|name| branch(name)).collect();
        add(&store, &items).await;
        pass_time(database).await;
        let mut claimed = store.claim(12, "w", LEASE).await.unwrap();
        claimed.sort_by_key(|item| item.range.ref_name.clone());
        let mut rested = Vec::new();
        for (item, head) in claimed[1..].iter().zip(&names) {
            rested.push(store.rest_on(item, head).await.unwrap());
        }
        assert!(rested[0] && rested.contains(&false), "{rested:?}");
    }
}
