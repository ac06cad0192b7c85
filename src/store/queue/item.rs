//! Work items: pushed ranges that are still to be fetched and scanned. They hold coordinates only, never contents.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

/// Priority of a work item. Lower variants are taken first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Named by a partner.
    Partner,
    /// Announced by a forge's webhook.
    Webhook,
    /// Pushed to a watched repository.
    Watched,
    /// Seen in a public feed.
    Firehose,
    /// Read from an archive, or part of a full scan.
    Backfill,
}

impl Priority {
    /// All priorities, most urgent first.
    pub const ALL: [Self; 5] = [
        Self::Partner,
        Self::Webhook,
        Self::Watched,
        Self::Firehose,
        Self::Backfill,
    ];

    pub(in crate::store) fn number(self) -> i64 {
        match self {
            Self::Partner => 0,
            Self::Webhook => 1,
            Self::Watched => 2,
            Self::Firehose => 3,
            Self::Backfill => 4,
        }
    }

    pub(in crate::store) fn from_number(number: i64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|priority| priority.number() == number)
    }
}

/// Lane in which an item is processed. Items that may take long, or may crash the process, do not hold up the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Default lane.
    Ordinary,
    /// For items that turned out to be too large, or whose servers are too slow, for an ordinary place while others
    /// wait. Few of these run at a time.
    Medium,
    /// For items that turned out to be too large or slow for a medium place. One of these runs at a time.
    Large,
    /// For items during which a worker died. Few of these run at a time, with tighter limits; one at a time of those
    /// that killed two.
    Alone,
}

impl Lane {
    pub(in crate::store) const ALL: [Self; 4] =
        [Self::Ordinary, Self::Medium, Self::Large, Self::Alone];

    pub(in crate::store) fn number(self) -> i64 {
        match self {
            Self::Ordinary => 0,
            Self::Large => 1,
            Self::Alone => 2,
            Self::Medium => 3,
        }
    }

    pub(in crate::store) fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.number() == number)
    }
}

named! {
    /// Kind of a work item.
    #[derive(Serialize, ToSchema)]
    #[serde(rename_all = "lowercase")]
    pub enum WorkKind {
        /// A pushed range is to be fetched and scanned.
        Range = "range",
        /// The branches and tags of a repository are to be listed. Each becomes a range.
        References = "references",
    }
}

/// A range of a repository to be fetched and scanned, or references to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWorkItem {
    /// Kind of the item.
    pub kind: WorkKind,
    /// Host name of the forge.
    pub host: String,
    /// The forge's identifier of the repository, which survives renaming.
    pub repository_id: String,
    /// Name of the repository, as `owner/name`.
    pub repository: String,
    /// URL to clone from, if it differs from that of the host's configured source.
    pub clone_url: Option<String>,
    /// Full name of the branch or tag that was pushed. Empty for all references of the repository.
    pub ref_name: String,
    /// Commit before the push. All zeros for a new branch, and empty for references.
    pub before: String,
    /// Commit after the push. For references, a text that distinguishes two announcements.
    pub after: String,
    /// Name of the source that saw it first.
    pub source: String,
    /// Priority in the queue.
    pub priority: Priority,
    /// Time of the push.
    pub event_at: Timestamp,
}

/// Maximum length of the text that identifies a remote, in bytes. It is part of an index, whose entries PostgreSQL
/// bounds.
const REMOTE_MAX: usize = 256;

/// Number of bytes of an item that take the database as long as another item.
const WEIGHT: usize = 1 << 10;

/// Returns the number of items of ordinary size that take the database as long as one with these names: each KiB counts
/// as one more.
pub fn item_weight(repository: &str, clone_url: Option<&str>, ref_name: &str) -> usize {
    1 + (repository.len() + clone_url.map_or(0, str::len) + ref_name.len()) / WEIGHT
}

