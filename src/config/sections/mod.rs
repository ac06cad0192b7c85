//! What the configuration says, section by section, with its defaults and its checks.

mod partners;
mod sources;
mod webhooks;
mod work;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::problem::Place;
use super::read::{Found, Section};
use crate::scan::Encodings;

pub use partners::{Partner, Partners};
pub use sources::{App, Schedule, Scope, Source, SourceKind};
pub use webhooks::{Hook, Redelivery, Webhook, Webhooks};
pub use work::Work;

/// The whole configuration.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where the API listens.
    pub server: Server,
    /// Where everything is kept.
    pub database: Database,
    /// Which key formats there are.
    pub formats: Formats,
    /// How digests of keys are stored.
    pub keys: Keys,
    /// What new keys look like.
    pub issuer: Issuer,
    /// What happens to a leaked key.
    pub policy: Policy,
    /// Who sends signed leak reports.
    pub partners: Partners,
    /// Which forges tell of pushes and texts by themselves.
    pub webhooks: Webhooks,
    /// What is polled.
    pub sources: Vec<Source>,
    /// Limits of scanning and fetching.
    pub scan: Scan,
    /// How much waits to be scanned.
    pub work: Work,
    /// What is odd but no error, to be logged once.
    pub warnings: Vec<String>,
    pub(super) origins: BTreeMap<String, Place>,
}

/// `[server]`
#[derive(Debug, Clone)]
pub struct Server {
    /// Address and port the API listens on; port 0 takes a free one.
    pub bind: SocketAddr,
    /// The URL under which others reach this server, without a slash at the end. `None`: `http://` and
    /// the address it listens on.
    pub public_url: Option<String>,
    /// The proxies whose `Forwarded` and `X-Forwarded-For` say who a request comes from.
    pub trusted_proxies: Vec<IpNet>,
}

/// `[database]`
#[derive(Debug, Clone)]
pub struct Database {
    /// `sqlite://PATH` or `postgres://…`. It may hold a password.
    pub url: SecretString,
}

/// `[formats]`
#[derive(Debug, Clone, Default)]
pub struct Formats {
    /// The folder of pattern files. `None`: the copy that is built into the binary.
    pub dir: Option<PathBuf>,
}

/// `[keys]`
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// The peppers of stored digests, the current one first, then the retired ones.
    pub peppers: Vec<SecretString>,
}

/// `[issuer]`: the ids of the formats that new keys are minted in.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// For secret keys and access tokens.
    pub secret: String,
    /// For public keys.
    pub public: String,
}

/// `[policy]`
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// What is done with a secret key that leaked.
    pub on_leak: OnLeak,
}

/// What is done with a secret key that leaked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLeak {
    /// It is revoked at once.
    #[default]
    Revoke,
}

/// `[scan]`
#[derive(Debug, Clone)]
pub struct Scan {
    /// The largest single file that is scanned, in bytes.
    pub max_blob_bytes: u64,
    /// The most that is fetched for one work item, in bytes.
    pub max_fetch_bytes: u64,
    /// The encodings that keys are looked for in, besides UTF-8.
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

/// Reads every section. Problems are collected by the reader; what could not be read keeps its default.
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

/// Addresses and networks. One that every client is in would let each say that it is somebody else.
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
        if known.iter().any(|scheme| url.starts_with(scheme)) {
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
    let dir = dir.map(|found| PathBuf::from(found.value));
    section.finish();
    Formats { dir }
}

fn keys(section: Section<'_>) -> Keys {
    let mut peppers: Vec<SecretString> = Vec::new();
    for found in section.secrets("peppers") {
        let pepper = found.value.expose_secret();
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

/// An http or https URL without credentials, query or fragment, its last slash removed.
fn base_url(section: &Section<'_>, key: &'static str, example: &str) -> Option<String> {
    let example = format!("\"{example}\"");
    let found = section.text(key, &example)?;
    let wrong = match Url::parse(found.value.trim()) {
        Err(_) => "is not a URL",
        Ok(url) if !matches!(url.scheme(), "http" | "https") || !url.has_host() => {
            "has to begin with https:// or http:// and a host"
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            "holds a user name or a password, which do not belong in this URL"
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            "has a query or a fragment, which cannot be used here"
        }
        Ok(url) => return Some(url.as_str().trim_end_matches('/').to_owned()),
    };
    section.refuse(&found.place, key, wrong, &format!("for example {example}"));
    None
}
