//! Names that become part of a URL, validated beforehand.

use std::fmt;

use reqwest::Url;
use thiserror::Error;

/// Maximum length of an owner or repository name, in bytes. GitHub allows 39 and 100; names of managed
/// users with their suffix are longer.
const MAX_NAME: usize = 100;

/// Maximum number of parts of a name. GitLab nests groups up to 20 levels deep.
const MAX_PARTS: usize = 21;

/// Error returned for a name that no forge would give to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the repository's name is not OWNER/NAME in letters, digits, '-', '_', '~' and '.', with at most 100 of \
     them in each part"
)]
pub struct BadName;

/// A repository's `owner/name`, or `group/subgroup/name`, validated to be safe in the path of a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepositoryName {
    owner: String,
    name: String,
}

impl RepositoryName {
    /// Parses `owner/name`.
    ///
    /// # Errors
    ///
    /// Returns [`BadName`] for anything but letters, digits, `-`, `_`, `~` and `.` between slashes, for
    /// an empty or overlong part, for the parts `.` and `..`, and for fewer than 2 or more than 21 parts.
    pub fn parse(full: &str) -> Result<Self, BadName> {
        let (owner, name) = full.rsplit_once('/').ok_or(BadName)?;
        let parts = full.split('/');
        if parts.clone().count() <= MAX_PARTS && parts.clone().all(is_plain) {
            Ok(Self {
                owner: owner.to_owned(),
                name: name.to_owned(),
            })
        } else {
            Err(BadName)
        }
    }

    /// Returns the user, organization or groups.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Returns the name of the repository, without the owner.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the clone URL of the repository, `{base}/{owner}/{name}.git`.
    ///
    /// # Errors
    ///
    /// Returns [`BadName`] if `base` cannot carry a path, such as `mailto:`.
    pub fn clone_url(&self, base: &Url) -> Result<Url, BadName> {
        let mut url = base.clone();
        url.path_segments_mut()
            .map_err(|()| BadName)?
            .pop_if_empty()
            .extend(self.owner.split('/'))
            .push(&format!("{}.git", self.name));
        Ok(url)
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

fn is_plain(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= MAX_NAME
        && part != "."
        && part != ".."
        && part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~'))
}

/// Returns the host of a URL as work items name it, with its port unless that is the default of the scheme.
pub fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_a_clone_url_under_any_base() {
        let name = RepositoryName::parse("octocat/Hello-World").unwrap();
        for (base, url) in [
            (
                "https://github.com",
                "https://github.com/octocat/Hello-World.git",
            ),
            (
                "http://127.0.0.1:80/git/",
                "http://127.0.0.1/git/octocat/Hello-World.git",
            ),
        ] {
            let base = Url::parse(base).unwrap();
            assert_eq!(name.clone_url(&base).unwrap().as_str(), url);
        }
    }

    #[test]
    fn takes_nested_groups() {
        let name = RepositoryName::parse("group/sub/project").unwrap();
        assert_eq!((name.owner(), name.name()), ("group/sub", "project"));
        let base = Url::parse("https://gitlab.example").unwrap();
        let url = "https://gitlab.example/group/sub/project.git";
        assert_eq!(name.clone_url(&base).unwrap().as_str(), url);
        assert_eq!(
            RepositoryName::parse(&vec!["a"; 22].join("/")),
            Err(BadName)
        );
    }

    #[test]
    fn refuses_what_could_leave_the_path() {
        for bad in [
            "", "octocat", "/x", "x/", "../x", "x/..", "./x", "a//c", "a/../c", "a/b?c", "a/b#c",
            "a/b%2f", "a b/c", "a/b\n", "ä/b", "a\\b/c", "a@b/c",
        ] {
            assert_eq!(RepositoryName::parse(bad), Err(BadName), "{bad:?}");
        }
        assert_eq!(
            RepositoryName::parse(&format!("a/{}", "b".repeat(101))),
            Err(BadName)
        );
    }
}
