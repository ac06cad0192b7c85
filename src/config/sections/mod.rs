//! Sections of the configuration with their defaults and checks.

mod partners;
mod sources;
mod webhooks;
mod work;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::file::ReadFrom;
use super::problem::{ConfigPlace, Problem};
use super::read::{Found, Section, is_unset};
use super::url::parse_base;
use crate::scan::Encodings;

pub use partners::{Partner, Partners};
pub use sources::{App, Source, SourceKind};
pub use webhooks::{Redelivery, Webhook, Webhooks};
pub use work::Work;

/// The whole configuration.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Address and public URL of the API.
    pub server: Server,
    /// Location of the database.
    pub database: Database,
    /// Location of the key formats.
    pub formats: Formats,
    /// Peppers of stored digests.
    pub keys: Keys,
    /// Formats of new keys.
    pub issuer: Issuer,
    /// Response to a leaked key.
    pub policy: Policy,
    /// Partners that send signed leak reports.
    pub partners: Partners,
    /// Forges that deliver webhooks.
    pub webhooks: Webhooks,
    /// Feeds that are polled.
    pub sources: Vec<Source>,
    /// Limits of scanning and fetching.
    pub scan: Scan,
    /// Limits of the queue of work items.
    pub work: Work,
    /// Place in a file of another program that was found in the current folder and left aside, of the first key that
    /// shows it.
    pub left_aside: Option<ConfigPlace>,
    /// Warnings to be logged once, about oddities that are not errors.
    pub warnings: Vec<String>,
    /// Secrets that could not be looked up, if these were to be marked.
    pub unset: Vec<Problem>,
    pub(super) origins: BTreeMap<String, ConfigPlace>,
    /// File that it was read from, if there was one.
    pub(super) file: Option<ReadFrom>,
}

/// The `[server]` section.
#[derive(Debug, Clone)]
pub struct Server {
    /// Address and port on which the API listens; port 0 picks a free one.
    pub bind: SocketAddr,
    /// URL under which others reach this server. If `None`, it is `http://` and the address on which the
    /// server listens.
    pub public_url: Option<Url>,
    /// Proxies whose `Forwarded` and `X-Forwarded-For` headers are trusted to name the client.
    pub trusted_proxies: Vec<IpNet>,
}

/// The `[database]` section.
#[derive(Debug, Clone)]
pub struct Database {
    /// `sqlite://PATH` or `postgres://…`. It may contain a password.
    pub url: SecretString,
}

/// The `[formats]` section.
#[derive(Debug, Clone, Default)]
pub struct Formats {
    /// Directory of pattern files. If it is not configured, it is `patterns` beside the configuration file; if that
    /// does not exist it is `None`, and the copy that is built into the binary is used.
    pub dir: Option<PathBuf>,
}

/// The `[keys]` section.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// Peppers of stored digests, the current one first, then the retired ones.
    pub peppers: Vec<SecretString>,
}

/// The `[issuer]` section: identifiers of the formats in which new keys are minted.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// Format of secret keys and access tokens.
    pub secret: String,
    /// Format of public keys.
    pub public: String,
}

/// The `[policy]` section.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Response to the leak of a secret key.
    pub on_leak: OnLeak,
}

/// Response to the leak of a secret key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLeak {
    /// The key is revoked at once.
    #[default]
    Revoke,
}

/// The `[scan]` section.
#[derive(Debug, Clone)]
pub struct Scan {
    /// Size of the largest file that is scanned, in bytes.
    pub max_blob_bytes: u64,
    /// Limit on what is fetched for one work item, in bytes.
    pub max_fetch_bytes: u64,
    /// Encodings in which keys are searched for, in addition to UTF-8.
    pub encodings: Encodings,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 8787)),
            public_url: None,
            trusted_proxies: Vec::new(),
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: "sqlite://data/rescind.db".into(),
        }
    }
}

impl Default for Issuer {
    fn default() -> Self {
        Self {
            secret: "rescind_secret".to_owned(),
            public: "rescind_public".to_owned(),
        }
    }
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            max_blob_bytes: 32 << 20,
            max_fetch_bytes: 256 << 20,
            encodings: Encodings::ALL,
        }
    }
}