impl NewWorkItem {
    /// Returns the text that tells its remote from all others of its host: the name, the clone URL and the identifier.
    ///
    /// Whoever signs one announcement chooses all three. An identifier alone would let him announce somebody else's
    /// push as one that is read from elsewhere.
    pub fn remote(&self) -> String {
        let Self {
            repository,
            repository_id,
            ..
        } = self;
        // Neither a name nor a URL has a space in it.
        let clone_url = self.clone_url.as_deref().unwrap_or("-");
        let remote = format!("{repository} {clone_url} {repository_id}");
        if remote.len() <= REMOTE_MAX {
            return remote;
        }
        format!("sha256:{}", hex::encode(Sha256::digest(remote)))
    }

    /// Returns the number of items of ordinary size that take the database as long.
    pub fn weight(&self) -> usize {
        item_weight(&self.repository, self.clone_url.as_deref(), &self.ref_name)
    }

    /// Returns the owner of the repository in lower case, since forges ignore the case. The owner of nested groups is
    /// the outermost one.
    ///
    /// If it has a clone URL of its own, the owner is the part of its path that belongs to the owner, from the first
    /// slash on, whatever the repository is said to be called: nobody shares the places and turns of an owner to whom
    /// what he announces does not belong.
    pub fn owner(&self) -> String {
        let parts = self.repository.split('/');
        let Some(clone_url) = &self.clone_url else {
            return owner(&self.repository);
        };
        let path = clone_url.split_once("://").map_or(&**clone_url, |of| of.1);
        let path: Vec<&str> = path.split('/').skip(1).collect();
        // A server may have its repositories below a folder, so the name is what tells where the owner is.
        let most = path.len().saturating_sub(1);
        let owner = (path.len() + 1).saturating_sub(parts.count());
        let owner = if owner == 0 { most } else { owner.min(most) };
        format!("/{}", path[..owner].join("/").to_ascii_lowercase())
    }

    /// Returns the texts that tell its range from all others that a source named.
    pub(in crate::store) fn coordinates(&self) -> [Cow<'_, str>; 5] {
        [
            Cow::Borrowed(&self.host),
            Cow::Owned(self.remote()),
            Cow::Borrowed(&self.ref_name),
            Cow::Borrowed(&self.before),
            Cow::Borrowed(&self.after),
        ]
    }
}

/// Returns the owner of a repository `OWNER/NAME` in lower case.
fn owner(repository: &str) -> String {
    let owner = repository.split('/').next().unwrap_or_default();
    owner.to_ascii_lowercase()
}

/// Limits on the items derived from another one, so that what a server makes up comes to an end. One that is read again
/// because it used them up has the greatest possible numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lineage {
    /// Item that was named by a source.
    pub origin: Uuid,
    /// Number of steps from that item to this one.
    pub generation: u32,
    /// Number of further items that may be derived from this one, directly or indirectly.
    pub parts_left: u32,
    /// Number of bytes that may be received for this item and all that are derived from it.
    pub bytes_left: u64,
}

/// Place of a part within the range of its origin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// Commits that count as read, beside the one before the part. All zeros for whatever counts as read of a new
    /// reference. One for each generation at most.
    pub haves: Vec<String>,
    /// `true` if it is what a forced push dropped, which its server need not have.
    pub is_dropped: bool,
}

/// An item that is derived from another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descendant {
    /// Item in whose reading it was found.
    pub parent: Uuid,
    /// Range to be fetched.
    pub range: NewWorkItem,
    /// Place within what its origin names, if it is a part of that. It is independent then: the same range named by a
    /// source is another item, and the end of one says nothing about the other.
    pub part: Option<Part>,
    /// Limits on the items derived from it.
    pub lineage: Lineage,
}

/// Items of one host in one lane and at one priority that can be claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Lane of the items.
    pub lane: Lane,
    /// Priority of the items.
    pub priority: Priority,
    /// Host name of the forge.
    pub host: String,
}

/// An item that can be claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimable {
    /// Identifier of the item.
    pub id: Uuid,
    /// Remote of its repository; see [`NewWorkItem::remote`].
    pub remote: String,
    /// Owner of its repository; see [`NewWorkItem::owner`].
    pub owner: String,
    /// Number of workers that died while they held it.
    pub deaths: u32,
}

