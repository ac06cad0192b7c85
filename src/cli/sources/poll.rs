//! `rescind sources poll`

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde::Serialize;

use super::not_polled;
use super::status::{span, until};
use crate::cli::context::{Empty, Instance};
use crate::cli::output::{self, time};
use crate::cli::{Context, DONE};
use crate::config::Needs;
use crate::daemon::{Standalone, configured_sources};
use crate::forge::{is_polled, redact_message};
use crate::github::GitHubError;
use crate::scan::visible;
use crate::source::{PollError, PollOutcome};
use crate::store::{Action, LogHead, Reason, SourceState, Store, WorkCounts};

/// Interval between progress updates.
const TICK: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
#[command(
    after_help = "The schedule is ignored, a rate limit that the server told of is not. `rescind serve` may run meanwhile: what both
see is scanned once. Interrupted, the command can be called again: nothing is lost, and items in flight go back to
the queue within 30 seconds.

Examples:
  rescind sources poll github-public
  rescind sources poll github-public --no-scan"
)]
pub(super) struct PollArgs {
    /// Name of the source in the configuration
    name: String,
    /// Only queue what is new; `rescind serve` scans it
    #[arg(long)]
    no_scan: bool,
    /// Poll even if the server asked to wait
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn poll(args: PollArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let needs = needs_of(&args.name);
    let config = context.config(needs)?;
    let configured = configured_sources(&config);
    let mut polled = configured.iter().filter(|source| source.schedule.is_some());
    if !polled.any(|source| source.name == args.name) {
        return Err(not_polled(&args.name, &configured).into());
    }
    let instance = Instance::open_for(context, Empty::SetUp { init: false }, needs).await?;
    let clock = Arc::clone(&instance.clock);
    let standalone = Standalone::new(&instance.config, instance.responder(), clock)?;
    let Some(source) = standalone.source(&args.name) else {
        return Err(not_polled(&args.name, &configured).into());
    };
    let before = instance
        .store
        .load_source(&args.name)
        .await?
        .unwrap_or_default();
    heed(&before, args.force, instance.now())?;
    let log = instance.store.log_head().await?;
    let polled = source.poll_once().await;
    let after = instance
        .store
        .load_source(&args.name)
        .await?
        .unwrap_or_default();
    let outcome = polled.map_err(|failure| {
        let error = redact_message(&instance.redactor, &failure.error.to_string());
        anyhow::anyhow!("the poll of `{}` failed: {error}", args.name)
    })?;
    let found = PollJson::new(&args.name, &outcome, &before, &after);
    if !args.json {
        tell(&found)?;
    }
    let mut worked = None;
    if !args.no_scan {
        worked = Some(scan(&standalone, &instance.store, args.json).await?);
    }
    let revoked = revoked_since(&instance.store, &log).await?;
    if args.json {
        output::say_json(&PollJson {
            worked,
            keys_revoked: Some(revoked),
            ..found
        })?;
    } else {
        output::say(&format!("keys revoked   {revoked}"))?;
    }
    Ok(DONE)
}

/// Returns what polling this source takes. No name of a `[[sources]]` has a colon, but that of the search for failed
/// deliveries does.
fn needs_of(name: &str) -> Needs {
    if name.contains(':') {
        Needs::REDELIVERS
    } else {
        Needs::POLLS
    }
}

/// Decides whether to poll before the next poll is due. A rate limit is respected unless `force` is set; an
/// interval is only reported.
///
/// # Errors
/// Returns an error if the rate limit is exhausted and `force` is not set.
fn heed(state: &SourceState, force: bool, now: Timestamp) -> anyhow::Result<()> {
    let at = |at: Timestamp| format!("{} ({})", time(Some(at)), span(until(at, now)));
    if let Some(end) = limited_until(state, now) {
        if !force {
            bail!(
                "the server's rate limit is used up until {}; wait, or poll all the same with --force",
                at(end)
            );
        }
        output::note(&format!(
            "the server's rate limit is used up until {}; polling all the same",
            at(end)
        ));
    } else if let Some(next) = state.next_poll_at.filter(|next| *next > now) {
        output::note(&format!(
            "the next poll is not due before {}; polling all the same",
            at(next)
        ));
    }
    Ok(())
}

/// Returns the time until which the server refuses requests, as far as it is known.
fn limited_until(state: &SourceState, now: Timestamp) -> Option<Timestamp> {
    let used_up = state.rate_remaining == Some(0);
    let resets_at = state.rate_resets_at.filter(|_| used_up);
    let was_refused = |error: &String| {
        let mut refusals = [403, 429].into_iter().map(|status| {
            PollError::Api(GitHubError::RateLimited {
                status,
                retry_after: None,
            })
        });
        refusals.any(|refusal| refusal.to_string() == *error)
    };
    let refused = state.error.as_ref().is_some_and(was_refused);
    let again_at = state.next_poll_at.filter(|_| refused);
    resets_at.max(again_at).filter(|end| *end > now)
}

/// Output of `rescind sources poll --json`.
#[derive(Serialize)]
struct PollJson<'a> {
    source: &'a str,
    new_events: u64,
    work_items: u64,
    texts: u64,
    unknown_types: u64,
    malformed: u64,
    gap: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_poll_at: Option<Timestamp>,
    /// Reason for which not all of it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(flatten)]
    worked: Option<Worked>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys_revoked: Option<u64>,
}

