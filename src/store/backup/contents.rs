//! Contents of a copy of a SQLite database, and what is valid in it that is not any more.

use std::path::Path;

use jiff::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection};

use super::{BackupError, Compared, Contents, Lacking, LackingKey, ValidAgain, unfit};
use crate::store::db::migrate;
use crate::store::{LogHead, Store};

/// Examines a file that nobody else uses: whether it is a database of this program, not of a newer one, sound, and its
/// log complete. What a log beside it holds is taken over.
pub(super) async fn examine(file: &Path) -> Result<Contents, BackupError> {
    let failed =
        |error: sqlx::Error| unfit(file, &format!("it is no database, or damaged: {error}"));
    let options = SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(SqliteJournalMode::Delete)
        .disable_statement_logging();
    let mut connection = options.connect().await.map_err(failed)?;
    let contents = contents(&mut connection, file).await;
    connection.close().await.map_err(failed)?;
    contents
}

async fn contents(connection: &mut SqliteConnection, file: &Path) -> Result<Contents, BackupError> {
    let failed = |error: sqlx::Error| {
        unfit(
            file,
            &format!("it is no backup of rescind, or damaged: {error}"),
        )
    };
    let mut ask = async |sql: &'static str| sqlx::query(sql).fetch_optional(&mut *connection).await;
    let table = "SELECT COUNT(*) FROM sqlite_master WHERE name IN ('_sqlx_migrations', 'revocation_log', 'keys', 'log_head')";
    let tables: i64 = one(ask(table).await).map_err(failed)?;
    if tables != 4 {
        let cause = "it is no database of rescind, or was copied without its -wal, in which everything is: copy that, too";
        return Err(unfit(file, cause));
    }
    let version = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations";
    let version: i64 = one(ask(version).await).map_err(failed)?;
    let known = migrate::known_version();
    if version > known {
        let cause = format!(
            "it has the schema version {version} of a newer rescind, and this one knows versions up to {known}: install that one"
        );
        return Err(unfit(file, &cause));
    }
    let sound: String = one(ask("PRAGMA integrity_check(1)").await).map_err(failed)?;
    if sound != "ok" {
        return Err(unfit(file, &format!("it is damaged: {sound}")));
    }
    let head = ask("SELECT seq, hash FROM log_head WHERE id = 1")
        .await
        .map_err(failed)?;
    let head = head.ok_or_else(|| unfit(file, "its log has no head"))?;
    let head = head_of(&head).map_err(failed)?;
    let last = ask("SELECT seq, hash FROM revocation_log ORDER BY seq DESC LIMIT 1");
    let last = last.await.map_err(failed)?;
    let last = last.map(|row| head_of(&row)).transpose().map_err(failed)?;
    if last.as_ref().is_some_and(|last| *last != head) || (last.is_none() && head.seq != 0) {
        let cause = "the last entry of its log is not the one that its head names, so that entries are missing";
        return Err(unfit(file, cause));
    }
    let keys: i64 = one(ask("SELECT COUNT(*) FROM keys").await).map_err(failed)?;
    let newest: Option<i64> = one(ask("SELECT MAX(created_at) FROM keys").await).map_err(failed)?;
    let last = "SELECT (SELECT at FROM revocation_log ORDER BY seq DESC LIMIT 1)";
    let last: Option<i64> = one(ask(last).await).map_err(failed)?;
    let id = if Store::has_identity(version) {
        Some(one(ask("SELECT id FROM store_identity").await).map_err(failed)?)
    } else {
        None
    };
    Ok(Contents {
        keys: u64::try_from(keys).unwrap_or(0),
        head,
        version,
        newest_key_at: newest.and_then(|at| Timestamp::from_microsecond(at).ok()),
        last_entry_at: last.and_then(|at| Timestamp::from_microsecond(at).ok()),
        id,
    })
}

fn one<T>(row: Result<Option<SqliteRow>, sqlx::Error>) -> Result<T, sqlx::Error>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row?.ok_or(sqlx::Error::RowNotFound)?.try_get(0)
}

fn head_of(row: &SqliteRow) -> Result<LogHead, sqlx::Error> {
    let seq: i64 = row.try_get(0)?;
    Ok(LogHead {
        seq: u64::try_from(seq).unwrap_or(0),
        hash: row.try_get(1)?,
    })
}

/// Compares the keys and access tokens of a database with those of the attached `backup`.
pub(super) async fn compare(now: &mut SqliteConnection) -> Result<Compared, sqlx::Error> {
    Ok(Compared {
        valid_again: valid_again(now).await?,
        lacking: lacking(now).await?,
    })
}

/// Returns what the backup lacks.
async fn lacking(now: &mut SqliteConnection) -> Result<Lacking, sqlx::Error> {
    const KEYS: &str = "SELECT COUNT(*) FROM main.keys new
        WHERE NOT EXISTS (SELECT 1 FROM backup.keys old WHERE old.id = new.id)";
    const NAMED: &str = "SELECT new.id, new.last_four FROM main.keys new
        WHERE NOT EXISTS (SELECT 1 FROM backup.keys old WHERE old.id = new.id)
        ORDER BY new.created_at, new.id LIMIT $1";
    const TOKENS: &str = "SELECT COUNT(*) FROM main.tokens new
        WHERE NOT EXISTS (SELECT 1 FROM backup.tokens old WHERE old.id = new.id)";
    let keys: i64 = one(sqlx::query(KEYS).fetch_optional(&mut *now).await)?;
    let tokens: i64 = one(sqlx::query(TOKENS).fetch_optional(&mut *now).await)?;
    let named = sqlx::query(NAMED).bind(Lacking::NAMED);
    let named = named.fetch_all(&mut *now).await?;
    let named = named.iter().map(|row| {
        Ok(LackingKey {
            id: row.try_get(0)?,
            last_four: row.try_get(1)?,
        })
    });
    Ok(Lacking {
        keys: u64::try_from(keys).unwrap_or(0),
        named: named.collect::<Result<_, sqlx::Error>>()?,
        tokens: u64::try_from(tokens).unwrap_or(0),
    })
}

async fn valid_again(now: &mut SqliteConnection) -> Result<Vec<ValidAgain>, sqlx::Error> {
    const KEYS: &str = "SELECT new.id, new.revoked_at, new.replaced_by, new.expires_at
        FROM main.keys new JOIN backup.keys old ON old.id = new.id
        WHERE old.revoked_at IS NULL AND (new.revoked_at IS NOT NULL
            OR new.expires_at < COALESCE(old.expires_at, 9223372036854775807))
        ORDER BY new.id";
    const TOKENS: &str =
        "SELECT new.id FROM main.tokens new JOIN backup.tokens old ON old.id = new.id
        WHERE old.revoked_at IS NULL AND new.revoked_at IS NOT NULL ORDER BY new.id";
    let mut all = Vec::new();
    for row in sqlx::query(KEYS).fetch_all(&mut *now).await? {
        let id: String = row.try_get(0)?;
        let (revoked, replaced, expires): (Option<i64>, Option<String>, Option<i64>) =
            (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        all.push(match (revoked, replaced, expires) {
            (None, Some(_), _) => ValidAgain::RotatedKey(id),
            (None, None, Some(end)) => ValidAgain::ShortenedKey(id, end),
            _ => ValidAgain::RevokedKey(id),
        });
    }
    for row in sqlx::query(TOKENS).fetch_all(&mut *now).await? {
        all.push(ValidAgain::RevokedToken(row.try_get(0)?));
    }
    Ok(all)
}
