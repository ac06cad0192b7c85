//! Work items, and their repositories, as messages tell of them.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Gatherer, ID_MAX, Message, message};
use crate::fetch::ObjectId;
use crate::forge::{Remote, kept_id};
use crate::respond::{REPOSITORY_MAX, URL_MAX, shorten};
use crate::store::{NewWorkItem, Priority, WorkKind, item_weight};

/// Maximum length of the name of a repository with all its groups, in bytes: 21 parts of 100.
const NAME_MAX: usize = 2_200;

/// Work item that a message tells of. One message may tell of a thousand references of a repository, whose name and
/// clone URL are much longer than the rest: these are there once.
#[derive(Debug, Clone)]
pub struct ToldItem {
    pub(super) repository: Arc<ToldRepository>,
    pub(super) kind: WorkKind,
    /// The same as those of [`NewWorkItem`].
    pub(super) ref_name: String,
    pub(super) before: String,
    pub(super) after: String,
    pub(super) priority: Priority,
    pub(super) event_at: Timestamp,
}

/// Fields of [`NewWorkItem`] that are the same for all items of a repository.
#[derive(Debug)]
pub(super) struct ToldRepository {
    pub(super) host: String,
    pub(super) repository_id: String,
    pub(super) repository: String,
    pub(super) clone_url: Option<String>,
    pub(super) source: String,
}

impl ToldItem {
    /// Returns the name of the repository.
    pub fn repository(&self) -> &str {
        &self.repository.repository
    }

    /// Returns the number of items of ordinary size that take the database as long.
    pub fn weight(&self) -> usize {
        let of = &self.repository;
        item_weight(&of.repository, of.clone_url.as_deref(), &self.ref_name)
    }

    /// Returns the memory that the item takes, in bytes, as if no other one shared its repository.
    pub fn bytes(&self) -> usize {
        let of = &self.repository;
        let texts = [
            &of.host,
            &of.repository_id,
            &of.repository,
            &of.source,
            &self.ref_name,
            &self.before,
            &self.after,
        ];
        let texts = texts.into_iter().chain(&of.clone_url).map(String::len);
        size_of::<Self>() + size_of::<ToldRepository>() + texts.sum::<usize>()
    }

    /// Returns the item that is added.
    pub fn to_item(&self) -> NewWorkItem {
        let of = &self.repository;
        NewWorkItem {
            kind: self.kind,
            host: of.host.clone(),
            repository_id: of.repository_id.clone(),
            repository: of.repository.clone(),
            clone_url: of.clone_url.clone(),
            ref_name: self.ref_name.clone(),
            before: self.before.clone(),
            after: self.after.clone(),
            source: of.source.clone(),
            priority: self.priority,
            event_at: self.event_at,
        }
    }
}

/// Data shared by all that a message tells of a repository.
#[derive(Debug)]
pub(super) struct Told {
    remote: Arc<Remote>,
    pub(super) message: Arc<Message>,
    /// Fields that the items of the repository share. `None` if there are none.
    pub(super) repository: Option<Arc<ToldRepository>>,
}

impl Gatherer<'_> {
    /// Returns what all items of a repository share, and scans its name for keys. For the pushes of one message that is
    /// done once.
    pub(super) fn told(&mut self, remote: &Arc<Remote>, commit: Option<ObjectId>) -> Arc<Told> {
        if let Some(last) = &self.last
            && Arc::ptr_eq(&last.remote, remote)
        {
            return Arc::clone(last);
        }
        let name = remote.repository.to_string();
        let told = Arc::new(Told {
            remote: Arc::clone(remote),
            message: message(self.source, self.redactor, Some(&name)),
            repository: self.to_be_fetched(remote, &name),
        });
        self.name(&told, &name, commit);
        self.last = Some(Arc::clone(&told));
        told
    }

    /// Returns what is kept of a repository, or `None` if fetching it would require storing a key: every URL of a
    /// repository contains its name. The key itself is found in the name.
    fn to_be_fetched(&self, remote: &Remote, name: &str) -> Option<Arc<ToldRepository>> {
        let source = self.source;
        let kept = ToldRepository {
            host: remote.host.clone(),
            repository_id: kept_id(self.redactor, &remote.repository_id),
            repository: name.to_owned(),
            clone_url: remote.clone_url.as_ref().map(ToString::to_string),
            source: source.to_owned(),
        };
        if !is_bounded(&kept) {
            tracing::warn!(
                %source, host = remote.host,
                "a repository has a longer name than any forge gives; its contents are not read"
            );
            return None;
        }
        let holds_key = |text: &str| self.redactor.holds_key(text);
        if holds_key(name) || kept.clone_url.as_deref().is_some_and(holds_key) {
            let repository = shorten(self.redactor, name, REPOSITORY_MAX, false);
            tracing::warn!(
                %source, host = remote.host, id = kept.repository_id, repository,
                "a repository has a key in its name; its contents are not read"
            );
            return None;
        }
        Some(Arc::new(kept))
    }
}

/// Returns whether the texts of a repository are as short as those of every forge. Nothing else is done with longer
/// ones.
fn is_bounded(kept: &ToldRepository) -> bool {
    let clone_url = kept.clone_url.as_deref().unwrap_or_default();
    kept.repository.len() <= NAME_MAX
        && clone_url.len() <= URL_MAX
        && kept.host.len() <= ID_MAX
        // The path of a URL may stand for it. It is in no index.
        && kept.repository_id.len() <= URL_MAX
}
