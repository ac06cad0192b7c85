//! Settings of a PostgreSQL session. An administrator can set others for the server, a database or a role, and some of
//! those would lose a leak, or delay it.

use std::time::Duration;

use futures_util::FutureExt as _;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Postgres, Row as _};
use tokio::time::Instant;

use super::super::STATEMENT_WAIT;
use super::gate::Urgency;
use super::pool::Pool;

/// Time after which PostgreSQL ends an open transaction whose client is silent. It holds locks, and no transaction of
/// this program waits for anything but the database.
const IDLE_TRANSACTION: Duration = Duration::from_secs(10);
/// Time after which PostgreSQL ends a statement that this program no longer waits for. Statements of a transaction have
/// a limit of their own.
const STATEMENT: Duration = Duration::from_secs(65);
/// Interval at which PostgreSQL checks, while a statement runs, that the client is still connected. Otherwise, a
/// migration that was abandoned would run to its end and hold its locks.
const CLIENT_CHECK: Duration = Duration::from_secs(2);

/// Time limit for comparing the sessions of two connections.
const COMPARISON: Duration = Duration::from_secs(2);

/// Settings that every session has, whatever the server, the database or the role says.
const FIXED: [(&str, &str); 20] = [
    // The keepalives make the server detect connections whose other end is gone, since the sockets of `sqlx` cannot be
    // given one from this side.
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "20000"),
    // They would end sessions, and migrations, that are well.
    ("idle_session_timeout", "0"),
    ("transaction_timeout", "0"),
    // Otherwise a backslash in a statement's text escapes what follows it.
    ("standard_conforming_strings", "on"),
    // At any other level, reports at the same time undo one another more often than they are tried again.
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    // A policy that hides a key makes its leak nobody's. So it is an error instead.
    ("row_security", "off"),
    // Only superusers may set these three, so they are set only where they differ. Without triggers and foreign keys
    // what is revoked could be undone, and a page that is zeroed instead of being reported had keys on it.
    ("session_replication_role", "origin"),
    ("zero_damaged_pages", "off"),
    ("ignore_checksum_failure", "off"),
    // Without them every look-up reads whole tables.
    ("enable_indexscan", "on"),
    ("enable_indexonlyscan", "on"),
    ("enable_bitmapscan", "on"),
    ("enable_nestloop", "on"),
    ("enable_hashjoin", "on"),
    ("enable_sort", "on"),
    ("plan_cache_mode", "auto"),
];

/// Returns the statement that configures a session. Settings that the server does not know are skipped. `lock_wait` is
/// the time that a statement waits for a lock.
///
/// A setting that makes a commit wait for less than the disk of the server loses what was acknowledged when that
/// crashes; one that makes it wait for a standby, or for the disk alone, is the administrator's choice.
pub(in crate::store) fn settings(lock_wait: Duration) -> String {
    let millis = |name, time: Duration| format!("('{name}', '{}')", time.as_millis());
    let mut wanted: Vec<String> = FIXED
        .iter()
        .map(|(name, value)| format!("('{name}', '{value}')"))
        .collect();
    wanted.extend([
        millis("lock_timeout", lock_wait),
        millis("statement_timeout", STATEMENT),
        millis("idle_in_transaction_session_timeout", IDLE_TRANSACTION),
        millis("client_connection_check_interval", CLIENT_CHECK),
        "('synchronous_commit', CASE pg_catalog.current_setting('synchronous_commit')
            WHEN 'off' THEN 'on' ELSE pg_catalog.current_setting('synchronous_commit') END)"
            .to_owned(),
    ]);
    format!(
        "SELECT pg_catalog.set_config(known.name, wanted.value, false) FROM pg_catalog.pg_settings known
         JOIN (VALUES {}) AS wanted (name, value) ON wanted.name = known.name
         WHERE known.context <> 'superuser' OR known.setting <> wanted.value",
        wanted.join(", ")
    )
}

/// Error of a connection that would be one [too many](too_many).
pub(in crate::store) const TOO_MANY: &str = "as many sessions of rescind as it may have are open, and wait for a standby \
    that is away (synchronous_standby_names): nothing is committed until it is back";

/// Returns a statement that yields a row if this machine has more than `most` sessions, and one of them waits for a
/// standby for longer than a commit is waited for. For one that answers each commit waits for a moment.
///
/// The server does not notice the end of a connection while its session waits so, and does not end that after any time:
/// each commit that was given up would leave one behind until the server has none left. To cancel the wait would show
/// others what no standby has.
pub(in crate::store) fn too_many(most: u32) -> String {
    let given_up = STATEMENT_WAIT.as_secs();
    format!(
        "SELECT 1 FROM pg_catalog.pg_stat_activity AS other
         JOIN pg_catalog.pg_stat_activity AS mine ON mine.pid = pg_catalog.pg_backend_pid()
         WHERE other.application_name = 'rescind' AND other.datname = mine.datname AND other.usename = mine.usename
            AND other.client_addr IS NOT DISTINCT FROM mine.client_addr
         HAVING count(*) > {most} AND bool_or(other.wait_event = 'SyncRep'
            AND other.state_change < pg_catalog.clock_timestamp() - interval '{given_up} s')"
    )
}

/// Returns whether a pooler shares sessions among connections: two that are open at the same time have the same one. A
/// server that gives no second connection is none.
pub(in crate::store) async fn is_shared(pool: &Pool<Postgres>, options: &PgConnectOptions) -> bool {
    let compared = async {
        let until = Instant::now() + COMPARISON;
        let mut one = pool.acquire(Urgency::Awaited, until).await?;
        // Not of the pool, which would ask a server that refuses again and again.
        let mut other = options.connect().await?;
        let first = process(one.raw()?).await?;
        let second = process(&mut other).await?;
        one.settle();
        // The end of it is not waited for.
        drop(other.close().now_or_never());
        Ok::<_, sqlx::Error>(first == second)
    };
    // Whoever does not answer is asked for something else next, and is found out then.
    pool.within(COMPARISON, compared).await.unwrap_or(false)
}

/// Returns the process that serves a connection. Nothing is prepared, since that is what a shared session confuses.
async fn process(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    let sql = sqlx::raw_sql("SELECT pg_catalog.pg_backend_pid()");
    sql.fetch_one(connection).await?.try_get(0)
}
