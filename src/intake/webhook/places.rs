//! Clone URLs of the repositories in payloads, and the hosts to which they belong.
//!
//! A push that both a webhook and a feed report is one work item, so both have to name the same host, and
//! the token of a host is sent to no other. A URL in the configuration therefore takes precedence; the
//! one in a payload is used where the configuration is silent. Whoever signs payloads must not choose
//! which servers inside the operator's network receive requests, though: a URL is accepted only if its
//! server is a configured one, or a public server of the forge.

use std::borrow::Cow;

use reqwest::Url;
use serde_json::Value;

use crate::fetch::{RepositoryName, host_of};
use crate::forge::{Forge, Remote, id_or_name, is_plain_id};
use crate::respond::URL_MAX;
use crate::scan::Redactor;

/// Maximum length of a repository's identifier, in bytes.
const MAX_ID: usize = 64;

/// Configuration of clone URLs.
#[derive(Debug, Clone, Default)]
pub struct ClonePlaces {
    /// Base URL of all repositories of this webhook: `{base}/{owner}/{name}.git`.
    pub base: Option<Url>,
    /// Base URLs that workers know for their hosts.
    pub known: Vec<Url>,
    /// Further servers that payloads may name, by scheme, host and port.
    pub hosts: Vec<Url>,
}

/// Problem of a delivery, described without quoting its texts.
pub(super) type Wrong = Cow<'static, str>;

impl ClonePlaces {
    /// Adds the public servers of a forge.
    pub(super) fn allow_public(&mut self, forge: Forge) {
        self.hosts.extend(forge.public_urls());
    }

    /// Returns the repository `name`, whose clone URL is `told` according to the payload. Without an `id` that can be
    /// used, its name identifies it.
    ///
    /// # Errors
    /// Returns a description of what is wrong with the name or the URL. It quotes no more of the URL than
    /// the server, and nothing of one that holds a key.
    pub(super) fn remote(
        &self,
        id: Option<String>,
        name: Option<&str>,
        told: Option<&str>,
        redactor: &Redactor,
    ) -> Result<Remote, Wrong> {
        let name = name.ok_or("its repository has no name")?;
        let name =
            RepositoryName::parse(name).map_err(|_| "its repository's name is not OWNER/NAME")?;
        let repository_id = id_or_name(id, &name);
        if let Some(base) = &self.base {
            return Ok(Remote {
                host: host_of(base),
                repository_id,
                repository: name,
                clone_url: None,
            });
        }
        let text = told.ok_or("its repository has no clone address")?;
        let told = address(text)?;
        let mut allowed = self.known.iter().chain(&self.hosts);
        if !allowed.any(|server| server.origin() == told.origin()) {
            // A parsed host is in lower case and decoded: a key in it would not be found any more.
            if redactor.holds_key(text) {
                return Err("its clone address, which nobody allowed, holds a key".into());
            }
            return Err(Cow::Owned(format!(
                "its contents are at {}, which nobody allowed: if they may be read from there, add it to \
                 clone_hosts of this webhook",
                told.origin().ascii_serialization()
            )));
        }
        let known = self.known.iter();
        let is_known = known
            .flat_map(|base| name.clone_url(base))
            .any(|url| url == told);
        Ok(Remote {
            host: host_of(&told),
            repository_id,
            repository: name,
            clone_url: (!is_known).then_some(told),
        })
    }
}

/// Parses a clone URL: HTTP or HTTPS, without credentials, query or fragment.
fn address(told: &str) -> Result<Url, &'static str> {
    let url = Some(told).filter(|told| told.len() <= URL_MAX);
    let url = url.and_then(|told| Url::parse(told).ok());
    let url = url.ok_or("its clone address is no URL")?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("its clone address is not of http or https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("its clone address holds credentials");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("its clone address has a query or a fragment");
    }
    Ok(url)
}

