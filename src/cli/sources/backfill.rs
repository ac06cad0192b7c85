//! `rescind sources backfill`

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::no_such_source;
use super::poll::{Worked, scan};
use crate::cli::context::{Empty, Instance};
use crate::cli::output;
use crate::cli::{COULD_NOT_RUN, Context, DONE, UsageError};
use crate::config::{Config, Needs, SourceKind};
use crate::daemon::{Standalone, configured_sources};
use crate::forge::redact_message;
use crate::source::{BackfillOutcome, Period, Progress};
use crate::store::{SourceWork, Store};

/// Interval between progress lines without a terminal, in hours of the archive.
const TELL_EVERY: u64 = 24;

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
#[derive(Debug, Args)]
#[command(
    after_help = "Each hour of the period is read once: interrupted, the same command goes on where it stopped. What is found is read
when nothing more urgent waits. `rescind serve` may run meanwhile. Exit code 3 when hours were not there or could not be
read to their end, or when work items of the source still wait, were dead-lettered or found no room (unless
--allow-incomplete).

Examples:
  rescind sources backfill github-archive --from 2026-01-01 --to 2026-01-08
  rescind sources backfill github-archive --from 2026-01-01T05:00:00Z --to 2026-01-01T08:00:00Z --no-scan"
)]
pub(super) struct BackfillArgs {
    /// Name of a source of the kind gharchive
    name: String,
    /// Start of the period: a day, or a time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    from: String,
    /// End of the period, exclusive
    #[arg(long, value_name = "TIME")]
    to: String,
    /// Only queue what is found; `rescind serve` scans it
    #[arg(long)]
    no_scan: bool,
    /// Also read hours that were read before
    #[arg(long)]
    force: bool,
    /// Exit with 0 instead of 3 if some hours or work items were not read to their end
    #[arg(long)]
    allow_incomplete: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn backfill(args: BackfillArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.config(Needs::POLLS)?;
    if let Some(refusal) = no_archive(&args.name, &config) {
        return Err(refusal.into());
    }
    let instance = Instance::open_for(context, Empty::SetUp { init: false }, Needs::POLLS).await?;
    let period = Period::parse(&args.from, &args.to, instance.now());
    let period = period.map_err(|error| UsageError(error.to_string()))?;
    let clock = Arc::clone(&instance.clock);
    let standalone = Standalone::new(&instance.config, instance.responder(), clock)?;
    let Some(archive) = standalone
        .source(&args.name)
        .and_then(|source| source.archive())
    else {
        bail!("the source `{}` has no archive", args.name);
    };
    let bar = bar(period.hours());
    let mut told = 0;
    let mut tell = |progress: Progress| show(&bar, &progress, &mut told);
    let before = work_of(&instance.store, &args.name).await?;
    let read = archive.backfill(period, args.force, &mut tell).await;
    bar.finish_and_clear();
    let after = work_of(&instance.store, &args.name).await?;
    let outcome = read.map_err(|error| {
        let error = redact_message(&instance.redactor, &error.to_string());
        anyhow::anyhow!(
            "the backfill of `{}` stopped: {error}; the same command goes on from there",
            args.name
        )
    })?;
    let refused = after.refused.saturating_sub(before.refused);
    if !args.json {
        print(&outcome, &args.name, refused)?;
    }
    let mut worked = None;
    let mut unread = refused;
    if !args.no_scan {
        worked = Some(scan(&standalone, &instance.store, args.json).await?);
        let after = work_of(&instance.store, &args.name).await?;
        note_left(&args.name, &after);
        unread += after.waiting + after.dead.saturating_sub(before.dead);
    }
    if args.json {
        output::say_json(&BackfillJson {
            source: &args.name,
            outcome: &outcome,
            refused,
            worked,
        })?;
    }
    Ok(ended(&outcome, unread, args.allow_incomplete))
}

/// Says how many of the source's work items still wait, and how to follow them.
fn note_left(name: &str, work: &SourceWork) {
    if work.waiting > 0 {
        output::note(&format!(
            "work items of `{name}` that still wait: {}; `rescind sources status {name}` says why, and `rescind serve` reads them, as \
             does the same command later",
            work.waiting
        ));
    }
}

/// Returns the exit code, which tells whether the whole period was read, and of what was found all but `unread` items.
fn ended(outcome: &BackfillOutcome, unread: u64, allow_incomplete: bool) -> ExitCode {
    let missing = outcome.missing.len() as u64;
    let is_whole = missing == 0 && outcome.incomplete.is_empty() && outcome.waits_for.is_none();
    if is_whole && unread == 0 || allow_incomplete {
        return DONE;
    }
    if outcome.hours > 0 && missing == outcome.hours {
        output::note(
            "the archive has none of these hours: check base_url, and whether the period is one that it covers",
        );
    } else {
        output::note(
            "not all of the period, or of what was found in it, was read (see above); with --allow-incomplete this is no failure",
        );
    }
    ExitCode::from(COULD_NOT_RUN)
}

/// Output of `rescind sources backfill --json`.
#[derive(Serialize)]
struct BackfillJson<'a> {
    source: &'a str,
    #[serde(flatten)]
    outcome: &'a BackfillOutcome,
    refused: u64,
    #[serde(flatten)]
    worked: Option<Worked>,
}

