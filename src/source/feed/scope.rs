//! Scope of a GitHub source.

use crate::store::Priority;

/// Scope of the events that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All public events.
    Public,
    /// Events of an organization's public repositories.
    Organization(String),
    /// Events caused by a user; in an archive, also events of the user's repositories.
    User(String),
    /// Events of a repository.
    Repository {
        /// Owner of the repository.
        owner: String,
        /// Name of the repository, without its owner.
        name: String,
    },
}

impl Scope {
    /// Returns the path of the scope below the API's base, which is empty for [`Scope::Public`].
    pub(super) fn path(&self) -> Vec<&str> {
        match self {
            Self::Public => vec![],
            Self::Organization(name) => vec!["orgs", name],
            Self::User(name) => vec!["users", name],
            Self::Repository { owner, name } => vec!["repos", owner, name],
        }
    }

    /// Returns the path to look up an app's installation for this scope, or `None` for [`Scope::Public`].
    pub fn installation(&self) -> Option<crate::github::InstallationId> {
        let path = self.path().into_iter().map(str::to_owned);
        (*self != Self::Public).then(|| crate::github::InstallationId::Of(path.collect()))
    }

    pub(super) fn priority(&self) -> Priority {
        match self {
            Self::Public => Priority::Firehose,
            _ => Priority::Watched,
        }
    }
}
