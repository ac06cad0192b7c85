//! Connections, and when one is given up.
//!
//! Every exchange with a database has a deadline. A connection on which one did not end well, because the
//! answer did not come in time, the caller went away, or the transaction is in an unknown state, is never
//! handed out again; nor is one that took no changes, because a session may stay read-only after what made it so: it is closed, and the next caller gets a new one. (The pool of `sqlx` asks a
//! connection that comes back for a sign of life, and waits for it without end; one frozen connection after
//! the other would take a place of that pool for ever.)

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Database, Executor};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::files::Files;
use super::gate::{Gate, NoPlace, Place, Urgency};
use super::held::Held;

/// How long an idle connection may take to show that it is alive.
const PING_WAIT: Duration = Duration::from_secs(2);

/// How long a connection may take to undo a transaction that was left, or to say goodbye.
pub(super) const GOODBYE: Duration = Duration::from_secs(2);

/// The pause before a server that refuses connections is asked again.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// How long an exchange may still take once the program shuts down.
const HURRY: Duration = Duration::from_secs(2);

/// All connections are replaced once in this time at most.
const RENEWAL: Duration = Duration::from_secs(1);

/// What differs between the databases.
#[derive(Debug)]
pub(super) struct Manners {
    /// The most connections at a time.
    pub(super) size: u32,
    /// Run on every new connection.
    pub(super) set_up: Option<String>,
    /// Whether an idle connection may have died without anybody noticing.
    pub(super) may_die: bool,
    /// Whether a connection that is given up keeps its place until it is closed. A thread works for each
    /// connection of SQLite, and cannot be stopped.
    pub(super) keeps_place: bool,
    /// Connections older than this are replaced.
    pub(super) lifetime: Option<Duration>,
    /// The files that every connection is to open: those that were there first.
    pub(super) files: Option<Files>,
    /// Whether its connections write to those.
    pub(super) writes: bool,
}

/// Connections to one database. Cheap to clone.
pub(super) struct Pool<DB: Database>(Arc<Inner<DB>>);

struct Inner<DB: Database> {
    options: <DB::Connection as sqlx::Connection>::Options,
    manners: Manners,
    gate: Arc<Gate>,
    idle: Mutex<Vec<Idle<DB>>>,
    /// When all connections there were had served their time.
    renewed: Mutex<Option<Instant>>,
    hurry: CancellationToken,
    closing: TaskTracker,
}

/// A connection that nobody uses.
pub(super) struct Idle<DB: Database> {
    pub(super) connection: DB::Connection,
    born: Instant,
}

impl<DB: Database> Clone for Pool<DB> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<DB: Database> fmt::Debug for Pool<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({:?})", self.0.manners)
    }
}

