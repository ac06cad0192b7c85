//! The effective configuration as text with masked secrets.

use std::fmt::Write as _;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::problem::ConfigPlace;
use super::read::is_unset;
use super::sections::{App, Config, OnLeak, Redelivery, Source, SourceKind};
use super::url::without_slash;
use super::{duration, size};
use crate::forge::Forge;
use crate::github::InstallationId;
use crate::intake::PartnerName;

const MASK: &str = "********";

/// Shown in place of a secret that could not be looked up.
const UNSET: &str = "not set";

impl Config {
    /// Returns the configuration as TOML with masked secrets. A comment after each value names its
    /// origin, unless that is the built-in default.
    pub fn to_masked_toml(&self) -> String {
        let mut out = Writer {
            config: self,
            text: String::new(),
        };
        out.section("server");
        out.line("server", "bind", &quoted(&self.server.bind.to_string()));
        out.line(
            "server",
            "public_url",
            &quoted(&self.public_url(self.server.bind)),
        );
        let proxies = self.server.trusted_proxies.iter();
        let proxies: Vec<String> = proxies.map(|proxy| quoted(&proxy.to_string())).collect();
        let proxies = format!("[{}]", proxies.join(", "));
        out.line("server", "trusted_proxies", &proxies);
        out.section("database");
        out.line("database", "url", &quoted(&masked_url(&self.database.url)));
        out.section("formats");
        match &self.formats.dir {
            Some(dir) => out.line("formats", "dir", &quoted(&dir.display().to_string())),
            None => out
                .text
                .push_str("# dir: the formats built into the binary\n"),
        }
        out.section("keys");
        out.line("keys", "peppers", &masks(&self.keys.peppers));
        out.section("issuer");
        out.line("issuer", "secret", &quoted(&self.issuer.secret));
        out.line("issuer", "public", &quoted(&self.issuer.public));
        out.section("policy");
        let OnLeak::Revoke = self.policy.on_leak;
        out.line("policy", "on_leak", &quoted("revoke"));
        out.partners();
        out.webhooks();
        for (index, source) in self.sources.iter().enumerate() {
            out.source(&format!("sources[{index}]"), source);
        }
        out.section("scan");
        let limit = |bytes| quoted(&size::format(bytes));
        out.line("scan", "max_blob_bytes", &limit(self.scan.max_blob_bytes));
        out.line("scan", "max_fetch_bytes", &limit(self.scan.max_fetch_bytes));
        let encodings = self.scan.encodings;
        let encodings = [
            ("utf8", true),
            ("utf16", encodings.utf16),
            ("base64", encodings.base64),
        ];
        let encodings = encodings.iter().filter(|(_, on)| *on);
        let encodings: Vec<String> = encodings.map(|(name, _)| quoted(name)).collect();
        out.line("scan", "encodings", &format!("[{}]", encodings.join(", ")));
        out.section("work");
        let work = &self.work;
        out.line("work", "max_waiting", &work.max_waiting.to_string());
        let span = |length| quoted(&duration::format(length));
        out.line("work", "max_wait", &span(work.max_wait));
        out.line("work", "remember", &span(work.remember));
        out.text.trim_start().to_owned()
    }

    /// Returns the URL under which this server is reached when it listens on `address`: the configured
    /// URL, or one made of the address.
    pub fn public_url(&self, address: std::net::SocketAddr) -> String {
        match &self.server.public_url {
            Some(url) => without_slash(url).to_owned(),
            None => format!("http://{address}"),
        }
    }
}

struct Writer<'a> {
    config: &'a Config,
    text: String,
}

