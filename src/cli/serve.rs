//! `rescind serve`

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use clap::Args;

use super::context::block_on;
use super::{Context, DONE, allocator, output};
use crate::clock::SystemClock;
use crate::config::{Config, Needs};
use crate::daemon::{Daemon, DaemonError, Ended, OtherSignals, Signals};
use crate::issuer::{IssuerFormats, Show};
use crate::keyformat::{FormatSet, KeyValue};

/// `rescind serve`
#[derive(Debug, Args)]
#[command(
    after_help = "The first start on an empty database prints an administrator's access token on standard output, once.
SIGTERM and SIGINT finish what is in flight and end with exit code 0; another one, a second
or more after the first, ends at once. Other signals are logged and ignored.

Examples:
  rescind serve
  RESCIND__SERVER__BIND=0.0.0.0:8787 rescind --log json serve"
)]
pub(super) struct ServeArgs {}

pub(super) fn run(context: &Context) -> anyhow::Result<ExitCode> {
    allocator::settle();
    let config = context.config(Needs::ALL)?;
    let formats = context.formats(&config)?;
    let issuer = config.issuer_formats(&formats)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    block_on(async {
        // First, so that a signal during the start ends it in order too.
        let signals = Signals::listen().context("cannot listen for signals")?;
        let others = OtherSignals::listen();
        tokio::select! {
            ended = serve(&config, formats, issuer, signals) => ended,
            never = others.ignore() => match never {},
        }
    })
}

/// Runs the daemon until a signal stops it.
async fn serve(
    config: &Config,
    formats: FormatSet,
    issuer: IssuerFormats,
    mut signals: Signals,
) -> anyhow::Result<ExitCode> {
    let is_first = AtomicBool::new(false);
    let show = |token: &KeyValue| {
        let shown = output::line(&format!("admin token (shown once): {}", token.expose()));
        is_first.store(true, Ordering::Relaxed);
        shown.map_err(|error| format!("{error:#}"))
    };
    let started = Daemon::start(
        config,
        formats,
        issuer,
        Arc::new(SystemClock),
        &mut signals,
        (!output::is_discarded()).then_some(&show as Show<'_>),
    );
    let daemon = match started.await {
        Err(DaemonError::Stopped(_)) => return Ok(DONE),
        started => started?,
    };
    if is_first.load(Ordering::Relaxed) {
        // The token was shown and is valid, whether or not anybody reads on. The log has the address, too.
        let _ = output::line(&format!("API: {}", daemon.url()));
    }
    match daemon.run(signals).await {
        Ended::Cleanly | Ended::InAHurry => Ok(DONE),
        Ended::TaskDied(name) => {
            bail!("the task `{name}` ended unexpectedly; the log says why")
        }
    }
}