/// A work item that is held by this worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkItem {
    /// Version 7 UUID.
    pub id: Uuid,
    /// Range to be fetched.
    pub range: NewWorkItem,
    /// Lane in which the item is processed.
    pub lane: Lane,
    /// Number of workers that died while they held it.
    pub deaths: u32,
    /// Descent from another item. `None` if a source named the item.
    pub lineage: Option<Lineage>,
    /// Place within the range of its origin. The default if it is no part of one.
    pub part: Part,
    /// Time at which it was added.
    pub created_at: Timestamp,
    /// Number of this try, from 1.
    pub tries: u32,
    /// Number of times that the server said that there is nothing to read.
    pub denials: u32,
}

/// A work item that was dead-lettered after too many failures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadItem {
    /// The item.
    pub item: WorkItem,
    /// Reason why its last try failed.
    pub error: String,
    /// Time at which it was dead-lettered.
    pub died_at: Timestamp,
}

/// Result of fetching a work item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fetched {
    /// `true` if the byte budget was exhausted before the end of the range.
    pub truncated: bool,
    /// `true` if what was left out then would be read with a further budget, and no parts of it follow.
    pub unread: bool,
    /// Number of bytes of contents.
    pub bytes: u64,
    /// Number of blobs that were scanned.
    pub blobs: u64,
    /// `true` if the repository or the commit no longer existed.
    pub gone: bool,
}

/// State of an item after a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The item will be taken again, but not before this time.
    Again(Timestamp),
    /// The item was dead-lettered after the last of its tries.
    Dead,
    /// The item was no longer held by this worker.
    Lost,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(repository: &str, clone_url: Option<&str>) -> NewWorkItem {
        NewWorkItem {
            kind: WorkKind::Range,
            host: "git.example".to_owned(),
            repository_id: "7".to_owned(),
            repository: repository.to_owned(),
            clone_url: clone_url.map(str::to_owned),
            ref_name: String::new(),
            before: String::new(),
            after: String::new(),
            source: String::new(),
            priority: Priority::Webhook,
            event_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_outermost_group_is_the_owner() {
        for (repository, whose) in [
            ("Acme/shop", "acme"),
            ("acme/group/app", "acme"),
            ("x", "x"),
        ] {
            assert_eq!(item(repository, None).owner(), whose);
        }
    }

    #[test]
    fn what_is_read_from_an_address_of_its_own_belongs_to_the_owner_of_that() {
        for (repository, path, whose) in [
            ("acme/shop", "Acme/shop.git", "/acme"),
            ("acme/shop", "mallory/evil.git", "/mallory"),
            ("acme/group/app", "acme/group/app.git", "/acme"),
            ("acme/shop", "scm/acme/shop.git", "/scm/acme"),
            ("a/b/c/d", "mallory/evil.git", "/mallory"),
            ("a/b/c/d/e/f", "mallory/evil.git", "/mallory"),
            ("acme/shop", "shop.git", "/"),
        ] {
            let url = format!("https://git.example/{path}");
            let owner = item(repository, Some(&url)).owner();
            assert_eq!(owner, whose, "{repository} at {path}");
        }
    }

    #[test]
    fn remotes_differ_in_each_of_their_parts_and_are_bounded() {
        let long = format!("https://git.example/{}", "x".repeat(2_000));
        let other = NewWorkItem {
            repository_id: "8".to_owned(),
            ..item("acme/shop", None)
        };
        let mut remotes = [
            item("acme/shop", None),
            item("acme/other", None),
            other,
            item("acme/shop", Some("https://git.example/acme/other.git")),
            item("acme/shop", Some(&long)),
            item("acme/shop", Some(&format!("{long}x"))),
        ]
        .map(|item| item.remote())
        .to_vec();
        assert!(remotes.iter().all(|remote| remote.len() <= REMOTE_MAX));
        remotes.sort_unstable();
        remotes.dedup();
        assert_eq!(remotes.len(), 6);
    }
}
