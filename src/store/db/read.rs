//! Queries, in a transaction or outside one.

use super::super::{Store, StoreError};
use super::connect::Db;
use super::gate::Urgency;
use super::retry::retried;
use super::sql::{Arg, Row, Sql, postgres_args, sqlite_args};
use super::whole::looks_up;

/// Runner of a query: the store itself for a read, or an open transaction.
pub(in crate::store) trait Read: Send {
    /// Returns all rows of a query, decoded.
    fn fetch<T: Send>(
        &mut self,
        sql: Sql,
        args: Vec<Arg>,
        decode: impl Fn(&Row<'_>) -> Result<T, StoreError> + Send + Sync,
    ) -> impl Future<Output = Result<Vec<T>, StoreError>> + Send;

    /// Returns the first row of a query, decoded.
    fn fetch_first<T: Send>(
        &mut self,
        sql: Sql,
        args: Vec<Arg>,
        decode: impl Fn(&Row<'_>) -> Result<T, StoreError> + Send + Sync,
    ) -> impl Future<Output = Result<Option<T>, StoreError>> + Send {
        async move { Ok(self.fetch(sql, args, decode).await?.into_iter().next()) }
    }
}

impl Read for &Store {
    async fn fetch<T: Send>(
        &mut self,
        sql: Sql,
        args: Vec<Arg>,
        decode: impl Fn(&Row<'_>) -> Result<T, StoreError> + Send + Sync,
    ) -> Result<Vec<T>, StoreError> {
        // Nothing has happened if another transaction was faster, or a table was changed.
        retried(|| self.fetch_once(&sql, args.clone(), &decode)).await
    }
}

impl Store {
    async fn fetch_once<T: Send>(
        &self,
        sql: &Sql,
        args: Vec<Arg>,
        decode: &(impl Fn(&Row<'_>) -> Result<T, StoreError> + Send + Sync),
    ) -> Result<Vec<T>, StoreError> {
        self.check_whole().await?;
        let failed = |error: sqlx::Error| self.failed(&error);
        let text = sql.text(self.0.db.dialect());
        let (until, limit) = (self.turn_until(), self.limit());
        match &self.0.db {
            Db::Sqlite { read, lists, .. } => {
                let read = if self.1 == Urgency::Listing {
                    lists
                } else {
                    read
                };
                let args = sqlite_args(args).map_err(failed)?;
                let mut held = read.acquire(self.1, until).await.map_err(failed)?;
                let rows = held.fetch(limit, text, args).await.map_err(failed)?;
                drop(held);
                rows.iter()
                    .map(|row| self.decode(&Row::Sqlite(row), decode))
                    .collect()
            }
            Db::Postgres(pool) => {
                let args = postgres_args(args).map_err(failed)?;
                let mut held = pool.acquire(self.1, until).await.map_err(failed)?;
                let is_look_up = looks_up(&text);
                let rows = held.fetch(limit, text, args).await.map_err(failed)?;
                if is_look_up {
                    self.check_same(&mut held).await?;
                }
                drop(held);
                rows.iter()
                    .map(|row| self.decode(&Row::Postgres(row), decode))
                    .collect()
            }
        }
    }
}
