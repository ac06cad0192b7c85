//! URLs in the configuration.

use reqwest::Url;

/// Returns the text of a URL without the slash at its end, as it is written and shown.
pub fn without_slash(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}

/// Parses a URL that HTTP requests can go to: without credentials, query or fragment. Slashes at the end of its path
/// are removed.
///
/// # Errors
/// Returns what is wrong with it.
pub(super) fn parse_base(text: &str) -> Result<Url, &'static str> {
    let mut url = Url::parse(text.trim()).map_err(|_| "is not a URL")?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("has to begin with https:// or http:// and a host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or a password, which do not belong in this URL");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or a fragment, which cannot be used here");
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// Returns the URL of a default.
pub(super) fn built_in(text: &'static str) -> Url {
    parse_base(text).expect("a default is a URL")
}

/// Returns the URL of the server: scheme, host and port.
pub(super) fn server_of(url: &Url) -> Url {
    let mut server = url.clone();
    server.set_path("");
    server
}

/// Returns whether two URLs name the same host and port.
pub(super) fn same_host(one: &Url, other: &Url) -> bool {
    let place = |url: &Url| {
        (
            url.host_str().map(str::to_owned),
            url.port_or_known_default(),
        )
    };
    place(one) == place(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_shown_without_a_slash_at_its_end() {
        for (written, shown) in [
            ("https://github.com", "https://github.com"),
            ("https://GitHub.com/", "https://github.com"),
            (
                " https://ghe.example/api/v3// ",
                "https://ghe.example/api/v3",
            ),
            ("http://[::1]:80/x", "http://[::1]/x"),
        ] {
            assert_eq!(without_slash(&parse_base(written).unwrap()), shown);
        }
        assert!(parse_base("https://a.example/?q").is_err());
    }

    #[test]
    fn hosts_are_the_same_whatever_the_path_and_the_scheme() {
        let same = |one, other| same_host(&built_in(one), &built_in(other));
        assert!(same("https://a.example/x", "https://a.example:443"));
        assert!(same("https://a.example", "http://a.example:443"));
        assert!(!same("https://a.example", "http://a.example"));
        assert!(!same("https://a.example", "https://b.example"));
        let server = server_of(&built_in("https://a.example:8443/team/project.git"));
        assert_eq!(server.as_str(), "https://a.example:8443/");
    }
}
