//! `[[sources]]`: the feeds that are polled.

mod source;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

pub use source::{App, Schedule, Scope, Source, SourceKind};

use super::{base_url, required};
use crate::config::problem::nearest;
use crate::config::read::{Found, Section};
use crate::schedule::CronSchedule;

/// Names of the kinds in the configuration, with the keys that only they have.
const KINDS: [(&str, &[&str]); 3] = [
    ("github_events", &["scope", "api_url", "tokens", "app"]),
    ("gharchive", &["base_url"]),
    ("git", &["url"]),
];

pub(super) fn sources(sections: Vec<Section<'_>>) -> Vec<Source> {
    let mut names: Vec<String> = Vec::new();
    let mut sources = Vec::new();
    for section in sections {
        let name = source_name(&section, &names);
        let kind = source_kind(&section);
        let clone_url = match &kind {
            Some(SourceKind::Git { url }) => host_of(url),
            _ => url_or(&section, "clone_url", "https://github.com"),
        };
        let token = source_token(&section);
        let (tokens, app) = match &kind {
            Some(SourceKind::GithubEvents { scope, .. }) => (
                source_tokens(&section),
                source_app(&section, *scope != Scope::Public),
            ),
            _ => (Vec::new(), None),
        };
        let schedule = source_schedule(&section);
        names.extend(name.clone());
        if let (Some(name), Some(kind)) = (name, kind) {
            let source = Source {
                name,
                kind,
                clone_url,
                token,
                tokens,
                app,
                schedule,
            };
            refuse_second_origin(&section, &source, &sources);
            sources.push(source);
        }
        section.finish();
    }
    sources
}

/// Reports a source whose contents would be fetched differently from those of another source of the same
/// host.
///
/// A push that two sources see is one work item, so contents of one host are fetched in one way,
/// whichever source announced them.
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
        let is_git = |source: &Source| matches!(source.kind, SourceKind::Git { .. });
        // A source of a single repository clones from its own URL.
        if other.clone_url != source.clone_url && !is_git(source) && !is_git(other) {
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

/// Reads the kind and its keys. Keys of other kinds are rejected.
fn source_kind(section: &Section<'_>) -> Option<SourceKind> {
    let found = required(section, "kind", r#"kind = "github_events""#);
    let kind = found.as_ref().map(|found| found.value.as_str());
    let read = match kind {
        Some("github_events") => github_events(section),
        Some("gharchive") => gharchive(section),
        Some("git") => git(section)?,
        _ => {
            // The kind is unknown, and so are its keys; a key of any kind is no further mistake.
            let _ = (github_events(section), gharchive(section));
            let _ = (section.has("url"), base_url(section, "url", EXAMPLE));
            section.forgive(&["tokens", "app"]);
            if let Some(found) = found {
                refuse_kind(section, &found);
            }
            return None;
        }
    };
    refuse_keys_of_others(section, read.name());
    Some(read)
}

fn github_events(section: &Section<'_>) -> SourceKind {
    SourceKind::GithubEvents {
        scope: source_scope(section),
        api_url: url_or(section, "api_url", "https://api.github.com"),
    }
}

fn gharchive(section: &Section<'_>) -> SourceKind {
    SourceKind::Gharchive {
        base_url: url_or(section, "base_url", "https://data.gharchive.org"),
    }
}

const EXAMPLE: &str = "https://git.example.com/team/project.git";

/// Reads the URL of a single repository; `clone_url` is accepted as well.
fn git(section: &Section<'_>) -> Option<SourceKind> {
    let key = if section.has("clone_url") && !section.has("url") {
        "clone_url"
    } else {
        "url"
    };
    required(section, key, &format!("{key} = \"{EXAMPLE}\""))?;
    let url = base_url(section, key, EXAMPLE)?;
    if Url::parse(&url).is_ok_and(|url| url.path().len() > 1) {
        return Some(SourceKind::Git { url });
    }
    let hint = format!("write the whole address, such as \"{EXAMPLE}\"");
    section.refuse(
        section.place(),
        key,
        "names a server and no repository",
        &hint,
    );
    None
}

/// Returns the origin of a validated URL: scheme, host and port.
fn host_of(url: &str) -> String {
    Url::parse(url).map_or_else(|_| url.to_owned(), |url| url.origin().ascii_serialization())
}

fn source_tokens(section: &Section<'_>) -> Vec<SecretString> {
    let found = section.secrets("tokens");
    for token in &found {
        let text = token.value.expose_secret();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let hint = "only printable ASCII without spaces; check for line breaks";
            let what = "holds characters that no access token has";
            section.refuse(&token.place, "tokens", what, hint);
        }
    }
    found.into_iter().map(|found| found.value).collect()
}

/// Reads the GitHub App. Its installation has to be named unless there is an account that it can be looked up by.
pub(super) fn source_app(section: &Section<'_>, has_account: bool) -> Option<App> {
    if !section.has("app") {
        return None;
    }
    let inner = section.section("app");
    let id = inner.count("id", "12345");
    let private_key = inner.secret("private_key");
    let installation = inner.count("installation", "678").map(|found| found.value);
    for (key, missing, example) in [
        ("id", id.is_none(), "id = 12345"),
        (
            "private_key",
            private_key.is_none(),
            r#"private_key = { file = "app.pem" }"#,
        ),
    ] {
        if missing && !inner.has(key) {
            let hint = format!("add a line such as {example}");
            inner.refuse(inner.place(), key, "is missing", &hint);
        }
    }
    if !has_account && installation.is_none() {
        let hint = "add the installation's number: it stands at the end of the URL of its settings";
        inner.refuse(
            inner.place(),
            "installation",
            "is missing: the scope names no account",
            hint,
        );
    }
    inner.finish();
    Some(App {
        id: id?.value,
        private_key: private_key?.value,
        installation,
    })
}

fn refuse_kind(section: &Section<'_>, found: &Found<String>) {
    let names = KINDS.map(|(name, _)| name);
    let hint = match nearest(&found.value, names) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("known here: {}", names.join(", ")),
    };
    let what = "this version knows no such kind of source";
    section.refuse(&found.place, "kind", what, &hint);
}

fn refuse_keys_of_others(section: &Section<'_>, kind: &str) {
    for (other, keys) in KINDS.into_iter().filter(|(name, _)| *name != kind) {
        for key in keys {
            let what = format!("does not go with kind = \"{kind}\"");
            let hint = format!("remove it; only {other} has this key");
            section.forbid(key, &what, &hint);
        }
    }
}

fn url_or(section: &Section<'_>, key: &'static str, default: &str) -> String {
    base_url(section, key, default).unwrap_or_else(|| default.to_owned())
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

pub(super) fn scope(text: &str) -> Option<Scope> {
    // Characters that a name on GitHub may contain. Nothing else is allowed, since names become parts of
    // URLs.
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

pub(super) fn source_token(section: &Section<'_>) -> Option<SecretString> {
    let found = section.optional_secret("token")?;
    // The token is sent in a header: anything else would fail at the first request, far from its cause.
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

pub(super) fn source_schedule(section: &Section<'_>) -> Schedule {
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
