//! `rescind sources`: status of the sources, and actions by hand.

mod backfill;
mod dead;
mod poll;
mod status;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::context::{Instance, block_on};
use super::{Context, UsageError, output};
use crate::config::nearest;
use crate::daemon::configured_sources;
use crate::source::{ConfiguredSource, SourceStatus, source_statuses};
use crate::store::Unhunted;

/// `rescind sources`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rescind sources status
  rescind sources status github-public
  rescind sources poll github-public
  rescind sources backfill github-archive --from 2026-01-01 --to 2026-01-08
  rescind sources dead
  rescind sources requeue --all github-public")]
pub(super) struct SourcesArgs {
    #[command(subcommand)]
    command: SourcesCommand,
}

#[derive(Debug, Subcommand)]
enum SourcesCommand {
    /// Show the status of every source: state, lag, rate limit, gaps
    Status(status::StatusArgs),
    /// Poll one source now and scan what it finds
    Poll(poll::PollArgs),
    /// Read a period of an archive
    Backfill(backfill::BackfillArgs),
    /// List dead-lettered work items
    Dead(dead::DeadArgs),
    /// Put dead-lettered work items back into the queue
    Requeue(dead::RequeueArgs),
}

pub(super) fn run(args: SourcesArgs, context: &Context) -> anyhow::Result<ExitCode> {
    block_on(async {
        match args.command {
            SourcesCommand::Status(args) => status::status(args, context).await,
            SourcesCommand::Poll(args) => poll::poll(args, context).await,
            SourcesCommand::Backfill(args) => backfill::backfill(args, context).await,
            SourcesCommand::Dead(args) => dead::dead(args, context).await,
            SourcesCommand::Requeue(args) => dead::requeue(args, context).await,
        }
    })
}

/// Returns the status of every source that is configured or known to the database.
async fn statuses(instance: &Instance) -> anyhow::Result<Vec<SourceStatus>> {
    let unhunted = instance.store.unhunted(&instance.formats, instance.now());
    for group in unhunted.await? {
        output::note(&format!("not hunted: {group}; {}", Unhunted::REMEDY));
    }
    let configured = configured_sources(&instance.config);
    Ok(source_statuses(&instance.store, &configured, instance.now()).await?)
}

/// Returns an error that lists the known names, and suggests the one that was probably meant.
fn no_such_source<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> UsageError {
    let known: Vec<&str> = known.into_iter().collect();
    if known.is_empty() {
        return UsageError(NOTHING_CONFIGURED.to_owned());
    }
    let meant = nearest(name, known.iter().copied());
    let meant = meant.map_or_else(String::new, |name| format!("did you mean `{name}`? "));
    UsageError(format!(
        "there is no source `{name}`; {meant}known here: {}",
        known.join(", ")
    ))
}

/// Returns an error that says why nothing is polled under this name: it is a webhook, or unknown.
fn not_polled(name: &str, configured: &[ConfiguredSource]) -> UsageError {
    let names = |is_polled: bool| {
        let some = configured
            .iter()
            .filter(move |source| source.schedule.is_some() == is_polled);
        some.map(|source| source.name.as_str())
    };
    if names(false).any(|webhook| webhook == name) {
        return UsageError(format!(
            "`{name}` is a webhook and is not polled: its forge sends deliveries by itself; `rescind sources status \
             {name}` tells how it fares"
        ));
    }
    let webhooks: Vec<&str> = names(false).collect();
    if webhooks.is_empty() {
        return no_such_source(name, names(true));
    }
    let webhooks = webhooks.join(", ");
    if names(true).next().is_none() {
        return UsageError(format!(
            "there is no source `{name}`, nor any other that is polled; webhooks, which are not polled: {webhooks}"
        ));
    }
    let unknown = no_such_source(name, names(true));
    UsageError(format!(
        "{unknown}; webhooks, which are not polled: {webhooks}"
    ))
}

/// Checks that a source with this name exists.
fn require_source(name: &str, statuses: &[SourceStatus]) -> Result<(), UsageError> {
    let mut names = statuses.iter().map(|status| status.name.as_str());
    if names.any(|known| known == name) {
        return Ok(());
    }
    let names = statuses.iter().map(|status| status.name.as_str());
    Err(no_such_source(name, names))
}

/// Message printed if there is no source at all.
const NOTHING_CONFIGURED: &str =
    "no source and no webhook is configured; add one to the configuration, for example

  [[sources]]
  name = \"github-public\"
  kind = \"github_events\"

docs/sources.md tells which kinds there are";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_was_probably_meant() {
        let known = ["github-public", "acme"];
        let error = no_such_source("github-pubic", known).to_string();
        assert_eq!(
            error,
            "there is no source `github-pubic`; did you mean `github-public`? known here: github-public, acme"
        );
        assert!(!no_such_source("zzz", known).to_string().contains("did you"));
        let none = no_such_source("x", []).to_string();
        assert!(none.contains("[[sources]]"), "{none}");
    }
}
