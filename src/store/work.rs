//! Work items: pushed ranges still to be fetched and scanned. Coordinates only, never contents.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

/// Which items are taken first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Named by a partner.
    Partner,
    /// Announced by a forge's webhook.
    Webhook,
    /// Pushed to a repository that is watched.
    Watched,
    /// Seen in a public feed.
    Firehose,
    /// Read from an archive, or a full scan.
    Backfill,
}

impl Priority {
    /// All of them, most urgent first.
    pub const ALL: [Self; 5] = [
        Self::Partner,
        Self::Webhook,
        Self::Watched,
        Self::Firehose,
        Self::Backfill,
    ];

    pub(super) fn number(self) -> i64 {
        match self {
            Self::Partner => 0,
            Self::Webhook => 1,
            Self::Watched => 2,
            Self::Firehose => 3,
            Self::Backfill => 4,
        }
    }

    pub(super) fn from_number(number: i64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|priority| priority.number() == number)
    }
}

/// Where an item is read: what may take long, or may end the process, goes past the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Among others.
    Ordinary,
    /// It turned out to be larger, or its server slower, than others can be kept waiting for an ordinary place. Few
    /// such at a time.
    Medium,
    /// The same of a place among those. One such at a time.
    Large,
    /// A worker died while it held it. Few such at a time, with tighter limits; one at a time of which two did.
    Alone,
}

impl Lane {
    pub(super) const ALL: [Self; 4] = [Self::Ordinary, Self::Medium, Self::Large, Self::Alone];

    pub(super) fn number(self) -> i64 {
        match self {
            Self::Ordinary => 0,
            Self::Large => 1,
            Self::Alone => 2,
            Self::Medium => 3,
        }
    }

    pub(super) fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.number() == number)
    }
}

/// What a work item asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkKind {
    /// A pushed range is to be fetched and scanned.
    Range,
    /// The branches and tags of a repository are to be listed; each becomes a range.
    References,
}

impl WorkKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::References => "references",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Range, Self::References]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }
}

/// A range of a repository to be fetched and scanned, or references to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWorkItem {
    /// What is asked for.
    pub kind: WorkKind,
    /// The forge's host name.
    pub host: String,
    /// The forge's identifier of the repository, which survives renaming.
    pub repository_id: String,
    /// `owner/name`.
    pub repository: String,
    /// Where it is cloned from, when that is not where the host's configured source says.
    pub clone_url: Option<String>,
    /// The full name of the branch or tag that was pushed. Empty: all of the repository's.
    pub ref_name: String,
    /// The commit before the push; all zeros for a new branch. Empty for references.
    pub before: String,
    /// The commit after the push. For references what tells two announcements of them apart.
    pub after: String,
    /// The name of the source that saw it first.
    pub source: String,
    /// Its place in the queue.
    pub priority: Priority,
    /// When it was pushed.
    pub event_at: Timestamp,
}

/// What an item that came of another one may still become, so that what a server makes up has an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lineage {
    /// The item that a source named.
    pub origin: Uuid,
    /// The steps from it to this one.
    pub generation: u32,
    /// How many more items may come of this one, directly and indirectly.
    pub parts_left: u32,
    /// How many bytes may be received for this one and all that come of it.
    pub bytes_left: u64,
}

/// An item that comes of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descendant {
    /// What is to be fetched.
    pub range: NewWorkItem,
    /// Whether it is a part of its origin's range. It stands apart then: the same range named by a source is
    /// another item, and the end of one says nothing about the other.
    pub is_part: bool,
    /// What may still come of it.
    pub lineage: Lineage,
}

/// What can be claimed of one host at one priority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The lane.
    pub lane: Lane,
    /// How urgent it is.
    pub priority: Priority,
    /// The forge's host name.
    pub host: String,
}

/// An item that can be claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimable {
    /// The item.
    pub id: Uuid,
    /// Its repository.
    pub repository_id: String,
    /// Whose repository it is; see [`owner`](super::owner).
    pub owner: String,
    /// How many workers died while they held it.
    pub deaths: u32,
}

