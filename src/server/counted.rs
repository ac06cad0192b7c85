//! Numbers that were counted lately: whoever asks for them often has the database count them once in a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::source::SourceStatus;
use crate::store::Stats;

/// Time for which numbers are told again.
const FRESH: Duration = Duration::from_secs(5);

/// Maximum number of projects whose numbers are kept.
const KEPT_MAX: usize = 64;

/// Numbers that were counted together.
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) stats: Stats,
    /// State of the sources. `None` for a single project, as projects share them.
    pub(super) sources: Option<Vec<SourceStatus>>,
}

/// Numbers, and the time at which their counting began.
type Kept = (Instant, Arc<Numbers>);

/// Numbers of all projects, under `None`, and of single ones.
#[derive(Debug, Default)]
pub(super) struct Counted(Mutex<HashMap<Option<String>, Kept>>);

impl Counted {
    /// Returns the numbers of a project that were counted shortly before `now`, or those that `count` returns.
    pub(super) async fn of<E>(
        &self,
        project: Option<&str>,
        now: Instant,
        count: impl Future<Output = Result<Numbers, E>>,
    ) -> Result<Arc<Numbers>, E> {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < FRESH;
        let project = project.map(str::to_owned);
        if let Some((at, numbers)) = self.lock().get(&project)
            && is_fresh(*at)
        {
            return Ok(Arc::clone(numbers));
        }
        // Lists are put together two at a time, so that few count the same.
        let numbers = Arc::new(count.await?);
        let mut kept = self.lock();
        kept.retain(|_, (at, _)| is_fresh(*at));
        if kept.len() < KEPT_MAX {
            kept.insert(project, (now, Arc::clone(&numbers)));
        }
        Ok(numbers)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<String>, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    async fn counted(counted: &Counted, project: Option<&str>, now: Instant, keys: u64) -> u64 {
        let count = async {
            let stats = Stats {
                at: Timestamp::UNIX_EPOCH,
                keys,
                groups: Vec::new(),
                incidents: Vec::new(),
                entries: Vec::new(),
                peppers: Vec::new(),
            };
            let sources = None;
            Ok::<_, ()>(Numbers { stats, sources })
        };
        counted.of(project, now, count).await.unwrap().stats.keys
    }

    #[tokio::test]
    async fn numbers_are_told_again_for_a_while_to_the_same_project() {
        let kept = Counted::default();
        let begin = Instant::now();
        let later = begin + FRESH / 2;
        assert_eq!(counted(&kept, None, begin, 1).await, 1);
        assert_eq!(counted(&kept, Some("a"), begin, 2).await, 2);
        assert_eq!(counted(&kept, None, later, 3).await, 1);
        assert_eq!(counted(&kept, Some("a"), later, 4).await, 2);
        assert_eq!(counted(&kept, None, begin + FRESH, 5).await, 5);
        for project in 0..2 * KEPT_MAX {
            let name = project.to_string();
            counted(&kept, Some(&name), begin + FRESH, 6).await;
        }
        assert_eq!(kept.lock().len(), KEPT_MAX);
    }
}
