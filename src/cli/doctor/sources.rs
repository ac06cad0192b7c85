//! Checks that the API of a source answers and accepts its tokens, with one request for one event, and that a repository
//! can be listed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::header::{ACCEPT, HeaderMap};
use reqwest::{Client, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::IgnoredAny;

use super::ask::{Answer, Probe, ask};
use super::{Check, in_time};
use crate::clock::{SharedClock, SystemClock};
use crate::config::{Config, Source, SourceKind, without_slash};
use crate::daemon::{app_installation, token_of_source};
use crate::fetch::{FetchError, FetchLimits, GitFetcher, Token, wait_of};
use crate::github::GitHubError;
use crate::source::{PollError, Scope, TOO_MANY_REFERENCES, repository_at};

/// Queries the server of a source; an API of events once per token.
pub(super) async fn probes(config: &Config, source: &Source, http: &Client) -> Vec<Probe> {
    let name = format!("source {}", source.name);
    match &source.kind {
        SourceKind::GithubEvents { scope, api_url } => {
            let feed = Feed {
                scope,
                api_url,
                http,
            };
            feed.probes(&name, source).await
        }
        SourceKind::Gharchive { base_url } => {
            vec![answers(name, "base_url", base_url, http).await]
        }
        SourceKind::Git { url } => {
            let token = token_of_source(config, source);
            vec![repository(name, url, token.as_ref(), http).await]
        }
    }
}

/// Feed of events.
struct Feed<'s> {
    scope: &'s Scope,
    api_url: &'s Url,
    http: &'s Client,
}

impl Feed<'_> {
    /// Returns a probe for the app's installation and one for each token, or one without credentials if there are
    /// none.
    async fn probes(&self, name: &str, source: &Source) -> Vec<Probe> {
        let mut probes = Vec::new();
        let mut tokens = Vec::new();
        match installation_token(source, self.http).await {
            Ok(token) => tokens.extend(token),
            Err(why) => {
                let mend = "check the app's id, private key, installation and permissions";
                probes.push(Probe::new(Check::failed(name.to_owned(), why, mend), None));
            }
        }
        tokens.extend(source.token.iter().chain(&source.tokens).cloned());
        if tokens.is_empty() && probes.is_empty() {
            return vec![self.probe(name.to_owned(), None).await];
        }
        let asked = tokens.iter().enumerate().map(|(index, token)| {
            let name = match index {
                0 => name.to_owned(),
                _ => format!("{name}, token {}", index + 1),
            };
            self.probe(name, Some(token))
        });
        probes.extend(join_all(asked).await);
        probes
    }

    async fn probe(&self, name: String, token: Option<&SecretString>) -> Probe {
        let feed = feed(self.scope, self.api_url);
        let request = |url: Url| {
            let request = self
                .http
                .get(url)
                .header(ACCEPT, "application/vnd.github+json");
            match token {
                Some(token) => request.bearer_auth(token.expose_secret()),
                None => request,
            }
        };
        match ask(&feed, true, request).await {
            Ok(mut answer) => {
                let clock = answer.clock.take();
                let check = judge(name, self.scope, token.is_some(), &answer);
                Probe::new(check, clock)
            }
            Err(why) => unreachable(name, "api_url", self.api_url, &why),
        }
    }
}

/// Returns a token of the source's app installation, or `None` if it has none.
async fn installation_token(
    source: &Source,
    http: &Client,
) -> Result<Option<SecretString>, String> {
    let clock: SharedClock = Arc::new(SystemClock);
    let installation = app_installation(source, http, &clock).map_err(|error| error.to_string())?;
    let Some(installation) = installation else {
        return Ok(None);
    };
    match in_time(installation.token()).await {
        Some(token) => token.map(Some).map_err(|error| error.to_string()),
        None => Err("its app got no token within 10 s".to_owned()),
    }
}

/// Checks that a server answers. Any status below 500 will do.
async fn answers(name: String, key: &str, url: &Url, http: &Client) -> Probe {
    match ask(url, false, |url| http.get(url)).await {
        Ok(answer) if answer.status < 500 => Probe::new(Check::ok(name, "reachable"), answer.clock),
        Ok(answer) => {
            let message = format!("it answers HTTP {}", answer.status);
            let mend = format!("try again later; if it stays so, check the source's {key}");
            Probe::new(Check::failed(name, message, mend), answer.clock)
        }
        Err(why) => unreachable(name, key, url, &why),
    }
}

