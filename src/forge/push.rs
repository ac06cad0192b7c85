//! Pushes and announcements, as every forge means them.

use reqwest::Url;

use crate::fetch::{ObjectId, RepositoryName};

/// The longest reference name that is taken. GitHub and file systems stop at 255 bytes per part.
const MAX_REFERENCE: usize = 1000;

/// A repository and where it is cloned from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The forge's host, with its port unless it is the scheme's own.
    pub host: String,
    /// The forge's identifier of the repository, which survives renaming.
    pub repository_id: String,
    /// `owner/name`, or with the groups that some forges nest.
    pub repository: RepositoryName,
    /// Where it is cloned from, when that is not `{clone_url}/{repository}.git` of the host's configured
    /// source.
    pub clone_url: Option<Url>,
}

/// A branch or tag that moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// Where.
    pub remote: Remote,
    /// The full name of the branch or tag, `refs/heads/…`.
    pub reference: String,
    /// All zeros when new, and when the message does not tell.
    pub before: ObjectId,
    /// All zeros when deleted.
    pub after: ObjectId,
}

/// News of branches and tags without their commits: a new branch, or a repository that became public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Where.
    pub remote: Remote,
    /// The full name of the branch or tag. `None`: all that the repository has.
    pub reference: Option<String>,
    /// Tells this announcement from others of the same reference, such as the event's id.
    pub id: String,
}

/// Whether a name can be asked for: not empty, not overlong.
pub fn is_reference(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_REFERENCE
}

/// Reads an object id of 40 digits.
///
/// # Errors
/// What is wrong, without the text itself.
pub fn object_id(hex: &str) -> Result<ObjectId, &'static str> {
    ObjectId::from_hex(hex.as_bytes()).map_err(|_| "a commit is no object id of 40 digits")
}
