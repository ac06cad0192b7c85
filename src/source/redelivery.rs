//! Redelivery of failed webhook deliveries.
//!
//! GitHub never retries a delivery by itself, but lists the outcome of each delivery for 3 days and redelivers on
//! request. Each sweep reads the new entries in the lists of the configured webhooks, tracks the deliveries without a
//! successful attempt, and requests redelivery of each a bounded number of times, with exponential backoff.
//!
//! Source: <https://docs.github.com/en/rest/repos/webhooks#list-deliveries-for-a-repository-webhook> and
//! <https://docs.github.com/en/webhooks/using-webhooks/handling-failed-webhook-deliveries>. All attempts of a delivery
//! share one `guid`; each new attempt is a new entry with its own `id`.

mod hook;
mod list;
mod tracking;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use reqwest::Url;

use super::kept::Kept;
use super::state::{Frame, after, note_success};
use super::{PollError, PollFailure, PollOutcome, Source, SourceParts};
use crate::backoff::Backoff;
use crate::forge::Gathered;
use crate::github::{Api, Credential, GitHubError, Tokens};
use crate::store::SourceState;
pub use hook::Hook;
use list::MAX_PAGES;
use tracking::{Cursor, HookState, Pending, forget_old};

/// Minimum interval between two sweeps, unless a schedule decides.
const INTERVAL: Duration = Duration::from_mins(1);

/// Maximum number of redeliveries that one sweep requests.
const MAX_REQUESTS: u32 = 100;

/// Backoff between two requests for one delivery: the last request is 31 hours after the first.
const DISTANCE: Backoff = Backoff::new(Duration::from_mins(15), Duration::from_hours(32));

/// Backoff when the server throttles without saying for how long.
const SLOW_DOWN: Duration = Duration::from_mins(5);

/// Configuration of a source of the kind `github_redelivery`.
#[derive(Debug, Clone)]
pub struct RedeliveryOptions {
    /// Name of the source in the configuration.
    pub name: String,
    /// Webhooks whose deliveries are checked.
    pub hooks: Vec<Hook>,
    /// Base URL of the REST API, such as `https://api.github.com`.
    pub api_url: Url,
    /// Credentials, each with permission to list and redeliver the deliveries of all `hooks`.
    pub credentials: Vec<Credential>,
}

/// A source that finds failed deliveries and requests them again.
#[derive(Debug)]
pub struct Redelivery {
    frame: Frame,
    api: Api,
    /// Names of the webhooks, and the URLs of their lists of deliveries.
    hooks: Vec<(String, Url)>,
}

/// Summary of one sweep.
#[derive(Debug, Default)]
struct Sweep {
    listed: u64,
    malformed: u64,
    asked: u64,
    /// Number of deliveries that are no longer retried.
    lost: u64,
    /// Number of gaps whose deliveries are given up unread.
    skipped: u64,
    /// Webhooks that could not be read completely, each with the reason.
    wrong: Vec<String>,
    /// `true` if the server could not be reached, or failed, for one of those.
    is_outage: bool,
    /// Number of webhooks that were read.
    read: usize,
    /// Delay the server asked for, if any. The sweep ends there.
    wait: Option<Duration>,
}

/// Cause of a failed request.
enum Trouble {
    /// A failure of this webhook only; the sweep continues with the next one.
    Here(String),
    /// The server could not be reached, or failed; the sweep continues with the next webhook.
    Outage(String),
    /// The server throttles; no request may be sent for this long.
    Wait(Duration),
}

impl Sweep {
    /// Records that the server could not be asked, or failed, for a webhook.
    fn meet_outage(&mut self, name: &str, why: &str) {
        self.wrong.push(format!("{name}: {why}"));
        self.is_outage = true;
    }
}