/// Returns what was done for a source since it was set up, and what is left.
async fn work_of(store: &Store, name: &str) -> anyhow::Result<SourceWork> {
    let work = store.source_work().await?;
    let mine = work.into_iter().find(|work| work.source == name);
    Ok(mine.unwrap_or_default())
}

/// Returns why a source has no past that could be read, or `None` if it is an archive.
fn no_archive(name: &str, config: &Config) -> Option<UsageError> {
    const EXAMPLE: &str = "\n\n  [[sources]]\n  name = \"github-archive\"\n  kind = \"gharchive\"";
    let archives = || {
        let sources = config.sources.iter();
        let archives = sources.filter(|source| matches!(source.kind, SourceKind::Gharchive { .. }));
        archives.map(|source| source.name.as_str())
    };
    let source = config.sources.iter().find(|source| source.name == name);
    let instead = || match archives().next() {
        Some(archive) => format!("backfill `{archive}` instead"),
        None => {
            format!("add an archive of GitHub's events and backfill that one, for example{EXAMPLE}")
        }
    };
    let refusal = match source.map(|source| &source.kind) {
        Some(SourceKind::Gharchive { .. }) => return None,
        Some(SourceKind::Git { .. }) => format!(
            "`{name}` is a git source, which has no archive: the repository itself is its past. `rescind sources poll \
             {name}` reads whatever is new in it now; for the whole history clone it and run `rescind scan --git --match \
             FOLDER`"
        ),
        Some(SourceKind::GithubEvents { .. }) => format!(
            "`{name}` is a feed, which shows only what is recent and has no archive; {}",
            instead()
        ),
        None if archives().next().is_none() && config.sources.is_empty() => {
            format!("no source of the kind gharchive is configured; add one, for example{EXAMPLE}")
        }
        None => {
            let configured = configured_sources(config);
            if configured.iter().any(|source| source.name == name) {
                format!(
                    "`{name}` is told of by its forge and has no archive; {}",
                    instead()
                )
            } else {
                return Some(no_such_source(
                    name,
                    config.sources.iter().map(|source| source.name.as_str()),
                ));
            }
        }
    };
    Some(UsageError(refusal))
}

fn bar(hours: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} hours, {eta} left · {msg}");
    ProgressBar::new(hours).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(bar: &ProgressBar, progress: &Progress, told: &mut u64) {
    let Progress {
        hour,
        hours_done,
        hours,
        missing,
        events,
        items,
        ..
    } = progress;
    bar.set_position(*hours_done);
    bar.set_message(format!("{hour}: {events} events, {items} work items"));
    let is_due = *hours_done >= *told + TELL_EVERY || (hours_done == hours && *told < *hours);
    if bar.is_hidden() && is_due {
        *told = *hours_done;
        let not_there = match missing {
            0 => String::new(),
            missing => format!(", {missing} not there"),
        };
        let read = hours_done - missing;
        output::note(&format!(
            "{read} of {hours} hours read{not_there}: {events} events, {items} work items"
        ));
    }
}

fn print(outcome: &BackfillOutcome, name: &str, refused: u64) -> anyhow::Result<()> {
    if outcome.was_finished {
        output::note("the period was read before; --force reads it again");
    }
    let mut lines = vec![
        format!("source         {name}"),
        format!("hours          {}", outcome.hours),
        format!("not there      {}", outcome.missing.len()),
        format!("events         {}", outcome.events),
        format!("work items     {}", outcome.items),
        format!("malformed      {}", outcome.malformed),
    ];
    if refused > 0 {
        lines.push(format!(
            "refused        {refused}: so many of their repositories wait already; they were not taken"
        ));
    }
    if !outcome.missing.is_empty() {
        lines.push(format!("missing        {}", outcome.missing.join(", ")));
    }
    if !outcome.incomplete.is_empty() {
        lines.push(format!("incomplete     {}", outcome.incomplete.join(", ")));
    }
    if let Some(hour) = &outcome.waits_for {
        lines.push(format!(
            "not yet there  {hour}: call the command again later, it goes on from this hour"
        ));
    }
    output::say(&lines.join("\n"))
}
