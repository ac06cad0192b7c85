//! Names that become part of a URL, validated beforehand.

use std::fmt;

use reqwest::Url;
use thiserror::Error;

/// Maximum length of an owner or repository name, in bytes. GitLab allows 255; wikis have the suffix `.wiki`.
const MAX_NAME: usize = 260;

/// Maximum number of parts of a name. GitLab nests groups up to 20 levels deep.
const MAX_PARTS: usize = 21;

/// Error returned for a name that no forge would give to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the repository's name is not OWNER/NAME in letters, digits, '-', '_', '~', '+' and '.', with at most 260 of \
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
    /// Returns [`BadName`] for anything but letters, digits, `-`, `_`, `~`, `+` and `.` between slashes, for
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

    /// Returns the name of the repository at a clone URL, whatever characters its path has, which stay encoded.
    /// A repository at the root of its server has no owner, so the server's name stands in for one.
    ///
    /// Such a name tells where its repository is; no URL is made of it.
    ///
    /// # Errors
    /// Returns [`BadName`] if the path has no parts, or an empty one.
    pub fn of_url(url: &Url) -> Result<Self, BadName> {
        let path = url.path().trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        if path.split('/').any(str::is_empty) {
            return Err(BadName);
        }
        let (owner, name) = path
            .rsplit_once('/')
            .unwrap_or((url.host_str().unwrap_or("git"), path));
        Ok(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
        })
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
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~' | b'+'))
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
    fn a_name_of_a_url_has_any_characters_of_a_path() {
        for (url, owner, name) in [
            ("https://git.example/team/c++.git", "team", "c++"),
            (
                "https://git.example/My%20Team/a@b/My Repo",
                "My%20Team/a@b",
                "My%20Repo",
            ),
            ("https://git.example/x.git/", "git.example", "x"),
        ] {
            let found = RepositoryName::of_url(&Url::parse(url).unwrap()).unwrap();
            assert_eq!((found.owner(), found.name()), (owner, name));
        }
        for url in ["https://git.example/", "https://git.example/a//b"] {
            assert_eq!(
                RepositoryName::of_url(&Url::parse(url).unwrap()),
                Err(BadName)
            );
        }
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
            RepositoryName::parse(&format!("a/{}", "b".repeat(261))),
            Err(BadName)
        );
    }
}
