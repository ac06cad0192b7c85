//! Position in a feed, and what of it is still to be repaired.

use std::collections::{HashSet, VecDeque};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Number of event ids that are remembered. A feed shows 300, and late events appear among those.
const REMEMBERED: usize = 600;

/// Interval at which all pages are read, although one shows an event that was read before.
const WHOLE: SignedDuration = SignedDuration::from_mins(10);

/// Maximum number of failed repositories that are listed by name.
const NAMED: usize = 10;

/// Position in a feed of events; stored in the database as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// `ETag` of each page, by the index of the token that was used for the request.
    #[serde(default)]
    etags: Vec<PageTag>,
    /// Ids of the events that were read last, newest first.
    #[serde(default)]
    ids: VecDeque<String>,
    /// Ids of events that were read although a later page could not be: the events behind them are still unread.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ahead: Vec<String>,
    /// Events that were put aside because they name many keys of ours. All else of them was committed.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub(super) aside: VecDeque<Aside>,
    /// Time at which all pages were last read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    whole_at: Option<Timestamp>,
    /// Repair that is still to be done, beside reading the feed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) repair: Option<Repair>,
}

/// An event that was put aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Aside {
    /// Name by which it is found again.
    pub(super) name: String,
    /// Number of its candidates that were reported. All of these are ours.
    #[serde(default)]
    pub(super) done: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct PageTag {
    token: usize,
    page: u32,
    etag: String,
}

/// Ids of the events that were read before.
#[derive(Debug, Default)]
pub(super) struct Seen {
    before: HashSet<String>,
    ahead: HashSet<String>,
}

impl Seen {
    /// Returns whether an event was read before, and all older events as well.
    pub(super) fn is_behind(&self, id: &str) -> bool {
        self.before.contains(id)
    }

    /// Returns whether an event was read before, but not all older events.
    pub(super) fn is_ahead(&self, id: &str) -> bool {
        self.ahead.contains(id)
    }
}

impl Cursor {
    /// Returns whether nothing has been read yet.
    pub(super) fn is_new(&self) -> bool {
        self.ids.is_empty()
    }

    /// Returns the ids that were read.
    pub(super) fn seen(&self) -> Seen {
        Seen {
            before: self.ids.iter().cloned().collect(),
            ahead: self.ahead.iter().cloned().collect(),
        }
    }

    /// Returns the `ETag` that a token was given for a page. Returns `None` while events are unread behind those that
    /// were read ahead, since an unchanged page would hide them.
    pub(super) fn etag(&self, token: usize, page: u32) -> Option<&str> {
        if !self.ahead.is_empty() {
            return None;
        }
        let mut tags = self.etags.iter();
        let tag = tags.find(|tag| (tag.token, tag.page) == (token, page))?;
        Some(&tag.etag)
    }

    /// Returns whether it is time to read all pages.
    pub(super) fn wants_all(&self, now: Timestamp) -> bool {
        let age = self.whole_at.map(|at| now.duration_since(at));
        // A clock that went back must not put it off.
        age.is_none_or(|age| age >= WHOLE || age.is_negative())
    }

    /// Records that all pages were read.
    pub(super) fn read_all(&mut self, now: Timestamp) {
        self.whole_at = Some(now);
    }

    /// Records the `ETag` of a page that was read.
    pub(super) fn tag(&mut self, token: usize, page: u32, etag: Option<String>) {
        self.etags
            .retain(|tag| (tag.token, tag.page) != (token, page));
        self.etags
            .extend(etag.map(|etag| PageTag { token, page, etag }));
    }

    /// Records the ids that were read, newest first, once everything between them and the previous ones was read.
    pub(super) fn remember(&mut self, newer: Vec<String>) {
        let ahead = std::mem::take(&mut self.ahead);
        for id in newer.into_iter().chain(ahead).rev() {
            self.ids.push_front(id);
        }
        self.ids.truncate(REMEMBERED);
    }

    /// Records the ids that were read, newest first, although the page behind them could not be read.
    pub(super) fn remember_ahead(&mut self, newer: Vec<String>) {
        self.ahead.splice(0..0, newer);
        self.ahead.truncate(REMEMBERED);
        self.etags.clear();
    }

    /// Puts events aside, in this order. Returns the number of those for which there is no room any more.
    pub(super) fn put_aside(&mut self, names: Vec<String>) -> u64 {
        for name in names {
            if self.aside.iter().all(|aside| aside.name != name) {
                self.aside.push_back(Aside { name, done: 0 });
            }
        }
        let lost = self.aside.len().saturating_sub(REMEMBERED);
        self.aside.drain(..lost);
        lost as u64
    }

    /// Records that so many more candidates of an event that was put aside were reported, and whether these were all.
    pub(super) fn note_aside(&mut self, name: &str, count: usize, is_done: bool) {
        if is_done {
            self.aside.retain(|aside| aside.name != name);
        }
        let mut events = self.aside.iter_mut();
        if let Some(aside) = events.find(|aside| aside.name == name) {
            aside.done += count;
        }
    }

