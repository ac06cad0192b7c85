//! What the configuration says, section by section, with its defaults and its checks.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::cron::CronSchedule;
use super::problem::{Place, nearest};
use super::read::{Found, Section};
use crate::scan::Encodings;

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
    /// What is polled.
    pub sources: Vec<Source>,
    /// Limits of scanning and fetching.
    pub scan: Scan,
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

/// `[partners]`
#[derive(Debug, Clone, Default)]
pub struct Partners {
    /// GitHub's secret scanning partner programme.
    pub github: GithubPartner,
}

/// `[partners.github]`
#[derive(Debug, Clone)]
pub struct GithubPartner {
    /// Whether its reports are taken.
    pub enabled: bool,
    /// Where GitHub lists the public keys that it signs reports with.
    pub public_keys_url: String,
}

/// One of `[[sources]]`
#[derive(Debug, Clone)]
pub struct Source {
    /// What the source is called in the log and in incidents. Unique.
    pub name: String,
    /// What kind of feed it is.
    pub kind: SourceKind,
    /// Which part of the feed is read.
    pub scope: Scope,
    /// The REST API's base URL, without a slash at the end.
    pub api_url: String,
    /// The base URL of repositories over smart HTTP, without a slash at the end: contents come from
    /// `{clone_url}/{owner}/{repo}.git`.
    pub clone_url: String,
    /// The access token for the API and for clones.
    pub token: Option<SecretString>,
    /// When it is polled.
    pub schedule: Schedule,
}

/// What kind of feed a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// GitHub's events API.
    GithubEvents,
}

/// Which part of a forge a source reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All that is public.
    Public,
    /// One organization's repositories.
    Org(String),
    /// One user's repositories.
    User(String),
    /// One repository.
    Repo {
        /// Its owner's name.
        owner: String,
        /// Its own name.
        name: String,
    },
}

/// When a source is polled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// As fast as the server allows.
    Poll,
    /// At the times of a cron expression, in UTC.
    Cron(CronSchedule),
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

impl Default for GithubPartner {
    fn default() -> Self {
        Self {
            enabled: true,
            public_keys_url: "https://api.github.com/meta/public_keys/secret_scanning".to_owned(),
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

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Public => f.write_str("public"),
            Self::Org(name) => write!(f, "org:{name}"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Repo { owner, name } => write!(f, "repo:{owner}/{name}"),
        }
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Poll => f.write_str("poll"),
            Self::Cron(schedule) => schedule.fmt(f),
        }
    }
}

