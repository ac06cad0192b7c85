//! What a payload tells of things to fetch, forge by forge.

use serde_json::{Map, Value};

use super::Forge;
use super::places::{ClonePlaces, Wrong};
use super::{bitbucket, gitlab, hub};
use crate::fetch::{ObjectId, RepositoryName};
use crate::forge::{Announcement, Push, Remote, is_reference, object_id};

/// The most references of one delivery that are taken one by one. Whoever pushes more at once gets the
/// repository's references listed.
pub(super) const MAX_PUSHES: usize = 1000;

/// A delivery whose body was read.
pub(super) struct Delivered<'d> {
    /// What the forge's header says it is.
    pub(super) event: &'d str,
    /// The fields that are kept of the payload.
    pub(super) fields: &'d Map<String, Value>,
    /// Tells it from other deliveries.
    pub(super) id: &'d str,
    /// Where repositories are cloned from.
    pub(super) places: &'d ClonePlaces,
}

/// What a delivery tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Meaning {
    /// Branches and tags that moved.
    pub(super) pushes: Vec<Push>,
    /// References to be asked for.
    pub(super) announcements: Vec<Announcement>,
    /// What of it cannot be used, and why.
    pub(super) malformed: Vec<Wrong>,
    /// It is of a type that this version does not know. Its texts are scanned all the same.
    pub(super) unknown: bool,
}

impl Meaning {
    /// Reads a delivery of `forge`.
    pub(super) fn of(forge: Forge, delivered: &Delivered<'_>) -> Self {
        match forge {
            Forge::GitHub => hub::github(delivered),
            Forge::Gitea => hub::gitea(delivered),
            Forge::GitLab => gitlab::read(delivered),
            Forge::Bitbucket => bitbucket::read(delivered),
        }
    }

    /// Something known that brings nothing but texts, or something unknown.
    pub(super) fn texts(known: bool) -> Self {
        Self {
            unknown: !known,
            ..Self::default()
        }
    }

    /// Adds what was read, or why it could not be.
    pub(super) fn push(&mut self, push: Result<Push, Wrong>) {
        match push {
            Ok(push) => self.pushes.push(push),
            Err(wrong) => self.malformed.push(wrong),
        }
    }

    /// Adds what was read, or why it could not be.
    pub(super) fn announce(&mut self, announced: Result<Announcement, Wrong>) {
        match announced {
            Ok(announced) => self.announcements.push(announced),
            Err(wrong) => self.malformed.push(wrong),
        }
    }
}

impl Delivered<'_> {
    /// The value at a path of names such as `/repository/id`.
    pub(super) fn at(&self, path: &str) -> Option<&Value> {
        at(self.fields, path)
    }

    /// The text at a path.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.at(path)?.as_str()
    }
}

fn at<'v>(fields: &'v Map<String, Value>, path: &str) -> Option<&'v Value> {
    let path = path.strip_prefix('/')?;
    match path.split_once('/') {
        None => fields.get(path),
        Some((first, _)) => fields.get(first)?.pointer(&path[first.len()..]),
    }
}

/// A branch or tag that moved.
///
/// # Errors
/// What is wrong, without quoting it.
pub(super) fn moved(
    remote: Remote,
    reference: Option<&str>,
    before: Option<&str>,
    after: Option<&str>,
) -> Result<Push, Wrong> {
    let object = |id: Option<&str>| match id {
        None | Some("") => Ok(ObjectId::null(gix_hash::Kind::Sha1)),
        Some(id) => object_id(id),
    };
    let reference = reference.ok_or("it has no ref")?;
    // No name of git's has such characters (git-check-ref-format(1)), and no database wants them.
    let odd = |c: char| c.is_control() || c == ' ';
    if !is_reference(reference) || !reference.starts_with("refs/") || reference.contains(odd) {
        return Err("its ref is none of git's names".into());
    }
    let after = after.ok_or("it has no commit after the push")?;
    Ok(Push {
        remote,
        reference: reference.to_owned(),
        before: object(before)?,
        after: object_id(after)?,
    })
}

/// All references of a repository are to be asked for.
pub(super) fn all_of(remote: Remote, id: &str) -> Announcement {
    Announcement {
        remote,
        reference: None,
        id: id.to_owned(),
    }
}

/// The wiki that belongs to a repository: a repository of its own beside it.
pub(super) fn wiki_of(remote: &Remote) -> Result<Remote, Wrong> {
    let name = format!("{}.wiki", remote.repository);
    let clone_url = remote.clone_url.as_ref().map(|url| {
        let path = url.path();
        let path = path.strip_suffix(".git").unwrap_or(path);
        let path = format!("{path}.wiki.git");
        let mut url = url.clone();
        url.set_path(&path);
        url
    });
    Ok(Remote {
        host: remote.host.clone(),
        repository_id: format!("{}.wiki", remote.repository_id),
        repository: RepositoryName::parse(&name).map_err(|_| "its wiki's name is too long")?,
        clone_url,
    })
}
