//! Connections, and when one is given up.
//!
//! Every exchange with a database has a deadline. A connection on which one did not end well, because the
//! answer did not come in time, the caller went away, or the transaction is in an unknown state, is never
//! handed out again: it is closed, and the next caller gets a new one. (The pool of `sqlx` asks a
//! connection that comes back for a sign of life, and waits for it without end; one frozen connection after
//! the other would take a place of that pool for ever.)

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{
    AssertSqlSafe, ColumnIndex, ConnectOptions as _, Connection as _, Database, Decode, Executor,
    IntoArguments, Row as _, Type,
};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::gate::{Gate, NoPlace, Place, Urgency};

/// How long an idle connection may take to show that it is alive.
const PING_WAIT: Duration = Duration::from_secs(2);

/// How long a connection may take to undo a transaction that was left, or to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// The pause before a server that refuses connections is asked again.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// How long an exchange may still take once the program shuts down.
const HURRY: Duration = Duration::from_secs(2);

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
}

/// Connections to one database. Cheap to clone.
pub(super) struct Pool<DB: Database>(Arc<Inner<DB>>);

struct Inner<DB: Database> {
    options: <DB::Connection as sqlx::Connection>::Options,
    manners: Manners,
    gate: Arc<Gate>,
    idle: Mutex<Vec<Idle<DB>>>,
    hurry: CancellationToken,
    closing: TaskTracker,
}

struct Idle<DB: Database> {
    connection: DB::Connection,
    born: Instant,
}

/// A connection that is in use. It goes back when it is dropped, if it is sound.
pub(super) struct Held<DB: Database>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    /// Until it is given away.
    lent: Option<(Idle<DB>, Place)>,
    /// Nothing is under way on it, and its state is known.
    sound: bool,
    pool: Pool<DB>,
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
            hurry: CancellationToken::new(),
            closing: TaskTracker::new(),
        }))
    }

    /// Connects once, without patience for a server that refuses, so that a wrong address shows.
    pub(super) async fn try_out(&self, wait: Duration) -> Result<(), sqlx::Error> {
        let until = Instant::now() + wait;
        let place = self.enter(Urgency::Awaited, until).await?;
        let idle = self.connect(until, false).await?;
        drop(self.hold(idle, place));
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
                return Ok(self.hold(idle, place));
            }
        }
        let idle = Box::pin(self.connect(until, true)).await?;
        Ok(self.hold(idle, place))
    }

    async fn enter(&self, urgency: Urgency, until: Instant) -> Result<Place, sqlx::Error> {
        let wait = until.saturating_duration_since(Instant::now());
        let entered = self.within(wait, async { Ok(self.0.gate.enter(urgency).await) });
        match entered.await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(NoPlace::Closed)) => Err(sqlx::Error::PoolClosed),
            Ok(Err(NoPlace::TooMany)) | Err(_) => Err(sqlx::Error::PoolTimedOut),
        }
    }

    /// The connection, if it may be used on.
    async fn alive(&self, mut idle: Idle<DB>) -> Option<Idle<DB>> {
        let manners = &self.0.manners;
        if manners
            .lifetime
            .is_some_and(|lifetime| idle.born.elapsed() > lifetime)
        {
            self.close_softly(idle.connection, None);
            return None;
        }
        if !manners.may_die {
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
    async fn within<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<T, sqlx::Error>> + Send,
    ) -> Result<T, sqlx::Error> {
        let hurry = async {
            self.0.hurry.cancelled().await;
            tokio::time::sleep(HURRY).await;
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            () = tokio::time::sleep(limit) => Err(silence(limit)),
            () = hurry => Err(silence(HURRY)),
        }
    }

    fn hold(&self, idle: Idle<DB>, place: Place) -> Held<DB> {
        Held {
            lent: Some((idle, place)),
            sound: true,
            pool: self.clone(),
        }
    }

    fn pop(&self) -> Option<Idle<DB>> {
        self.idle().pop()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle<DB>>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Says goodbye to the database while nobody waits. Without a runtime, the connection just ends.
    fn close_softly(&self, connection: DB::Connection, place: Option<Place>) {
        let keeps_place = self.0.manners.keeps_place;
        self.in_background(async move {
            if keeps_place {
                let _ = connection.close().await;
            } else {
                let _ = timeout(GOODBYE, connection.close()).await;
            }
            drop(place);
        });
    }

    fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        if tokio::runtime::Handle::try_current().is_ok() {
            self.0.closing.spawn(work);
        }
    }
}

impl<DB: Database> Held<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB> + 'static,
{
    /// The rows of a statement.
    pub(super) async fn fetch(
        &mut self,
        limit: Duration,
        sql: String,
        args: DB::Arguments,
    ) -> Result<Vec<DB::Row>, sqlx::Error> {
        let query = sqlx::query_with::<DB, _>(AssertSqlSafe(sql), args);
        let (pool, connection) = self.start()?;
        let answer = pool.within(limit, connection.fetch_all(query)).await;
        self.stop(&answer);
        answer
    }

