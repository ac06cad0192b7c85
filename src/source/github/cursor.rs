//! How far a feed has been read.

use std::collections::{HashSet, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::repair::Repair;

/// How many event ids are remembered: a feed shows 300, and late ones come between those.
const REMEMBERED: usize = 600;

/// How far a feed of events has been read; kept in the database as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// What was polled, so that another scope under the same name starts anew.
    #[serde(default)]
    pub(super) address: String,
    /// The `ETag` of each page, by the place of the token that it was asked for with.
    #[serde(default)]
    etags: Vec<PageTag>,
    /// The ids of the events read last, newest first.
    #[serde(default)]
    ids: VecDeque<String>,
    /// The ids of events that were read when a later page could not be: what is behind them is still unread.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ahead: Vec<String>,
    /// What is still to be asked for beside the feed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) repair: Option<Repair>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct PageTag {
    token: usize,
    page: u32,
    etag: String,
}

/// Whether an event was read before.
#[derive(Debug, Default)]
pub(super) struct Seen {
    before: HashSet<String>,
    ahead: HashSet<String>,
}

impl Seen {
    /// Read before, and all that is older too.
    pub(super) fn is_behind(&self, id: &str) -> bool {
        self.before.contains(id)
    }

    /// Read before, but not all that is older.
    pub(super) fn is_ahead(&self, id: &str) -> bool {
        self.ahead.contains(id)
    }
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
    pub(super) fn seen(&self) -> Seen {
        Seen {
            before: self.ids.iter().cloned().collect(),
            ahead: self.ahead.iter().cloned().collect(),
        }
    }

    /// The `ETag` of a page as that token was told it, if an unchanged page has nothing new.
    pub(super) fn etag(&self, token: usize, page: u32) -> Option<&str> {
        if !self.ahead.is_empty() {
            return None;
        }
        let mut tags = self.etags.iter();
        let tag = tags.find(|tag| (tag.token, tag.page) == (token, page))?;
        Some(&tag.etag)
    }

    /// Notes the `ETag` of a page that was read.
    pub(super) fn tag(&mut self, token: usize, page: u32, etag: Option<String>) {
        self.etags
            .retain(|tag| (tag.token, tag.page) != (token, page));
        self.etags
            .extend(etag.map(|etag| PageTag { token, page, etag }));
    }

    /// Notes what was read, newest first, with everything between it and what was read before.
    pub(super) fn remember(&mut self, newer: Vec<String>) {
        let ahead = std::mem::take(&mut self.ahead);
        for id in newer.into_iter().chain(ahead).rev() {
            self.ids.push_front(id);
        }
        self.ids.truncate(REMEMBERED);
    }

    /// Notes what was read, newest first, although the page behind it could not be.
    pub(super) fn remember_ahead(&mut self, newer: Vec<String>) {
        self.ahead.splice(0..0, newer);
        self.ahead.truncate(REMEMBERED);
        self.etags.clear();
    }

    /// Asks for a repair of what happened since then, or from further back if one is asked for already.
    pub(super) fn want_repair(&mut self, since: Timestamp) {
        let repair = self.repair.take();
        let since = repair.map_or(since, |repair| repair.since.min(since));
        self.repair = Some(Repair::since(since));
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
        assert_eq!(again.ids.len(), REMEMBERED);
        assert!(seen.is_behind("new") && seen.is_behind("old 0"));
        assert!(!seen.is_behind(&format!("old {}", REMEMBERED - 1)));
    }

    #[test]
    fn what_was_read_ahead_counts_when_the_rest_was_read() {
        let mut cursor = Cursor::load("", "here");
        cursor.remember(vec!["1".to_owned()]);
        cursor.tag(0, 1, Some("\"a\"".to_owned()));
        assert_eq!(cursor.etag(0, 1), Some("\"a\""));
        assert_eq!(cursor.etag(1, 1), None);
        cursor.remember_ahead(vec!["4".to_owned(), "3".to_owned()]);
        let mut again = Cursor::load(&cursor.to_json(), "here");
        assert!(again.seen().is_ahead("3") && !again.seen().is_behind("3"));
        assert_eq!(again.etag(0, 1), None);
        again.remember(vec!["5".to_owned(), "2".to_owned()]);
        assert!(again.seen().is_behind("3") && again.seen().is_behind("2"));
    }

    #[test]
    fn another_address_or_a_damaged_cursor_starts_anew() {
        let mut cursor = Cursor::load("", "here");
        cursor.remember(vec!["1".to_owned()]);
        assert!(Cursor::load(&cursor.to_json(), "there").is_new());
        assert!(Cursor::load("{\"ids\":7}", "here").is_new());
    }
}
