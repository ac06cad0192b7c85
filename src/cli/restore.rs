//! `rescind restore`

mod valid_again;

use std::io::Write as _;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::context::{Empty, block_on, open_store};
use super::file::PrivateFile;
use super::kept::Kept;
use super::{Context, DONE, UsageError, interrupted, output};
use crate::config::Needs;
use crate::store::{
    BackupContents, Candidate, Compared, Lacking, Store, StoreOptions, check_unused, database_file,
};
use crate::temporary::{folder_of, moving};

/// `rescind restore`
#[derive(Debug, Args)]
#[command(
    after_help = "Puts a backup of a SQLite database in its place, while nothing uses it. The backup has to be sound, and not of a newer
rescind. The database that it replaces is kept beside it; the message says where. So are the entries of the log that the
backup lacks. What was revoked since the backup was made is valid again with it: each such key and access token
is printed as the command that ends it again, and --apply revokes them. Keys that were issued since would not be known
any more, so that nobody would notice their leak: they are counted, the first are named, and --force is asked for.

A dump of PostgreSQL is put back with pg_restore; the message says how.

Exit codes: 0 done, 2 the backup cannot be used, 3 a process uses the database, or it could not be done.

Examples:
  rescind restore /var/backups/rescind.db
  rescind restore --apply /var/backups/rescind.db"
)]
pub(super) struct RestoreArgs {
    /// Backup: a file of `rescind backup`, or a copy of the database (with its -wal, if it has one)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Revoke again what was revoked since
    #[arg(long)]
    apply: bool,
    /// Replace the database even if the backup is not one of its former states, or lacks keys that it has
    #[arg(long)]
    force: bool,
    /// Print JSON: what is valid again, with the command that ends it, what is not known any more, and until when the
    /// backup reaches
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &RestoreArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.config(Needs::RECORDS)?;
    let options = StoreOptions::new(config.database.url.clone());
    let database = database_file(&options, &args.file)?;
    check_unused(&database)?;
    interrupted::watch();
    block_on(async {
        let candidate = Candidate::of(&args.file, &database).await?;
        let replaced = if database.exists() {
            open_store(&config, Empty::Refuse).await.ok()
        } else {
            None
        };
        if let Some(replaced) = &replaced
            && !args.force
        {
            check_is_former(replaced, &database, &candidate.contents).await?;
        }
        let compared = candidate.compare().await;
        if let Some(compared) = &compared
            && !args.force
        {
            check_lacks_no_key(&compared.lacking, &candidate.contents)?;
        }
        let newer = match &replaced {
            Some(replaced) => write_newer(replaced, &database, &candidate.contents).await?,
            None => None,
        };
        if let Some(replaced) = replaced {
            replaced.close().await;
        }
        let contents = candidate.contents.clone();
        for foreign in &candidate.foreign {
            output::note(&format!(
                "{} is of another database and was left aside: the backup is complete without it",
                foreign.display()
            ));
        }
        // From here on nothing else says what is valid again: no signal ends this before all of it is told.
        let _until_the_end = ManuallyDrop::new(moving());
        let was_there = database.symlink_metadata().is_ok();
        let aside = candidate.put_back()?;
        tell(&args.file, &database, &contents, newer);
        if let Some(kept) = kept_text(&aside, was_there) {
            output::note(&kept);
        }
        if compared.is_none() && was_there {
            output::note(
                "the replaced database cannot be read: which keys were issued or revoked since the backup was made, and are \
                 unknown or valid again now, only an export of the log elsewhere, the daemon's log and your partners can \
                 tell",
            );
        }
        let Some(Compared {
            mut valid_again,
            lacking,
        }) = compared
        else {
            if args.json {
                output::say_json(&json!({
                    "valid_again": null, "forgotten": null, "reaches": reaches_json(&contents),
                }))?;
            }
            return Ok(DONE);
        };
        let mut failed = None;
        if args.apply {
            match valid_again::apply(context, &config, &valid_again).await {
                Ok(left) => valid_again = left,
                // Then it is told, as it would be without it.
                Err(error) => failed = Some(error),
            }
        }
        if let Some(text) = lacking_text(&lacking) {
            output::note(&format!("not known any more: {text}"));
        }
        if args.json {
            let all: Vec<Value> = valid_again.iter().map(valid_again::as_json).collect();
            output::say_json(&json!({
                "valid_again": all,
                "forgotten": lacking_json(&lacking),
                "reaches": reaches_json(&contents),
            }))?;
        } else {
            valid_again::tell(&valid_again)?;
        }
        failed.map_or(Ok(DONE), Err)
    })
}

