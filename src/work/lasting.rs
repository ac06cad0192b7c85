//! Failures that last, by a clock that runs while this process does: neither a clock that is put forward nor a time in
//! which no process ran makes them any longer.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::troubles::make_room;

/// Time without a failure after which the next one is another trouble. No pause is as long.
const APART: Duration = Duration::from_hours(2);

/// Failing hosts and repositories. Shared by all items in flight.
#[derive(Debug, Default)]
pub(super) struct Lasting(Mutex<HashMap<(String, String), Failing>>);

#[derive(Debug, Clone, Copy)]
struct Failing {
    since: Instant,
    /// Time at which it counts as over, unless it fails again before that.
    until: Instant,
}

impl Lasting {
    /// Records a failure of a repository, or of its host as a whole if `remote` is empty. Returns the time since the
    /// first one.
    pub(super) fn note(&self, host: &str, remote: &str) -> Duration {
        self.note_at(host, remote, Instant::now())
    }

    fn note_at(&self, host: &str, remote: &str, now: Instant) -> Duration {
        let name = (host.to_owned(), remote.to_owned());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut known, &name, |failing| failing.until, now);
        let failing = known.get(&name).filter(|failing| failing.until > now);
        let since = failing.map_or(now, |failing| failing.since);
        let until = now + APART;
        known.insert(name, Failing { since, until });
        now.saturating_duration_since(since)
    }
}

#[cfg(test)]
mod tests {
    use super::super::troubles::KNOWN_MAX;
    use super::*;

    #[test]
    fn failures_last_from_the_first_one_on_unless_there_is_none_for_long() {
        let (lasting, start) = (Lasting::default(), Instant::now());
        let note = |remote: &str, hours| {
            let at = start + Duration::from_hours(hours);
            lasting.note_at("a", remote, at).as_secs() / 3_600
        };
        let lasts = (0..30).map(|hours| note("1", hours));
        assert!(lasts.eq(0..30));
        assert_eq!((note("2", 29), note("", 29)), (0, 0));
        assert_eq!((note("1", 32), note("1", 33)), (0, 1));
    }

    #[test]
    fn what_is_known_is_bounded() {
        let lasting = Lasting::default();
        for n in 0..2 * KNOWN_MAX {
            lasting.note("a", &n.to_string());
        }
        assert!(lasting.0.lock().unwrap().len() <= KNOWN_MAX);
    }
}
