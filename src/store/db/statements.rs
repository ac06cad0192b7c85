//! All statements of the program, prepared against a database to see whether it takes them.

use super::super::incidents::occurrences;
use super::super::keys::{find, import, uses};
use super::super::log::verify;
use super::super::queue::{
    again, backlog, begun, beside, blobs, claim, give_back, holders, list_rest, misdated, rests,
    turns, unread,
};
use super::super::sources::{deliveries, work as source_work};
use super::super::{
    Store, StoreError, definitions, hunted, identity, incidents, keys, log, peppers, queue,
    requests, senders, sources, stats, tokens,
};
use super::connect::Db;
use super::ready;
use super::sql::Sql;

/// Returns all statements of the program, with their names.
pub(super) fn all() -> impl Iterator<Item = (&'static str, Sql)> {
    let families = [
        keys::ALL,
        find::ALL,
        import::ALL,
        tokens::ALL,
        peppers::ALL,
        incidents::ALL,
        occurrences::ALL,
        uses::ALL,
        log::ALL,
        verify::ALL,
        queue::ALL,
        list_rest::ALL,
        turns::ALL,
        again::ALL,
        misdated::ALL,
        rests::ALL,
        unread::ALL,
        claim::ALL,
        give_back::ALL,
        begun::ALL,
        beside::ALL,
        holders::ALL,
        backlog::ALL,
        sources::ALL,
        deliveries::ALL,
        source_work::ALL,
        blobs::ALL,
        senders::ALL,
        requests::ALL,
        ready::ALL,
        identity::ALL,
        definitions::ALL,
        hunted::ALL,
        stats::ALL,
    ];
    let lists = [
        keys::every_filter(),
        incidents::every_filter(),
        log::every_filter(),
    ];
    let fixed = families.into_iter().flatten().cloned();
    fixed.chain(lists)
}

impl Store {
    /// Prepares every statement of this program against the database, without running any, and returns their number. A
    /// schema that somebody changed by hand shows here.
    ///
    /// # Errors
    /// Returns [`StoreError::Other`], naming the statement that the database refuses, or the [`StoreError`] that says
    /// why none is prepared at present.
    pub async fn check_statements(&self) -> Result<usize, StoreError> {
        let mut count = 0;
        for (name, sql) in all() {
            self.prepare(&sql.of(2)).await.map_err(|error| {
                match StoreError::from_driver(&self.0.name, &error) {
                    error if error.is_temporary() => error,
                    _ => StoreError::Other {
                        database: self.0.name.clone(),
                        cause: format!("{name}: {error}"),
                    },
                }
            })?;
            count += 1;
        }
        Ok(count)
    }

    async fn prepare(&self, sql: &Sql) -> Result<(), sqlx::Error> {
        // As an explanation the text differs from that of a statement that was prepared before, which
        // would be given back from the connection's cache, unchecked.
        let text = format!("EXPLAIN {}", sql.text(self.0.db.dialect()));
        let (until, limit) = (self.turn_until(), self.limit());
        match &self.0.db {
            Db::Sqlite { write, .. } => {
                let mut held = write.acquire(self.1, until).await?;
                // SQLite compares the schema it has in memory with the file's when a statement runs.
                held.run(limit, "SELECT COUNT(*) FROM sqlite_master")
                    .await?;
                held.prepare(limit, text).await
            }
            Db::Postgres(pool) => {
                let mut held = pool.acquire(self.1, until).await?;
                held.prepare(limit, text).await
            }
        }
    }
}
