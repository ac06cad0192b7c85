//! Room for what is left of long lists of references, which is read when nothing else waits.

use super::super::db::sql::{args, one, statements};
use super::super::{Read as _, Store, StoreError};
use super::item::{NewWorkItem, Priority};
use super::turns::{OWNED, WAITING_AT};

/// Number of waiting items of a repository, of an owner and of a host at which lists add no more to them. The few that
/// several lists add at the same time come on top.
const REPOSITORY_MAX: u64 = 500;
const OWNER_MAX: u64 = 2_000;
const HOST_MAX: u64 = 20_000;

statements! {
    OF_REPOSITORY = "SELECT COUNT(*) FROM (SELECT 1 FROM work_items
            WHERE state = 'waiting' AND host = $1 AND remote = $2 AND priority = $3 LIMIT $4) AS found";
}

impl Store {
    /// Returns whether a list may add more items to those that wait at the lowest priority.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn has_room_for_rest(&self, list: &NewWorkItem) -> Result<bool, StoreError> {
        let backfill = Priority::Backfill.number();
        let (host, remote, owner) = (&list.host, list.remote(), list.owner());
        let counts = [
            (
                OF_REPOSITORY,
                args![host, remote, backfill, REPOSITORY_MAX],
                REPOSITORY_MAX,
            ),
            (OWNED, args![host, owner, backfill, OWNER_MAX], OWNER_MAX),
            (WAITING_AT, args![backfill, host, HOST_MAX], HOST_MAX),
        ];
        let mut read = self;
        for (sql, args, most) in counts {
            let waiting = read.fetch_first(sql, args, one::count).await?;
            if waiting.is_some_and(|waiting| waiting >= most) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
