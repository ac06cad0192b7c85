//! `rescind serve`

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use clap::Args;

use super::context::{InitArgs, block_on};
use super::{Context, DONE, allocator, first_token, output};
use crate::clock::SystemClock;
use crate::config::Needs;
use crate::daemon::{Daemon, DaemonError, Ended, Hangups, Loaded, OtherSignals, Signals};
use crate::keyformat::KeyValue;
use crate::scan::Redactor;
use crate::store::Store;

/// `rescind serve`
#[derive(Debug, Args)]
#[command(
    after_help = "The first start on an empty database makes an administrator's access token. It is printed once if standard output is
a terminal, and otherwise written to a file beside the data that only its owner can read; the log names it.
SIGHUP reads the configuration, the key formats and the files of secrets again: what is wrong with them is logged and
changes nothing. SIGTERM and SIGINT finish what is in flight and end with exit code 0; another one, a second or more after
the first, ends at once. Other signals are logged and ignored.

Examples:
  rescind serve
  RESCIND__SERVER__BIND=0.0.0.0:8787 rescind --log json serve"
)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    init: InitArgs,
}

pub(super) fn run(args: &ServeArgs, context: &Context) -> anyhow::Result<ExitCode> {
    allocator::settle();
    let loaded = load(context)?;
    for warning in &loaded.config.warnings {
        tracing::warn!("{warning}");
    }
    block_on(async {
        // First, so that a signal during the start ends it in order too.
        let signals = Signals::listen().context("cannot listen for signals")?;
        let hangups = Hangups::listen().context("cannot listen for signals")?;
        let others = OtherSignals::listen();
        tokio::select! {
            ended = serve(args, context, loaded, signals, hangups) => ended,
            never = others.ignore() => match never {},
        }
    })
}

/// Reads the configuration and the key formats.
fn load(context: &Context) -> anyhow::Result<Loaded> {
    let config = context.config(Needs::ALL)?;
    let formats = context.formats(&config)?;
    let minting = config.issuer_formats(&formats)?;
    Ok(Loaded {
        config,
        formats,
        minting,
    })
}

/// Reads them again, for a daemon that goes on whatever is wrong with them.
fn load_again(context: &Context, known: &Redactor) -> Result<Loaded, String> {
    load(context).map_err(|error| known.redact(&format!("{error:#}")).into_owned())
}

/// Runs the daemon until a signal stops it.
async fn serve(
    args: &ServeArgs,
    context: &Context,
    loaded: Loaded,
    mut signals: Signals,
    hangups: Hangups,
) -> anyhow::Result<ExitCode> {
    let is_first = AtomicBool::new(false);
    let show = |token: &KeyValue, store: &Store| {
        first_token::show(context, token, store)?;
        is_first.store(io::stdout().is_terminal(), Ordering::Relaxed);
        Ok(())
    };
    // A key in a wrong place of the file must not be repeated.
    let redactor = Redactor::new(&loaded.formats);
    let clock = Arc::new(SystemClock);
    let started = Daemon::start(loaded, args.init.init, clock, &mut signals, &show);
    let daemon = match Box::pin(started).await {
        Err(DaemonError::Stopped(_)) => return Ok(DONE),
        started => started?,
    };
    if is_first.load(Ordering::Relaxed) {
        // The token was shown and is valid, whether or not anybody reads on. The log has the address, too.
        let _ = output::line(&format!("API: {}", daemon.url()));
    }
    let again = context.clone();
    let load = Arc::new(move || load_again(&again, &redactor));
    match daemon.run(signals, hangups, load).await {
        Ended::Cleanly | Ended::InAHurry => Ok(DONE),
        Ended::TaskDied(name) => {
            bail!("the task `{name}` ended unexpectedly; the log says why")
        }
    }
}
