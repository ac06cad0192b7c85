//! `[[sources]]`: what is polled.

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::{base_url, required};
use crate::config::cron::CronSchedule;
use crate::config::problem::nearest;
use crate::config::read::Section;

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

pub(super) fn sources(sections: Vec<Section<'_>>) -> Vec<Source> {
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

pub(super) fn scope(text: &str) -> Option<Scope> {
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

pub(super) fn source_token(section: &Section<'_>) -> Option<SecretString> {
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
