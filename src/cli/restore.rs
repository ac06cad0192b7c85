//! `rescind restore`

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::actor::actor;
use super::context::{Empty, Instance, block_on, open_store};
use super::{Context, DONE, UsageError, output};
use crate::config::{Config, Needs};
use crate::store::{
    BackupContents, Candidate, Store, StoreError, StoreOptions, ValidAgain, check_unused,
    database_file, retried,
};

/// Number of keys that are revoked in one transaction.
const BATCH: usize = 100;

/// `rescind restore`
#[derive(Debug, Args)]
#[command(
    after_help = "Puts a backup of a SQLite database in its place, while nothing uses it. The backup has to be sound, and not of a newer
rescind. The database that it replaces is kept beside it; the message says where. So are the entries of the log that the
backup lacks. What was revoked since the backup was made is valid again with it: each such key and access token
is printed as the command that ends it again, and --apply revokes them.

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
    /// Replace the database even if the backup is not one of its former states
    #[arg(long)]
    force: bool,
    /// Print JSON: what is valid again, with the command that ends it
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &RestoreArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.config(Needs::RECORDS)?;
    let options = StoreOptions::new(config.database.url.clone());
    let database = database_file(&options, &args.file)?;
    check_unused(&database)?;
    block_on(async {
        let candidate = Candidate::of(&args.file, &database).await?;
        let newer = newer_entries(&config, &database, &candidate.contents, args.force).await?;
        let valid_again = candidate.valid_again().await;
        let contents = candidate.contents.clone();
        let aside = candidate.put_back()?;
        tell(&args.file, &database, &contents, aside.as_deref(), newer);
        let Some(mut valid_again) = valid_again else {
            if aside.is_some() {
                output::note(
                    "the replaced database cannot be read: which keys were revoked since the backup was made, and are \
                     valid again now, only an export of the log elsewhere, the daemon's log and your partners can tell",
                );
            }
            return if args.json {
                output::say_json(&json!({ "valid_again": null })).map(|()| DONE)
            } else {
                Ok(DONE)
            };
        };
        if args.apply {
            valid_again = apply(context, &config, valid_again).await?;
        }
        if args.json {
            let all: Vec<Value> = valid_again.iter().map(as_json).collect();
            output::say_json(&json!({ "valid_again": all }))?;
        } else {
            tell_valid_again(&valid_again)?;
        }
        Ok(DONE)
    })
}

/// Writes the entries of the log that the backup lacks to a file beside the database, and returns its path if there are
/// any.
///
/// # Errors
/// Returns an error if the backup is no former state of the database, and it is not `forced`.
async fn newer_entries(
    config: &Config,
    database: &Path,
    contents: &BackupContents,
    forced: bool,
) -> anyhow::Result<Option<PathBuf>> {
    if !database.exists() {
        return Ok(None);
    }
    let Ok(store) = open_store(config, Empty::Refuse).await else {
        return Ok(None);
    };
    let written = write_newer(&store, database, contents, forced).await;
    store.close().await;
    written
}

async fn write_newer(
    store: &Store,
    database: &Path,
    contents: &BackupContents,
    forced: bool,
) -> anyhow::Result<Option<PathBuf>> {
    let seq = contents.head.seq;
    let same = match seq {
        0 => Ok(true),
        seq => {
            let entry = store.log_entry(seq).await;
            entry.map(|entry| entry.is_some_and(|entry| entry.hash == contents.head.hash))
        }
    };
    if same.as_ref().is_ok_and(|same| !same) && !forced {
        let text = format!(
            "the backup is no former state of {}: its log ends with an entry {seq} that is not in the log of this \
             database; add --force to replace the database by it all the same (nothing was changed)",
            database.display()
        );
        return Err(UsageError(text).into());
    }
    // What cannot be read is not kept from being replaced.
    let Ok(first) = store.log_after(seq, 1000).await else {
        return Ok(None);
    };
    if first.is_empty() {
        return Ok(None);
    }
    let folder = database.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix("revocations-not-in-the-backup-")
        .suffix(".jsonl")
        .tempfile_in(folder)?;
    let mut entries = first;
    while let Some(last) = entries.last().map(|entry| entry.seq) {
        for entry in &entries {
            writeln!(file, "{}", entry.to_json_line())?;
        }
        entries = store.log_after(last, 1000).await?;
    }
    file.as_file().sync_all()?;
    let (_, path) = file.keep()?;
    Ok(Some(path))
}

