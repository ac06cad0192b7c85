//! Connections in use, and their state for the next user.

use std::borrow::Cow;
use std::time::Duration;

use sqlx::{AssertSqlSafe, ColumnIndex, Database, Decode, Executor, IntoArguments, Row as _, Type};

use super::super::error::STALE;
use super::super::gate::Pass;
use super::{GOODBYE, Idle, Pool};

/// A connection in use. If it is sound, it is returned to the pool when this is dropped.
pub(in crate::store) struct Held<DB: Database>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    /// `None` once the connection has been given away.
    lent: Option<(Idle<DB>, Pass)>,
    /// `true` if no exchange is in flight on the connection, and its state is known.
    sound: bool,
    pool: Pool<DB>,
}

impl<DB: Database> Held<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    pub(in crate::store) fn new(pool: &Pool<DB>, idle: Idle<DB>, place: Pass) -> Self {
        pool.lends();
        Self {
            lent: Some((idle, place)),
            sound: true,
            pool: pool.clone(),
        }
    }
}

impl<DB: Database> Held<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB> + 'static,
{
    /// Returns the rows of a statement.
    pub(in crate::store) async fn fetch(
        &mut self,
        limit: Duration,
        sql: Cow<'static, str>,
        args: DB::Arguments,
    ) -> Result<Vec<DB::Row>, sqlx::Error> {
        let query = sqlx::query_with::<DB, _>(AssertSqlSafe(sql), args);
        let (pool, connection) = self.start()?;
        let answer = pool.within(limit, connection.fetch_all(query)).await;
        self.stop(&answer);
        answer
    }

    /// Returns the value of a query that yields a single one.
    pub(in crate::store) async fn value<T>(
        &mut self,
        limit: Duration,
        sql: &'static str,
    ) -> Result<T, sqlx::Error>
    where
        T: for<'r> Decode<'r, DB> + Type<DB>,
        usize: ColumnIndex<DB::Row>,
    {
        let args = DB::Arguments::default();
        let rows = self.fetch(limit, sql.into(), args).await?;
        rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get(0)
    }

    /// Runs a statement.
    pub(in crate::store) async fn execute(
        &mut self,
        limit: Duration,
        sql: Cow<'static, str>,
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
    pub(in crate::store) async fn run(
        &mut self,
        limit: Duration,
        sql: impl Into<Cow<'static, str>>,
    ) -> Result<(), sqlx::Error> {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.into()));
        let (pool, connection) = self.start()?;
        let answer = pool.within(limit, connection.execute(query)).await;
        self.stop(&answer);
        answer.map(drop)
    }

    /// Prepares a statement.
    pub(in crate::store) async fn prepare(
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

    /// Returns the connection itself, for an exchange whose time the caller limits. It is closed afterward unless the
    /// caller [settles](Held::settle) it.
    pub(in crate::store) fn raw(&mut self) -> Result<&mut DB::Connection, sqlx::Error> {
        self.start().map(|(_, connection)| connection)
    }

    /// Declares that the exchange on the [raw](Held::raw) connection succeeded.
    pub(in crate::store) fn settle(&mut self) {
        self.sound = true;
    }

    /// Limits the lifetime of the connection.
    #[cfg(test)]
    pub(in crate::store) fn serve_until(&mut self, ends: tokio::time::Instant) {
        if let Some((idle, _)) = &mut self.lent {
            idle.ends = Some(ends);
        }
    }

    /// Marks the connection as unsound, so that it is closed and not used again.
    pub(in crate::store) fn give_up(&mut self) {
        self.sound = false;
    }

    /// Rolls back the open transaction in the background. The connection is closed if that fails.
    pub(in crate::store) fn undo(mut self) {
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

    /// Takes the connection for an exchange. Until `stop` it is unsound, since the caller may be dropped in between.
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
            Err(error) => {
                self.pool.note_damage(error);
                let is_stale = is_stale(error);
                if is_stale {
                    // The others have prepared the same statements.
                    self.pool.renew();
                }
                leaves_sound(error) && !is_stale
            }
        };
    }
}

impl<DB: Database> Drop for Held<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    fn drop(&mut self) {
        match self.lent.take() {
            Some((idle, place)) if self.sound => self.pool.take_back(idle, place),
            Some((idle, place)) => self.pool.end(idle, place),
            None => {}
        }
        // Afterward, so that a task that waits for a connection does not conclude that there is none.
        self.pool.has_back();
    }
}

/// Returns whether a statement was prepared for a table that was changed since.
fn is_stale(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == STALE)
}

/// Returns whether the connection is sound after the error: the database refused a statement, so the state is known to
/// be unchanged. A connection that reports a read-only transaction may have been so since it was opened, and remains so
/// when the database accepts changes again, so it is not kept. The SQLite result codes are those that never end a
/// transaction by themselves (<https://sqlite.org/lang_transaction.html>, "Response To Errors Within A Transaction").
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
        // ERROR, CONSTRAINT, MISMATCH.
        return matches!(primary, 1 | 19 | 20);
    }
    // Read-only transactions, connection exceptions, operator intervention, system and internal errors, and prepared
    // statements that are another client's.
    !["25006", "08", "26", "42P05", "57", "58", "XX"]
        .iter()
        .any(|class| code.starts_with(class))
}
