//! Checks of the database: its connection, schema, statements, revocation log, work queue and disk.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

use super::{Check, hunted, in_time, peppers};
use crate::cli::context::{Empty, open_store};
use crate::config::Config;
use crate::forge::Forge;
use crate::store::{Store, StoreError};
use crate::temporary::Temporary;

/// Free space in bytes below which a warning is reported.
const LITTLE_SPACE: u64 = 1 << 30;

/// Free space in bytes below which the next transaction may fail.
const NO_SPACE: u64 = 64 << 20;

/// Time after which a check looks for whom it waits.
const BLOCKED: Duration = Duration::from_millis(700);

const NAME: &str = "database";
const LOG: &str = "revocation log";
const QUEUE: &str = "work queue";
const DISK: &str = "disk";

pub(super) async fn examine(config: &Config) -> Vec<Check> {
    let store = match in_time(Box::pin(open_store(config, Empty::Refuse))).await {
        Some(Ok(store)) => store,
        Some(Err(error)) => return vec![unusable(&error)],
        None => {
            let mend = "check that the database is running and that database.url is right";
            return vec![Check::failed(NAME, "no answer within 10 s", mend)];
        }
    };
    let mut checks = vec![blocked(&store, schema(&store)).await];
    if checks[0].status == super::Status::Ok {
        checks.extend(blocked(&store, writes(&store)).await);
        checks.extend(access(&store).await);
        checks.extend(objects(&store).await);
        checks.push(peppers::examine(&store).await);
        checks.extend(hunted::examine(config, &store).await);
        checks.push(log(&store).await);
        checks.push(queue(&store).await);
        checks.extend(hosts(&store).await);
        checks.extend(deliveries(&store).await);
    }
    if is_file(&store) {
        checks.push(disk(Path::new(store.name())));
    }
    store.close().await;
    checks
}

fn unusable(error: &anyhow::Error) -> Check {
    let message = format!("{error:#}");
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::Missing { database }) => {
            let message = format!("there is no database {database} yet");
            let mend = "`rescind serve` or `rescind migrate` makes it; if there should be one, check database.url";
            Check::warning(NAME, message, mend)
        }
        Some(StoreError::Url(_)) => Check::misconfigured(NAME, message, "correct database.url"),
        Some(StoreError::Encoding { .. }) => {
            let mend = "make a database with ENCODING 'UTF8' TEMPLATE template0, and name it in database.url";
            Check::misconfigured(NAME, message, mend)
        }
        Some(StoreError::NewerDatabase { .. }) => {
            let mend = "install the newer rescind that migrated it, or restore a backup";
            Check::failed(NAME, message, mend)
        }
        // They say themselves what is to be done.
        Some(StoreError::Forbidden { .. } | StoreError::Pooled { .. }) => {
            Check::failed(NAME, message, "do so, then run `rescind doctor` again")
        }
        Some(StoreError::Torn { .. } | StoreError::Lost { .. }) => Check::failed(
            NAME,
            message,
            "do so before anything else opens the database",
        ),
        Some(
            StoreError::Damaged { .. }
            | StoreError::Emptied { .. }
            | StoreError::Gone { .. }
            | StoreError::Corrupt { .. },
        ) => Check::failed(
            NAME,
            message,
            "docs/operations.md tells how to restore a backup",
        ),
        _ => {
            let mend = "check that the database is running, that database.url is right, and its permissions";
            Check::failed(NAME, message, mend)
        }
    }
}

/// Checks that the schema is current and every statement prepares.
async fn schema(store: &Store) -> Check {
    let prepared = async {
        store.check_ready().await?;
        store.check_statements().await
    };
    let name = store.name();
    match in_time(prepared).await {
        Some(Ok(count)) => Check::ok(
            NAME,
            format!("{name}: migrated, all {count} statements prepare"),
        ),
        Some(Err(StoreError::NotMigrated { found: 0, .. })) => {
            let mend = "`rescind serve` or `rescind migrate` makes its tables";
            Check::warning(NAME, format!("{name} is empty"), mend)
        }
        Some(Err(error @ StoreError::NotMigrated { .. })) => {
            Check::failed(NAME, error.to_string(), "run `rescind migrate`")
        }
        Some(Err(error @ StoreError::Busy { .. })) => Check::failed(
            NAME,
            error.to_string(),
            "end the session that holds the lock: nothing is revoked meanwhile",
        ),
        Some(Err(error)) if error.is_temporary() => unusable(&error.into()),
        Some(Err(error)) => {
            let mend = "somebody may have changed the schema by hand: restore it from a backup";
            Check::failed(NAME, error.to_string(), mend)
        }
        None => Check::failed(
            NAME,
            "no answer within 10 s",
            "find out what keeps the database busy",
        ),
    }
}

