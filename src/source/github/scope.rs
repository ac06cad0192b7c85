//! Which part of GitHub a source reads.

use crate::store::Priority;

/// Which events are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All public ones.
    Public,
    /// Those of one organisation's public repositories.
    Organization(String),
    /// Those done by one user; of an archive also those of the user's repositories.
    User(String),
    /// Those of one repository.
    Repository {
        /// Its owner.
        owner: String,
        /// Its own name.
        name: String,
    },
}

impl Scope {
    /// The path of whom it names, below the API's base; nothing for all.
    pub(super) fn path(&self) -> Vec<&str> {
        match self {
            Self::Public => vec![],
            Self::Organization(name) => vec!["orgs", name],
            Self::User(name) => vec!["users", name],
            Self::Repository { owner, name } => vec!["repos", owner, name],
        }
    }

    /// Where an app's installation for it is asked for; nothing for all that is public.
    pub fn installation(&self) -> Option<super::InstallationId> {
        let path = self.path().into_iter().map(str::to_owned);
        (*self != Self::Public).then(|| super::InstallationId::Of(path.collect()))
    }

    pub(super) fn priority(&self) -> Priority {
        match self {
            Self::Public => Priority::Firehose,
            _ => Priority::Watched,
        }
    }
}
