//! Privileges that this program needs on the tables of PostgreSQL, and who keeps it from them.

use std::collections::BTreeMap;

use sqlx::Row as _;

use super::super::{Store, StoreError};
use super::connect::Db;
use super::error::{granted, role, unhidden};

/// Privileges that the statements of this program need on each table.
pub(super) const NEEDED: [(&str, &[&str]); 21] = [
    ("_sqlx_migrations", &["SELECT"]),
    ("definitions", &["SELECT", "INSERT"]),
    ("hunters", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    (
        "idempotent_requests",
        &["SELECT", "INSERT", "UPDATE", "DELETE"],
    ),
    ("incidents", &["SELECT", "INSERT", "UPDATE"]),
    ("keys", &["SELECT", "INSERT", "UPDATE"]),
    ("log_head", &["SELECT", "UPDATE"]),
    ("occurrences", &["SELECT", "INSERT", "UPDATE"]),
    ("peppers", &["SELECT", "INSERT"]),
    ("projects", &["SELECT", "INSERT"]),
    ("revocation_log", &["SELECT", "INSERT"]),
    ("scanned_blobs", &["SELECT", "INSERT", "DELETE"]),
    ("sender_key", &["SELECT", "INSERT"]),
    ("senders", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("source_work", &["SELECT", "INSERT", "UPDATE"]),
    ("sources", &["SELECT", "INSERT", "UPDATE"]),
    ("store_identity", &["SELECT"]),
    ("tokens", &["SELECT", "INSERT", "UPDATE"]),
    ("uses_after_exposure", &["SELECT", "INSERT"]),
    (
        "webhook_deliveries",
        &["SELECT", "INSERT", "UPDATE", "DELETE"],
    ),
    ("work_items", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
];

/// Stands for a privilege where a policy would hide rows.
const HIDDEN: &str = "all rows";

/// Returns the statement that yields a row for each privilege that is missing, with the table. A table that is not
/// there lacks none.
fn missing() -> String {
    let needed: Vec<String> = NEEDED
        .iter()
        .flat_map(|(table, privileges)| {
            let row = move |privilege: &&str| format!("('{table}', '{privilege}')");
            privileges.iter().map(row)
        })
        .collect();
    let needed = needed.join(", ");
    format!(
        "WITH needed (name, privilege) AS (VALUES {needed})
        SELECT name, privilege FROM needed
        WHERE NOT pg_catalog.has_table_privilege(pg_catalog.to_regclass(name)::oid, privilege)
        UNION ALL SELECT DISTINCT name, '{HIDDEN}' FROM needed
        WHERE pg_catalog.row_security_active(pg_catalog.to_regclass(name)::oid)
        ORDER BY 1, 2"
    )
}

/// Sessions of others for which one of this program's waits.
const BLOCKING: &str = "SELECT DISTINCT 'process ' || other.pid || ': ' || left(other.query, 200)
    FROM pg_catalog.pg_stat_activity mine
    CROSS JOIN LATERAL unnest(pg_catalog.pg_blocking_pids(mine.pid)) AS blocking (pid)
    JOIN pg_catalog.pg_stat_activity other ON other.pid = blocking.pid
    WHERE mine.datname = pg_catalog.current_database() AND mine.application_name = 'rescind'
        AND other.application_name <> 'rescind'
    LIMIT 3";

/// Sessions of this program that wait for a standby for longer than for one that answers.
const STANDBY: &str = "SELECT 1 FROM pg_catalog.pg_stat_activity
    WHERE datname = pg_catalog.current_database() AND application_name = 'rescind' AND wait_event = 'SyncRep'
        AND state_change < pg_catalog.clock_timestamp() - interval '2 s'
    LIMIT 1";

impl Store {
    /// Checks that this program has every privilege that it needs, and that no policy hides rows from it. Only
    /// PostgreSQL has such.
    ///
    /// # Errors
    /// Returns [`StoreError::Forbidden`] with what is missing, or any [`StoreError`] of a read.
    pub async fn check_access(&self) -> Result<(), StoreError> {
        let mut lacks: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in self.ask_postgres(missing()).await? {
            let [table, privilege] = [0, 1].map(|column| row.try_get::<String, _>(column));
            let (Ok(table), Ok(privilege)) = (table, privilege) else {
                continue;
            };
            lacks.entry(table).or_default().push(privilege);
        }
        if lacks.is_empty() {
            return Ok(());
        }
        let role = role(&self.0.name);
        let mut causes = Vec::new();
        let mut remedies = Vec::new();
        for (table, mut privileges) in lacks {
            let all = privileges.len();
            privileges.retain(|privilege| privilege != HIDDEN);
            if privileges.len() < all {
                causes.push(format!("row level security of {table} hides rows"));
                remedies.push(unhidden(&role));
            }
            if !privileges.is_empty() {
                let privileges = privileges.join(", ");
                causes.push(format!("no privilege to {privileges} on {table}"));
                remedies.push(granted(&privileges, &table, &role));
            }
        }
        remedies.dedup();
        Err(StoreError::Forbidden {
            database: self.0.name.clone(),
            cause: causes.join(", "),
            remedy: remedies.join("; "),
        })
    }

    /// Returns which sessions of other programs hold what this program waits for at the moment, each with its process
    /// and its last statement.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn blocking(&self) -> Result<Vec<String>, StoreError> {
        let rows = self.ask_postgres(BLOCKING.to_owned()).await?;
        let texts = rows.iter().filter_map(|row| row.try_get(0).ok());
        Ok(texts.collect())
    }

    /// Returns whether a commit of this program waits for a standby of the server.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn waits_for_standby(&self) -> Result<bool, StoreError> {
        let rows = self.ask_postgres(STANDBY.to_owned()).await?;
        Ok(!rows.is_empty())
    }

    /// Returns the rows of a statement without arguments, or none if the database is not PostgreSQL.
    async fn ask_postgres(&self, sql: String) -> Result<Vec<sqlx::postgres::PgRow>, StoreError> {
        let Db::Postgres(pool) = &self.0.db else {
            return Ok(Vec::new());
        };
        let rows = async {
            let mut held = pool.acquire(self.1, self.turn_until()).await?;
            let args = sqlx::postgres::PgArguments::default();
            held.fetch(self.limit(), sql.into(), args).await
        };
        let rows: Result<_, sqlx::Error> = rows.await;
        rows.map_err(|error| self.failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::sql::Dialect;
    use super::super::statements;
    use super::*;

    /// Returns what a statement does to which tables, as far as its words say so.
    fn uses(text: &str) -> BTreeSet<(&str, &str)> {
        let words: Vec<&str> = text
            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let mut uses = BTreeSet::new();
        let mut last = "";
        for (at, word) in words.iter().enumerate() {
            let before = at.checked_sub(1).map_or("", |before| words[before]);
            let after = words.get(at + 1).copied().unwrap_or_default();
            match (before, *word, after) {
                ("DELETE", "FROM", table) => drop(uses.insert((table, "DELETE"))),
                (_, "FROM" | "JOIN", table) => {
                    last = table;
                    uses.insert((table, "SELECT"));
                }
                (_, "INTO", table) => {
                    last = table;
                    uses.insert((table, "INSERT"));
                }
                // ON CONFLICT DO UPDATE, FOR UPDATE, FOR NO KEY UPDATE
                ("DO" | "FOR" | "KEY", "UPDATE", _) => drop(uses.insert((last, "UPDATE"))),
                (_, "UPDATE", table) => drop(uses.insert((table, "UPDATE"))),
                _ => {}
            }
        }
        uses
    }

    #[test]
    fn each_statement_has_its_privilege() {
        let needed: BTreeMap<&str, &[&str]> = NEEDED.into_iter().collect();
        let mut found = 0;
        for (name, sql) in statements::all() {
            let text = sql.text(Dialect::Postgres);
            for (table, privilege) in uses(&text) {
                let Some(privileges) = needed.get(table) else {
                    continue;
                };
                found += 1;
                assert!(
                    privileges.contains(&privilege),
                    "{name}: {privilege} on {table}"
                );
            }
        }
        assert!(found > 100, "{found}");
    }

    #[test]
    fn every_table_is_listed() {
        assert_eq!(NEEDED.map(|(table, _)| table), super::super::whole::TABLES);
    }
}