/// Checks that the database accepts changes. Returns `None` if it does.
async fn writes(store: &Store) -> Option<Check> {
    let (message, mend) = match in_time(store.check_changes()).await {
        Some(Ok(())) => return None,
        Some(Err(StoreError::Busy { .. })) => (
            "another program holds its write lock".to_owned(),
            "wait for that program, or end it: nothing is revoked meanwhile",
        ),
        Some(Err(error @ (StoreError::Forbidden { .. } | StoreError::Pooled { .. }))) => {
            return Some(unusable(&error.into()));
        }
        Some(Err(error)) => (
            error.to_string(),
            "nothing can be revoked until the database takes changes again",
        ),
        None => (
            "no answer within 10 s".to_owned(),
            "find out what keeps the database busy",
        ),
    };
    let (message, mend) = match in_time(store.waits_for_standby()).await {
        Some(Ok(true)) => (
            "its commits wait for a standby that is away (wait_event SyncRep)".to_owned(),
            "bring the standby back, or take it out of synchronous_standby_names: nothing is revoked meanwhile",
        ),
        _ => (message, mend),
    };
    Some(Check::failed(
        NAME,
        format!("it takes no changes: {message}"),
        mend,
    ))
}

/// Checks the privileges on every table. Returns `None` if none is missing.
async fn access(store: &Store) -> Option<Check> {
    // Another check reports that the database does not answer.
    let error = in_time(store.check_access()).await?.err()?;
    Some(unusable(&error.into()))
}

/// Checks that every constraint, index and trigger is there. Returns `None` if it is.
async fn objects(store: &Store) -> Option<Check> {
    // Another check reports that the database does not answer.
    let missing = in_time(store.missing_objects()).await?.ok()?;
    if missing.is_empty() {
        return None;
    }
    let message = format!("it lacks {}", missing.join(", "));
    let mend = "a backup was put back while the daemon ran, or somebody removed them: stop the daemon and restore a \
                backup (docs/operations.md), or make them as they are in a new database of `rescind migrate`";
    Some(Check::failed(NAME, message, mend))
}

/// Runs a check, and adds to a failure whom it waited for.
async fn blocked<T: Waited>(store: &Store, check: impl Future<Output = T>) -> T {
    let mut check = pin!(check);
    let mut holders = Vec::new();
    loop {
        match timeout(BLOCKED, &mut check).await {
            Ok(check) if holders.is_empty() => return check,
            Ok(check) => return check.waited_for(&holders),
            Err(_) => {
                if let Some(Ok(found)) = in_time(store.blocking()).await
                    && !found.is_empty()
                {
                    holders = found;
                }
            }
        }
    }
}

/// Check that may have waited for a lock.
trait Waited {
    /// Adds who held it, if the check failed.
    fn waited_for(self, holders: &[String]) -> Self;
}

impl Waited for Check {
    fn waited_for(mut self, holders: &[String]) -> Self {
        if self.status == super::Status::Failed {
            self.message = format!("{}; it is locked by {}", self.message, holders.join(", "));
        }
        self
    }
}

impl Waited for Option<Check> {
    fn waited_for(self, holders: &[String]) -> Self {
        self.map(|check| check.waited_for(holders))
    }
}

/// Verifies the whole chain, unless that takes too long.
async fn log(store: &Store) -> Check {
    match in_time(store.verify_log()).await {
        Some(Ok(Ok(verified))) => {
            let entries = verified.entries;
            Check::ok(LOG, format!("the chain of {entries} entries holds"))
        }
        Some(Ok(Err(broken))) => {
            let message = format!("the chain does not hold: {broken}");
            let mend = "somebody changed the log behind the program's back: compare it with an export or a backup";
            Check::failed(LOG, message, mend)
        }
        Some(Err(error)) => Check::failed(LOG, error.to_string(), "see the check of the database"),
        None => {
            let message = "it is too long to be verified in 10 s";
            Check::warning(
                LOG,
                message,
                "run `rescind log verify`, which takes its time",
            )
        }
    }
}

