//! Time that the servers of a host usually take for a small push.
//!
//! Whoever has a place for which others wait has to leave it after a while. A host that is loaded may take longer for
//! everything, however: if all of its pushes left just before they were answered, none would be read sooner for that.
//! So while nobody waits but others of its own host, a push has twice the time that those before it took.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::slow::make_room;

/// Number of answers that are remembered of a host.
const REMEMBERED: usize = 8;

/// The longest time, and that for a host of which nothing is known. Whoever has a place for which urgent items wait has it
/// no longer in any case, so those of a host wait no longer for servers of it that never end.
const LONGEST: Duration = Duration::from_secs(4);

/// Rate at which received bytes pay for the time of a server, in bytes per second.
const RATE: u64 = 1 << 20;

/// Times of the last answers, by host.
#[derive(Debug, Default)]
pub(super) struct Usual(Mutex<HashMap<String, Answers>>);

#[derive(Debug, Default)]
struct Answers {
    last: VecDeque<Duration>,
}

impl Usual {
    /// Records how long a push took that was read in an ordinary place, and how many bytes it had.
    pub(super) fn note(&self, host: &str, time: Duration, bytes: usize) {
        let paid = Duration::from_millis((bytes as u64).saturating_mul(1_000) / RATE);
        let mut known = self.lock();
        make_room(&mut known, &host.to_owned(), |of| of.last.is_empty());
        let Answers { last } = known.entry(host.to_owned()).or_default();
        last.truncate(REMEMBERED - 1);
        last.push_front(time.saturating_sub(paid));
    }

    /// Records that a push had to leave an ordinary place: until the host has answered one, it has no more time than
    /// others.
    pub(super) fn note_left(&self, host: &str) {
        let mut known = self.lock();
        make_room(&mut known, &host.to_owned(), |of| of.last.is_empty());
        known.entry(host.to_owned()).or_default();
    }

    /// Returns the time that a push of a host has while nobody waits but others of the host.
    pub(super) fn patience(&self, host: &str) -> Duration {
        let known = self.lock();
        let Some(Answers { last }) = known.get(host) else {
            return LONGEST;
        };
        let mut last: Vec<Duration> = last.iter().copied().collect();
        last.sort_unstable();
        let median = last.get(last.len() / 2).copied().unwrap_or_default();
        (median * 2).min(LONGEST)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Answers>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_twice_the_time_that_it_took_lately() {
        let usual = Usual::default();
        let second = Duration::from_secs(1);
        assert_eq!(usual.patience("a"), LONGEST);
        for _ in 0..REMEMBERED {
            usual.note("a", second * 3 / 2, 0);
            usual.note("b", second * 3, 2 << 20);
        }
        assert_eq!(usual.patience("a"), second * 3);
        assert_eq!(usual.patience("b"), second * 2);
        // Some of its servers being slow makes no difference, nor does how slow they are.
        for n in 1..=REMEMBERED {
            assert_eq!(usual.patience("b") > second * 2, n > REMEMBERED / 2, "{n}");
            usual.note("b", second * 600, 0);
        }
        assert_eq!(usual.patience("b"), LONGEST);
        assert_eq!(usual.patience("c"), LONGEST);
    }

    #[test]
    fn a_host_that_does_not_answer_has_the_time_once() {
        let usual = Usual::default();
        usual.note_left("a");
        assert_eq!(usual.patience("a"), Duration::ZERO);
        usual.note("a", Duration::from_secs(2), 0);
        assert_eq!(usual.patience("a"), Duration::from_secs(4));
        usual.note_left("a");
        assert_eq!(usual.patience("a"), Duration::from_secs(4));
    }

    #[test]
    fn what_is_known_of_hosts_is_bounded() {
        let usual = Usual::default();
        for n in 0..4_096 {
            usual.note(&n.to_string(), Duration::ZERO, 0);
            usual.note_left(&format!("other{n}"));
        }
        assert!(usual.lock().len() <= 1_024);
    }
}
