//! Locations of texts within a repository, and links to them.

use std::borrow::Cow;
use std::fmt::Write as _;

use reqwest::Url;

use crate::fetch::{ObjectId, Text};
use crate::forge::Forge;
use crate::respond::{PATH_MAX, Placed, SharedPlace, URL_MAX, shorten};
use crate::scan::Redactor;
use crate::store::{NewWorkItem, Place};

/// Factory for the places of one work item.
#[derive(Debug, Clone)]
pub(super) struct Places {
    redactor: Redactor,
    source: String,
    repository: String,
    forge: Forge,
    /// URL of the repository's page, `https://host/owner/name`.
    page: String,
    /// Commit that was pushed: the place of texts for which no commit of the range is known.
    after: String,
}

impl Places {
    /// Creates the factory for a range of the repository at `clone_url`.
    pub(super) fn new(range: &NewWorkItem, clone_url: &Url, redactor: &Redactor) -> Self {
        let page = clone_url.as_str().trim_end_matches('/');
        Self {
            redactor: redactor.clone(),
            source: range.source.clone(),
            forge: forge_of(&range.source, &range.host),
            page: page.strip_suffix(".git").unwrap_or(page).to_owned(),
            repository: range.repository.clone(),
            after: range.after.clone(),
        }
    }

    /// Returns the place of the candidates in `text` and in its path.
    pub(super) fn of(&self, text: &Text<'_>) -> TextPlace<'_> {
        TextPlace {
            places: self,
            commit: text.commit,
            path: text.path.map(Into::into),
            path_is_cut: text.path_is_cut,
        }
    }
}

/// Returns the forge whose links lead to the contents: the one whose webhook is the source, or the one that runs the
/// public host. The links of GitHub are tried for all others.
fn forge_of(source: &str, host: &str) -> Forge {
    Forge::by_source(source)
        .or_else(|| Forge::by_public_host(host))
        .unwrap_or(Forge::GitHub)
}

/// Place of a text, not rendered yet. Whoever pushes decides how many candidates there are and how expensive it is to
/// decode their paths, so rendering is deferred until a candidate turns out to be a known key.
pub(super) struct TextPlace<'p> {
    places: &'p Places,
    commit: Option<ObjectId>,
    path: Option<Box<[u8]>>,
    path_is_cut: bool,
}

impl Placed for TextPlace<'_> {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.path.as_ref().map_or(0, |path| path.len())
    }

    fn source(&self) -> &str {
        &self.places.source
    }

    /// Renders the place, with texts shortened to the length that is stored, whatever the names in the repository.
    fn to_shared(&self) -> SharedPlace {
        let places = self.places;
        let commit = self.commit.map(|commit| commit.to_string());
        let commit = commit.unwrap_or_else(|| places.after.clone());
        // A key in the path is redacted before the path is encoded: the link would encode it once more.
        let raw = self.path.as_deref();
        let path = raw.map(String::from_utf8_lossy);
        let is_cut = self.path_is_cut;
        let path = path.as_deref().map(|path| {
            if is_cut {
                Cow::Owned(shorten(&places.redactor, path, path.len(), true))
            } else {
                places.redactor.redact(path)
            }
        });
        let url = match (raw, &path) {
            (Some(_), Some(Cow::Owned(redacted))) => places
                .forge
                .blob_path(&commit, &encode(redacted.as_bytes())),
            (Some(raw), _) => places.forge.blob_path(&commit, &encode(raw)),
            (None, _) => places.forge.commit_path(&commit),
        };
        let url = format!("{}/{url}", places.page);
        let kept = shorten(&places.redactor, &url, URL_MAX, false);
        let path = path.map(|path| shorten(&places.redactor, &path, PATH_MAX, false));
        let has_lines = raw.is_some() && !is_cut && !kept.ends_with('…');
        SharedPlace {
            fragment: has_lines.then_some(places.forge.line_fragment()),
            place: Place {
                source: places.source.clone(),
                url: Some(kept),
                repository: Some(places.repository.clone()),
                commit: Some(commit),
                path,
                line: None,
            },
        }
    }
}

