//! How far a feed has been read.

use std::collections::{HashSet, VecDeque};

use serde::{Deserialize, Serialize};

/// How many event ids are remembered: a feed shows 300, and late ones come between those.
const REMEMBERED: usize = 600;

/// How far a feed of events has been read; kept in the database as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// The `ETag` of the first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) etag: Option<String>,
    /// What was polled, so that another scope under the same name starts anew.
    #[serde(default)]
    pub(super) address: String,
    /// The ids of the events read last, newest first.
    #[serde(default)]
    ids: VecDeque<String>,
}

impl Cursor {
    /// The cursor that was saved for `address`; a new one if that is another address's or nobody's.
    pub(super) fn load(json: &str, address: &str) -> Self {
        let saved = serde_json::from_str::<Self>(json).unwrap_or_default();
        if saved.address == address {
            return saved;
        }
        Self {
            address: address.to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether nothing was read yet.
    pub(super) fn is_new(&self) -> bool {
        self.ids.is_empty()
    }

    /// The ids that were read.
    pub(super) fn seen(&self) -> HashSet<String> {
        self.ids.iter().cloned().collect()
    }

    /// Notes what was read, newest first.
    pub(super) fn remember(&mut self, newer: Vec<String>) {
        for id in newer.into_iter().rev() {
            self.ids.push_front(id);
        }
        self.ids.truncate(REMEMBERED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_newest() {
        let mut cursor = Cursor::load("", "here");
        assert!(cursor.is_new());
        cursor.remember((0..REMEMBERED).map(|n| format!("old {n}")).collect());
        cursor.remember(vec!["new".to_owned()]);
        let again = Cursor::load(&cursor.to_json(), "here");
        let seen = again.seen();
        assert_eq!(seen.len(), REMEMBERED);
        assert!(seen.contains("new") && seen.contains("old 0"));
        assert!(!seen.contains(&format!("old {}", REMEMBERED - 1)));
    }

    #[test]
    fn another_address_or_a_damaged_cursor_starts_anew() {
        let mut cursor = Cursor::load("", "here");
        cursor.remember(vec!["1".to_owned()]);
        assert!(Cursor::load(&cursor.to_json(), "there").is_new());
        assert!(Cursor::load("{\"ids\":7}", "here").is_new());
    }
}
