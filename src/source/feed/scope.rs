//! Scope of a GitHub source.

use std::fmt;

use crate::github::InstallationId;
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
    /// Parses `public`, `org:NAME`, `user:NAME` or `repo:OWNER/NAME`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "public" {
            return Some(Self::Public);
        }
        match text.split_once(':')? {
            ("org", organization) => name(organization).map(Self::Organization),
            ("user", user) => name(user).map(Self::User),
            ("repo", repository) => {
                let (owner, repository) = repository.split_once('/')?;
                Some(Self::Repository {
                    owner: name(owner)?,
                    name: name(repository)?,
                })
            }
            _ => None,
        }
    }

    /// Returns the path of the scope below the API's base, which is empty for [`Scope::Public`].
    pub fn path(&self) -> Vec<&str> {
        match self {
            Self::Public => vec![],
            Self::Organization(name) => vec!["orgs", name],
            Self::User(name) => vec!["users", name],
            Self::Repository { owner, name } => vec!["repos", owner, name],
        }
    }

    /// Returns the path to look up an app's installation for this scope, or `None` for [`Scope::Public`].
    pub fn installation(&self) -> Option<InstallationId> {
        let path = self.path().into_iter().map(str::to_owned);
        (*self != Self::Public).then(|| InstallationId::Of(path.collect()))
    }

    pub(super) fn priority(&self) -> Priority {
        match self {
            Self::Public => Priority::Firehose,
            _ => Priority::Watched,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("public"),
            Self::Organization(name) => write!(f, "org:{name}"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Repository { owner, name } => write!(f, "repo:{owner}/{name}"),
        }
    }
}

/// Returns `text` if it consists of characters that a name on GitHub may contain. Nothing else is allowed, since names
/// become parts of URLs.
fn name(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let dots = text.chars().all(|c| c == '.');
    (!dots && text.len() <= 100 && text.chars().all(allowed)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_read_as_it_is_written() {
        for text in [
            "public",
            "org:acme",
            "user:octo-cat",
            "repo:rust-lang/rust.vim",
        ] {
            assert_eq!(Scope::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "org",
            "org:",
            "org:..",
            "user:a/b",
            "repo:a",
            "repo:a/../b",
            "repo:a/b:1",
            "team:a",
        ] {
            assert_eq!(Scope::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_scope_but_the_public_one_names_an_installation() {
        let path = |scope: &str| match Scope::parse(scope)?.installation()? {
            InstallationId::Of(path) => Some(path.join("/")),
            InstallationId::Known(_) => None,
        };
        assert_eq!(path("public"), None);
        assert_eq!(path("org:acme").as_deref(), Some("orgs/acme"));
        assert_eq!(path("user:octo").as_deref(), Some("users/octo"));
        assert_eq!(path("repo:a/b").as_deref(), Some("repos/a/b"));
    }
}
