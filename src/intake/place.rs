//! Places at which a partner or an anonymous reporter saw a key, reduced to what may be stored.

use crate::respond::URL_MAX;
use crate::store::Place;

/// Maximum length of the part of a partner's `source` that is stored, in bytes.
pub(super) const MAX_SOURCE: usize = 40;

/// Returns the place that a row of a partner's report describes, in the partner's own words: they may contain keys.
/// Parts that cannot be used are omitted. [`understand`] finds the others in what is clean of it.
pub(super) fn partner_place(partner: &str, url: Option<&str>, source: Option<&str>) -> Place {
    // One of this length may have been cut, and with it a key.
    let word = source.filter(|word| !word.is_empty() && word.len() < MAX_SOURCE);
    Place {
        url: url.filter(|url| is_link(url)).map(str::to_owned),
        ..Place::of_source(
            word.map_or_else(|| partner.to_owned(), |word| format!("{partner}:{word}")),
        )
    }
}

/// Returns the place that an anonymous reporter names, which may contain keys. A URL that cannot be stored and linked to
/// is omitted.
pub(super) fn reported_place(url: Option<&str>) -> Place {
    Place {
        url: url.filter(|url| is_link(url)).map(str::to_owned),
        ..Place::of_source("self-report")
    }
}

/// Adds what the link of a place tells, and makes a plain name of its source. Both are clean of keys.
pub(super) fn understand(place: &mut Place) {
    place.source = source_name(&place.source);
    let told = place.url.as_deref().map(blob_of).unwrap_or_default();
    (place.repository, place.commit, place.path, place.line) = told;
}

/// Returns `partner:github`, followed by the partner's own word for the kind of place if it is usable: nothing was
/// taken out of it. GitHub has 19 of those words, capitalized in the documentation and lower-case in practice, and
/// there will be more.
fn source_name(told: &str) -> String {
    let mut parts = told.splitn(3, ':');
    let name: Vec<&str> = parts.by_ref().take(2).collect();
    let name = name.join(":");
    let word = parts.next().filter(|word| !word.contains('…'));
    let word: String = word
        .unwrap_or_default()
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9' | '_' | '-') => c,
            _ => '_',
        })
        .collect();
    if word.is_empty() {
        name
    } else {
        format!("{name}:{word}")
    }
}