/// Checks a repository as polling does: its branches and tags can be listed.
async fn repository(name: String, url: &Url, token: Option<&Token>, http: &Client) -> Probe {
    let listed = async {
        repository_at(url)?;
        let fetcher = GitFetcher::new(http.clone(), FetchLimits::default());
        let listed = fetcher.references(url, token).await;
        let listed = listed.map_err(PollError::Remote)?;
        if listed.cut {
            return Err(PollError::TooMuch(TOO_MANY_REFERENCES));
        }
        Ok(listed.list.len())
    };
    let error = match in_time(listed).await {
        Some(Ok(count)) => {
            let message = format!("reachable, and may be read: {count} branches and tags");
            return Probe::new(Check::ok(name, message), None);
        }
        Some(Err(error)) => error,
        None => return unreachable(name, "url", url, "no answer within 10 s"),
    };
    let message = error.to_string();
    let check = match error {
        PollError::Remote(
            error @ (FetchError::Unreachable(_)
            | FetchError::Unanswered(_)
            | FetchError::Network(_)
            | FetchError::Stalled { .. }),
        ) => return unreachable(name, "url", url, &error.to_string()),
        PollError::Remote(FetchError::Unauthorized { status }) => {
            let message = format!("the server refuses access (HTTP {status})");
            let mend = "check the source's token and user, and what it may read";
            Check::failed(name, message, mend)
        }
        PollError::Remote(FetchError::Gone { status }) => {
            let message =
                format!("there is no such repository (HTTP {status}), or it is not shown");
            let mend = "check the source's url; of a private repository, its token";
            Check::failed(name, message, mend)
        }
        PollError::Api(GitHubError::Address(_)) => {
            Check::misconfigured(name, message, "correct the source's url")
        }
        PollError::TooMuch(_) => {
            let mend = "remove branches and tags, or watch the repository by a webhook";
            Check::failed(name, message, mend)
        }
        _ => {
            let mend = "try again later; if it stays so, check the source's url";
            Check::failed(name, message, mend)
        }
    };
    Probe::new(check, None)
}

fn unreachable(name: String, key: &str, url: &Url, why: &str) -> Probe {
    let url = without_slash(url);
    let message = format!("{url} cannot be reached: {why}");
    let mend = format!(
        "check {key}, and that this machine may reach it: DNS, proxy, firewall, certificates"
    );
    Probe::new(Check::failed(name, message, mend), None)
}

/// Returns the address of the feed's newest event.
fn feed(scope: &Scope, api_url: &Url) -> Url {
    let mut url = below(api_url, &[&scope.path()[..], &["events"]].concat());
    url.set_query(Some("per_page=1"));
    url
}

/// Returns the URL with these segments added to its path.
fn below(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    url.path_segments_mut()
        .expect("an HTTP URL has a path")
        .pop_if_empty()
        .extend(segments);
    url
}

fn judge(name: String, scope: &Scope, with_token: bool, answer: &Answer) -> Check {
    let Answer {
        status,
        headers,
        body,
        ..
    } = answer;
    let limited = wait_of(headers);
    match (status, limited) {
        (200, _) if serde_json::from_slice::<Vec<IgnoredAny>>(body).is_ok() => {
            Check::ok(name, fine(with_token, headers))
        }
        (200, _) => {
            let mend = "check the source's api_url";
            Check::failed(name, "what its API sends is no list of events", mend)
        }
        (429, wait) => limit(name, wait, with_token),
        (403, Some(wait)) => limit(name, Some(wait), with_token),
        (401, _) if with_token => {
            let mend = "renew the source's token";
            Check::failed(
                name,
                "its API refuses the token (HTTP 401): it is wrong or has expired",
                mend,
            )
        }
        (401, _) => {
            let mend = "give the source a token";
            Check::failed(name, "its API wants a token (HTTP 401)", mend)
        }
        (403, _) => {
            let mend = "check what the token may read, and the source's scope";
            Check::failed(name, "its API refuses access (HTTP 403)", mend)
        }
        (404, _) => {
            let message = format!("its API knows no {scope} (HTTP 404), or does not show it");
            Check::failed(name, message, "check the source's scope, api_url and token")
        }
        (status, _) => {
            let mend = "try again later; if it stays so, check the source's api_url";
            Check::failed(name, format!("its API answers HTTP {status}"), mend)
        }
    }
}

fn fine(with_token: bool, headers: &HeaderMap) -> String {
    let number = |name| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let token = if with_token {
        "reachable, the token is accepted"
    } else {
        "reachable, without a token"
    };
    let left = number("x-ratelimit-remaining");
    match left.zip(number("x-ratelimit-limit")) {
        Some((left, limit)) => format!("{token}, {left} of {limit} requests left"),
        None => token.to_owned(),
    }
}

fn limit(name: String, wait: Option<Duration>, with_token: bool) -> Check {
    let wait = wait.map_or_else(String::new, |wait| format!(" for {} s", wait.as_secs()));
    let message = format!("reachable, but its rate limit is used up{wait}");
    let mend = if with_token {
        "wait, or find out who else uses the token"
    } else {
        "give the source a token: it raises the limit"
    };
    Check::warning(name, message, mend)
}