/// Returns the number or UUID that identifies a repository. No other text is accepted, since it is
/// stored.
pub(super) fn id(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => number.as_u64().map(|number| number.to_string()),
        Value::String(text) => {
            let usable = !text.is_empty() && text.len() <= MAX_ID && is_plain_id(text);
            usable.then(|| text.clone())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::keyformat::FormatSet;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn redactor() -> Redactor {
        Redactor::new(&FormatSet::builtin())
    }

    fn remote(places: &ClonePlaces, told: &str) -> Result<(String, Option<String>), Wrong> {
        let redactor = redactor();
        let remote = places.remote(
            Some("1".to_owned()),
            Some("acme/app"),
            Some(told),
            &redactor,
        )?;
        Ok((remote.host, remote.clone_url.map(String::from)))
    }

    #[test]
    fn the_configuration_comes_first() {
        let mut places = ClonePlaces {
            base: Some(url("https://git.example:8443/scm")),
            ..ClonePlaces::default()
        };
        let told = "https://other.example/acme/app.git";
        let here = ("git.example:8443".to_owned(), None);
        assert_eq!(remote(&places, told), Ok(here));
        places.base = None;
        places.known = vec![url("https://other.example/"), url("https://third.example")];
        assert_eq!(
            remote(&places, told),
            Ok(("other.example".to_owned(), None))
        );
        places.hosts = vec![url("https://other.example:444"), url("http://10.0.0.7")];
        for told in [
            "https://other.example/git/acme/app.git",
            "https://other.example:444/acme/app.git",
            "http://10.0.0.7/acme/app.git",
        ] {
            let (_, kept) = remote(&places, told).unwrap();
            assert_eq!(kept.as_deref(), Some(told));
        }
    }

    #[test]
    fn servers_that_nobody_allowed_are_refused() {
        let mut places = ClonePlaces {
            known: vec![url("https://git.example/scm")],
            hosts: vec![url("http://gitea.example:3000")],
            ..ClonePlaces::default()
        };
        places.allow_public(Forge::Gitea);
        for told in [
            "https://git.example:8443/acme/app.git",
            "http://git.example/acme/app.git",
            "http://gitea.example/acme/app.git",
            "https://gitea.example:3000/acme/app.git",
            "http://gitea.example:3001/acme/app.git",
            "http://gitea.example:3000.evil.example/acme/app.git",
            "https://github.com/acme/app.git",
            "https://codeberg.org.evil.example/acme/app.git",
            "http://127.0.0.1:8080/acme/app.git",
            "http://169.254.169.254/latest/meta-data",
            "http://[::ffff:169.254.169.254]/x",
            "http://2852039166/x",
        ] {
            let wrong = remote(&places, told).unwrap_err();
            let quotes = wrong.contains("acme") || wrong.contains("meta-data");
            assert!(!quotes, "{wrong}");
        }
        for told in [
            "https://git.example/elsewhere/app.git",
            "http://gitea.example:3000/acme/app.git",
            "https://codeberg.org/acme/app.git",
            "https://gitea.com:443/acme/app.git",
        ] {
            assert!(remote(&places, told).is_ok(), "{told}");
        }
    }

    #[test]
    fn a_refused_server_that_holds_a_key_is_not_named() {
        let formats = FormatSet::builtin();
        let key = formats.get("rescind_secret").unwrap().mint().unwrap();
        let key = key.expose();
        let escaped = key.replace('_', "%5f").replace('s', "%73");
        let wide: String = key.replace('_', "＿");
        for told in [
            format!("https://{key}.example/a/b.git"),
            format!("https://x.{escaped}.example/a/b.git"),
            format!("https://{wide}.example/a/b.git"),
        ] {
            let wrong = remote(&ClonePlaces::default(), &told).unwrap_err();
            let rest = key[7..].to_ascii_lowercase();
            assert!(!wrong.to_ascii_lowercase().contains(&rest), "{wrong}");
            assert!(wrong.contains("nobody allowed"), "{wrong}");
        }
    }

    #[test]
    fn odd_addresses_are_refused() {
        let places = ClonePlaces::default();
        for told in [
            "",
            "acme/app.git",
            "git@forge.example:acme/app.git",
            "ssh://git@forge.example/acme/app.git",
            "file:///etc/passwd",
            "https://user@forge.example/acme/app.git",
            "https://user:pass@forge.example/acme/app.git",
            "https://forge.example/acme/app.git?x=1",
            "https://forge.example/acme/app.git#x",
        ] {
            assert!(remote(&places, told).is_err(), "{told}");
        }
        let none = places.remote(Some("1".to_owned()), Some("a/b"), None, &redactor());
        assert!(none.is_err());
        let none = places.remote(
            Some("1".to_owned()),
            Some("../b"),
            Some("https://x.example"),
            &redactor(),
        );
        assert!(none.is_err());
    }

    #[test]
    fn ids_are_numbers_or_plain_texts() {
        assert_eq!(id(&json!(15)).as_deref(), Some("15"));
        let uuid = "{673a6070-3421-46c9-9d48-90745f7bfe8e}";
        assert_eq!(id(&json!(uuid)).as_deref(), Some(uuid));
        for odd in [
            json!(null),
            json!(-1),
            json!(1.5),
            json!(""),
            json!("a\u{0}b"),
            json!("a b"),
            json!("rsc_sk_x"),
            json!([]),
        ] {
            assert_eq!(id(&odd), None, "{odd}");
        }
    }
}