/// Returns whether `url` is an HTTP or HTTPS URL of bounded length, without control characters.
fn is_link(url: &str) -> bool {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    let schemes = ["https", "http"];
    url.len() <= URL_MAX
        && scheme.is_some_and(|scheme| schemes.iter().any(|one| scheme.eq_ignore_ascii_case(one)))
        && !url.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// Repository, commit, path and line.
type Blob = (Option<String>, Option<String>, Option<String>, Option<u64>);

/// Parses `https://github.com/OWNER/NAME/blob/COMMIT/PATH#L7`, and GitLab's
/// `https://HOST/GROUP/NAME/-/raw/COMMIT/PATH`. URLs of other shapes yield fewer parts, or none.
fn blob_of(url: &str) -> Blob {
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
    let Some(rest) = rest.strip_prefix("https://github.com/") else {
        return gitlab_blob_of(rest, fragment);
    };
    let mut parts = rest.splitn(5, '/');
    let (Some(owner), Some(name)) = (parts.next(), parts.next()) else {
        return Blob::default();
    };
    if owner.is_empty() || name.is_empty() {
        return Blob::default();
    }
    let repository = Some(format!("{owner}/{name}"));
    let (kind, commit, path) = (parts.next(), parts.next(), parts.next());
    let Some(commit) = commit.filter(|commit| is_commit(commit)) else {
        return (repository, None, None, None);
    };
    let line = line_of(fragment);
    match kind {
        Some("blob") => (
            repository,
            Some(commit.to_owned()),
            path.map(str::to_owned),
            line,
        ),
        Some("commit") => (repository, Some(commit.to_owned()), None, None),
        _ => (repository, None, None, None),
    }
}

/// Parses a GitLab URL, which has `/-/` between the project, however deeply nested in groups, and the
/// view of it.
fn gitlab_blob_of(url: &str, fragment: &str) -> Blob {
    let Some((project, view)) = url.split_once("/-/") else {
        return Blob::default();
    };
    let project = project.split_once("://").map_or(project, |(_, rest)| rest);
    let Some((_host, project)) = project.split_once('/').filter(|(_, p)| p.contains('/')) else {
        return Blob::default();
    };
    let repository = Some(project.to_owned());
    let mut parts = view.splitn(3, '/');
    let (kind, commit, path) = (parts.next(), parts.next(), parts.next());
    let Some(commit) = commit.filter(|commit| is_commit(commit)) else {
        return (repository, None, None, None);
    };
    let commit = Some(commit.to_owned());
    match kind {
        Some("blob" | "raw") => {
            let path = path.map(str::to_owned);
            (repository, commit, path, line_of(fragment))
        }
        Some("commit") => (repository, commit, None, None),
        _ => (repository, None, None, None),
    }
}

fn is_commit(text: &str) -> bool {
    text.len() >= 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Parses the first line number of `L12` or `L12-L14`.
fn line_of(fragment: &str) -> Option<u64> {
    let line = fragment.strip_prefix('L')?;
    line.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyformat::{FormatSet, KeyValue};
    use crate::respond::{Cleaner, Sighting};
    use crate::scan::Redactor;

    fn place(url: &str, source: &str) -> Place {
        let sighting = Sighting {
            value: KeyValue::new("foreign-key-1234"),
            place: partner_place("partner:github", Some(url), Some(source)),
            detected_at: jiff::Timestamp::UNIX_EPOCH,
        };
        let redactor = Redactor::new(&FormatSet::builtin());
        let clean = Cleaner::new(&redactor).clean(sighting, understand);
        Place::clone(&clean.place)
    }

    #[test]
    fn a_blob_url_names_repository_commit_path_and_line() {
        let commit = "12345600b9cbe38a219f39a9941c9319b600c002";
        let place = place(
            &format!("https://github.com/octocat/Hello-World/blob/{commit}/foo/bar.txt#L12-L14"),
            "Commit",
        );
        assert_eq!(place.source, "partner:github:commit");
        assert_eq!(place.repository.as_deref(), Some("octocat/Hello-World"));
        assert_eq!(place.commit.as_deref(), Some(commit));
        assert_eq!(place.path.as_deref(), Some("foo/bar.txt"));
        assert_eq!(place.line, Some(12));
    }

    #[test]
    fn other_urls_give_what_they_have() {
        for (url, repository) in [
            (
                "https://github.com/octocat/Hello-World/issues/7",
                Some("octocat/Hello-World"),
            ),
            ("https://github.com/octocat", None),
            ("https://github.com//x", None),
            ("https://gist.github.com/octocat/1", None),
        ] {
            let place = place(url, "");
            assert_eq!(place.repository.as_deref(), repository, "{url}");
            assert_eq!((place.commit, place.path, place.line), (None, None, None));
            assert_eq!(place.url.as_deref(), Some(url));
            assert_eq!(place.source, "partner:github");
        }
    }

    #[test]
    fn gitlabs_urls_name_projects_in_groups() {
        let commit = "12345600b9cbe38a219f39a9941c9319b600c002";
        for (view, path, line) in [
            (format!("raw/{commit}/a/b.txt"), Some("a/b.txt"), None),
            (
                format!("blob/{commit}/a/b.txt?x=1#L7-9"),
                Some("a/b.txt"),
                Some(7),
            ),
            (format!("commit/{commit}"), None, None),
        ] {
            let url = format!("https://gitlab.example:8443/group/sub/app/-/{view}");
            let place = place(&url, "");
            assert_eq!(place.repository.as_deref(), Some("group/sub/app"), "{url}");
            assert_eq!(place.commit.as_deref(), Some(commit), "{url}");
            assert_eq!((place.path.as_deref(), place.line), (path, line), "{url}");
        }
        let branch = place("https://gitlab.example/g/app/-/raw/main/x", "");
        assert_eq!(
            (branch.repository.as_deref(), branch.commit),
            (Some("g/app"), None)
        );
        assert_eq!(
            place("https://gitlab.example/-/raw/main/x", "").repository,
            None
        );
    }

    #[test]
    fn what_is_no_link_is_left_out() {
        let long = format!("https://example.com/{}", "x".repeat(URL_MAX));
        for url in [
            "",
            "some_url",
            "javascript://%0aalert(1)",
            "https://a b",
            "ftp://x",
            &long,
        ] {
            assert_eq!(place(url, "x").url, None, "{url:.40}");
        }
    }

    #[test]
    fn neither_known_nor_foreign_keys_stay_in_a_place() {
        let formats = FormatSet::builtin();
        let key = formats.get("rescind_secret").unwrap().mint().unwrap();
        let url = format!("https://x.example/{}?key=foreign-key-1234", key.expose());
        let place = place(&url, key.expose());
        let url = place.url.unwrap();
        assert!(
            !url.contains(key.expose()) && !url.contains("foreign-key-1234"),
            "{url}"
        );
        assert!(!place.source.contains(key.expose()));
    }
}
