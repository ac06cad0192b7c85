//! Decoded rows of either database.

use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Postgres, Row as _, Sqlite, Type};
use uuid::Uuid;

use crate::store::StoreError;

/// A row that is read column by column, in the order of the statement's list.
pub(in crate::store) struct Fields<'r> {
    row: RowOf<'r>,
    at: usize,
}

enum RowOf<'r> {
    Sqlite(&'r SqliteRow),
    Postgres(&'r PgRow),
}

impl<'r> Fields<'r> {
    pub(in crate::store) fn sqlite(row: &'r SqliteRow) -> Self {
        Self {
            row: RowOf::Sqlite(row),
            at: 0,
        }
    }

    pub(in crate::store) fn postgres(row: &'r PgRow) -> Self {
        Self {
            row: RowOf::Postgres(row),
            at: 0,
        }
    }

    /// Returns the value of the next column.
    pub(in crate::store) fn next<T>(&mut self) -> Result<T, StoreError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    {
        let at = self.at;
        self.at += 1;
        match self.row {
            RowOf::Sqlite(row) => row.try_get(at),
            RowOf::Postgres(row) => row.try_get(at),
        }
        .map_err(|error| StoreError::row(error.to_string()))
    }

    pub(in crate::store) fn uuid(&mut self) -> Result<Uuid, StoreError> {
        let text: &str = self.next()?;
        Uuid::try_parse(text).map_err(|_| StoreError::row(format!("{text:?} is not a UUID")))
    }

    pub(in crate::store) fn optional_uuid(&mut self) -> Result<Option<Uuid>, StoreError> {
        let text: Option<&str> = self.next()?;
        text.map(|text| {
            Uuid::try_parse(text).map_err(|_| StoreError::row(format!("{text:?} is not a UUID")))
        })
        .transpose()
    }

    /// Returns a time stored in microseconds. A value outside the range of [`Timestamp`] becomes the nearest one in it,
    /// so that a single damaged number does not make a whole list unreadable.
    pub(in crate::store) fn time(&mut self) -> Result<Timestamp, StoreError> {
        let micros: i64 = self.next()?;
        Ok(timestamp(micros))
    }

    pub(in crate::store) fn optional_time(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let micros: Option<i64> = self.next()?;
        Ok(micros.map(timestamp))
    }

    /// Returns a count. A negative value becomes 0, for the same reason.
    pub(in crate::store) fn count(&mut self) -> Result<u64, StoreError> {
        let count: i64 = self.next()?;
        Ok(count_of(count))
    }

    pub(in crate::store) fn optional_count(&mut self) -> Result<Option<u64>, StoreError> {
        let count: Option<i64> = self.next()?;
        Ok(count.map(count_of))
    }

    /// Returns a number that has a meaning of its own, such as that of a log entry. A negative value is an error.
    pub(in crate::store) fn number(&mut self) -> Result<u64, StoreError> {
        let number: i64 = self.next()?;
        u64::try_from(number).map_err(|_| StoreError::row(format!("{number} is negative")))
    }

    pub(in crate::store) fn digest(&mut self) -> Result<[u8; 32], StoreError> {
        let bytes: &[u8] = self.next()?;
        bytes
            .try_into()
            .map_err(|_| StoreError::row(format!("a digest of {} bytes", bytes.len())))
    }

    /// Returns a word of a closed set, such as a role.
    pub(in crate::store) fn word<T>(
        &mut self,
        parse: fn(&str) -> Option<T>,
    ) -> Result<T, StoreError> {
        let text: &str = self.next()?;
        parse(text).ok_or_else(|| StoreError::row(format!("{text:?} is a word from elsewhere")))
    }
}

/// Decoders of rows with a single column.
pub(in crate::store) mod one {
    use super::{Fields, StoreError, Timestamp, Uuid};

    pub(in crate::store) fn count(row: &mut Fields<'_>) -> Result<u64, StoreError> {
        row.count()
    }

    pub(in crate::store) fn optional_count(
        row: &mut Fields<'_>,
    ) -> Result<Option<u64>, StoreError> {
        row.optional_count()
    }

    pub(in crate::store) fn uuid(row: &mut Fields<'_>) -> Result<Uuid, StoreError> {
        row.uuid()
    }

    pub(in crate::store) fn text(row: &mut Fields<'_>) -> Result<String, StoreError> {
        row.next()
    }

    pub(in crate::store) fn bytes(row: &mut Fields<'_>) -> Result<Vec<u8>, StoreError> {
        row.next()
    }

    pub(in crate::store) fn time(row: &mut Fields<'_>) -> Result<Timestamp, StoreError> {
        row.time()
    }

    pub(in crate::store) fn digest(row: &mut Fields<'_>) -> Result<[u8; 32], StoreError> {
        row.digest()
    }
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

fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or_else(|_| {
        tracing::warn!(
            micros,
            "a time in the database is damaged, the nearest date is taken for it"
        );
        if micros < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        }
    })
}