/// A work item that this worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkItem {
    /// A version 7 UUID.
    pub id: Uuid,
    /// What is to be fetched.
    pub range: NewWorkItem,
    /// Where it is read.
    pub lane: Lane,
    /// How many workers died while they held it.
    pub deaths: u32,
    /// Where it comes from. `None`: a source named it.
    pub lineage: Option<Lineage>,
    /// When it was added.
    pub created_at: Timestamp,
    /// Which try this is, from 1.
    pub tries: u32,
}

/// A work item that failed too often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadItem {
    /// The item.
    pub item: WorkItem,
    /// Why its last try failed.
    pub error: String,
    /// When it was put aside.
    pub died_at: Timestamp,
}

/// What was fetched of a work item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fetched {
    /// The byte budget ended before the range did.
    pub truncated: bool,
    /// Bytes of contents.
    pub bytes: u64,
    /// Blobs scanned.
    pub blobs: u64,
    /// The repository or the commit was not there.
    pub gone: bool,
}

/// What becomes of an item whose try failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It will be taken again, not before this time.
    Again(Timestamp),
    /// It was put aside after the last of its tries.
    Dead,
    /// It was not this worker's any more.
    Lost,
}

/// How many items there are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkCounts {
    /// To be taken, now or later.
    pub waiting: u64,
    /// Held by a worker.
    pub leased: u64,
    /// Fetched and scanned.
    pub done: u64,
    /// Of those, the ones whose byte budget ended before the range did.
    pub truncated: u64,
    /// Put aside after the last of their tries.
    pub dead: u64,
    /// Not read because there was more than could be.
    pub shed: u64,
    /// When the oldest waiting item was pushed.
    pub oldest_event_at: Option<Timestamp>,
}

/// When items of the firehose are shed: there are more of them than can be read in time.
///
/// Only items of [`Priority::Firehose`] are, the oldest first: what a partner, a webhook or a watched
/// repository named is read however late, and what was asked for from an archive can wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shedding {
    /// The most of them that wait.
    pub max_waiting: u64,
    /// The longest that one waits, from when it was added.
    pub max_wait: Duration,
}

/// What a worker did with the items of one source, to be added to the totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkDone {
    /// Items that were read to their end.
    pub scanned: u64,
    /// Blobs in them that were scanned.
    pub blobs: u64,
    /// Blobs in them that had been scanned before and hold nothing.
    pub known_blobs: u64,
    /// Items of which something was left out.
    pub truncated: u64,
    /// Items whose repository or commit was gone.
    pub gone: u64,
    /// The time of the oldest push among them.
    pub oldest_event_at: Option<Timestamp>,
}

/// What was done with the items of one source, and what is left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceWork {
    /// The source's name.
    pub source: String,
    /// Totals since the first item. `oldest_event_at` is not kept.
    pub done: WorkDone,
    /// Items that were shed.
    pub shed: u64,
    /// Items that were not added because too many of their repository or their host waited already.
    pub refused: u64,
    /// From the push to the end of its scan, for the items that ended last.
    pub lag: Option<Duration>,
    /// When they ended.
    pub scanned_at: Option<Timestamp>,
    /// Items that wait or are held by a worker.
    pub waiting: u64,
    /// When the oldest of the items was added that no worker has looked at yet.
    pub oldest_waiting_at: Option<Timestamp>,
    /// Items that were put aside.
    pub dead: u64,
    /// Why the last one of them was, if none was scanned to its end since.
    pub last_death: Option<String>,
    /// The host that items wait for, if one is left alone as a whole.
    pub waits_for: Option<HostWait>,
}

/// The beginning of the reason for which an item is put off whose host is left alone as a whole.
pub const HOST_LEFT_ALONE: &str = "its host is left alone: ";

/// A host that is left alone, while items of it wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostWait {
    /// The host.
    pub host: String,
    /// The reason.
    pub why: String,
    /// The time of the next try. `None` while one is under way.
    pub until: Option<Timestamp>,
}

impl std::fmt::Display for HostWait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, why, until } = self;
        write!(f, "waits for {host}: {why}, ")?;
        match until {
            Some(until) => write!(f, "next try {until:.0}"),
            None => f.write_str("tried again now"),
        }
    }
}
