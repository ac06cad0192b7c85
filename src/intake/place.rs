//! Places at which a partner or an anonymous reporter saw a key, reduced to what may be stored.

use crate::keyformat::KeyValue;
use crate::scan::Redactor;
use crate::store::Place;

/// Maximum length of a URL that is stored, in bytes.
pub const MAX_URL: usize = 2048;

/// Maximum length of the part of a partner's `source` that is stored, in bytes.
pub(super) const MAX_SOURCE: usize = 40;

/// Returns the place that a row of a partner's report describes. Parts that cannot be used are omitted.
pub(super) fn partner_place(
    partner: &str,
    url: Option<&str>,
    source: Option<&str>,
    token: &KeyValue,
    redactor: &Redactor,
) -> Place {
    let url = url.and_then(|url| clean_url(url, token, redactor));
    let (repository, commit, path, line) = url.as_deref().map(blob_of).unwrap_or_default();
    Place {
        source: source_name(partner, source, token, redactor),
        url,
        repository,
        commit,
        path,
        line,
    }
}

/// Returns the place that an anonymous reporter names, or `None` if the URL cannot be stored and linked
/// to.
pub(super) fn reported_place(
    url: Option<&str>,
    token: &KeyValue,
    redactor: &Redactor,
) -> Option<Place> {
    let url = match url {
        Some(url) => Some(clean_url(url, token, redactor)?),
        None => None,
    };
    let (repository, commit, path, line) = url.as_deref().map(blob_of).unwrap_or_default();
    Some(Place {
        source: "self-report".to_owned(),
        url,
        repository,
        commit,
        path,
        line,
    })
}

/// Returns `partner:github`, followed by the partner's own word for the kind of place if it is usable.
/// GitHub has 19 of those words, capitalized in the documentation and lower-case in practice, and there
/// will be more.
fn source_name(
    partner: &str,
    source: Option<&str>,
    token: &KeyValue,
    redactor: &Redactor,
) -> String {
    let word: String = source
        .filter(|source| redactor.redact_value(source, token) == *source)
        .unwrap_or_default()
        .chars()
        .take(MAX_SOURCE)
        .map(|c| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9' | '_' | '-') => c,
            _ => '_',
        })
        .collect();
    if word.is_empty() {
        partner.to_owned()
    } else {
        format!("{partner}:{word}")
    }
}

/// Returns an HTTP or HTTPS URL of bounded length, without control characters and with the key redacted.
fn clean_url(url: &str, token: &KeyValue, redactor: &Redactor) -> Option<String> {
    let scheme = url.split_once("://")?.0;
    let usable = url.len() <= MAX_URL
        && (scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http"))
        && !url.chars().any(|c| c.is_control() || c.is_whitespace());
    if !usable {
        return None;
    }
    // An imported key may be of a format that is not loaded.
    Some(redactor.redact_value(url, token).into_owned())
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
    use crate::keyformat::FormatSet;

    fn place(url: &str, source: &str) -> Place {
        partner_place(
            "partner:github",
            Some(url),
            Some(source),
            &KeyValue::new("foreign-key-1234"),
            &Redactor::new(&FormatSet::builtin()),
        )
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
        let long = format!("https://example.com/{}", "x".repeat(MAX_URL));
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