impl Redelivery {
    /// Creates a source that is ready to be polled.
    ///
    /// # Errors
    /// Returns [`PollError::Api`] if `api_url` cannot be a base.
    pub fn new(options: RedeliveryOptions, parts: SourceParts) -> Result<Self, PollError> {
        let RedeliveryOptions {
            name,
            hooks,
            api_url,
            credentials,
        } = options;
        let tokens = Tokens::new(credentials);
        let clock = Arc::clone(&parts.clock);
        let api = Api::new(parts.client.clone(), api_url, clock, tokens)?;
        let hooks = hooks
            .iter()
            .map(|hook| (hook.to_string(), hook.deliveries(&api)));
        Ok(Self {
            hooks: hooks.collect(),
            api,
            frame: Frame::new(name, "github_redelivery", parts),
        })
    }

    async fn poll(&self) -> Result<PollOutcome, PollFailure> {
        let polled = self.sweep_and_commit().await;
        let pace = self.api.tokens.pace(self.frame.now());
        self.frame.ended(polled, pace, |_| {}).await
    }

    async fn sweep_and_commit(&self) -> Result<PollOutcome, PollError> {
        let mut state = self.frame.state().await?;
        let mut cursor = Kept::<Cursor>::load(&state.cursor, self.api.base());
        cursor
            .hooks
            .retain(|name, _| self.hooks.iter().any(|(known, _)| known == name));
        let now = self.frame.now();
        let mut sweep = Sweep::default();
        for (name, url) in &self.hooks {
            let state = cursor.hooks.entry(name.clone()).or_default();
            match self.look_at(name, url, state, &mut sweep).await {
                Ok(()) => sweep.read += 1,
                Err(Trouble::Here(why)) => sweep.wrong.push(format!("{name}: {why}")),
                Err(Trouble::Outage(why)) => sweep.meet_outage(name, &why),
                Err(Trouble::Wait(wait)) => {
                    sweep.wait = Some(wait);
                    break;
                }
            }
        }
        if sweep.read == 0 && sweep.wait.is_none() {
            return Err(PollError::Redelivery {
                why: sweep.wrong.join("; "),
                is_outage: sweep.is_outage,
            });
        }
        state.cursor = cursor.to_json();
        let next_after = self.frame.interval(INTERVAL);
        let next_after = next_after.max(sweep.wait.unwrap_or_default());
        let unread = cursor.hooks.iter().filter(|(_, of)| !of.gaps.is_empty());
        let unread: Vec<&str> = unread.map(|(name, _)| name.as_str()).collect();
        self.note(&mut state, &sweep, &unread, (now, next_after));
        let pending = cursor.hooks.values().map(|state| state.pending.len());
        let pending: usize = pending.sum();
        self.frame.commit(&mut state, Gathered::default()).await?;
        if sweep.asked + sweep.lost > 0 {
            let source = &self.frame.name;
            let (asked, lost) = (sweep.asked, sweep.lost);
            tracing::info!(%source, asked, lost, pending, "failed deliveries were requested again");
        }
        Ok(PollOutcome {
            next_after,
            events: sweep.listed,
            items: 0,
            malformed: sweep.malformed,
            gap: sweep.lost + sweep.skipped > 0,
            more: false,
        })
    }

    /// Records the outcome of a sweep. `unread` are the webhooks whose lists were longer than what was read.
    fn note(
        &self,
        state: &mut SourceState,
        sweep: &Sweep,
        unread: &[&str],
        (now, next_after): (Timestamp, Duration),
    ) {
        note_success(state, now, next_after);
        state.events += sweep.listed;
        state.malformed += sweep.malformed;
        state.repaired += sweep.asked;
        state.gaps += u64::from(sweep.lost > 0) + sweep.skipped;
        let mut wrong = sweep.wrong.clone();
        wrong.extend(self.api.tokens.complaint(now));
        if !unread.is_empty() {
            let unread = unread.join(", ");
            wrong.push(format!(
                "{unread}: more than {MAX_PAGES} pages of deliveries, the next sweep goes on with them"
            ));
        }
        let wrong = wrong.join("; ");
        state.error = (!wrong.is_empty()).then(|| self.frame.words(&wrong));
        let Sweep { lost, skipped, .. } = sweep;
        let lost = (*lost > 0).then(|| format!("{lost} deliveries could not be had again"));
        let skipped = (*skipped > 0).then(|| {
            let source = &self.frame.name;
            tracing::warn!(%source, skipped, "parts of a list of deliveries were skipped unread");
            format!("{skipped} parts of the list of deliveries were not looked at")
        });
        let unseen: Vec<String> = lost.into_iter().chain(skipped).collect();
        if !unseen.is_empty() {
            state.unseen = Some(format!("{} (as of {now:.0})", unseen.join(", ")));
        }
    }

