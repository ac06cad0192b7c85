//! Webhooks whose deliveries are checked.

use std::fmt;

use reqwest::Url;

use crate::github::{Api, InstallationId};
use crate::source::Scope;

/// A webhook of a repository or an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// A webhook of a repository.
    Repository {
        /// Owner of the repository.
        owner: String,
        /// Name of the repository, without its owner.
        name: String,
        /// Id of the webhook.
        id: u64,
    },
    /// A webhook of an organization.
    Organization {
        /// Name of the organization.
        name: String,
        /// Id of the webhook.
        id: u64,
    },
}

impl Hook {
    /// Parses `repo:OWNER/NAME:ID` or `org:NAME:ID`.
    pub fn parse(text: &str) -> Option<Self> {
        let (scope, id) = text.rsplit_once(':')?;
        let id = id.parse().ok().filter(|id| *id > 0)?;
        match Scope::parse(scope)? {
            Scope::Organization(name) => Some(Self::Organization { name, id }),
            Scope::Repository { owner, name } => Some(Self::Repository { owner, name, id }),
            Scope::Public | Scope::User(_) => None,
        }
    }

    /// Returns the name of the user or the organization that the webhook belongs to.
    pub fn account(&self) -> &str {
        match self {
            Self::Repository { owner, .. } => owner,
            Self::Organization { name, .. } => name,
        }
    }

    /// Returns the path to look up an app's installation for the webhook.
    pub fn installation(&self) -> InstallationId {
        let path = self.path().into_iter().map(str::to_owned);
        InstallationId::Of(path.collect())
    }

    /// Returns the URL of the list of deliveries.
    pub(super) fn deliveries(&self, api: &Api) -> Url {
        let (Self::Repository { id, .. } | Self::Organization { id, .. }) = self;
        let rest = ["hooks", &id.to_string(), "deliveries"];
        api.url(&[&self.path()[..], &rest].concat(), &[])
    }

    /// Returns the path of what the webhook belongs to, below the API's base.
    fn path(&self) -> Vec<&str> {
        match self {
            Self::Repository { owner, name, .. } => vec!["repos", owner, name],
            Self::Organization { name, .. } => vec!["orgs", name],
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository { owner, name, id } => write!(f, "repo:{owner}/{name}:{id}"),
            Self::Organization { name, id } => write!(f, "org:{name}:{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_read_as_it_is_written() {
        for text in ["repo:acme/shop:123", "org:acme:9"] {
            assert_eq!(Hook::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "", "app", "public:1", "user:a:1", "org:a", "org:a:0", "org:a:-1", "repo:a:1",
        ] {
            assert_eq!(Hook::parse(text), None, "{text}");
        }
    }
}
