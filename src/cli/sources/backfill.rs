//! `rescind sources backfill`

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::no_such_source;
use super::poll::scan;
use crate::cli::context::{Empty, Instance};
use crate::cli::output;
use crate::cli::{Context, DONE, UsageError};
use crate::config::SourceKind;
use crate::daemon::Standalone;
use crate::forge::redact_message;
use crate::source::{BackfillOutcome, Period, Progress};
use crate::store::Store;

/// Interval between progress lines without a terminal, in hours of the archive.
const TELL_EVERY: u64 = 24;

#[derive(Debug, Args)]
#[command(
    after_help = "Each hour of the period is read once: interrupted, the same command goes on where it stopped. What is found is read
when nothing more urgent waits. `rescind serve` may run meanwhile.

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
}

pub(super) async fn backfill(args: BackfillArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.config()?;
    let kinds = config.sources.iter();
    let archives = kinds.filter(|source| matches!(source.kind, SourceKind::Gharchive { .. }));
    let archives: Vec<String> = archives.map(|source| source.name.clone()).collect();
    if !archives.contains(&args.name) {
        return Err(no_such_archive(&args.name, &archives).into());
    }
    let instance = Instance::open(context, Empty::SetUp { init: false }).await?;
    let period = Period::parse(&args.from, &args.to, instance.now());
    let period = period.map_err(|error| UsageError(error.to_string()))?;
    let clock = Arc::clone(&instance.clock);
    let standalone = Standalone::new(&instance.config, instance.responder(), clock)?;
    let Some(archive) = standalone
        .source(&args.name)
        .and_then(|source| source.archive())
    else {
        return Err(no_such_archive(&args.name, &archives).into());
    };
    let bar = bar(period.hours());
    let mut told = 0;
    let mut tell = |progress: Progress| show(&bar, &progress, &mut told);
    let before = refused(&instance.store, &args.name).await?;
    let read = archive.backfill(period, args.force, &mut tell).await;
    bar.finish_and_clear();
    let refused = refused(&instance.store, &args.name).await?;
    match read {
        Ok(outcome) => print(&outcome, &args.name, refused.saturating_sub(before))?,
        Err(error) => {
            let error = error.to_string();
            let error = redact_message(&instance.redactor, &error);
            bail!(
                "the backfill of `{}` stopped: {error}; the same command goes on from there",
                args.name
            );
        }
    }
    if !args.no_scan {
        scan(&standalone, &instance.store).await?;
    }
    Ok(DONE)
}

/// Returns the number of a source's work items refused since it was set up.
async fn refused(store: &Store, name: &str) -> anyhow::Result<u64> {
    let work = store.source_work().await?;
    let mine = work.iter().find(|work| work.source == name);
    Ok(mine.map_or(0, |work| work.refused))
}

fn no_such_archive(name: &str, archives: &[String]) -> UsageError {
    if archives.is_empty() {
        return UsageError(
            "no source of the kind gharchive is configured; add one, for example\n\n  [[sources]]\n  name = \
             \"github-archive\"\n  kind = \"gharchive\""
                .to_owned(),
        );
    }
    no_such_source(name, archives.iter().map(String::as_str))
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
        events,
        items,
        ..
    } = progress;
    bar.set_position(*hours_done);
    bar.set_message(format!("{hour}: {events} events, {items} work items"));
    let is_due = *hours_done >= *told + TELL_EVERY || (hours_done == hours && *told < *hours);
    if bar.is_hidden() && is_due {
        *told = *hours_done;
        output::note(&format!(
            "{hours_done} of {hours} hours read: {events} events, {items} work items"
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
    output::line(&lines.join("\n"))
}
