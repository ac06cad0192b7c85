//! `[[sources]]`: the feeds that are polled.

mod source;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

pub use source::{App, Source, SourceKind};

use super::{base_url, required};
use crate::config::problem::nearest;
use crate::config::read::{Found, Section, is_unset};
use crate::config::url::{built_in, same_host, server_of};
use crate::github::InstallationId;
use crate::schedule::{CronSchedule, Schedule};
use crate::source::Scope;

/// A kind of source in the configuration.
struct Kind {
    name: &'static str,
    /// Keys that only this kind has.
    keys: &'static [&'static str],
    /// Reads those of them that the kind cannot be without.
    read: fn(&Section<'_>) -> Option<SourceKind>,
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "github_events",
        keys: &["scope", "api_url", "tokens", "app"],
        read: github_events,
    },
    Kind {
        name: "gharchive",
        keys: &["base_url"],
        read: gharchive,
    },
    Kind {
        name: "git",
        keys: &["url", "user"],
        read: git,
    },
];

pub(super) fn sources(sections: Vec<Section<'_>>) -> Vec<Source> {
    let mut names: Vec<String> = Vec::new();
    let mut sources = Vec::new();
    for section in sections {
        let name = source_name(&section, &names);
        let kind = source_kind(&section);
        let clone_url = match &kind {
            Some(SourceKind::Git { url }) => server_of(url),
            _ => url_or(&section, "clone_url", "https://github.com"),
        };
        let token = source_token(&section);
        let (tokens, app) = match &kind {
            Some(SourceKind::GithubEvents { scope, .. }) => (
                source_tokens(&section),
                source_app(&section, scope.installation()),
            ),
            _ => (Vec::new(), None),
        };
        let user = match &kind {
            Some(SourceKind::Git { .. }) => token_user(&section),
            _ => None,
        };
        let schedule = source_schedule(&section);
        names.extend(name.clone());
        if let (Some(name), Some(kind)) = (name, kind) {
            let source = Source {
                name,
                kind,
                clone_url,
                token,
                user,
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
    let token = |source: &Source| {
        let token = source.token.as_ref().filter(|token| !is_unset(token));
        token.map(|token| token.expose_secret().to_owned())
    };
    let same_host = |other: &&Source| same_host(&other.clone_url, &source.clone_url);
    for other in others.iter().filter(same_host) {
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
        refuse_second_user(section, source.user.as_ref(), other.user.as_ref());
    }
}

/// Reports a user other than that of another section of the same host.
pub(super) fn refuse_second_user(
    section: &Section<'_>,
    user: Option<&String>,
    other: Option<&String>,
) {
    if user.is_some() && other.is_some() && user != other {
        let what = "another source or webhook of the same host has a different user";
        let hint = "give sources and webhooks of one host the same user";
        section.refuse(section.place(), "user", what, hint);
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
    let named = |found: &Found<String>| KINDS.into_iter().find(|kind| kind.name == found.value);
    let Some(kind) = found.as_ref().and_then(named) else {
        // The kind is unknown, and so are its keys; a key of any kind is no further mistake.
        for kind in KINDS {
            section.forgive(kind.keys);
        }
        if let Some(found) = found {
            refuse_kind(section, &found);
        }
        return None;
    };
    let read = (kind.read)(section)?;
    refuse_keys_of_others(section, kind.name);
    Some(read)
}

#[expect(clippy::unnecessary_wraps, reason = "other kinds may lack a key")]
fn github_events(section: &Section<'_>) -> Option<SourceKind> {
    Some(SourceKind::GithubEvents {
        scope: source_scope(section),
        api_url: url_or(section, "api_url", "https://api.github.com"),
    })
}

#[expect(clippy::unnecessary_wraps, reason = "other kinds may lack a key")]
fn gharchive(section: &Section<'_>) -> Option<SourceKind> {
    Some(SourceKind::Gharchive {
        base_url: url_or(section, "base_url", "https://data.gharchive.org"),
    })
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
    if url.path().len() > 1 {
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

fn source_tokens(section: &Section<'_>) -> Vec<SecretString> {
    let found = section.secrets("tokens");
    for token in &found {
        let text = token.value.expose_secret();
        if !is_unset(&token.value) && !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let hint = "only printable ASCII without spaces; check for line breaks";
            let what = "holds characters that no access token has";
            section.refuse(&token.place, "tokens", what, hint);
        }
    }
    found.into_iter().map(|found| found.value).collect()
}

/// Reads the GitHub App. Its installation has to be named unless it can be looked up.
pub(super) fn source_app(section: &Section<'_>, looked_up: Option<InstallationId>) -> Option<App> {
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
    let installation = installation.map(InstallationId::Known).or(looked_up);
    if installation.is_none() {
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
        installation: installation?,
    })
}

fn refuse_kind(section: &Section<'_>, found: &Found<String>) {
    let names = KINDS.map(|kind| kind.name);
    let hint = match nearest(&found.value, names) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("known here: {}", names.join(", ")),
    };
    let what = "this version knows no such kind of source";
    section.refuse(&found.place, "kind", what, &hint);
}

fn refuse_keys_of_others(section: &Section<'_>, kind: &str) {
    for other in KINDS.into_iter().filter(|other| other.name != kind) {
        for key in other.keys {
            let what = format!("does not go with kind = \"{kind}\"");
            let hint = format!("remove it; only {} has this key", other.name);
            section.forbid(key, &what, &hint);
        }
    }
}

pub(super) fn url_or(section: &Section<'_>, key: &'static str, default: &'static str) -> Url {
    base_url(section, key, default).unwrap_or_else(|| built_in(default))
}

fn source_scope(section: &Section<'_>) -> Scope {
    let example = r#""public", "org:NAME", "user:NAME" or "repo:OWNER/NAME""#;
    let Some(found) = section.text("scope", example) else {
        return Scope::Public;
    };
    Scope::parse(&found.value).unwrap_or_else(|| {
        let what = "is not a scope";
        section.refuse(&found.place, "scope", what, &format!("write {example}"));
        Scope::Public
    })
}

pub(super) fn source_token(section: &Section<'_>) -> Option<SecretString> {
    let found = section.optional_secret("token")?;
    // The token is sent in a header: anything else would fail at the first request, far from its cause.
    let mut bytes = found.value.expose_secret().bytes();
    if is_unset(&found.value) || bytes.all(|byte| byte.is_ascii_graphic()) {
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

/// Reads the user in whose name the token is presented.
pub(super) fn token_user(section: &Section<'_>) -> Option<String> {
    let found = section.text("user", r#""x-token-auth""#)?;
    // The colon would end it (RFC 7617, section 2).
    let is_plain = |c: char| c.is_ascii_graphic() && c != ':';
    if found.value.is_empty() || found.value.len() > 255 || !found.value.chars().all(is_plain) {
        section.refuse(
            &found.place,
            "user",
            "is no user's name",
            "up to 255 characters of printable ASCII without spaces and colons",
        );
    }
    if !section.has("token") {
        section.refuse(
            &found.place,
            "user",
            "is for a token, and there is none",
            "add token, or remove the user",
        );
    }
    Some(found.value)
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