/// Checks that the backup is a former state of the database.
///
/// # Errors
/// Returns an error if it is not.
async fn check_is_former(
    replaced: &Store,
    database: &Path,
    contents: &BackupContents,
) -> anyhow::Result<()> {
    let seq = contents.head.seq;
    if seq == 0 {
        return Ok(());
    }
    let entry = replaced.log_entry(seq).await;
    // What cannot be read is not kept from being replaced.
    if entry.is_ok_and(|entry| entry.is_none_or(|entry| entry.hash != contents.head.hash)) {
        let text = format!(
            "the backup is no former state of {}: its log ends with an entry {seq} that is not in the log of this \
             database; add --force to replace the database by it all the same (nothing was changed)",
            database.display()
        );
        return Err(UsageError(text).into());
    }
    Ok(())
}

/// Checks that the backup has every key of the database.
///
/// # Errors
/// Returns an error that names those that it lacks.
fn check_lacks_no_key(lacking: &Lacking, contents: &BackupContents) -> Result<(), UsageError> {
    match lacking_text(lacking) {
        Some(text) if lacking.keys > 0 => Err(UsageError(format!(
            "the backup lacks what was issued since it was made, whose leak nobody would notice then: {text}; {}; add \
             --force to replace the database by it all the same (nothing was changed)",
            reaches(contents)
        ))),
        _ => Ok(()),
    }
}

/// Returns what the backup lacks, for people, or `None` if it lacks nothing.
fn lacking_text(lacking: &Lacking) -> Option<String> {
    let mut parts = Vec::new();
    if lacking.keys > 0 {
        let named = lacking.named.iter();
        let named = named.map(|key| format!("{} (…{})", key.id, key.last_four));
        let named: Vec<String> = named.collect();
        let more = lacking.keys - named.len() as u64;
        let more = match more {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        parts.push(format!("{} keys: {}{more}", lacking.keys, named.join(", ")));
    }
    if lacking.tokens > 0 {
        parts.push(format!("{} access tokens", lacking.tokens));
    }
    (!parts.is_empty()).then(|| parts.join("; and "))
}

fn lacking_json(lacking: &Lacking) -> Value {
    let named = lacking.named.iter();
    let named = named.map(|key| json!({ "id": key.id, "last_four": key.last_four }));
    let named: Vec<Value> = named.collect();
    json!({ "keys": lacking.keys, "first_keys": named, "tokens": lacking.tokens })
}

/// Returns until when the backup reaches, for people.
fn reaches(contents: &BackupContents) -> String {
    let time = |at| output::time(at);
    format!(
        "the backup reaches until {} (its newest key) and {} (the last entry of its log)",
        time(contents.newest_key_at),
        time(contents.last_entry_at)
    )
}

fn reaches_json(contents: &BackupContents) -> Value {
    let text = |at: Option<Timestamp>| at.map(|at| at.to_string());
    json!({
        "newest_key_at": text(contents.newest_key_at),
        "last_log_entry_at": text(contents.last_entry_at),
        "last_log_entry": contents.head.seq,
    })
}

/// Writes the entries of the log that the backup lacks to a file beside the database. Returns its path and their number
/// if there are any.
async fn write_newer(
    replaced: &Store,
    database: &Path,
    contents: &BackupContents,
) -> anyhow::Result<Option<(PathBuf, u64)>> {
    // What cannot be read is not kept from being replaced.
    let Ok(first) = replaced.log_after(contents.head.seq, 1000).await else {
        return Ok(None);
    };
    if first.is_empty() {
        return Ok(None);
    }
    let path = free_name(folder_of(database))?;
    let mut file = PrivateFile::create(&path, &Kept::none())?;
    let mut entries = first;
    let mut count = 0;
    while let Some(last) = entries.last().map(|entry| entry.seq) {
        for entry in &entries {
            writeln!(file, "{}", entry.to_json_line())?;
            count += 1;
        }
        entries = replaced.log_after(last, 1000).await?;
    }
    file.finish()?;
    Ok(Some((path, count)))
}

fn free_name(folder: &Path) -> anyhow::Result<PathBuf> {
    let mut names = (1..1000)
        .map(|number| folder.join(format!("revocations-not-in-the-backup-{number}.jsonl")));
    let free = names.find(|name| name.symlink_metadata().is_err());
    free.ok_or_else(|| anyhow::anyhow!("too many lists of revocations are beside the database"))
}

/// Returns under which names the replaced database, or what lay beside its place, is kept.
fn kept_text(aside: &[PathBuf], was_there: bool) -> Option<String> {
    let names: Vec<String> = aside
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    match (names.first(), was_there) {
        (None, _) => None,
        // Its log goes with it.
        (Some(database), true) => Some(format!("the replaced database is {database}")),
        (Some(_), false) => Some(format!(
            "there was no database, and what lay beside its place is kept: {}",
            names.join(", ")
        )),
    }
}

fn tell(backup: &Path, database: &Path, contents: &BackupContents, newer: Option<(PathBuf, u64)>) {
    output::note(&format!(
        "{} has the contents of {} now: {} keys, log up to entry {}",
        database.display(),
        backup.display(),
        contents.keys,
        contents.head.seq
    ));
    if let Some((newer, count)) = newer {
        output::note(&format!(
            "{count} entries of its log that the backup lacks are in {}",
            newer.display()
        ));
    }
    output::note(&reaches(contents));
}
