//! The identity of a store, which a file beside a SQLite database repeats.

use std::path::Path;

use super::db::ground::{Ground, lost, unless_wanted};
use super::db::marker::Marked;
use super::db::sql::{args, one, statements};
use super::{Read as _, Store, StoreError};

/// Version of the schema from which on a store has an identity.
const HAS_IDENTITY: i64 = 13;

statements! {
    IDENTITY = "SELECT id FROM store_identity";
}

impl Store {
    /// Checks that the database which was opened is the one that was there before, or may be a new one.
    ///
    /// # Errors
    /// Returns [`StoreError::Lost`], or any [`StoreError`] of a read.
    pub(in crate::store) async fn check_ground(&self) -> Result<(), StoreError> {
        let Some(ground) = &self.0.ground else {
            return Ok(());
        };
        let version = self.schema_version().await?;
        if version > 0 {
            return self.check_identity(version, false).await;
        }
        if ground.may_be_empty {
            return Ok(());
        }
        let cause = "the file holds no tables: it was copied without its -wal, in which they are, or is no database of \
                     rescind. Put the -wal beside it as well, or a backup (`rescind restore`)";
        Err(unless_wanted(Path::new(&self.0.name), cause))
    }

    /// Compares the identity of the store with the one that was there, and notes it if none is known. `is_new` says
    /// that it has only now got one.
    pub(in crate::store) async fn check_identity(
        &self,
        version: i64,
        is_new: bool,
    ) -> Result<(), StoreError> {
        let Some(Ground { marker, .. }) = &self.0.ground else {
            return Ok(());
        };
        if version < HAS_IDENTITY {
            return Ok(());
        }
        let mut read = self;
        let found = read.fetch_first(IDENTITY, args![], one::text).await?;
        let id = found.ok_or_else(|| StoreError::row("the store has no identity".to_owned()))?;
        match marker.read() {
            Ok(Marked::Made(noted)) if noted == id => Ok(()),
            Ok(Marked::Made(noted)) if !is_new => {
                let cause = format!(
                    "{} says that the store {noted} was there, and this is the store {id}: another database was put in \
                     its place. If it is to be used, move {} away",
                    marker.path().display(),
                    marker.path().display()
                );
                Err(lost(Path::new(&self.0.name), cause))
            }
            // It is noted at the next start, if not now: that the disk is full must not end this one.
            _ => {
                if let Err(error) = marker.made(&id) {
                    tracing::warn!(file = %marker.path().display(), %error, "the identity of the store could not be noted");
                }
                Ok(())
            }
        }
    }

    /// Returns whether a schema of this version has an identity.
    pub(in crate::store) fn has_identity(version: i64) -> bool {
        version >= HAS_IDENTITY
    }
}