/// Percent-encodes a path: every byte but the slash and the unreserved characters of RFC 3986 (§2.3).
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
    use crate::fetch::{Breath, ObjectId, TextKind};
    use crate::keyformat::FormatSet;
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
        let formats = FormatSet::builtin();
        let clone_url = Url::parse("https://git.example/acme/shop.git").unwrap();
        Places::new(&range, &clone_url, &Redactor::new(&formats))
    }

    fn text(kind: TextKind, commit: Option<ObjectId>, path: Option<&[u8]>) -> Text<'_> {
        Text {
            kind,
            id: ObjectId::null(gix_hash::Kind::Sha1),
            commit,
            path,
            path_is_cut: false,
            data: b"",
            breath: Breath::default(),
        }
    }

    #[test]
    fn links_to_the_line() {
        let commit = ObjectId::from_hex(COMMIT.as_bytes()).unwrap();
        let blob = text(TextKind::Blob, Some(commit), Some(b"a b/caf\xe9#1.txt"));
        let SharedPlace { place, fragment } = places().of(&blob).to_shared();
        let url = format!("https://git.example/acme/shop/blob/{COMMIT}/a%20b/caf%E9%231.txt");
        assert_eq!((place.url, fragment), (Some(url), Some("#L")));
        assert_eq!(place.path.as_deref(), Some("a b/caf\u{fffd}#1.txt"));
        assert_eq!((place.commit.as_deref(), place.line), (Some(COMMIT), None));
    }

    #[test]
    fn links_are_those_of_the_forge_that_is_the_source_or_runs_the_host() {
        let commit = ObjectId::from_hex(COMMIT.as_bytes()).unwrap();
        let blob = text(TextKind::Blob, Some(commit), Some(b"a.txt"));
        for forge in Forge::ALL {
            let shared = places_of(forge.source()).of(&blob).to_shared();
            let path = forge.blob_path(COMMIT, "a.txt");
            let url = format!("https://git.example/acme/shop/{path}");
            assert_eq!(
                (shared.place.url, shared.fragment),
                (Some(url), Some(forge.line_fragment()))
            );
        }
        assert_eq!(forge_of("feed", "codeberg.org"), Forge::Gitea);
        assert_eq!(forge_of("webhook:gitlab", "bitbucket.org"), Forge::GitLab);
    }

    #[test]
    fn what_has_no_path_links_to_the_commit() {
        let tree = text(TextKind::Tree, None, None);
        let SharedPlace { place, fragment } = places().of(&tree).to_shared();
        let url = format!("https://git.example/acme/shop/commit/{AFTER}");
        assert_eq!((place.url, fragment), (Some(url), None));
    }

    #[test]
    fn places_are_as_long_as_they_are_kept() {
        let path = vec![b'/'; 8192];
        let mut blob = text(TextKind::Blob, None, Some(&path));
        blob.path_is_cut = true;
        let SharedPlace { place, fragment } = places().of(&blob).to_shared();
        let more = '…'.len_utf8();
        assert_eq!(place.url.unwrap().len(), URL_MAX + more);
        assert_eq!(place.path.unwrap().len(), PATH_MAX + more);
        assert_eq!(fragment, None);
    }

    /// The link adds one level of encoding to the path.
    #[test]
    fn no_key_is_in_a_link_however_the_path_encodes_it() {
        let formats = FormatSet::builtin();
        let redactor = Redactor::new(&formats);
        let key = formats.get("rescind_secret").unwrap().mint().unwrap();
        let mut path = key.expose().to_owned();
        for _ in 0..4 {
            let place = places()
                .of(&text(TextKind::Blob, None, Some(path.as_bytes())))
                .to_shared()
                .place;
            let url = place.url.unwrap();
            // Decoded once more than anyone looks for keys.
            let decoded = url.replace("%25", "%");
            assert!(
                !redactor.holds_key(&decoded) && !redactor.holds_key(&url),
                "{url}"
            );
            if redactor.holds_key(&path) {
                assert!(url.contains("%E2%80%A6"), "{url}");
            }
            path = path.bytes().fold(String::new(), |mut encoded, byte| {
                let _ = write!(encoded, "%{byte:02X}");
                encoded
            });
        }
    }
}
