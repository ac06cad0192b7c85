//! Connections, and the rules by which one is abandoned.
//!
//! Every exchange with a database has a deadline. A connection on which one did not end well, because the answer did
//! not come in time, the caller went away, or the transaction is in an unknown state, is never handed out again: it is
//! closed, and the next caller gets a new one. The same goes for a connection that accepted no changes, since a session
//! may stay read-only after its cause is gone. (The pool of `sqlx` pings a connection that comes back, without a
//! deadline; one frozen connection after the other would take a place of that pool forever.)
//!
//! Whoever finds no connection makes one, and takes one that comes back if that is sooner: a server that gives no
//! more of them, because others have taken those that it has, is worked with on those that are open.

mod closing;
mod held;
mod race;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Database, Executor};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::StoreError;
use super::damage::Damage;
use super::error::damage;
use super::files::Files;
use super::gate::{Gate, NoPass, Pass, Urgency};
use super::idle::Shelf;
pub(in crate::store) use held::Held;

/// Time limit for an idle connection to answer a ping.
const PING_WAIT: Duration = Duration::from_secs(2);

/// Time limit for rolling back an abandoned transaction, and for closing a connection.
pub(in crate::store) const GOODBYE: Duration = Duration::from_secs(2);

/// The pause before a file that cannot be opened at the moment is opened again.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Time limit of an exchange once the program shuts down.
const HURRY: Duration = Duration::from_secs(2);

/// All connections are replaced once in this time at most.
const RENEWAL: Duration = Duration::from_secs(1);

/// Time limit for connecting the successor of an expired connection.
const SUCCESSION: Duration = Duration::from_secs(5);

/// Extension of an expired connection for which there is no successor.
const EXTENSION: Duration = Duration::from_mins(1);

/// Properties of connections that differ between the databases.
#[derive(Debug)]
pub(in crate::store) struct Manners {
    /// The most connections at a time.
    pub(in crate::store) size: u32,
    /// Run on every new connection.
    pub(in crate::store) set_up: Option<String>,
    /// Statement that yields a row where a new connection would be one too many, and the error then.
    pub(in crate::store) too_many: Option<(String, &'static str)>,
    /// `true` if an idle connection may have died unnoticed.
    pub(in crate::store) may_die: bool,
    /// `true` if an abandoned connection keeps its place until it is closed. A thread works for each
    /// connection of SQLite, and cannot be stopped.
    pub(in crate::store) keeps_place: bool,
    /// Connections older than this are replaced, if the database gives others for them.
    pub(in crate::store) lifetime: Option<Duration>,
    /// The files that every connection is to open: those that were there first.
    pub(in crate::store) files: Option<Files>,
    /// Memory of damage that a connection is told of.
    pub(in crate::store) damage: Damage,
    /// `true` if the connections write to those files.
    pub(in crate::store) writes: bool,
}

/// Connections to one database. Cheap to clone.
pub(in crate::store) struct Pool<DB: Database>(Arc<Inner<DB>>)
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>;

struct Inner<DB: Database>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    options: <DB::Connection as sqlx::Connection>::Options,
    manners: Manners,
    gate: Arc<Gate>,
    shelf: Shelf<Idle<DB>, Held<DB>>,
    in_use: AtomicU32,
    /// Time of the last renewal: connections that are older have expired.
    renewed: Mutex<Option<Instant>>,
    hurry: CancellationToken,
    closing: TaskTracker,
}

/// A connection that nobody uses.
pub(in crate::store) struct Idle<DB: Database> {
    pub(in crate::store) connection: DB::Connection,
    born: Instant,
    /// Expiry of the connection.
    pub(in crate::store) ends: Option<Instant>,
}

impl<DB: Database> Clone for Pool<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<DB: Database> fmt::Debug for Pool<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({:?})", self.0.manners)
    }
}

