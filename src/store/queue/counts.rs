//! Work that is done and work that is left, in numbers.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

/// Number of items in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkCounts {
    /// Items that are to be taken, now or later.
    pub waiting: u64,
    /// Items that are held by a worker.
    pub leased: u64,
    /// Items that were fetched and scanned.
    pub done: u64,
    /// Those of them whose byte budget was exhausted before the end of the range.
    pub truncated: u64,
    /// Items that were dead-lettered after the last of their tries.
    pub dead: u64,
    /// Items that were not read because there were more than could be.
    pub shed: u64,
    /// Time of the push of the oldest waiting item.
    pub oldest_event_at: Option<Timestamp>,
}

/// Work done by a worker for the items of one source, to be added to the totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkDone {
    /// Number of items that were read to their end.
    pub scanned: u64,
    /// Number of blobs in them that were scanned.
    pub blobs: u64,
    /// Number of blobs in them that had been scanned before and contain nothing.
    pub known_blobs: u64,
    /// Number of items of which something was omitted.
    pub truncated: u64,
    /// Number of items whose repository or commit no longer existed.
    pub gone: u64,
    /// Time of the oldest push among them.
    pub oldest_event_at: Option<Timestamp>,
}

/// Work done and work remaining for the items of one source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceWork {
    /// Name of the source.
    pub source: String,
    /// Totals since the first item. `oldest_event_at` is not stored.
    pub done: WorkDone,
    /// Number of items that were shed.
    pub shed: u64,
    /// Number of items that were not added because too many of their repository, owner or host were waiting already.
    pub refused: u64,
    /// Last example of what was left unread, and the time at which it was: of an item that was gone, truncated or
    /// refused, or of an event that was malformed.
    pub last_unread: Option<(String, Timestamp)>,
    /// Time from the push to the end of the scan, for the items that ended last.
    pub lag: Option<Duration>,
    /// Time at which these items ended.
    pub scanned_at: Option<Timestamp>,
    /// Number of items that are waiting or held by a worker.
    pub waiting: u64,
    /// Time at which the oldest of these items was added, except those of which the server said that there is nothing
    /// to read.
    pub oldest_waiting_at: Option<Timestamp>,
    /// Number of items that were dead-lettered.
    pub dead: u64,
    /// Reason why the last one was dead-lettered, if none has been scanned to its end since.
    pub last_death: Option<String>,
    /// Number of waiting items whose last try failed, apart from those that wait for a host.
    pub failed: u64,
    /// Reason why the last of them failed, if no item has been scanned to its end since.
    pub last_failure: Option<String>,
    /// Number of waiting items that were tried and could not be read so far: a try failed, or their server said that there
    /// is nothing to read. They are tried again.
    pub retrying: u64,
    /// Last of those tries.
    pub last_retry: Option<FailedTry>,
    /// Host that items are waiting for, if one is left alone as a whole.
    pub waits_for: Option<HostWait>,
}

/// Prefix of the reason for which an item waits whose last try failed, or whose repository is left alone.
pub const TRIED_AGAIN: &str = "tried again: ";

/// Prefix of the reason for which an item waits of which its server said that there is nothing to read.
pub(in crate::store) const NOTHING_TO_READ: &str = "nothing to read: ";

/// Prefix of the reason for which an item is postponed whose host is left alone as a whole.
pub const HOST_LEFT_ALONE: &str = "its host is left alone: ";

/// A try of an item that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedTry {
    /// Name of the item and the reason, in words that are safe to be shown.
    pub what: String,
    /// Time at which it failed. `None` while the next try is in flight.
    pub at: Option<Timestamp>,
}

/// A host that is left alone while items of it wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostWait {
    /// Host name of the forge.
    pub host: String,
    /// Reason why the host is left alone.
    pub why: String,
    /// Time of the next try. `None` while a try is in flight.
    pub until: Option<Timestamp>,
}

impl fmt::Display for HostWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, why, until } = self;
        write!(f, "waits for {host}: {why}, ")?;
        match until {
            Some(until) => write!(f, "next try {until:.0}"),
            None => f.write_str("tried again now"),
        }
    }
}