impl Writer<'_> {
    fn section(&mut self, name: &str) {
        let _ = writeln!(self.text, "\n[{name}]");
    }

    fn line(&mut self, section: &str, key: &str, value: &str) {
        let origin = self.config.origins.get(&format!("{section}.{key}"));
        let origin = match origin {
            None | Some(ConfigPlace::Default) => String::new(),
            Some(ConfigPlace::File { path, line, .. }) => format!("  # {}:{line}", path.display()),
            Some(ConfigPlace::Environment(name)) => format!("  # {name}"),
        };
        let _ = writeln!(self.text, "{key} = {value}{origin}");
    }

    fn partners(&mut self) {
        let partners = &self.config.partners;
        for (name, partner) in partners.each() {
            let path = format!("partners.{}", name.name());
            self.section(&path);
            self.line(&path, "enabled", &partner.enabled.to_string());
            if let Some(url) = &partner.public_keys_url {
                self.line(&path, "public_keys_url", &quoted(without_slash(url)));
            }
            let header = quoted(&partner.key_identifier_header);
            self.line(&path, "key_identifier_header", &header);
            let header = quoted(&partner.signature_header);
            self.line(&path, "signature_header", &header);
            if name == PartnerName::GitLab {
                let tokens = masks(&partners.revocation_tokens);
                self.line(&path, "revocation_tokens", &tokens);
            }
        }
    }

    fn webhooks(&mut self) {
        let webhooks = &self.config.webhooks;
        for (forge, webhook) in webhooks.each() {
            let path = format!("webhooks.{}", forge.name());
            self.section(&path);
            self.line(&path, "secrets", &masks(&webhook.secrets));
            if let Some(url) = &webhook.clone_url {
                self.line(&path, "clone_url", &quoted(without_slash(url)));
            }
            let hosts = webhook.clone_hosts.iter();
            let hosts: Vec<String> = hosts.map(|host| quoted(without_slash(host))).collect();
            self.line(&path, "clone_hosts", &format!("[{}]", hosts.join(", ")));
            if let Some(token) = &webhook.token {
                self.line(&path, "token", &mask(token));
            }
            if let Some(user) = &webhook.user {
                self.line(&path, "user", &quoted(user));
            }
            if let Some(redelivery) = webhooks
                .redelivery
                .as_ref()
                .filter(|_| forge == Forge::GitHub)
            {
                self.redelivery(&format!("{path}.redelivery"), redelivery);
            }
        }
    }

    fn redelivery(&mut self, path: &str, redelivery: &Redelivery) {
        self.section(path);
        let hooks = redelivery.hooks.iter();
        let hooks: Vec<String> = hooks.map(|hook| quoted(&hook.to_string())).collect();
        self.line(path, "hooks", &format!("[{}]", hooks.join(", ")));
        if let Some(token) = &redelivery.token {
            self.line(path, "token", &mask(token));
        }
        let api_url = quoted(without_slash(&redelivery.api_url));
        self.line(path, "api_url", &api_url);
        let schedule = quoted(&redelivery.schedule.to_string());
        self.line(path, "schedule", &schedule);
        if let Some(app) = &redelivery.app {
            let path = format!("{path}.app");
            self.section(&path);
            self.app(&path, app);
        }
    }

    fn source(&mut self, path: &str, source: &Source) {
        self.text.push_str("\n[[sources]]\n");
        self.line(path, "name", &quoted(&source.name));
        self.line(path, "kind", &quoted(source.kind.name()));
        match &source.kind {
            SourceKind::GithubEvents { scope, api_url } => {
                self.line(path, "scope", &quoted(&scope.to_string()));
                self.line(path, "api_url", &quoted(without_slash(api_url)));
            }
            SourceKind::Gharchive { base_url } => {
                self.line(path, "base_url", &quoted(without_slash(base_url)));
            }
            SourceKind::Git { url } => self.line(path, "url", &quoted(without_slash(url))),
        }
        if !matches!(source.kind, SourceKind::Git { .. }) {
            let clone_url = quoted(without_slash(&source.clone_url));
            self.line(path, "clone_url", &clone_url);
        }
        if let Some(token) = &source.token {
            self.line(path, "token", &mask(token));
        }
        if let Some(user) = &source.user {
            self.line(path, "user", &quoted(user));
        }
        if !source.tokens.is_empty() {
            self.line(path, "tokens", &masks(&source.tokens));
        }
        self.line(path, "schedule", &quoted(&source.schedule.to_string()));
        if let Some(app) = &source.app {
            self.section("sources.app");
            self.app(&format!("{path}.app"), app);
        }
    }

    fn app(&mut self, path: &str, app: &App) {
        self.line(path, "id", &app.id.to_string());
        self.line(path, "private_key", &mask(&app.private_key));
        if let InstallationId::Known(installation) = &app.installation {
            self.line(path, "installation", &installation.to_string());
        }
    }
}

