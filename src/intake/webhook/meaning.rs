//! References to fetch according to a payload, whatever forge sent it.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::places::{ClonePlaces, Wrong};
use crate::fetch::RepositoryName;
use crate::forge::{Announcement, Push, Remote, is_reference, no_commit, object_id};
use crate::scan::Redactor;

/// Maximum number of references of one delivery that are handled one by one. If more were pushed at once,
/// all references of the repository are listed.
pub(super) const MAX_PUSHES: usize = 1000;

/// A delivery whose body was parsed.
pub(super) struct Delivered<'d> {
    /// Name of the event, from the forge's header.
    pub(super) event: &'d str,
    /// Fields of the payload that are kept.
    pub(super) fields: &'d Map<String, Value>,
    /// Identifier that tells the delivery from others.
    pub(super) id: &'d str,
    /// Permitted clone URLs.
    pub(super) places: &'d ClonePlaces,
    /// Detector of keys in texts that are logged.
    pub(super) redactor: &'d Redactor,
}

/// Contents of a delivery other than its texts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Meaning {
    /// Branches and tags that moved.
    pub(super) pushes: Vec<Push>,
    /// References that have to be listed.
    pub(super) announcements: Vec<Announcement>,
    /// Reasons why parts of the delivery cannot be used.
    pub(super) malformed: Vec<Wrong>,
    /// `true` if this version does not know the type of the delivery. Its texts are scanned regardless.
    pub(super) unknown: bool,
}

impl Meaning {
    /// Creates a meaning without references: that of a known event with nothing but texts, or of an
    /// unknown event.
    pub(super) fn texts(known: bool) -> Self {
        Self {
            unknown: !known,
            ..Self::default()
        }
    }

    /// Adds a push, or the reason why it could not be read.
    pub(super) fn push(&mut self, push: Result<Push, Wrong>) {
        match push {
            Ok(push) => self.pushes.push(push),
            Err(wrong) => self.malformed.push(wrong),
        }
    }

    /// Adds an announcement, or the reason why it could not be read.
    pub(super) fn announce(&mut self, announced: Result<Announcement, Wrong>) {
        match announced {
            Ok(announced) => self.announcements.push(announced),
            Err(wrong) => self.malformed.push(wrong),
        }
    }
}

impl Delivered<'_> {
    /// Returns the value at a path of names such as `/repository/id`.
    pub(super) fn at(&self, path: &str) -> Option<&Value> {
        at(self.fields, path)
    }

    /// Returns the repository `name`, whose clone URL is `told`, as [`ClonePlaces::remote`] does.
    pub(super) fn remote(
        &self,
        id: Option<String>,
        name: Option<&str>,
        told: Option<&str>,
    ) -> Result<Remote, Wrong> {
        self.places.remote(id, name, told, self.redactor)
    }

    /// Returns the text at a path, or `None` if the value there is not a string.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.at(path)?.as_str()
    }

    /// Reads the branch or tag that moved, as most forges name it.
    pub(super) fn moved(&self, remote: Arc<Remote>) -> Result<Push, Wrong> {
        let (before, after) = (self.text("/before"), self.text("/after"));
        moved(remote, self.text("/ref"), before, after)
    }
}

fn at<'v>(fields: &'v Map<String, Value>, path: &str) -> Option<&'v Value> {
    let path = path.strip_prefix('/')?;
    match path.split_once('/') {
        None => fields.get(path),
        Some((first, _)) => fields.get(first)?.pointer(&path[first.len()..]),
    }
}

/// Reads a branch or tag that moved.
///
/// # Errors
/// Returns a description of the problem that does not quote the delivery.
pub(super) fn moved(
    remote: Arc<Remote>,
    reference: Option<&str>,
    before: Option<&str>,
    after: Option<&str>,
) -> Result<Push, Wrong> {
    let object = |id: Option<&str>| match id {
        None | Some("") => Ok(no_commit()),
        Some(id) => object_id(id),
    };
    let reference = reference.ok_or("it has no ref")?;
    // Git forbids spaces in names (git-check-ref-format(1)).
    if !is_reference(reference) || !reference.starts_with("refs/") || reference.contains(' ') {
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

/// Returns an announcement that all references of a repository have to be listed.
pub(super) fn all_of(remote: Remote, id: &str) -> Announcement {
    Announcement {
        remote,
        reference: None,
        id: id.to_owned(),
    }
}

/// Returns the wiki of a repository, which is a repository of its own next to it.
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