/// Reads every section. Problems are collected by the reader; values that could not be read keep their
/// defaults.
pub(super) fn read(root: Section<'_>) -> Config {
    let sources = sources::sources(root.sections("sources"));
    let config = Config {
        server: server(root.section("server")),
        database: database(root.section("database")),
        formats: formats(root.section("formats")),
        keys: keys(root.section("keys")),
        issuer: issuer(root.section("issuer")),
        policy: policy(root.section("policy")),
        partners: partners::partners(root.section("partners")),
        webhooks: webhooks::webhooks(root.section("webhooks"), &sources),
        sources,
        scan: scan(root.section("scan")),
        work: work::work(root.section("work")),
        ..Config::default()
    };
    root.finish();
    config
}

fn server(section: Section<'_>) -> Server {
    let mut server = Server::default();
    let example = r#""127.0.0.1:8787" or "[::]:8787""#;
    if let Some(found) = section.text("bind", example) {
        match found.value.parse() {
            Ok(bind) => server.bind = bind,
            Err(_) => section.refuse(
                &found.place,
                "bind",
                "has to be an IP address and a port",
                &format!("for example {example}"),
            ),
        }
    }
    server.public_url = base_url(&section, "public_url", "https://rescind.example.com");
    server.trusted_proxies = trusted_proxies(&section);
    section.finish();
    server
}

/// Reads addresses and networks. A network that contains every client is rejected, since it would let any
/// client claim to be another.
fn trusted_proxies(section: &Section<'_>) -> Vec<IpNet> {
    const KEY: &str = "trusted_proxies";
    let example = r#"["127.0.0.1", "10.0.0.0/8"]"#;
    let mut networks = Vec::new();
    for found in section.texts(KEY, example).unwrap_or_default() {
        let text = found.value.trim();
        let address = text
            .parse()
            .map(|address: IpAddr| address.to_canonical().into());
        let wrong = match address.or_else(|_| text.parse::<IpNet>()) {
            Err(_) => "is neither an IP address nor a network of them",
            Ok(network) if network.prefix_len() == 0 => {
                "holds every address there is, so that anybody could claim to be anybody"
            }
            Ok(network) => {
                networks.push(network.trunc());
                continue;
            }
        };
        section.refuse(&found.place, KEY, wrong, &format!("for example {example}"));
    }
    networks
}

fn database(section: Section<'_>) -> Database {
    let mut database = Database::default();
    if let Some(found) = section.secret("url") {
        let url = found.value.expose_secret();
        let known = ["sqlite:", "postgres://", "postgresql://"];
        if is_unset(&found.value) || known.iter().any(|scheme| url.starts_with(scheme)) {
            database.url = found.value;
        } else {
            section.refuse(
                &found.place,
                "url",
                "has to be the URL of a SQLite file or a PostgreSQL database",
                r#"for example "sqlite://data/rescind.db" or "postgres://user@host/db""#,
            );
        }
    }
    section.finish();
    database
}