async fn queue(store: &Store) -> Check {
    match in_time(store.work_counts()).await {
        Some(Ok(counts)) if counts.dead > 0 => {
            let message = format!("{} work items were dead-lettered", counts.dead);
            let mend =
                "`rescind sources dead` says why, `rescind sources requeue` tries them again";
            Check::warning(QUEUE, message, mend)
        }
        Some(Ok(counts)) => Check::ok(QUEUE, format!("{} waiting", counts.waiting + counts.leased)),
        Some(Err(error)) => {
            Check::failed(QUEUE, error.to_string(), "see the check of the database")
        }
        None => Check::failed(
            QUEUE,
            "no answer within 10 s",
            "see the check of the database",
        ),
    }
}

/// Returns a warning for each source of which items wait for a host that is left alone.
async fn hosts(store: &Store) -> Vec<Check> {
    // Another check reports that the database does not answer.
    let Some(Ok(work)) = in_time(store.source_work()).await else {
        return Vec::new();
    };
    let waits = work.into_iter().filter_map(|work| {
        let message = format!("what {} found {}", work.source, work.waits_for?);
        let mend = "nothing is lost; if it stays so, check the way to the host: DNS, proxy, firewall, certificates";
        Some(Check::warning(QUEUE, message, mend))
    });
    waits.collect()
}

/// Returns a warning for each webhook with deliveries that could not be used in full.
async fn deliveries(store: &Store) -> Vec<Check> {
    // Another check reports that the database does not answer.
    let Some(Ok(sources)) = in_time(store.list_sources()).await else {
        return Vec::new();
    };
    let webhooks = sources.into_iter().filter_map(|source| {
        let forge = Forge::by_source(&source.name)?.name();
        if source.malformed == 0 {
            return None;
        }
        let message = format!(
            "{} of {} deliveries told of pushes that could not be used, so that their contents were not read",
            source.malformed, source.events
        );
        let mend = format!(
            "the log of `rescind serve` says why of each; servers of your own have to stand in \
             webhooks.{forge}.clone_hosts"
        );
        Some(Check::warning(format!("deliveries of {}", source.name), message, mend))
    });
    webhooks.collect()
}

/// Returns whether the database is a file: SQLite's name is its path, PostgreSQL's is a URL.
fn is_file(store: &Store) -> bool {
    Path::new(store.name()).is_file()
}

/// Checks that SQLite's folder has free space and is writable, and that the file is closed to other users.
fn disk(file: &Path) -> Check {
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let name = folder.display();
    if let Err(error) = Temporary::beside(file, 0o600) {
        let mend = "give rescind write permission to the folder: SQLite keeps its journal there";
        return Check::failed(DISK, format!("{name} cannot be written: {error}"), mend);
    }
    if std::fs::metadata(file).is_ok_and(|file| file.permissions().readonly()) {
        let message = format!("{} is read-only", file.display());
        return Check::failed(DISK, message, "give rescind write permission to the file");
    }
    if is_open_to_others(file) {
        let message = format!("other users of this machine can read {}", file.display());
        return Check::warning(DISK, message, format!("chmod 600 {}", file.display()));
    }
    let Some(free) = free_space(folder) else {
        return Check::ok(DISK, format!("{name} can be written"));
    };
    let message = format!("{name} can be written, {} MiB are free", free >> 20);
    if free < NO_SPACE {
        Check::failed(DISK, message, "free some space")
    } else if free < LITTLE_SPACE {
        Check::warning(DISK, message, "free some space")
    } else {
        Check::ok(DISK, message)
    }
}

#[cfg(unix)]
fn is_open_to_others(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).is_ok_and(|file| file.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_: &Path) -> bool {
    false
}

/// Returns the space in bytes that this user may still fill, or `None` if it is unknown.
fn free_space(folder: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(folder).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}
