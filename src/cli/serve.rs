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
use crate::config::{Config, Needs};
use crate::daemon::{Daemon, DaemonError, Ended, Hangups, Loaded, OtherSignals, Signals, deliver};
use crate::keyformat::{FormatSet, KeyValue};
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
    block_on(async {
        // Before anything that takes a while. What was held back until here comes now: an early SIGHUP has the
        // configuration read again.
        let hangups = Hangups::listen().context("cannot listen for signals")?;
        let others = OtherSignals::listen();
        deliver().context("cannot listen for signals")?;
        // Nothing runs yet that this could keep waiting. SIGTERM ends it: a pipe may have no writer.
        let loaded = load(context, None)?;
        for warning in &loaded.config.warnings {
            tracing::warn!("{warning}");
        }
        // So that a signal during the start ends it in order, too.
        let signals = Signals::listen().context("cannot listen for signals")?;
        tokio::select! {
            ended = serve(args, context, loaded, signals, hangups) => ended,
            never = others.ignore() => match never {},
        }
    })
}

/// Reads the configuration and the key formats, again if some are in force.
fn load(context: &Context, in_force: Option<&Config>) -> anyhow::Result<Loaded> {
    let config = match in_force {
        Some(config) => {
            let path = context.config_path.as_deref();
            config.load_again(path, &context.environment, Needs::ALL)?
        }
        None => context.config(Needs::ALL)?,
    };
    let formats = context.formats(&config)?;
    let minting = config.issuer_formats(&formats)?;
    Ok(Loaded {
        config,
        formats,
        minting,
    })
}

/// Reads them again, for a daemon that goes on whatever is wrong with them. A key in a wrong place of a file must not be
/// repeated: one of a format in force, of one that `first` had, or of one that is about to be.
fn load_again(context: &Context, first: &FormatSet, in_force: &Loaded) -> Result<Loaded, String> {
    load(context, Some(&in_force.config)).map_err(|error| {
        let path = context.config_path.as_deref();
        let next = Config::formats_of_messages(path, &context.environment);
        let mut known = vec![first, &in_force.formats, &next];
        let named = in_force.config.load_formats();
        known.extend(named.as_ref().ok());
        known
            .into_iter()
            .fold(format!("{error:#}"), |text, formats| {
                Redactor::new(formats).redact(&text).into_owned()
            })
    })
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
    let first = loaded.formats.clone();
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
    let load = Arc::new(move |in_force: &Loaded| load_again(&again, &first, in_force));
    match daemon.run(signals, hangups, load).await {
        Ended::Cleanly | Ended::InAHurry => Ok(DONE),
        Ended::TaskDied(name) => {
            bail!("the task `{name}` ended unexpectedly; the log says why")
        }
    }
}
