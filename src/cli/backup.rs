//! `rescind backup`

use std::cell::Cell;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::context::{Empty, block_on, open_store};
use super::{Context, DONE, UsageError, output};
use crate::config::Needs;

/// Size from which the progress is told where there is no terminal, in bytes.
const LARGE: u64 = 64 << 20;

/// `rescind backup`
#[derive(Debug, Args)]
#[command(
    after_help = "Copies a SQLite database while daemons and commands use it, and examines the copy: whether it is sound, and its log
complete. The file appears complete or not at all, and only its owner can read it. A database on PostgreSQL is
backed up with pg_dump; the message says how.

Exit codes: 0 done, 2 the file exists, 3 the backup could not be made.

Examples:
  rescind backup /var/backups/rescind.db
  rescind --config /etc/rescind/config.toml backup --force /mnt/backup/rescind.db"
)]
pub(super) struct BackupArgs {
    /// File to write
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &BackupArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.config(Needs::RECORDS)?;
    let file = &args.file;
    block_on(async {
        let store = open_store(&config, Empty::Refuse).await?;
        if store.is_new().await? {
            bail!("{} is empty: there is nothing to back up", store.place());
        }
        let is_itself = store.beside("").is_some_and(|database| {
            let whole = |path: &PathBuf| path.canonicalize().ok();
            whole(&database).is_some() && whole(&database) == whole(file)
        });
        if is_itself {
            let text = format!(
                "{} is the database itself: name another file",
                file.display()
            );
            return Err(UsageError(text).into());
        }
        let present = file.symlink_metadata().ok();
        if present.as_ref().is_some_and(|present| !present.is_file()) {
            let text = format!(
                "{} is no regular file, and a backup would take its place: name another file",
                file.display()
            );
            return Err(UsageError(text).into());
        }
        // On PostgreSQL the command is told whatever there is.
        if store.beside("").is_some() && present.is_some() && !args.force {
            let text = format!(
                "{} exists: name another file, or add --force",
                file.display()
            );
            return Err(UsageError(text).into());
        }
        let progress = Progress::default();
        let copying = store.back_up(file, |done, all| progress.tell(done, all));
        let made = tokio::select! {
            made = copying => made,
            // So that the unfinished copy is removed.
            _ = tokio::signal::ctrl_c() => bail!("interrupted: there is no backup"),
        };
        progress.bar.finish_and_clear();
        let contents = made?;
        if args.json {
            output::say_json(&json!({
                "file": file.display().to_string(),
                "keys": contents.keys,
                "log_entries": contents.head.seq,
            }))?;
        } else {
            output::say(&format!(
                "{}: {} keys, log up to entry {}; it was examined and is sound",
                file.display(),
                contents.keys,
                contents.head.seq
            ))?;
        }
        Ok(DONE)
    })
}

/// Progress on standard error: a bar on a terminal, and lines for what is large elsewhere.
struct Progress {
    bar: ProgressBar,
    told: Cell<u64>,
}

impl Default for Progress {
    fn default() -> Self {
        let bar = if io::stderr().is_terminal() {
            let style = "{bar:40} {percent}% {binary_bytes}/{binary_total_bytes}, {eta} left";
            let style = ProgressStyle::with_template(style);
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        } else {
            ProgressBar::hidden()
        };
        Self {
            bar,
            told: Cell::new(0),
        }
    }
}

impl Progress {
    fn tell(&self, done: u64, all: u64) {
        self.bar.set_length(all);
        self.bar.set_position(done.min(all));
        let tenth = done.saturating_mul(10) / all.max(1);
        if self.bar.is_hidden() && all >= LARGE && tenth > self.told.get() {
            self.told.set(tenth);
            let (done, all) = (done >> 20, all >> 20);
            output::note(&format!("{done} of about {all} MiB are copied"));
        }
    }
}
