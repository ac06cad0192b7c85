//! Keys: stored once, found under every pepper, listed in pages.

use std::collections::HashSet;

use rescind::keyformat::Sha256Digest;
use rescind::store::{
    ImportOutcome, KeyFilter, Owner, OwnerType, PageRequest, StoreError, WhyInvalid,
};
use uuid::Uuid;

use super::{at, digest, import, new_key};
use crate::support::databases::on_both_databases;

on_both_databases! {
    async fn a_key_is_read_back_as_it_was_stored(database) {
        let store = database.store().await;
        let mut new = new_key(7);
        new.owner = Owner::team("ünï-1");
        new.is_public = true;
        new.policy = Some("revoke".to_owned());
        new.notify_emails = vec!["a@example.com".to_owned(), "\"b\"@example.com".to_owned()];
        new.expires_at = Some(at(100));
        let mut tx = store.begin().await.unwrap();
        let stored = tx.insert_key(new.clone()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(store.key(new.id).await.unwrap(), Some(stored.clone()));
        assert_eq!(store.find_key("default", &digest(7)).await.unwrap(), Some(stored.clone()));
        assert_eq!(store.find_key("default", &digest(8)).await.unwrap(), None);
        assert_eq!(store.key(Uuid::nil()).await.unwrap(), None);
        assert_eq!(stored.why_invalid(at(99)), None);
        assert_eq!(stored.why_invalid(at(100)), Some(WhyInvalid::Expired));
        let mut tx = store.begin().await.unwrap();
        new.id = Uuid::now_v7();
        assert!(matches!(tx.insert_key(new).await, Err(StoreError::Exists(_))));
    }

    async fn import_says_of_each_row_what_became_of_it(database) {
        let store = database.store().await;
        import(&store, &[new_key(3)]).await;
        let rows: Vec<_> = (0..1_500).chain([5, 5]).map(new_key).collect();
        let outcomes = import(&store, &rows).await;
        for (row, outcome) in outcomes.iter().enumerate() {
            let expected = if row == 3 || row >= 1_500 {
                ImportOutcome::Duplicate
            } else {
                ImportOutcome::Imported
            };
            assert_eq!(*outcome, expected, "row {row}");
        }
        assert_eq!(store.count_keys().await.unwrap(), 1_500);
        let wanted: Vec<Sha256Digest> = (0..3_000).map(digest).collect();
        let found = store.find_keys(&wanted).await.unwrap();
        assert_eq!(found.len(), 1_500);
        assert_eq!(found[&digest(1_499)][0].description, "key 1499");
    }

    async fn a_key_is_found_under_every_pepper_and_rewritten(database) {
        let plain = database.store().await;
        import(&plain, &[new_key(1)]).await;
        let old = database.store_with(&["old"]).await;
        import(&old, &[new_key(2)]).await;
        let new = database.store_with(&["new", "old"]).await;
        let duplicates = import(&new, &[new_key(1), new_key(2), new_key(3)]).await;
        assert_eq!(duplicates, [ImportOutcome::Duplicate, ImportOutcome::Duplicate, ImportOutcome::Imported]);
        assert!(plain.find_key("default", &digest(1)).await.unwrap().is_some());
        assert!(plain.find_key("default", &digest(2)).await.unwrap().is_none());
        let found = new.find_keys(&[digest(1), digest(2), digest(3)]).await.unwrap();
        assert_eq!(found.len(), 3);
        // From here on they stand under the new pepper only.
        assert!(plain.find_key("default", &digest(1)).await.unwrap().is_none());
        assert!(old.find_key("default", &digest(2)).await.unwrap().is_none());
        let newest = database.store_with(&["new"]).await;
        assert_eq!(newest.find_keys(&[digest(1), digest(2), digest(3)]).await.unwrap().len(), 3);
        assert_eq!(newest.count_keys().await.unwrap(), 3);
    }

    async fn lists_go_on_where_the_page_before_ended(database) {
        let store = database.store().await;
        let mut rows: Vec<_> = (0..25).map(new_key).collect();
        // Several at the same time: their order is that of the identifiers.
        for row in &mut rows[5..15] {
            row.created_at = at(7);
        }
        import(&store, &rows).await;
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let request = PageRequest::new(4, cursor);
            let page = store.list_keys(&KeyFilter::default(), &request).await.unwrap();
            assert!(page.items.len() <= 4);
            seen.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 25);
        assert_eq!(seen.iter().map(|key| key.id).collect::<HashSet<_>>().len(), 25);
        assert!(seen.is_sorted_by(|a, b| (a.created_at, a.id) > (b.created_at, b.id)));
        let request = PageRequest::new(4, Some("nonsense".to_owned()));
        let error = store.list_keys(&KeyFilter::default(), &request).await.unwrap_err();
        assert!(matches!(error, StoreError::Cursor));
    }

    async fn lists_keep_to_the_filter(database) {
        let store = database.store().await;
        let mut rows: Vec<_> = (0..20).map(new_key).collect();
        rows[3].owner = Owner::team("user-1");
        "other".clone_into(&mut rows[4].project);
        "rescind_public".clone_into(&mut rows[5].format);
        import(&store, &rows).await;
        let count = async |filter: KeyFilter| {
            let page = store.list_keys(&filter, &PageRequest::first()).await.unwrap();
            page.items.len()
        };
        let all = KeyFilter::default;
        assert_eq!(count(KeyFilter { owner: Some(Owner::user("user-1")), ..all() }).await, 2);
        assert_eq!(count(KeyFilter { owner: Some(Owner::team("user-1")), ..all() }).await, 1);
        assert_eq!(count(KeyFilter { owner_type: Some(OwnerType::User), ..all() }).await, 19);
        assert_eq!(count(KeyFilter { project: Some("other".to_owned()), ..all() }).await, 1);
        assert_eq!(count(KeyFilter { format: Some("rescind_public".to_owned()), ..all() }).await, 1);
        assert_eq!(count(all()).await, 20);
    }
}
