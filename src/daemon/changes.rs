//! Differences between two configurations: what takes effect at once, and what needs a restart.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};

use secrecy::{ExposeSecret as _, SecretString};

use super::Loaded;
use crate::config::App;
use crate::keyformat::Sha256Digest;

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
        add("key formats", formats(loaded));
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
            add("webhooks.github.redelivery", part);
        }
        for source in &config.sources {
            let part = Part::of(source);
            let part = part.secrets(&source.token).secrets(&source.tokens);
            let part = part.secrets(key_of(source.app.as_ref()));
            add(&format!("source {}", source.name), part);
        }
        add("scan.encodings", Part::of(&config.scan.encodings));
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

fn formats(loaded: &Loaded) -> Part {
    let mut part = Part::of(&loaded.formats.ruleset_version());
    for format in loaded.formats.iter() {
        part = part.and(format);
    }
    part
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
