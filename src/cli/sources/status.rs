//! `rescind sources status`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use super::{NOTHING_CONFIGURED, require_source, statuses};
use crate::cli::context::Records;
use crate::cli::output::{self, List, time};
use crate::cli::{Context, DONE};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Needs;
use crate::daemon::configured_sources;
use crate::server::api::sources::SourceView;
use crate::source::{SourceStatus, statuses_of};
use crate::store::{FailedTry, StoreError};

#[derive(Debug, Args)]
#[command(after_help = "States:
  ok       as it should be
  waiting  not polled yet, or a webhook that was not called yet
  failing  the last poll failed and is tried again, deliveries were not taken whole, items could not be read and are
           tried again, or were dead-lettered, and none was read since: the error says how many, why, and what to do
  behind   something waits for more than five minutes, or a poll is overdue: is `rescind serve` running? Or what is to
           be read waits for a host that cannot be reached or asked for a pause: the error says why and until when
  removed  not in the configuration any more

RETRYING counts those of the waiting items that could not be read so far; with NAME, the last reason is told.
LAG is the time from an event to the end of its scan, for the items scanned last.

Examples:
  rescind sources status
  rescind sources status github-public
  rescind sources status --json")]
pub(super) struct StatusArgs {
    /// One source, in detail
    name: Option<String>,
    /// Print one JSON object per line; with NAME, one object
    #[arg(long)]
    json: bool,
}

const HEADER: &[&str] = &[
    "NAME",
    "KIND",
    "STATE",
    "LAST POLL",
    "NEXT POLL",
    "LAG",
    "EVENTS",
    "ITEMS",
    "SCANNED",
    "WAITING",
    "RETRYING",
    "DEAD",
    "GAPS",
    "LIMIT LEFT",
    "ERROR",
];

pub(super) async fn status(args: StatusArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let all = read(context).await?;
    if let Some(name) = &args.name {
        require_source(name, &all)?;
        let found = all.into_iter().find(|status| status.name == *name);
        return match found {
            Some(status) => show(status, args.json),
            None => Ok(DONE),
        };
    }
    if all.is_empty() {
        output::note(NOTHING_CONFIGURED);
    }
    let mut list = List::new(HEADER, args.json);
    for status in all {
        let row = row(&status);
        list.add(&SourceView::of(status), &row)?;
    }
    list.finish()?;
    Ok(DONE)
}

/// Reads the status of all sources. Before the database exists, the configured ones are listed.
async fn read(context: &Context) -> anyhow::Result<Vec<SourceStatus>> {
    let error = match Records::open_for(context, Needs::SOURCES).await {
        Ok(records) => {
            note_unhunted(&records, context).await?;
            return statuses(&records).await;
        }
        Err(error) => error,
    };
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::Missing { .. } | StoreError::NotMigrated { found: 0, .. }) => {
            output::note("the database is not made yet: `rescind serve` makes it and polls");
            let configured = configured_sources(&context.config(Needs::SOURCES)?);
            let now = SystemClock.now();
            Ok(statuses_of(&configured, Vec::new(), Vec::new(), now))
        }
        _ => Err(error),
    }
}

/// Notes the valid keys that no source would find. Key formats that cannot be loaded are another command's matter.
async fn note_unhunted(records: &Records, context: &Context) -> anyhow::Result<()> {
    let Ok(formats) = context.formats(&records.config) else {
        return Ok(());
    };
    for group in records.store.unhunted(&formats, records.now()).await? {
        output::note(&group.told());
    }
    Ok(())
}