impl<'a> PollJson<'a> {
    fn new(
        source: &'a str,
        outcome: &PollOutcome,
        before: &SourceState,
        after: &'a SourceState,
    ) -> Self {
        let more = |count: fn(&SourceState) -> u64| count(after).saturating_sub(count(before));
        Self {
            source,
            new_events: outcome.events,
            work_items: outcome.items,
            texts: more(|state| state.texts),
            unknown_types: more(|state| state.unknown),
            malformed: outcome.malformed,
            gap: outcome.gap,
            next_poll_at: after.next_poll_at,
            error: after.error.as_deref(),
            worked: None,
            keys_revoked: None,
        }
    }
}

/// Prints the result of a poll.
fn tell(found: &PollJson<'_>) -> anyhow::Result<()> {
    let gap = if found.gap {
        "yes: events between this poll and the one before may have been missed"
    } else {
        "no"
    };
    let mut lines = vec![
        ("source", found.source.to_owned()),
        ("new events", found.new_events.to_string()),
        ("work items", found.work_items.to_string()),
        ("texts", found.texts.to_string()),
        ("malformed", found.malformed.to_string()),
        ("gap", gap.to_owned()),
        ("next poll", time(found.next_poll_at)),
    ];
    if found.unknown_types > 0 {
        lines.insert(4, ("unknown types", found.unknown_types.to_string()));
    }
    lines.extend(found.error.map(|error| ("not all", error.to_owned())));
    let lines: Vec<String> = lines
        .iter()
        .map(|(name, value)| format!("{name:13}  {}", visible(value)))
        .collect();
    output::say(&lines.join("\n"))
}

/// Outcome of the work on the queue.
#[derive(Serialize)]
pub(super) struct Worked {
    items_scanned: u64,
    items_waiting: u64,
    dead_lettered: u64,
}

/// Works off the queue and prints the result, unless that is `quiet`.
pub(super) async fn scan(
    standalone: &Standalone,
    store: &Store,
    quiet: bool,
) -> anyhow::Result<Worked> {
    let before = store.work_counts().await?;
    let bar = if io::stderr().is_terminal() {
        ProgressBar::new_spinner()
    } else {
        ProgressBar::hidden()
    };
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    let worked = {
        let work = standalone.worker().drain();
        tokio::pin!(work);
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                worked = &mut work => break worked,
                _ = ticks.tick(), if !bar.is_hidden() => show(&bar, store, &before).await,
            }
        }
    };
    bar.finish_and_clear();
    worked?;
    let after = store.work_counts().await?;
    let worked = Worked {
        items_scanned: after.done.saturating_sub(before.done),
        items_waiting: after.waiting + after.leased,
        dead_lettered: after.dead.saturating_sub(before.dead),
    };
    if quiet {
        return Ok(worked);
    }
    let mut lines = vec![format!("items scanned  {}", worked.items_scanned)];
    if worked.items_waiting > 0 {
        lines.push(format!(
            "items waiting  {} (tried again later, or read by another process; `rescind sources status` says why)",
            worked.items_waiting
        ));
    }
    if worked.dead_lettered > 0 {
        lines.push(format!(
            "dead-lettered  {} (`rescind sources dead` lists them)",
            worked.dead_lettered
        ));
    }
    output::say(&lines.join("\n"))?;
    Ok(worked)
}

async fn show(bar: &ProgressBar, store: &Store, before: &WorkCounts) {
    bar.tick();
    // This is only the display; the worker reports problems of the database.
    if let Ok(now) = store.work_counts().await {
        let done = now.done.saturating_sub(before.done);
        let WorkCounts {
            waiting, leased, ..
        } = now;
        bar.set_message(format!(
            "{done} scanned, {leased} in flight, {waiting} waiting"
        ));
    }
}

/// Returns the number of leaked keys that sources had revoked after this head of the log.
async fn revoked_since(store: &Store, head: &LogHead) -> anyhow::Result<u64> {
    let mut revoked = 0;
    let mut last = head.seq;
    loop {
        let entries = store.log_after(last, 1000).await?;
        let Some(end) = entries.last() else {
            return Ok(revoked);
        };
        last = end.seq;
        let ours = entries.iter().filter(|entry| {
            entry.action == Action::Revoked
                && entry.reason == Reason::Leaked
                && is_polled(&entry.actor)
        });
        revoked += ours.count() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limit_is_heeded_and_an_interval_is_not() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let later: Timestamp = "2026-11-22T12:30:00Z".parse().unwrap();
        let state = |remaining, error: Option<&str>| SourceState {
            next_poll_at: Some(later),
            rate_remaining: remaining,
            rate_resets_at: Some(later),
            error: error.map(str::to_owned),
            ..SourceState::default()
        };
        assert!(heed(&state(Some(10), None), false, now).is_ok());
        assert!(heed(&state(Some(10), Some("HTTP 500")), false, now).is_ok());
        assert!(heed(&state(Some(0), None), false, later).is_ok());
        let asked = PollError::Api(GitHubError::RateLimited {
            status: 429,
            retry_after: None,
        });
        for limited in [
            state(Some(0), None),
            state(Some(10), Some(&asked.to_string())),
        ] {
            let refused = heed(&limited, false, now).unwrap_err().to_string();
            assert!(
                refused.contains("2026-11-22T12:30:00Z (30 min 0 s)"),
                "{refused}"
            );
            assert!(heed(&limited, true, now).is_ok());
        }
    }
}
