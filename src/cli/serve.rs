//! `rescind serve`

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;

use super::context::block_on;
use super::{Context, DONE, allocator, output};
use crate::clock::SystemClock;
use crate::daemon::{Daemon, DaemonError, Ended, Signals};

/// `rescind serve`
#[derive(Debug, Args)]
#[command(
    after_help = "The first start on an empty database prints an administrator's access token on standard output, once.
SIGTERM and SIGINT finish what is under way and end with exit code 0; another one, a second
or more after the first, ends at once.

Examples:
  rescind serve
  RESCIND__SERVER__BIND=0.0.0.0:8787 rescind --log json serve"
)]
pub(super) struct ServeArgs {}

pub(super) fn run(context: &Context) -> anyhow::Result<ExitCode> {
    allocator::settle();
    let config = context.config()?;
    let formats = context.formats(&config)?;
    let issuer = config.issuer_formats(&formats)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    block_on(async {
        // First, so that a signal during the start ends it in order too.
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        let started = Daemon::start(
            &config,
            formats,
            issuer,
            Arc::new(SystemClock),
            &mut signals,
        );
        let mut daemon = match started.await {
            Err(DaemonError::Stopped(_)) => return Ok(DONE),
            started => started?,
        };
        if let Some(token) = daemon.take_admin_token() {
            let shown = format!("admin token (shown once): {}", token.expose());
            let remedy = "make another token with `rescind tokens create --role admin`";
            output::once(&shown, remedy)?;
            output::line(&format!("API: {}", daemon.url()))?;
        }
        match daemon.run(signals).await {
            Ended::Cleanly | Ended::InAHurry => Ok(DONE),
            Ended::TaskDied(name) => {
                bail!("the task `{name}` ended unexpectedly; the log says why")
            }
        }
    })
}