impl<DB: Database> Pool<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    /// A pool without connections.
    pub(super) fn new(
        options: <DB::Connection as sqlx::Connection>::Options,
        manners: Manners,
    ) -> Self {
        Self(Arc::new(Inner {
            options,
            gate: Gate::new(manners.size),
            manners,
            idle: Mutex::default(),
            renewed: Mutex::default(),
            hurry: CancellationToken::new(),
            closing: TaskTracker::new(),
        }))
    }

    /// Connects once, without patience for a server that refuses, so that a wrong address shows.
    pub(super) async fn try_out(&self, wait: Duration) -> Result<(), sqlx::Error> {
        let until = Instant::now() + wait;
        let place = self.enter(Urgency::Awaited, until).await?;
        let idle = self.connect(until, false).await?;
        drop(Held::new(self, idle, place));
        Ok(())
    }

    /// A connection that nobody else uses.
    pub(super) async fn acquire(
        &self,
        urgency: Urgency,
        until: Instant,
    ) -> Result<Held<DB>, sqlx::Error> {
        let place = self.enter(urgency, until).await?;
        while let Some(idle) = self.pop() {
            if let Some(idle) = Box::pin(self.alive(idle)).await {
                return Ok(Held::new(self, idle, place));
            }
        }
        let idle = Box::pin(self.connect(until, true)).await?;
        Ok(Held::new(self, idle, place))
    }

    async fn enter(&self, urgency: Urgency, until: Instant) -> Result<Place, sqlx::Error> {
        let wait = until.saturating_duration_since(Instant::now());
        let entered = self.within(wait, async {
            Ok::<_, sqlx::Error>(self.0.gate.enter(urgency).await)
        });
        match entered.await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(NoPlace::Closed)) => Err(sqlx::Error::PoolClosed),
            Ok(Err(NoPlace::TooMany)) | Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    /// The connection, if it may be used on.
    async fn alive(&self, mut idle: Idle<DB>) -> Option<Idle<DB>> {
        if self.is_old(&idle) {
            self.close_softly(idle.connection, None);
            return None;
        }
        if !self.0.manners.may_die {
            return Some(idle);
        }
        match self.within(PING_WAIT, idle.connection.ping()).await {
            Ok(()) => Some(idle),
            Err(error) if is_silence(&error) => {
                // What silenced this one, a network that is cut as a rule, silenced the others too.
                let others = std::mem::take(&mut *self.idle());
                tracing::warn!(connections = others.len() + 1, %error, "idle connections are replaced");
                None
            }
            Err(_) => None,
        }
    }

    async fn connect(&self, until: Instant, patient: bool) -> Result<Idle<DB>, sqlx::Error> {
        loop {
            let wait = until.saturating_duration_since(Instant::now());
            let error = match self.within(wait, self.connect_once()).await {
                Ok(idle) => return Ok(idle),
                Err(error) => error,
            };
            if !passes(&error, patient) || until <= Instant::now() + CONNECT_PAUSE {
                return Err(error);
            }
            tokio::time::sleep(CONNECT_PAUSE).await;
        }
    }

    async fn connect_once(&self) -> Result<Idle<DB>, sqlx::Error> {
        let mut connection = self.0.options.connect().await?;
        if let Some(files) = &self.0.manners.files {
            files.check().map_err(io::Error::other)?;
        }
        if let Some(sql) = &self.0.manners.set_up {
            let sql = sqlx::raw_sql(AssertSqlSafe(sql.clone()));
            (&mut connection).execute(sql).await?;
        }
        Ok(Idle {
            connection,
            born: Instant::now(),
        })
    }

    /// Waits for the database, but not longer than `limit`.
    pub(super) async fn within<T, E: From<sqlx::Error>>(
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

    fn pop(&self) -> Option<Idle<DB>> {
        self.idle().pop()
    }

    /// Returns whether the connection has served its time.
    fn is_old(&self, idle: &Idle<DB>) -> bool {
        let lifetime = self.0.manners.lifetime;
        lifetime.is_some_and(|lifetime| idle.born.elapsed() > lifetime)
            || self.renewed().is_some_and(|renewed| idle.born <= renewed)
    }

    /// From here on every connection that there is now has served its time. Returns whether that is so:
    /// connections are not replaced all the time.
    pub(super) fn renew(&self) -> bool {
        let mut renewed = self.renewed();
        if renewed.is_some_and(|at| at.elapsed() < RENEWAL) {
            return false;
        }
        *renewed = Some(Instant::now());
        true
    }

    /// Closes every connection, after those who use them, and returns all the places: until they are dropped
    /// nobody connects.
    pub(super) async fn empty(&self, until: Instant) -> Result<Vec<Place>, sqlx::Error> {
        let mut places = Vec::new();
        for _ in 0..self.0.manners.size {
            places.push(self.enter(Urgency::Awaited, until).await?);
        }
        let idle = std::mem::take(&mut *self.idle());
        self.ends();
        for idle in idle {
            let _ = timeout(GOODBYE, idle.connection.close()).await;
        }
        Ok(places)
    }

    /// Takes a connection back that is fit for the next one who comes.
    pub(super) fn take_back(&self, idle: Idle<DB>, place: Place) {
        if self.0.gate.is_closed() || self.is_old(&idle) {
            self.close_softly(idle.connection, Some(place));
            return;
        }
        self.idle().push(idle);
        // Only now, so that whoever comes next finds it.
        drop(place);
    }

    /// Ends a connection in an unknown state.
    pub(super) fn end(&self, idle: Idle<DB>, place: Place) {
        if self.0.manners.keeps_place {
            self.close_softly(idle.connection, Some(place));
        }
        // Else it ends here and now; the server notices.
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle<DB>>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn renewed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0
            .renewed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancelled when the program shuts down.
    pub(super) fn hurries(&self) -> CancellationToken {
        self.0.hurry.clone()
    }

    /// From here on nothing takes longer than a moment: the program is shutting down.
    pub(super) fn hurry(&self) {
        self.0.hurry.cancel();
    }

    /// Closes every connection, those in use as soon as they come back, and waits for that a moment.
    pub(super) async fn close(&self) {
        self.0.gate.close();
        for idle in std::mem::take(&mut *self.idle()) {
            self.close_softly(idle.connection, None);
        }
        self.0.closing.close();
        let closed = async {
            while self.0.gate.free() < self.0.manners.size {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            self.0.closing.wait().await;
        };
        if timeout(GOODBYE, closed).await.is_err() {
            tracing::warn!("a connection to the database did not end in time and is left behind");
        }
    }

    /// A connection is about to end.
    fn ends(&self) {
        let manners = &self.0.manners;
        if let Some(files) = manners.files.as_ref().filter(|_| manners.writes) {
            files.writer_ends();
        }
    }

    /// Says goodbye to the database while nobody waits. Without a runtime, the connection just ends.
    fn close_softly(&self, connection: DB::Connection, place: Option<Place>) {
        let keeps_place = self.0.manners.keeps_place;
        self.ends();
        self.in_background(async move {
            if keeps_place {
                let _ = connection.close().await;
            } else {
                let _ = timeout(GOODBYE, connection.close()).await;
            }
            drop(place);
        });
    }

    pub(super) fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        if tokio::runtime::Handle::try_current().is_ok() {
            self.0.closing.spawn(work);
        }
    }
}

/// Whether it is worth while to try to connect again: a server that starts, one that has no place at
/// the moment, or a SQLite file that another process turns into one with a WAL.
fn passes(error: &sqlx::Error, patient: bool) -> bool {
    match error {
        sqlx::Error::Io(error) => patient && error.kind() == io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(reported) => match reported.code().as_deref() {
            Some("53300" | "57P03") => patient,
            Some(code) => {
                code.parse::<i32>().is_ok_and(|code| code & 0xff == 5)
                    && reported
                        .try_downcast_ref::<sqlx::sqlite::SqliteError>()
                        .is_some()
            }
            None => false,
        },
        _ => false,
    }
}

pub(super) fn silence(limit: Duration) -> sqlx::Error {
    let words = format!("no answer within {} s", limit.as_secs());
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, words))
}

/// Whether the deadline passed.
pub(super) fn is_silence(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}