/// Reads every section. Problems are collected by the reader; what could not be read keeps its default.
pub(super) fn read(root: Section<'_>) -> Config {
    let config = Config {
        server: server(root.section("server")),
        database: database(root.section("database")),
        formats: formats(root.section("formats")),
        keys: keys(root.section("keys")),
        issuer: issuer(root.section("issuer")),
        policy: policy(root.section("policy")),
        partners: partners(root.section("partners")),
        sources: sources(root.sections("sources")),
        scan: scan(root.section("scan")),
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
    section.finish();
    server
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

fn partners(section: Section<'_>) -> Partners {
    let mut github = GithubPartner::default();
    let inner = section.section("github");
    if let Some(enabled) = inner.flag("enabled") {
        github.enabled = enabled;
    }
    if let Some(url) = base_url(&inner, "public_keys_url", &github.public_keys_url) {
        github.public_keys_url = url;
    }
    inner.finish();
    section.finish();
    Partners { github }
}

fn sources(sections: Vec<Section<'_>>) -> Vec<Source> {
    let mut names: Vec<String> = Vec::new();
    let mut sources = Vec::new();
    for section in sections {
        let name = source_name(&section, &names);
        let kind = source_kind(&section);
        let scope = source_scope(&section);
        let github = "https://api.github.com";
        let api_url = base_url(&section, "api_url", github).unwrap_or_else(|| github.to_owned());
        let github = "https://github.com";
        let clone_url =
            base_url(&section, "clone_url", github).unwrap_or_else(|| github.to_owned());
        let token = source_token(&section);
        let schedule = source_schedule(&section);
        names.extend(name.clone());
        if let (Some(name), Some(kind)) = (name, kind) {
            let source = Source {
                name,
                kind,
                scope,
                api_url,
                clone_url,
                token,
                schedule,
            };
            refuse_second_origin(&section, &source, &sources);
            sources.push(source);
        }
        section.finish();
    }
    sources
}

/// Contents of one host are fetched in one way, whichever source told of them: a push that two sources
/// see is one work item.
fn refuse_second_origin(section: &Section<'_>, source: &Source, others: &[Source]) {
    let host = |source: &Source| {
        let url = Url::parse(&source.clone_url).ok()?;
        Some((url.host_str()?.to_owned(), url.port_or_known_default()))
    };
    let token = |source: &Source| {
        let token = source.token.as_ref();
        token.map(|token| token.expose_secret().to_owned())
    };
    for other in others.iter().filter(|other| host(other) == host(source)) {
        if other.clone_url != source.clone_url {
            let what = "another source has the same host with a different clone_url";
            let hint = "give sources of one host the same clone_url";
            section.refuse(section.place(), "clone_url", what, hint);
        }
        let tokens = (token(source), token(other));
        if let (Some(token), Some(other)) = tokens
            && token != other
        {
            let what = "another source of the same host has a different token";
            let hint = "give sources of one host the same token, one that may read all of them";
            section.refuse(section.place(), "token", what, hint);
        }
    }
}

fn source_name(section: &Section<'_>, taken: &[String]) -> Option<String> {
    let example = r#"name = "github-public""#;
    let found = required(section, "name", example)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if found.value.len() > 64 || !found.value.chars().all(allowed) {
        section.refuse(
            &found.place,
            "name",
            "has to be at most 64 letters, digits, hyphens, underscores or dots",
            &format!("for example {example}"),
        );
    }
    if taken.contains(&found.value) {
        let hint = "give each source a name of its own: its progress is kept under it";
        section.refuse(&found.place, "name", "another source has this name", hint);
    }
    Some(found.value)
}

fn source_kind(section: &Section<'_>) -> Option<SourceKind> {
    let found = required(section, "kind", r#"kind = "github_events""#)?;
    if found.value == "github_events" {
        return Some(SourceKind::GithubEvents);
    }
    let hint = match nearest(&found.value, ["github_events"]) {
        Some(word) => format!("did you mean `{word}`?"),
        None => "known here: github_events".to_owned(),
    };
    let what = "this version knows no such kind of source";
    section.refuse(&found.place, "kind", what, &hint);
    None
}

fn source_scope(section: &Section<'_>) -> Scope {
    let example = r#""public", "org:NAME", "user:NAME" or "repo:OWNER/NAME""#;
    let Some(found) = section.text("scope", example) else {
        return Scope::Public;
    };
    scope(&found.value).unwrap_or_else(|| {
        let what = "is not a scope";
        section.refuse(&found.place, "scope", what, &format!("write {example}"));
        Scope::Public
    })
}

fn scope(text: &str) -> Option<Scope> {
    // What may stand in a name on GitHub; nothing else may, since names become parts of URLs.
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name = |text: &str| {
        let dots = text.chars().all(|c| c == '.');
        (!dots && text.len() <= 100 && text.chars().all(allowed)).then(|| text.to_owned())
    };
    if text == "public" {
        return Some(Scope::Public);
    }
    match text.split_once(':')? {
        ("org", org) => name(org).map(Scope::Org),
        ("user", user) => name(user).map(Scope::User),
        ("repo", repo) => {
            let (owner, repo) = repo.split_once('/')?;
            Some(Scope::Repo {
                owner: name(owner)?,
                name: name(repo)?,
            })
        }
        _ => None,
    }
}

fn source_token(section: &Section<'_>) -> Option<SecretString> {
    let found = section.optional_secret("token")?;
    // It travels in a header: anything else would fail at the first request, far from its cause.
    if found
        .value
        .expose_secret()
        .bytes()
        .all(|byte| byte.is_ascii_graphic())
    {
        return Some(found.value);
    }
    section.refuse(
        &found.place,
        "token",
        "holds characters that no access token has",
        "only printable ASCII without spaces; check for line breaks",
    );
    None
}

fn source_schedule(section: &Section<'_>) -> Schedule {
    let example = r#""poll", or five cron fields in UTC such as "*/5 * * * *""#;
    let Some(found) = section.text("schedule", example) else {
        return Schedule::Poll;
    };
    if found.value == "poll" {
        return Schedule::Poll;
    }
    match CronSchedule::parse(&found.value) {
        Ok(schedule) => Schedule::Cron(schedule),
        Err(what) => {
            let hint = format!("write {example}");
            section.refuse(&found.place, "schedule", &what, &hint);
            Schedule::Poll
        }
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
