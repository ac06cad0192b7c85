//! Tells of keys that are valid and not hunted, and of other daemons on the same database that hunt by other rules.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::clock::{SharedClock, ticks};
use crate::keyformat::FormatSet;
use crate::store::Store;

/// Interval at which this daemon notes that it is there, and looks for others.
const SEEN: Duration = Duration::from_mins(1);

/// Number of such intervals after which keys are counted again.
const COUNTED: u32 = 60;

/// Maximum time for saying good-bye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Looks until `stop`, at once and whenever other formats are in force.
pub(super) async fn keep(
    store: Store,
    clock: SharedClock,
    mut formats: watch::Receiver<FormatSet>,
    process: String,
    stop: CancellationToken,
) {
    let mut ticks = ticks(SEEN);
    let mut told: Vec<String> = Vec::new();
    let mut until_count = 0;
    loop {
        let is_changed = tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => false,
            Ok(()) = formats.changed() => true,
        };
        let current = formats.borrow_and_update().clone();
        if is_changed || until_count == 0 {
            until_count = COUNTED;
            tokio::select! {
                () = stop.cancelled() => break,
                () = tell_unhunted(&store, &current, &clock) => {}
            }
        }
        until_count -= 1;
        match store.hunts(&process, current.ruleset_version()).await {
            Ok(others) => {
                if !others.is_empty() && others != told {
                    tracing::warn!(
                        others = others.join(", "),
                        "other daemons on this database hunt by other rules: give all of them the same key formats and version"
                    );
                }
                told = others;
            }
            // Whoever needs the database for more tells of it.
            Err(error) => tracing::debug!(%error, "other daemons could not be looked for"),
        }
    }
    let _ = timeout(GOODBYE, store.hunts_no_more(&process)).await;
}

async fn tell_unhunted(store: &Store, formats: &FormatSet, clock: &SharedClock) {
    match store.unhunted(formats, clock.now()).await {
        Ok(unhunted) => {
            for group in unhunted {
                tracing::warn!("{}", group.told());
            }
        }
        Err(error) => tracing::warn!(%error, "keys that are not hunted could not be counted"),
    }
}
