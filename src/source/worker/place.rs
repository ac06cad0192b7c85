//! Where in a repository a text stands, and the link to it.

use std::fmt::Write as _;

use reqwest::Url;

use crate::fetch::{Text, TextKind};
use crate::store::{NewWorkItem, Place};

/// How a forge writes the address of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Links {
    GitHub,
    GitLab,
    Gitea,
    Bitbucket,
}

impl Links {
    /// The forge is known by whoever sent its webhook, or by its host.
    fn of(source: &str, host: &str) -> Self {
        match (source, host) {
            ("webhook:gitlab", _) | (_, "gitlab.com") => Self::GitLab,
            ("webhook:gitea", _) | (_, "codeberg.org" | "gitea.com") => Self::Gitea,
            ("webhook:bitbucket", _) | (_, "bitbucket.org") => Self::Bitbucket,
            _ => Self::GitHub,
        }
    }

    fn blob(self, commit: &str, path: &str, line: u64) -> String {
        match self {
            Self::GitHub => format!("blob/{commit}/{path}#L{line}"),
            Self::GitLab => format!("-/blob/{commit}/{path}#L{line}"),
            Self::Gitea => format!("src/commit/{commit}/{path}#L{line}"),
            Self::Bitbucket => format!("src/{commit}/{path}#lines-{line}"),
        }
    }

    fn commit(self, commit: &str) -> String {
        match self {
            Self::GitHub | Self::Gitea => format!("commit/{commit}"),
            Self::GitLab => format!("-/commit/{commit}"),
            Self::Bitbucket => format!("commits/{commit}"),
        }
    }
}

/// Makes the places of one work item.
#[derive(Debug, Clone)]
pub(super) struct Places {
    source: String,
    repository: String,
    links: Links,
    /// The repository's page, `https://host/owner/name`.
    page: String,
    /// What was pushed: the place of texts that no commit of the range is known for.
    after: String,
}

impl Places {
    /// The places of a range of the repository that is cloned from `clone_url`.
    pub(super) fn new(range: &NewWorkItem, clone_url: &Url) -> Self {
        let page = clone_url.as_str().trim_end_matches('/');
        Self {
            source: range.source.clone(),
            links: Links::of(&range.source, &range.host),
            page: page.strip_suffix(".git").unwrap_or(page).to_owned(),
            repository: range.repository.clone(),
            after: range.after.clone(),
        }
    }

    /// The place of a candidate that starts on `line` of `text`.
    pub(super) fn of(&self, text: &Text<'_>, line: u64) -> Place {
        let commit = text.commit.map(|commit| commit.to_string());
        let commit = commit.unwrap_or_else(|| self.after.clone());
        let url = match text.path {
            Some(path) => self.links.blob(&commit, &encode(path), line),
            None => self.links.commit(&commit),
        };
        let url = format!("{}/{url}", self.page);
        Place {
            source: self.source.clone(),
            url: Some(url),
            repository: Some(self.repository.clone()),
            commit: Some(commit),
            path: text
                .path
                .map(|path| String::from_utf8_lossy(path).into_owned()),
            // Lines of a commit or tree are not lines that anybody can look up.
            line: (text.kind == TextKind::Blob).then_some(line),
        }
    }

    /// The place of a candidate that stands in the path of `text`.
    pub(super) fn of_name(&self, text: &Text<'_>) -> Place {
        Place {
            line: None,
            ..self.of(text, 1)
        }
    }
}

/// A path in a URL: every byte but the unreserved ones of RFC 3986 and the slash as `%XX`.
fn encode(path: &[u8]) -> String {
    let mut encoded = String::with_capacity(path.len());
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::fetch::ObjectId;
    use crate::store::{Priority, WorkKind};

    const AFTER: &str = "7a8f3ac80e2ad2f6842cb86f576d4bfe2c03e300";
    const COMMIT: &str = "883efe034920928c47fe18598c01249d1a9fdabd";

    fn places() -> Places {
        places_of("feed")
    }

    fn places_of(source: &str) -> Places {
        let range = NewWorkItem {
            kind: WorkKind::Range,
            clone_url: None,
            host: "git.example".to_owned(),
            repository_id: "1".to_owned(),
            repository: "acme/shop".to_owned(),
            ref_name: "refs/heads/main".to_owned(),
            before: COMMIT.to_owned(),
            after: AFTER.to_owned(),
            source: source.to_owned(),
            priority: Priority::Firehose,
            event_at: Timestamp::UNIX_EPOCH,
        };
        Places::new(
            &range,
            &Url::parse("https://git.example/acme/shop.git").unwrap(),
        )
    }

    fn text(kind: TextKind, commit: Option<ObjectId>, path: Option<&[u8]>) -> Text<'_> {
        Text {
            kind,
            id: ObjectId::null(gix_hash::Kind::Sha1),
            commit,
            path,
            data: b"",
        }
    }

    #[test]
    fn links_to_the_line() {
        let commit = ObjectId::from_hex(COMMIT.as_bytes()).unwrap();
        let blob = text(TextKind::Blob, Some(commit), Some(b"a b/caf\xe9#1.txt"));
        let place = places().of(&blob, 7);
        let url = format!("https://git.example/acme/shop/blob/{COMMIT}/a%20b/caf%E9%231.txt#L7");
        assert_eq!(place.url, Some(url));
        assert_eq!(place.path.as_deref(), Some("a b/caf\u{fffd}#1.txt"));
        assert_eq!(
            (place.commit.as_deref(), place.line),
            (Some(COMMIT), Some(7))
        );
        assert_eq!(places().of_name(&blob).line, None);
    }

    #[test]
    fn each_forge_has_its_own_links() {
        let commit = ObjectId::from_hex(COMMIT.as_bytes()).unwrap();
        let blob = text(TextKind::Blob, Some(commit), Some(b"a.txt"));
        for (source, url) in [
            ("webhook:gitlab", format!("-/blob/{COMMIT}/a.txt#L7")),
            ("webhook:gitea", format!("src/commit/{COMMIT}/a.txt#L7")),
            ("webhook:bitbucket", format!("src/{COMMIT}/a.txt#lines-7")),
        ] {
            let place = places_of(source).of(&blob, 7);
            assert_eq!(
                place.url,
                Some(format!("https://git.example/acme/shop/{url}"))
            );
        }
    }

    #[test]
    fn what_has_no_path_links_to_the_commit() {
        let tree = text(TextKind::Tree, None, None);
        let place = places().of(&tree, 3);
        let url = format!("https://git.example/acme/shop/commit/{AFTER}");
        assert_eq!((place.url, place.line), (Some(url), None));
    }
}