    /// Drops the events that were put aside and that the feed does not show any more. Should it show one again, it is
    /// read anew. Returns their number.
    pub(super) fn drop_aside(&mut self) -> u64 {
        let aside = std::mem::take(&mut self.aside);
        if !aside.is_empty() {
            // A replica may have lacked it, and the page that has it is the one that was there before.
            self.etags.clear();
        }
        let is_gone = |id: &String| aside.iter().any(|aside| aside.name == *id);
        self.ids.retain(|id| !is_gone(id));
        self.ahead.retain(|id| !is_gone(id));
        aside.len() as u64
    }

    /// Requests a repair of everything since `since`, or since an earlier time if a repair is pending already.
    pub(super) fn want_repair(&mut self, since: Timestamp) {
        let repair = self.repair.take();
        let since = repair.map_or(since, |repair| repair.since.min(since));
        self.repair = Some(Repair::since(since));
    }
}

/// A repair in progress.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Repair {
    /// Time since which pushes may have been missed.
    pub(super) since: Timestamp,
    /// Repositories whose activity is still to be read; `None` if they have not been listed yet.
    #[serde(default)]
    pub(super) pending: Option<Vec<Pending>>,
    /// Number of failed attempts.
    #[serde(default)]
    pub(super) tries: u32,
    /// Repositories that could not be repaired, with the reasons.
    #[serde(default)]
    failed: Vec<String>,
    #[serde(default)]
    failures: usize,
    /// Entries in lists of repositories that could not be read, or do not say which repository they are.
    #[serde(default)]
    pub(super) unreadable: u64,
}

/// A repository whose activity is still to be read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) id: String,
    pub(super) name: String,
}

impl Repair {
    /// Creates a repair of everything since `since`.
    pub(super) fn since(since: Timestamp) -> Self {
        Self {
            since,
            pending: None,
            tries: 0,
            failed: Vec::new(),
            failures: 0,
            unreadable: 0,
        }
    }

    /// Records that a repository, or all of it that is left, could not be repaired.
    pub(super) fn fail(&mut self, what: String) {
        self.failures += 1;
        if self.failed.len() < NAMED {
            self.failed.push(what);
        }
    }

    /// Returns a description of what is still missing at the end.
    pub(super) fn outcome(&self) -> Option<String> {
        if self.failures == 0 && self.unreadable == 0 {
            return None;
        }
        let mut what = self.failed.clone();
        match self.failures.saturating_sub(self.failed.len()) {
            0 => {}
            more => what.push(format!("{more} more repositories")),
        }
        if self.unreadable > 0 {
            let entries = self.unreadable;
            what.push(format!(
                "{entries} entries in the list of repositories that cannot be read"
            ));
        }
        let (what, since) = (what.join(", "), self.since);
        Some(format!("pushes since {since} not looked for again: {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(cursor: &Cursor) -> Cursor {
        serde_json::from_str(&serde_json::to_string(cursor).unwrap()).unwrap()
    }

    #[test]
    fn remembers_the_newest() {
        let mut cursor = Cursor::default();
        assert!(cursor.is_new());
        cursor.remember((0..REMEMBERED).map(|n| format!("old {n}")).collect());
        cursor.remember(vec!["new".to_owned()]);
        let again = stored(&cursor);
        let seen = again.seen();
        assert_eq!(again.ids.len(), REMEMBERED);
        assert!(seen.is_behind("new") && seen.is_behind("old 0"));
        assert!(!seen.is_behind(&format!("old {}", REMEMBERED - 1)));
    }

    #[test]
    fn what_was_read_ahead_counts_when_the_rest_was_read() {
        let mut cursor = Cursor::default();
        cursor.remember(vec!["1".to_owned()]);
        cursor.tag(0, 1, Some("\"a\"".to_owned()));
        assert_eq!(cursor.etag(0, 1), Some("\"a\""));
        assert_eq!(cursor.etag(1, 1), None);
        cursor.remember_ahead(vec!["4".to_owned(), "3".to_owned()]);
        let mut again = stored(&cursor);
        assert!(again.seen().is_ahead("3") && !again.seen().is_behind("3"));
        assert_eq!(again.etag(0, 1), None);
        again.remember(vec!["5".to_owned(), "2".to_owned()]);
        assert!(again.seen().is_behind("3") && again.seen().is_behind("2"));
    }

    #[test]
    fn what_was_put_aside_is_kept_until_it_is_done_and_read_anew_if_it_is_gone() {
        let mut cursor = Cursor::default();
        cursor.remember(vec!["2".to_owned(), "1".to_owned()]);
        let both = || vec!["1".to_owned(), "2".to_owned()];
        assert_eq!((cursor.put_aside(both()), cursor.put_aside(both())), (0, 0));
        cursor.note_aside("1", 7, false);
        cursor.note_aside("2", 70, true);
        let mut again = stored(&cursor);
        assert_eq!((again.aside.len(), again.aside[0].done), (1, 7));
        assert_eq!(again.drop_aside(), 1);
        assert!(!again.seen().is_behind("1") && again.seen().is_behind("2"));
        let many = (0..=REMEMBERED).map(|n| n.to_string()).collect();
        assert_eq!((again.put_aside(many), again.aside.len()), (1, REMEMBERED));
    }
}