impl<DB: Database> Pool<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    /// Creates a pool without connections.
    pub(in crate::store) fn new(
        options: <DB::Connection as sqlx::Connection>::Options,
        manners: Manners,
    ) -> Self {
        Self(Arc::new(Inner {
            options,
            gate: Gate::new(manners.size),
            manners,
            shelf: Shelf::default(),
            in_use: AtomicU32::new(0),
            renewed: Mutex::default(),
            hurry: CancellationToken::new(),
            closing: TaskTracker::new(),
        }))
    }

    /// Connects once, without patience for a server that refuses, so that a wrong address shows.
    pub(in crate::store) async fn try_out(&self, wait: Duration) -> Result<(), sqlx::Error> {
        let until = Instant::now() + wait;
        let place = self.enter(Urgency::Awaited, until).await?;
        let connecting = async {
            loop {
                match self.connect_once().await {
                    Err(error) if is_locked(&error) && until > Instant::now() + CONNECT_PAUSE => {
                        tokio::time::sleep(CONNECT_PAUSE).await;
                    }
                    connected => return connected,
                }
            }
        };
        let idle = self.within(wait, connecting).await?;
        drop(Held::new(self, idle, place));
        Ok(())
    }

    async fn enter(&self, urgency: Urgency, until: Instant) -> Result<Pass, sqlx::Error> {
        let wait = until.saturating_duration_since(Instant::now());
        let entered = self.within(wait, async {
            Ok::<_, sqlx::Error>(self.0.gate.enter(urgency).await)
        });
        match entered.await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(NoPass::Closed)) => Err(sqlx::Error::PoolClosed),
            Ok(Err(NoPass::TooMany)) | Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    /// Returns the connection if it may be used on.
    async fn alive(&self, mut idle: Idle<DB>) -> Option<Idle<DB>> {
        if self.is_unfit(&idle) {
            self.close_softly(idle.connection, None);
            return None;
        }
        if !self.0.manners.may_die {
            return Some(idle);
        }
        match self.within(PING_WAIT, idle.connection.ping()).await {
            Ok(()) => Some(idle),
            Err(error) if is_silence(&error) => {
                // As a rule the network is down, so that the others are dead too.
                let others = self.0.shelf.clear();
                tracing::warn!(connections = others.len() + 1, %error, "idle connections are replaced");
                None
            }
            Err(_) => None,
        }
    }

    async fn connect_once(&self) -> Result<Idle<DB>, sqlx::Error> {
        let begun = Instant::now();
        // Before, since SQLite would make a new file in the place of a missing one; and after, as to what was opened.
        self.check_files()?;
        let connected = self.0.options.connect().await;
        let mut connection = connected.inspect_err(|error| self.note_damage(error))?;
        self.check_files()?;
        if let Some(sql) = &self.0.manners.set_up {
            let sql = sqlx::raw_sql(AssertSqlSafe(sql.clone()));
            (&mut connection).execute(sql).await?;
        }
        if let Some((sql, error)) = &self.0.manners.too_many {
            let sql = sqlx::raw_sql(AssertSqlSafe(sql.clone()));
            // Who may not ask is not refused.
            if let Ok(Some(_)) = (&mut connection).fetch_optional(sql).await {
                let _ = connection.close().await;
                let refused = io::Error::new(io::ErrorKind::ConnectionRefused, *error);
                return Err(refused.into());
            }
        }
        if self.0.shelf.connected(begun) {
            tracing::info!("the server of the database gives further connections again");
        }
        let born = Instant::now();
        Ok(Idle {
            connection,
            born,
            ends: self.0.manners.lifetime.map(|lifetime| born + lifetime),
        })
    }

    fn check_files(&self) -> Result<(), sqlx::Error> {
        match &self.0.manners.files {
            Some(files) => Ok(files.check().map_err(io::Error::other)?),
            None => Ok(()),
        }
    }

    /// Has an error remembered that says that the database is damaged.
    pub(in crate::store) fn note_damage(&self, error: &sqlx::Error) {
        let Manners {
            files,
            damage: memory,
            ..
        } = &self.0.manners;
        if let Some(cause) = damage(error)
            && files.as_ref().is_none_or(Files::are_there)
        {
            memory.found(cause);
        }
    }

    /// Checks that the database is not known to be damaged.
    pub(in crate::store) fn check_undamaged(&self) -> Result<(), StoreError> {
        self.0.manners.damage.check()
    }

    /// Waits for the database, but not longer than `limit`.
    pub(in crate::store) async fn within<T, E: From<sqlx::Error>>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        let hurry = async {
            self.0.hurry.cancelled().await;
            tokio::time::sleep(HURRY).await;
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            () = tokio::time::sleep(limit) => Err(silence(limit).into()),
            () = hurry => Err(silence(HURRY).into()),
        }
    }

    /// Returns whether the connection may not be used any more.
    fn is_unfit(&self, idle: &Idle<DB>) -> bool {
        self.renewed().is_some_and(|renewed| idle.born <= renewed)
    }

    /// Has every connection that there is now replaced before its next use. Returns whether that is so: connections are
    /// not replaced all the time.
    pub(in crate::store) fn renew(&self) -> bool {
        let mut renewed = self.renewed();
        if renewed.is_some_and(|at| at.elapsed() < RENEWAL) {
            return false;
        }
        *renewed = Some(Instant::now());
        true
    }

    /// Takes a connection back that is fit for the next one who comes.
    pub(in crate::store) fn take_back(&self, idle: Idle<DB>, place: Pass) {
        if self.0.gate.is_closed() || self.is_unfit(&idle) {
            self.close_softly(idle.connection, Some(place));
            return;
        }
        if idle.ends.is_some_and(|ends| ends <= Instant::now()) {
            self.replace(idle, place);
            return;
        }
        match self.0.shelf.put(idle) {
            // Whoever has gone away in this moment gives it back.
            Some((idle, waiting)) => drop(waiting.send(Held::new(self, idle, place))),
            // Only now, so that whoever comes next finds it.
            None => drop(place),
        }
    }

    /// Makes a successor of a connection that has served its time, and ends it then: a server that gives none to
    /// this program must not take those away that it has.
    fn replace(&self, mut old: Idle<DB>, place: Pass) {
        let pool = self.clone();
        self.in_background(async move {
            if let Ok(new) = pool.within(SUCCESSION, pool.connect_once()).await {
                pool.take_back(new, place);
                pool.close_softly(old.connection, None);
            } else {
                old.ends = Some(Instant::now() + EXTENSION);
                pool.take_back(old, place);
            }
        });
    }

    /// Counts one more connection in use.
    pub(in crate::store) fn lends(&self) {
        self.0.in_use.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one connection fewer in use.
    pub(in crate::store) fn has_back(&self) {
        self.0.in_use.fetch_sub(1, Ordering::Relaxed);
    }

    fn renewed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0
            .renewed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the token that is canceled when the program shuts down.
    pub(in crate::store) fn hurries(&self) -> CancellationToken {
        self.0.hurry.clone()
    }

    /// Has nothing take longer than a moment from here on: the program is shutting down.
    pub(in crate::store) fn hurry(&self) {
        self.0.hurry.cancel();
    }
}

/// Returns whether another process is switching the SQLite file to a WAL.
fn is_locked(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(reported) = error else {
        return false;
    };
    let code = reported.code().and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
        && reported
            .try_downcast_ref::<sqlx::sqlite::SqliteError>()
            .is_some()
}

pub(in crate::store) fn silence(limit: Duration) -> sqlx::Error {
    let words = match limit.as_secs() {
        0 => format!("no answer within {} ms", limit.as_millis()),
        seconds => format!("no answer within {seconds} s"),
    };
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, words))
}

/// Returns whether the error is a passed deadline.
pub(in crate::store) fn is_silence(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests;
