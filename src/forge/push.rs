//! Pushes and announcements, independent of the forge.

use reqwest::Url;

use crate::fetch::{ObjectId, RepositoryName};

/// Maximum length of a reference name, in bytes. GitHub and file systems stop at 255 bytes per part.
const MAX_REFERENCE: usize = 1000;

/// A repository and its clone URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Host of the forge, with its port unless that is the default of the scheme.
    pub host: String,
    /// Identifier of the repository at the forge, which survives renaming.
    pub repository_id: String,
    /// `owner/name`, or with the nested groups of some forges.
    pub repository: RepositoryName,
    /// Clone URL, unless it is `{clone_url}/{repository}.git` of the host's configured source.
    pub clone_url: Option<Url>,
}

/// A branch or tag that moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// Repository of the branch or tag.
    pub remote: Remote,
    /// Full name of the branch or tag, `refs/heads/…`.
    pub reference: String,
    /// Target before the push. All zeros if the reference is new, or if the message does not contain it.
    pub before: ObjectId,
    /// Target after the push. All zeros if the reference was deleted.
    pub after: ObjectId,
}

/// Notice of branches and tags without their commits: a new branch, or a repository that became public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Repository of the branches and tags.
    pub remote: Remote,
    /// Full name of the branch or tag. If `None`, all those of the repository are meant.
    pub reference: Option<String>,
    /// Identifier that tells this announcement from others of the same reference, such as the event's id.
    pub id: String,
}

/// Returns `true` if a reference with this name can be requested: it is neither empty nor too long.
pub fn is_reference(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_REFERENCE
}

/// Parses an object id of 40 digits.
///
/// # Errors
///
/// Returns a description of the problem that does not quote the text.
pub fn object_id(hex: &str) -> Result<ObjectId, &'static str> {
    ObjectId::from_hex(hex.as_bytes()).map_err(|_| "a commit is no object id of 40 digits")
}