fn tell(
    backup: &Path,
    database: &Path,
    contents: &BackupContents,
    aside: Option<&Path>,
    newer: Option<PathBuf>,
) {
    output::note(&format!(
        "{} has the contents of {} now: {} keys, log up to entry {}",
        database.display(),
        backup.display(),
        contents.keys,
        contents.head.seq
    ));
    if let Some(aside) = aside {
        output::note(&format!("the replaced database is {}", aside.display()));
    }
    if let Some(newer) = newer {
        output::note(&format!(
            "the entries of its log that the backup lacks are in {}",
            newer.display()
        ));
    }
}

/// Revokes what was revoked since. Returns what is left to be done by hand.
async fn apply(
    context: &Context,
    config: &Config,
    valid_again: Vec<ValidAgain>,
) -> anyhow::Result<Vec<ValidAgain>> {
    let store = open_store(config, Empty::Refuse).await?;
    store.migrate().await?;
    let instance = Instance::open(context, Empty::Refuse).await?;
    let (mut keys, mut tokens, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for one in valid_again {
        match &one {
            ValidAgain::RevokedKey(id) => keys.push(Uuid::try_parse(id)?),
            ValidAgain::RevokedToken(id) => tokens.push(Uuid::try_parse(id)?),
            ValidAgain::RotatedKey(_) | ValidAgain::ShortenedKey(..) => left.push(one),
        }
    }
    for some in keys.chunks(BATCH) {
        instance.responder().revoke_all(some, &actor()).await?;
    }
    for id in &tokens {
        let revoked = retried(|| async {
            let mut tx = instance.store.begin().await?;
            tx.revoke_token(*id, instance.now()).await?;
            tx.commit().await?;
            Ok::<_, StoreError>(())
        });
        revoked.await?;
    }
    output::note(&format!(
        "{} keys and {} access tokens were revoked again",
        keys.len(),
        tokens.len()
    ));
    Ok(left)
}

/// Prints the commands that end what is valid again.
fn tell_valid_again(valid_again: &[ValidAgain]) -> anyhow::Result<()> {
    if valid_again.is_empty() {
        return Ok(());
    }
    output::note(
        "these keys and access tokens ended after the backup was made, and are VALID AGAIN now; each line ends one of them:",
    );
    for one in valid_again {
        let (command, remark) = ending(one);
        let remark = remark.map_or_else(String::new, |remark| format!("  # {remark}"));
        output::say(&format!("{command}{remark}"))?;
    }
    Ok(())
}

/// Returns the command that ends what is valid again, and what there is to know of it.
fn ending(one: &ValidAgain) -> (String, Option<String>) {
    match one {
        ValidAgain::RevokedKey(id) => (format!("rescind keys revoke {id}"), None),
        ValidAgain::RotatedKey(id) => (
            format!("rescind keys rotate {id} --overlap 0s"),
            Some("its owner needs the new value".to_owned()),
        ),
        ValidAgain::ShortenedKey(id, end) => {
            let end = Timestamp::from_microsecond(*end).unwrap_or(Timestamp::MAX);
            (
                format!("rescind keys revoke {id}"),
                Some(format!("or PATCH its expiry back to {end:.0}")),
            )
        }
        ValidAgain::RevokedToken(id) => (format!("rescind tokens revoke {id}"), None),
    }
}

fn as_json(one: &ValidAgain) -> Value {
    let (ValidAgain::RevokedKey(id)
    | ValidAgain::RotatedKey(id)
    | ValidAgain::ShortenedKey(id, _)
    | ValidAgain::RevokedToken(id)) = one;
    let kind = match one {
        ValidAgain::RevokedToken(_) => "token",
        _ => "key",
    };
    let (command, remark) = ending(one);
    json!({ "type": kind, "id": id, "command": command, "remark": remark })
}
