//! Keys that are valid and not hunted, and daemons that hunt by other rules.

use rescind::keyformat::FormatSet;
use rescind::store::{NewKey, UNNAMED_FORMAT, Unhunted};

use super::{at, import, new_key};
use crate::support::databases::on_both_databases;

on_both_databases! {
    async fn valid_keys_with_a_prefix_that_no_format_has_are_counted(database) {
        let store = database.store().await;
        let other = |n, format: &str, prefix: &str| NewKey {
            format: format.to_owned(),
            prefix: prefix.to_owned(),
            ..new_key(n)
        };
        let expired = NewKey { expires_at: Some(at(50)), ..other(7, "former", "old_") };
        let public = NewKey { is_public: true, ..other(8, "former", "old_") };
        import(&store, &[
            new_key(1),
            // The format has another name now, and its prefix is hunted.
            other(2, "renamed", "rsc_sk_"),
            other(3, "former", "old_"),
            other(4, "former", "old_"),
            // Of these there is no prefix. Of the last one there is not even a format.
            other(5, "elsewhere", ""),
            other(6, "stack_auth_secret", ""),
            expired,
            public,
            other(9, UNNAMED_FORMAT, ""),
        ]).await;
        let unhunted = store.unhunted(&FormatSet::builtin(), at(100)).await.unwrap();
        let group = |format: &str, prefix: &str, number| Unhunted {
            format: Some(format.to_owned()),
            prefix: prefix.to_owned(),
            number,
            former: None,
        };
        assert_eq!(unhunted, [group("former", "old_", 2), group("elsewhere", "", 1)]);
    }

    async fn daemons_that_hunt_by_other_rules_are_named_until_they_are_gone(database) {
        let store = database.store().await;
        let none: [String; 0] = [];
        assert_eq!(store.hunts("one", "a").await.unwrap(), none);
        assert_eq!(store.hunts("two", "a").await.unwrap(), none);
        assert_eq!(store.hunts("three", "b").await.unwrap(), ["one", "two"]);
        assert_eq!(store.hunts("two", "b").await.unwrap(), ["one"]);
        assert_eq!(store.other_hunters("", "b").await.unwrap(), ["one"]);
        store.hunts_no_more("one").await.unwrap();
        assert_eq!(store.other_hunters("", "b").await.unwrap(), none);
        // One that was killed.
        database.run("UPDATE hunters SET seen_at = seen_at - 200000000 WHERE process = 'three'").await.unwrap();
        assert_eq!(store.other_hunters("", "a").await.unwrap(), ["two"]);
        store.hunts_no_more("two").await.unwrap();
        assert_eq!(database.count("SELECT count(*) FROM hunters").await, 0);
    }
}