fn row(status: &SourceStatus) -> Vec<String> {
    let SourceStatus { polled, work, .. } = status;
    vec![
        status.name.clone(),
        or_dash(&status.kind),
        status.condition.name().to_owned(),
        time(polled.polled_at),
        time(status.next_poll_at),
        lag(status),
        polled.events.to_string(),
        polled.items.to_string(),
        work.done.scanned.to_string(),
        work.waiting.to_string(),
        work.retrying.to_string(),
        work.dead.to_string(),
        polled.gaps.to_string(),
        quota(status),
        polled.error.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

fn show(status: SourceStatus, json: bool) -> anyhow::Result<ExitCode> {
    let lines = lines(&status);
    output::show(json, &SourceView::of(status), &lines)?;
    Ok(DONE)
}

fn lines(status: &SourceStatus) -> Vec<(&'static str, String)> {
    let SourceStatus { polled, work, .. } = status;
    let mut lines = vec![
        ("name", status.name.clone()),
        ("kind", or_dash(&status.kind)),
        ("state", status.condition.name().to_owned()),
        ("last poll", time(polled.polled_at)),
        ("last success", time(polled.succeeded_at)),
        ("next poll", time(status.next_poll_at)),
        ("newest event", time(polled.newest_event_at)),
        ("last scan", time(work.scanned_at)),
        ("lag", lag(status)),
        ("waiting since", time(work.oldest_waiting_at)),
    ];
    let counts = [
        ("polls", polled.polls),
        ("events", polled.events),
        ("items", polled.items),
        ("texts", polled.texts),
        ("unknown types", polled.unknown),
        ("malformed", polled.malformed),
        ("gaps", polled.gaps),
        ("repaired", polled.repaired),
        ("scanned", work.done.scanned),
        ("blobs", work.done.blobs),
        ("known blobs", work.done.known_blobs),
        ("truncated", work.done.truncated),
        ("gone", work.done.gone),
        ("shed", work.shed),
        ("refused", work.refused),
        ("waiting", work.waiting),
        ("retrying", work.retrying),
        ("dead letters", work.dead),
    ];
    lines.extend(counts.map(|(name, count)| (name, count.to_string())));
    lines.push(("rate limit", quota(status)));
    lines.push(("limit resets", time(polled.rate_resets_at)));
    lines.extend(polled.error.clone().map(|error| ("last error", error)));
    let unread = work.last_unread.as_ref();
    lines.extend(unread.map(|(what, at)| ("last unread", format!("{what} ({at:.0})"))));
    let retry = work.last_retry.as_ref();
    lines.extend(retry.map(|last| ("last retry", tried(last))));
    lines.extend(polled.unseen.clone().map(|unseen| ("unseen", unseen)));
    if work.dead > 0 {
        let name = &status.name;
        lines.push(("hint", format!("`rescind sources dead {name}` lists what was dead-lettered, `rescind sources requeue --all {name}` tries it again")));
    }
    lines
}

fn tried(last: &FailedTry) -> String {
    match last.at {
        Some(at) => format!("{} ({at:.0})", last.what),
        None => format!("{} (tried again now)", last.what),
    }
}

fn or_dash(text: &str) -> String {
    match text {
        "" => "-".to_owned(),
        text => text.to_owned(),
    }
}

fn lag(status: &SourceStatus) -> String {
    status.work.lag.map_or_else(|| "-".to_owned(), span)
}

/// Formats a duration in its largest one or two units.
pub(super) fn span(length: Duration) -> String {
    let seconds = length.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0 => format!("{} ms", length.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

fn quota(status: &SourceStatus) -> String {
    let polled = &status.polled;
    match (polled.rate_remaining, polled.rate_limit) {
        (Some(left), Some(limit)) => format!("{left}/{limit}"),
        (Some(left), None) => left.to_string(),
        (None, _) => "-".to_owned(),
    }
}

/// Returns the time from `now` until `at`, or zero if that is in the past.
pub(super) fn until(at: Timestamp, now: Timestamp) -> Duration {
    let wait: SignedDuration = at.duration_since(now);
    Duration::try_from(wait).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (seconds, text) in [
            (1, "1 s"),
            (61, "1 min 1 s"),
            (3600, "1 h 0 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        assert_eq!(span(Duration::from_millis(340)), "340 ms");
    }
}
