//! Memory of damage that a database reported of itself.
//!
//! Neither SQLite nor PostgreSQL remembers that it found a page malformed: only statements that come to it fail. Others
//! may read wrong rows, such as through a damaged index, or damage more. Therefore, nothing is written any more.

use std::sync::{Arc, OnceLock};

use super::super::StoreError;

/// Damage of one database, if any was found. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::store) struct Damage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Name of the database in errors.
    database: String,
    /// Message of the first statement that found it damaged.
    cause: OnceLock<String>,
}

impl Damage {
    pub(in crate::store) fn new(database: String) -> Self {
        let cause = OnceLock::new();
        Self(Arc::new(Inner { database, cause }))
    }

    /// Records that the database is damaged, which is logged once.
    pub(in crate::store) fn found(&self, cause: &str) {
        if self.0.cause.set(cause.to_owned()).is_ok()
            && let Err(error) = self.check()
        {
            tracing::error!(%error, "the database is damaged: nothing is accepted");
        }
    }

    /// Checks that no damage was found.
    ///
    /// # Errors
    /// Returns [`StoreError::Damaged`].
    pub(in crate::store) fn check(&self) -> Result<(), StoreError> {
        match self.0.cause.get() {
            None => Ok(()),
            Some(cause) => Err(StoreError::Damaged {
                database: self.0.database.clone(),
                cause: cause.clone(),
            }),
        }
    }
}