fn formats(section: Section<'_>) -> Formats {
    let dir = section.text("dir", r#""patterns""#);
    let dir = dir.map(|found| match &found.place {
        // The file means the same from whichever folder it is read.
        ConfigPlace::File { path, .. } => path.parent().unwrap_or(Path::new("")).join(found.value),
        _ => PathBuf::from(found.value),
    });
    section.finish();
    Formats { dir }
}

/// Minimum size in bytes of the pepper that digests are written under. Whoever has a stored digest of a key that they
/// hold can test guesses of its pepper.
const PEPPER_MIN: usize = 16;

fn keys(section: Section<'_>) -> Keys {
    let mut peppers: Vec<SecretString> = Vec::new();
    for found in section.secrets("peppers") {
        if is_unset(&found.value) {
            peppers.push(found.value);
            continue;
        }
        let pepper = found.value.expose_secret();
        let is_short = pepper.len() < PEPPER_MIN;
        if is_short && peppers.is_empty() {
            section.refuse(
                &found.place,
                "peppers",
                "the current pepper is shorter than 16 bytes",
                "take the output of `openssl rand -base64 32`; one that keys stand under already goes behind it",
            );
        } else if is_short {
            // Refusing it would lose the keys that stand under it.
            let what = "a retired pepper is shorter than 16 bytes, and may be guessed";
            section.warn("peppers", what);
        }
        if peppers.iter().any(|known| known.expose_secret() == pepper) {
            let hint = "each pepper stands in the list once, the current one first";
            section.refuse(&found.place, "peppers", "the same pepper twice", hint);
        }
        peppers.push(found.value);
    }
    section.finish();
    Keys { peppers }
}

fn issuer(section: Section<'_>) -> Issuer {
    let mut issuer = Issuer::default();
    let example = r#""rescind_secret", the id of a format"#;
    if let Some(found) = section.text("secret", example) {
        issuer.secret = found.value;
    }
    if let Some(found) = section.text("public", example) {
        issuer.public = found.value;
    }
    section.finish();
    issuer
}

fn policy(section: Section<'_>) -> Policy {
    if let Some(found) = section.text("on_leak", r#""revoke""#)
        && found.value != "revoke"
    {
        section.refuse(
            &found.place,
            "on_leak",
            "this version only revokes",
            r#"write on_leak = "revoke", or remove the key"#,
        );
    }
    section.finish();
    Policy {
        on_leak: OnLeak::Revoke,
    }
}

fn scan(section: Section<'_>) -> Scan {
    let mut scan = Scan::default();
    let blob = section.size("max_blob_bytes", r#""32MiB""#);
    let fetch = section.size("max_fetch_bytes", r#""256MiB""#);
    if let Some(found) = &blob {
        scan.max_blob_bytes = found.value;
    }
    if let Some(found) = &fetch {
        scan.max_fetch_bytes = found.value;
    }
    if let Some(Found { place, .. }) = blob.or(fetch)
        && scan.max_blob_bytes > scan.max_fetch_bytes
    {
        section.refuse(
            &place,
            "max_blob_bytes",
            "is larger than scan.max_fetch_bytes, so such a file could never be fetched",
            "raise max_fetch_bytes or lower max_blob_bytes",
        );
    }
    if let Some(encodings) = section.texts("encodings", ENCODINGS) {
        scan.encodings = scan_encodings(&section, &encodings);
    }
    section.finish();
    scan
}

const ENCODINGS: &str = r#"["utf8", "utf16", "base64"]"#;

fn scan_encodings(section: &Section<'_>, texts: &[Found<String>]) -> Encodings {
    for found in texts {
        if !["utf8", "utf16", "base64"].contains(&found.value.as_str()) {
            let hint = format!("known here: {ENCODINGS}");
            section.refuse(&found.place, "encodings", "is not an encoding", &hint);
        }
    }
    let has = |name: &str| texts.iter().any(|found| found.value == name);
    if !has("utf8") {
        let place = texts.first().map_or(section.place(), |found| &found.place);
        let hint = r#"add "utf8": plain text is always scanned"#;
        section.refuse(place, "encodings", "lacks utf8", hint);
    }
    Encodings {
        utf16: has("utf16"),
        base64: has("base64"),
    }
}

fn required(section: &Section<'_>, key: &'static str, example: &str) -> Option<Found<String>> {
    let found = section.text(key, example);
    if found.is_none() && !section.has(key) {
        let hint = format!("add a line such as {example}");
        section.refuse(section.place(), key, "is missing", &hint);
    }
    found
}

/// Reads a URL that HTTP requests can go to, without a slash at its end.
fn base_url(section: &Section<'_>, key: &'static str, example: &str) -> Option<Url> {
    let example = format!("\"{example}\"");
    let found = section.text(key, &example)?;
    let parsed = parse_base(&found.value);
    let refuse = |wrong: &&str| {
        section.refuse(&found.place, key, wrong, &format!("for example {example}"));
    };
    parsed.inspect_err(refuse).ok()
}
