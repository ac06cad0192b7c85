//! Differences between two configurations: what takes effect at once, and what needs a restart.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};

use secrecy::{ExposeSecret as _, SecretString};

use super::{Loaded, token_of_source};
use crate::config::App;
use crate::keyformat::{FormatSet, Sha256Digest};

/// Names of parts on which the polls of all sources depend.
const FORMATS: &str = "key formats";
const ENCODINGS: &str = "scan.encodings";

/// Name of the part on which the search for failed deliveries depends.
const REDELIVERY: &str = "webhooks.github.redelivery";

/// Digest of each part of a configuration, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// Parts that are replaced with the next generation.
    swapped: BTreeMap<String, String>,
    /// Parts that stay as they are until a restart.
    fixed: BTreeMap<String, String>,
}

impl Fingerprint {
    pub(super) fn of(loaded: &Loaded) -> Self {
        let config = &loaded.config;
        let mut swapped = BTreeMap::new();
        let mut add = |name: &str, part: Part| swapped.insert(name.to_owned(), part.digest());
        add(FORMATS, Part::of_formats(&loaded.formats));
        add("issuer", Part::of(&config.issuer));
        add("policy", Part::of(&config.policy));
        let proxies = &config.server.trusted_proxies;
        add("server.trusted_proxies", Part::of(proxies));
        for (name, partner) in config.partners.each() {
            let name = format!("partners.{}", name.name());
            add(&name, Part::of(partner));
        }
        let tokens = &config.partners.revocation_tokens;
        let tokens = Part::default().secrets(tokens);
        add("partners.gitlab.revocation_tokens", tokens);
        for (forge, webhook) in config.webhooks.each() {
            let part = Part::of(webhook);
            let part = part.secrets(&webhook.secrets).secrets(&webhook.token);
            add(&format!("webhooks.{}", forge.name()), part);
        }
        if let Some(redelivery) = &config.webhooks.redelivery {
            let part = Part::of(redelivery).secrets(&redelivery.token);
            let part = part.secrets(key_of(redelivery.app.as_ref()));
            add(REDELIVERY, part);
        }
        for source in &config.sources {
            let part = Part::of(source);
            let part = part.secrets(&source.token).secrets(&source.tokens);
            let part = part.secrets(key_of(source.app.as_ref()));
            // The name in which the token is presented may stand in another section of the same server.
            let part = part.and(&token_of_source(config, source));
            add(&name_of(&source.name), part);
        }
        add(ENCODINGS, Part::of(&config.scan.encodings));
        add("work.max_waiting", Part::of(&config.work.max_waiting));
        add("work.max_wait", Part::of(&config.work.max_wait));

        let fixed = [
            ("server.bind", Part::of(&config.server.bind)),
            ("server.public_url", Part::of(&config.server.public_url)),
            (
                "database.url",
                Part::default().secrets([&config.database.url]),
            ),
            (
                "keys.peppers",
                Part::default().secrets(&config.keys.peppers),
            ),
            ("scan.max_blob_bytes", Part::of(&config.scan.max_blob_bytes)),
            (
                "scan.max_fetch_bytes",
                Part::of(&config.scan.max_fetch_bytes),
            ),
            ("work.remember", Part::of(&config.work.remember)),
        ];
        let fixed = fixed.into_iter();
        let fixed = fixed.map(|(name, part)| (name.to_owned(), part.digest()));
        Self {
            swapped,
            fixed: fixed.collect(),
        }
    }

    /// Returns a digest of what the polls of a source depend on.
    pub(super) fn of_source(&self, name: &str) -> String {
        self.of_polls(&name_of(name))
    }

    /// Returns a digest of what the search for failed deliveries depends on.
    pub(super) fn of_redelivery(&self) -> String {
        self.of_polls(REDELIVERY)
    }

    fn of_polls(&self, part: &str) -> String {
        let parts = [part, FORMATS, ENCODINGS].map(|name| self.swapped.get(name));
        Part::of(&parts).digest()
    }

    /// Returns the names of the parts that were replaced, added or removed since `former`.
    pub(super) fn swapped_since(&self, former: &Self) -> Vec<String> {
        differing(&former.swapped, &self.swapped)
    }

    /// Returns the keys whose values differ from those of `former` and take effect with a restart only.
    pub(super) fn fixed_since(&self, former: &Self) -> Vec<String> {
        differing(&former.fixed, &self.fixed)
    }
}

fn differing(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let mut names = Vec::new();
    for (name, digest) in after {
        match before.get(name) {
            None => names.push(format!("{name} (new)")),
            Some(former) if former != digest => names.push(name.clone()),
            Some(_) => {}
        }
    }
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    names.extend(gone.map(|name| format!("{name} (removed)")));
    names
}

/// Returns whether two sets of key formats are the same to the last word.
pub(super) fn same_formats(one: &FormatSet, other: &FormatSet) -> bool {
    Part::of_formats(one).0 == Part::of_formats(other).0
}

fn name_of(source: &str) -> String {
    format!("source {source}")
}

fn key_of(app: Option<&App>) -> Option<&SecretString> {
    app.map(|app| &app.private_key)
}

/// Text of a part. Secrets have no text, and are told apart by their digests.
#[derive(Default)]
struct Part(String);

impl Part {
    fn of(value: &impl Debug) -> Self {
        Self::default().and(value)
    }

    fn of_formats(formats: &FormatSet) -> Self {
        let all = formats.iter();
        all.fold(Self::of(&formats.ruleset_version()), |part, format| {
            part.and(format)
        })
    }

    fn and(mut self, value: &impl Debug) -> Self {
        // Writing into a String cannot fail.
        let _ = writeln!(self.0, "{value:?}");
        self
    }

    fn secrets<'s>(mut self, secrets: impl IntoIterator<Item = &'s SecretString>) -> Self {
        for secret in secrets {
            let digest = Sha256Digest::of(secret.expose_secret().as_bytes()).to_hex();
            let _ = writeln!(self.0, "{digest}");
        }
        self
    }

    fn digest(self) -> String {
        Sha256Digest::of(self.0.as_bytes()).to_hex()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};

    fn fingerprint(text: &str) -> Fingerprint {
        let environment: Environment = [].into_iter().collect();
        let config = Config::parse(std::path::Path::new("c.toml"), text, &environment).unwrap();
        let formats = config.load_formats().unwrap();
        let minting = config.issuer_formats(&formats).unwrap();
        Fingerprint::of(&Loaded {
            config,
            formats,
            minting,
        })
    }

    #[test]
    fn names_what_changed_and_what_needs_a_restart() {
        let hook = |secret: &str| {
            format!(
                "[webhooks.gitlab]\nsecrets = [\"{secret}\"]\n[keys]\npeppers = [\"{secret}\"]\n"
            )
        };
        let source =
            "[[sources]]\nname = \"a\"\nkind = \"git\"\nurl = \"https://git.example/a.git\"\n";
        let one = fingerprint(&hook("a secret of 24 characters"));
        let other = fingerprint(&(hook("another of 24 characters!") + source));
        assert_eq!(
            other.swapped_since(&one),
            ["source a (new)", "webhooks.gitlab"]
        );
        assert_eq!(
            one.swapped_since(&other),
            ["webhooks.gitlab", "source a (removed)"]
        );
        assert_eq!(other.fixed_since(&one), ["keys.peppers"]);
        let same = fingerprint(&hook("a secret of 24 characters"));
        assert_eq!(same, one);
        assert!(!format!("{one:?}").contains("characters"));
    }
}