/// Formats a secret, of which is only shown whether it is there.
fn mask(secret: &SecretString) -> String {
    quoted(if is_unset(secret) { UNSET } else { MASK })
}

/// Formats a list of secrets.
fn masks(secrets: &[SecretString]) -> String {
    let masks: Vec<String> = secrets.iter().map(mask).collect();
    format!("[{}]", masks.join(", "))
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Returns a database URL without its password, and without any parameter that is not known to be harmless. A URL that
/// cannot be parsed, or where something stands that belongs elsewhere, is masked as a whole: what is misspelled may be a
/// password.
fn masked_url(url: &SecretString) -> String {
    if is_unset(url) {
        return UNSET.to_owned();
    }
    let text = url.expose_secret();
    if text.starts_with("sqlite:") {
        return match text.split_once('?') {
            Some((file, query)) => format!("{file}?{}", masked_query(query)),
            None => text.to_owned(),
        };
    }
    let Ok(mut url) = Url::parse(text) else {
        return MASK.to_owned();
    };
    let (_, rest) = text.split_once("://").unwrap_or_default();
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    let (user, server) = authority.rsplit_once('@').unwrap_or(("", authority));
    let user = user.split(':').next().unwrap_or_default();
    let is_odd = [user, server, path].into_iter().any(has_marks);
    if is_odd || query.contains('@') || rest.contains('#') {
        return MASK.to_owned();
    }
    if url.password().is_some() && url.set_password(Some(MASK)).is_err() {
        return MASK.to_owned();
    }
    if let Some(query) = url.query().map(masked_query) {
        url.set_query(Some(&query));
    }
    url.into()
}

/// Parameters of database URLs whose values are no secrets.
const HARMLESS: [&str; 18] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "ssl-mode",
    "ssl-root-cert",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "mode",
    "cache",
    "immutable",
    "vfs",
];

fn masked_query(query: &str) -> String {
    let shown = query.split('&').map(|pair| {
        let is_harmless = pair
            .split_once('=')
            .is_some_and(|(name, value)| HARMLESS.contains(&name) && !has_marks(value));
        if is_harmless { pair } else { MASK }
    });
    shown.collect::<Vec<_>>().join("&")
}

/// Returns whether a part of a URL has characters that set apart others.
fn has_marks(part: &str) -> bool {
    part.contains(['&', '=', ';', '@', ' '])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_passwords_of_databases() {
        for (url, shown) in [
            ("sqlite://data/rescind.db", "sqlite://data/rescind.db"),
            ("postgres://me@host/db", "postgres://me@host/db"),
            (
                "postgres://me:hunter2@host/db",
                "postgres://me:********@host/db",
            ),
            (
                "postgres://host/db?password=hunter2",
                "postgres://host/db?********",
            ),
            (
                "postgres://host/db?%50assword=hunter2",
                "postgres://host/db?********",
            ),
            ("postgres://me:hunter2@[", "********"),
            (
                "postgres://host/db?pass=hunter2",
                "postgres://host/db?********",
            ),
            (
                "postgres://host/db?sslmode=require&sslpassword=hunter2&user=me",
                "postgres://host/db?sslmode=require&********&user=me",
            ),
            (
                "postgres://host/db?user=me;password=hunter2",
                "postgres://host/db?********",
            ),
            ("postgres://host/db?hunter2", "postgres://host/db?********"),
            ("postgres://host/db&password=hunter2", "********"),
            ("postgres://host/db;password=hunter2", "********"),
            ("postgres://host/db password=hunter2", "********"),
            ("postgres://host&password=hunter2/db", "********"),
            ("postgres://me&password=hunter2@host/db", "********"),
            ("postgres://me:5432/hunter2@host/db", "********"),
            ("postgres://me:5432?hunter2@host/db", "********"),
            ("postgres://me:5432#hunter2@host/db", "********"),
            (
                "sqlite://data/r.db?mode=rwc&key=hunter2",
                "sqlite://data/r.db?mode=rwc&********",
            ),
        ] {
            assert_eq!(masked_url(&url.into()), shown);
        }
    }
}