    /// The value of a query that gives one.
    pub(super) async fn value<T>(&mut self, limit: Duration, sql: &str) -> Result<T, sqlx::Error>
    where
        T: for<'r> Decode<'r, DB> + Type<DB>,
        usize: ColumnIndex<DB::Row>,
    {
        let args = DB::Arguments::default();
        let rows = self.fetch(limit, sql.to_owned(), args).await?;
        rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get(0)
    }

    /// Runs a statement.
    pub(super) async fn execute(
        &mut self,
        limit: Duration,
        sql: String,
        args: DB::Arguments,
    ) -> Result<DB::QueryResult, sqlx::Error> {
        let query = sqlx::query_with::<DB, _>(AssertSqlSafe(sql), args);
        let (pool, connection) = self.start()?;
        let answer = pool.within(limit, connection.execute(query)).await;
        self.stop(&answer);
        answer
    }
}

impl<DB: Database> Held<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    /// Runs statements that have no arguments.
    pub(super) async fn run(
        &mut self,
        limit: Duration,
        sql: impl Into<String>,
    ) -> Result<(), sqlx::Error> {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.into()));
        let (pool, connection) = self.start()?;
        let answer = pool.within(limit, connection.execute(query)).await;
        self.stop(&answer);
        answer.map(drop)
    }

    /// Has a statement prepared.
    pub(super) async fn prepare(
        &mut self,
        limit: Duration,
        sql: String,
    ) -> Result<(), sqlx::Error> {
        use sqlx::SqlSafeStr as _;
        let sql = AssertSqlSafe(sql).into_sql_str();
        let (pool, connection) = self.start()?;
        let answer = pool.within(limit, connection.prepare(sql)).await;
        let answer = answer.map(drop);
        self.stop(&answer);
        answer
    }

    /// The connection itself, for an exchange that the caller limits. It is given up unless the caller says
    /// that it is [settled](Held::settle).
    pub(super) fn raw(&mut self) -> Result<&mut DB::Connection, sqlx::Error> {
        self.start().map(|(_, connection)| connection)
    }

    /// What was done with [`Held::raw`] went well.
    pub(super) fn settle(&mut self) {
        self.sound = true;
    }

    /// Nobody gets this connection again.
    pub(super) fn give_up(&mut self) {
        self.sound = false;
    }

    /// Undoes the open transaction in the background; the connection is given up if that fails.
    pub(super) fn undo(mut self) {
        if !self.sound {
            return;
        }
        self.sound = false;
        let pool = self.pool.clone();
        pool.in_background(async move {
            self.sound = true;
            if self.run(GOODBYE, "ROLLBACK").await.is_err() {
                self.give_up();
            }
        });
    }

    /// From here until `stop` the connection is of no use to anybody else: the caller may go
    /// away in between.
    fn start(&mut self) -> Result<(&Pool<DB>, &mut DB::Connection), sqlx::Error> {
        if !self.sound {
            return Err(sqlx::Error::WorkerCrashed);
        }
        self.sound = false;
        match &mut self.lent {
            Some((idle, _)) => Ok((&self.pool, &mut idle.connection)),
            None => Err(sqlx::Error::WorkerCrashed),
        }
    }

    fn stop<T>(&mut self, answer: &Result<T, sqlx::Error>) {
        self.sound = match answer {
            Ok(_) => true,
            Err(error) => leaves_sound(error),
        };
    }
}

impl<DB: Database> Drop for Held<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    fn drop(&mut self) {
        let Some((idle, place)) = self.lent.take() else {
            return;
        };
        let pool = &self.pool;
        if self.sound && !pool.0.gate.is_closed() {
            pool.idle().push(idle);
            // Only now, so that whoever comes next finds it.
            drop(place);
        } else if self.sound || pool.0.manners.keeps_place {
            pool.close_softly(idle.connection, Some(place));
        }
        // Else the connection ends here and now; the server notices.
    }
}

/// Whether the database answered in good order, so that the connection is known to be as it was: it
/// refused a statement. SQLite's result codes are those that never end a transaction by themselves
/// (<https://sqlite.org/lang_transaction.html>, "Response To Errors Within A Transaction").
fn leaves_sound(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(reported) = error else {
        return false;
    };
    let code = reported.code().unwrap_or_default();
    if reported
        .try_downcast_ref::<sqlx::sqlite::SqliteError>()
        .is_some()
    {
        let primary = code.parse::<i32>().unwrap_or(0) & 0xff;
        // ERROR, READONLY, CONSTRAINT, MISMATCH.
        return matches!(primary, 1 | 8 | 19 | 20);
    }
    // Connection exceptions, operator intervention, system and internal errors.
    !["08", "57", "58", "XX"]
        .iter()
        .any(|class| code.starts_with(class))
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
