//! Decoded rows of either database.

use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Postgres, Row as _, Sqlite, Type};
use uuid::Uuid;

use crate::store::StoreError;

/// A row that is read by the names of its columns.
pub(in crate::store) enum Row<'r> {
    Sqlite(&'r SqliteRow),
    Postgres(&'r PgRow),
}

impl<'r> Row<'r> {
    /// Returns the value of a column.
    pub(in crate::store) fn get<T>(&self, column: &str) -> Result<T, StoreError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
        .map_err(|error| StoreError::row(error.to_string()))
    }

    /// Returns the value of the only column.
    fn first<T>(&self) -> Result<T, StoreError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    {
        match self {
            Self::Sqlite(row) => row.try_get(0),
            Self::Postgres(row) => row.try_get(0),
        }
        .map_err(|error| StoreError::row(error.to_string()))
    }

    pub(in crate::store) fn uuid(&self, column: &str) -> Result<Uuid, StoreError> {
        uuid_of(self.get(column)?)
    }

    pub(in crate::store) fn optional_uuid(&self, column: &str) -> Result<Option<Uuid>, StoreError> {
        self.get::<Option<&str>>(column)?.map(uuid_of).transpose()
    }

    /// Returns a time stored in microseconds. A value outside the range of [`Timestamp`] becomes the nearest one in it,
    /// so that a single damaged number does not make a whole list unreadable.
    pub(in crate::store) fn time(&self, column: &str) -> Result<Timestamp, StoreError> {
        let micros: i64 = self.get(column)?;
        Ok(timestamp(micros))
    }

    pub(in crate::store) fn optional_time(
        &self,
        column: &str,
    ) -> Result<Option<Timestamp>, StoreError> {
        let micros: Option<i64> = self.get(column)?;
        Ok(micros.map(timestamp))
    }

    /// Returns a count. A negative value becomes 0, for the same reason.
    pub(in crate::store) fn count(&self, column: &str) -> Result<u64, StoreError> {
        let count: i64 = self.get(column)?;
        Ok(count_of(count))
    }

    pub(in crate::store) fn optional_count(&self, column: &str) -> Result<Option<u64>, StoreError> {
        let count: Option<i64> = self.get(column)?;
        Ok(count.map(count_of))
    }

    /// Returns a number that has a meaning of its own, such as that of a log entry. A negative value is an error.
    pub(in crate::store) fn number(&self, column: &str) -> Result<u64, StoreError> {
        let number: i64 = self.get(column)?;
        u64::try_from(number).map_err(|_| StoreError::row(format!("{number} is negative")))
    }

    pub(in crate::store) fn digest(&self, column: &str) -> Result<[u8; 32], StoreError> {
        digest_of(self.get(column)?)
    }

    /// Returns a word of a closed set, such as a role.
    pub(in crate::store) fn word<T>(
        &self,
        column: &str,
        parse: fn(&str) -> Option<T>,
    ) -> Result<T, StoreError> {
        let text: &str = self.get(column)?;
        parse(text).ok_or_else(|| StoreError::row(format!("{text:?} is a word from elsewhere")))
    }
}

/// Decoders of rows with a single column, which needs no name.
pub(in crate::store) mod one {
    use super::{Row, StoreError, Timestamp, Uuid, count_of, digest_of, timestamp, uuid_of};

    pub(in crate::store) fn count(row: &Row<'_>) -> Result<u64, StoreError> {
        row.first().map(count_of)
    }

    pub(in crate::store) fn optional_count(row: &Row<'_>) -> Result<Option<u64>, StoreError> {
        Ok(row.first::<Option<i64>>()?.map(count_of))
    }

    /// Reads a duration in microseconds, which may be negative.
    pub(in crate::store) fn optional_micros(row: &Row<'_>) -> Result<Option<i64>, StoreError> {
        row.first()
    }

    pub(in crate::store) fn uuid(row: &Row<'_>) -> Result<Uuid, StoreError> {
        uuid_of(row.first()?)
    }

    pub(in crate::store) fn text(row: &Row<'_>) -> Result<String, StoreError> {
        row.first()
    }

    pub(in crate::store) fn bytes(row: &Row<'_>) -> Result<Vec<u8>, StoreError> {
        row.first()
    }

    pub(in crate::store) fn time(row: &Row<'_>) -> Result<Timestamp, StoreError> {
        row.first().map(timestamp)
    }

    pub(in crate::store) fn digest(row: &Row<'_>) -> Result<[u8; 32], StoreError> {
        digest_of(row.first()?)
    }
}

fn uuid_of(text: &str) -> Result<Uuid, StoreError> {
    Uuid::try_parse(text).map_err(|_| StoreError::row(format!("{text:?} is not a UUID")))
}

fn digest_of(bytes: &[u8]) -> Result<[u8; 32], StoreError> {
    let digest = bytes.try_into();
    digest.map_err(|_| StoreError::row(format!("a digest of {} bytes", bytes.len())))
}

fn count_of(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_else(|_| {
        tracing::warn!(
            count,
            "a count in the database is damaged, 0 is taken for it"
        );
        0
    })
}

/// Begin of the year 0: RFC 3339 (section 5.6), and thus the JSON of the API, has no earlier time.
const EARLIEST: Timestamp = Timestamp::constant(-62_167_219_200, 0);

fn timestamp(micros: i64) -> Timestamp {
    let time = Timestamp::from_microsecond(micros).ok();
    time.filter(|time| *time >= EARLIEST).unwrap_or_else(|| {
        tracing::warn!(
            micros,
            "a time in the database is damaged, the nearest date is taken for it"
        );
        if micros < 0 { EARLIEST } else { Timestamp::MAX }
    })
}