    /// Reads the new deliveries of one webhook, and requests redelivery of those that failed.
    async fn look_at(
        &self,
        name: &str,
        url: &Url,
        state: &mut HookState,
        sweep: &mut Sweep,
    ) -> Result<(), Trouble> {
        let now = self.frame.now();
        let pages = self.read_new(url, state, sweep, now).await?;
        match self.read_gaps(url, state, sweep, (pages, now)).await {
            // A page that cannot be read must not keep what was read from being asked for, and stored.
            Err(Trouble::Outage(why)) => sweep.meet_outage(name, &why),
            Err(Trouble::Here(why)) => sweep.wrong.push(format!("{name}: {why}")),
            read => read?,
        }
        sweep.lost += forget_old(state, now);
        match self.ask_again(url, state, sweep, now).await {
            // The list was read. What was not asked for is due in the next sweep.
            Err(Trouble::Outage(why)) => sweep.meet_outage(name, &why),
            asked => asked?,
        }
        Ok(())
    }

    /// Requests redelivery of the deliveries that are due.
    async fn ask_again(
        &self,
        url: &Url,
        state: &mut HookState,
        sweep: &mut Sweep,
        now: Timestamp,
    ) -> Result<(), Trouble> {
        // Oldest first: they are the first to expire.
        let mut due: Vec<&mut Pending> = state.pending.values_mut().collect();
        due.retain(|pending| pending.next.is_none_or(|next| next <= now));
        due.sort_by_key(|pending| pending.at);
        let mut outage = None;
        for pending in due {
            if sweep.asked >= u64::from(MAX_REQUESTS) {
                break;
            }
            let mut url = url.clone();
            if let Ok(mut path) = url.path_segments_mut() {
                path.extend([&pending.id.to_string(), "attempts"]);
            }
            let asked = self.api.post(&url).await;
            // HTTP 5xx may be about this delivery alone, and must not keep the others from being asked for.
            let is_answered = matches!(asked, Err(GitHubError::Server { .. }));
            let refusal = match asked.map_err(|error| self.trouble(error)) {
                Ok(()) => None,
                Err(Trouble::Here(why)) => Some(why),
                Err(Trouble::Outage(why)) if is_answered => {
                    outage = Some(why);
                    continue;
                }
                Err(trouble) => return Err(trouble),
            };
            // A refusal counts as well: a delivery that is refused every time must not be requested forever.
            pending.next = after(now, DISTANCE.after(pending.tries));
            pending.tries += 1;
            match refusal {
                None => sweep.asked += 1,
                Some(why) => {
                    let source = &self.frame.name;
                    tracing::warn!(%source, delivery = pending.id, why, "a redelivery was refused");
                }
            }
        }
        outage.map_or(Ok(()), |why| Err(Trouble::Outage(why)))
    }

    /// Returns what a failed request means for the sweep.
    fn trouble(&self, error: GitHubError) -> Trouble {
        match error {
            GitHubError::RateLimited {
                retry_after: None, ..
            } => Trouble::Wait(SLOW_DOWN),
            // Until one of the tokens may be used again.
            GitHubError::RateLimited { .. } => {
                Trouble::Wait(self.api.tokens.wait(1, self.frame.now()))
            }
            GitHubError::Refused { status } => Trouble::Here(format!(
                "HTTP {status}: check the hook's number and what the token may do"
            )),
            error if error.is_outage() => Trouble::Outage(error.to_string()),
            error => Trouble::Here(error.to_string()),
        }
    }
}

impl Source for Redelivery {
    fn name(&self) -> &str {
        &self.frame.name
    }

    fn due_in(&self) -> BoxFuture<'_, Result<Option<Duration>, PollError>> {
        self.frame.due_in().boxed()
    }

    fn poll_once(&self) -> BoxFuture<'_, Result<PollOutcome, PollFailure>> {
        self.poll().boxed()
    }
}
