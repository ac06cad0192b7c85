//! `rescind backup`

use std::cell::Cell;
use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::context::{Empty, block_on, open_store};
use super::file::PrivateFile;
use super::kept::Kept;
use super::{Context, DONE, UsageError, output};
use crate::config::Needs;
use crate::store::{check_has_no_log, check_unused, left_beside};

/// Size from which the progress is told where there is no terminal, in bytes.
const LARGE: u64 = 64 << 20;

/// `rescind backup`
#[derive(Debug, Args)]
#[command(
    after_help = "Copies a SQLite database while daemons and commands use it, and examines the copy: whether it is sound, and its log
complete. The file appears complete or not at all, and it is a backup without any other file: what another database left
beside it, such as FILE-wal, has to go. Only its owner can read a new one; one that replaces another has the owner, the
group and the mode of that one, without rights of everybody. A database on PostgreSQL is backed up with
pg_dump; the message says how.

Exit codes: 0 done, 2 the file exists or cannot be written, 3 the backup could not be made.

Examples:
  rescind backup /var/backups/rescind.db
  rescind --config /etc/rescind/config.toml backup --force /mnt/backup/rescind.db"
)]
pub(super) struct BackupArgs {
    /// File to write
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the file if it exists, and remove what another database left beside it
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &BackupArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.config(Needs::RECORDS)?;
    let path = &args.file;
    block_on(async {
        let store = open_store(&config, Empty::Refuse).await?;
        if store.is_new().await? {
            bail!("{} is empty: there is nothing to back up", store.place());
        }
        store.check_is_a_file(path)?;
        let file = PrivateFile::create(path, &Kept::of(context))?;
        check_free(path, file.target(), args.force)?;
        let progress = Progress::default();
        let copying = store.back_up(file.temporary(), |done, all| progress.tell(done, all));
        let made = copying.await;
        progress.bar.finish_and_clear();
        let contents = made?;
        put_in_place(path, file, args.force)?;
        if args.json {
            output::say_json(&json!({
                "file": path.display().to_string(),
                "keys": contents.keys,
                "log_entries": contents.head.seq,
            }))?;
        } else {
            output::say(&format!(
                "{}: {} keys, log up to entry {}; it was examined and is sound",
                path.display(),
                contents.keys,
                contents.head.seq
            ))?;
        }
        Ok(DONE)
    })
}

/// Checks that nothing is lost if a backup takes the place of `target`, and that nothing beside it would be taken for a
/// part of it.
fn check_free(path: &Path, target: &Path, is_forced: bool) -> anyhow::Result<()> {
    let is_there = target.symlink_metadata().is_ok();
    let left = left_beside(target);
    if is_forced {
        if is_there {
            check_unused(target)?;
            check_has_no_log(target)?;
        }
        return Ok(());
    }
    let path = path.display();
    let text = match left.first() {
        _ if is_there => format!("{path} exists: name another file, or add --force"),
        Some(left) => format!(
            "{} is left of another database, and would be taken for a part of {path}: remove it, name another file, or \
             add --force",
            left.display()
        ),
        None => return Ok(()),
    };
    Err(UsageError(text).into())
}

/// Has the backup appear, and nothing beside it that is not of it.
fn put_in_place(path: &Path, file: PrivateFile, is_forced: bool) -> anyhow::Result<()> {
    // Again: copying may have taken hours.
    check_free(path, file.target(), is_forced)?;
    // Before the backup appears, which is then never taken together with them. What is replaced is complete without.
    for left in left_beside(file.target()) {
        fs::remove_file(&left).with_context(|| format!("cannot remove {}", left.display()))?;
    }
    if !file.take_after_replaced()? {
        output::note(&format!(
            "{} is yours now, and only you can read it: the owner of the file that it replaces cannot be given to it",
            path.display()
        ));
    }
    file.finish()
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
