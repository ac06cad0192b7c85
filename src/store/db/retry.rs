//! Retries of transactions that the database rolled back in favor of another one.

use std::time::Duration;

use super::super::StoreError;
use crate::backoff::Backoff;

/// Maximum number of times that a transaction is tried.
const TRIES_MAX: u32 = 8;
/// Pauses between the tries. PostgreSQL itself waits for a second before it checks for a deadlock.
const PAUSES: Backoff =
    Backoff::new(Duration::from_millis(10), Duration::from_millis(250)).with_jitter(0.5);

/// An error that may mean no more than that another transaction was faster.
pub trait MaybeConflict {
    /// Returns whether nothing has happened and the same operation may succeed at once.
    fn is_conflict(&self) -> bool;
}

impl MaybeConflict for StoreError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}

/// Runs a transaction, and repeats it while the database rolls it back because of another one: after a deadlock, or if
/// data that it had read has changed. The pauses between the tries are random, so that two transactions that collided
/// do not collide again.
///
/// `attempt` begins and commits a transaction of its own each time, and leaves nothing behind if it fails.
///
/// # Errors
/// Returns any error of `attempt`. A conflict is returned only after eight tries.
pub async fn retried<T, E, F>(attempt: impl Fn() -> F) -> Result<T, E>
where
    E: MaybeConflict,
    F: Future<Output = Result<T, E>>,
{
    let mut tries = 1;
    loop {
        match attempt().await {
            Err(error) if error.is_conflict() && tries < TRIES_MAX => {
                let pause = PAUSES.after(tries - 1);
                tracing::debug!(
                    tries,
                    ?pause,
                    "a transaction was undone because of another one"
                );
                tokio::time::sleep(pause).await;
                tries += 1;
            }
            ended => return ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    async fn tries(errors: u32, error: fn() -> StoreError) -> (Result<(), StoreError>, u32) {
        let tries = AtomicU32::new(0);
        let result = retried(|| async {
            if tries.fetch_add(1, Ordering::Relaxed) < errors {
                return Err(error());
            }
            Ok(())
        });
        (result.await, tries.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn conflicts_are_tried_again_within_bounds_and_nothing_else_is() {
        let conflict = || StoreError::Conflict {
            database: "d".to_owned(),
            cause: "deadlock detected".to_owned(),
        };
        assert!(matches!(tries(0, conflict).await, (Ok(()), 1)));
        assert!(matches!(tries(3, conflict).await, (Ok(()), 4)));
        let (ended, tried) = tries(u32::MAX, conflict).await;
        assert!(ended.is_err_and(|error| error.is_temporary()));
        assert_eq!(tried, TRIES_MAX);
        let busy = || StoreError::Busy {
            database: "d".to_owned(),
            cause: "it was waited for already".to_owned(),
        };
        assert!(matches!(tries(1, busy).await, (Err(_), 1)));
    }
}
