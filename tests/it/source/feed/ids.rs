//! Identifiers that are keys, of a format that consists of hexadecimal digits.

use serde_json::json;

use super::{answer, feed, poll, push, swap};
use crate::source::{Rig, hex_keys};
use crate::support::databases::on_both_databases;

on_both_databases! {
    async fn no_key_is_kept_as_the_id_of_an_event_or_of_a_commit(database) {
        let (id, commit, formats) = hex_keys();
        let rig = Rig::with_formats(&database.store().await, formats);
        let (mut named, mut before, mut after) = (push(1), push(2), push(3));
        named["id"] = json!(id);
        before["payload"]["before"] = json!(commit);
        after["payload"]["head"] = json!(commit);
        let events = [push(4), named, before, after];
        let server = feed(&events).await;
        let source = rig.source(&server.uri());
        let outcome = poll(&source).await;
        assert_eq!((outcome.events, outcome.items, outcome.malformed), (4, 2, 2));
        let items = rig.items().await;
        for item in &items {
            assert!(item.range.before != commit && item.range.after != commit);
        }
        let state = rig.state().await;
        assert!(!state.cursor.contains(&id) && !state.cursor.contains(&commit));
        assert_eq!((items.len(), state.malformed), (2, 2));
        // The event is known by the form of its id.
        swap(&server, &[("1", answer(&events))]).await;
        let outcome = poll(&source).await;
        assert_eq!((outcome.events, outcome.gap), (0, false));
    }
}
