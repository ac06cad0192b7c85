//! Minimum pace of servers: a place taken by a slow server is one that a healthy server waits for.

use std::ops::Deref;
use std::time::Duration;

use reqwest::Response;
use tokio::time::Instant;

use super::FetchError;
use super::http::read_chunk;

/// Required pace of a response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PaceLimits {
    /// Maximum time without any data.
    pub(crate) stall: Duration,
    /// Maximum time of the whole response. Here and below, only the time spent waiting for the server
    /// counts: processing the bytes is not its fault.
    pub(crate) total: Duration,
    /// Time at the start during which the response may be slow.
    pub(crate) grace: Duration,
    /// Window over which the rate is measured after the start.
    pub(crate) window: Duration,
    /// Minimum rate, in bytes per second.
    pub(crate) rate: u64,
    /// Maximum time of nothing but keep-alives before the first byte that counts. `None` if the response
    /// has no keep-alives.
    pub(crate) prepare: Option<Duration>,
}

/// Enforces that a response arrives, and fast enough: a place taken by a slow server is one that a
/// healthy server waits for.
#[derive(Debug)]
pub(crate) struct Pace {
    limits: PaceLimits,
    waited: Duration,
    /// Start of the current wait. Kept when a wait is canceled, so that the next one continues it.
    begun: Option<Instant>,
    /// End of the current window, in time waited.
    window_end: Duration,
    /// Number of bytes in the current window.
    bytes: u64,
    /// `true` if nothing but keep-alives has arrived so far.
    prepares: bool,
}

impl Pace {
    pub(crate) fn new(limits: PaceLimits) -> Self {
        Self {
            window_end: limits
                .prepare
                .unwrap_or_default()
                .max(limits.grace + limits.window),
            prepares: limits.prepare.is_some(),
            limits,
            waited: Duration::ZERO,
            begun: None,
            bytes: 0,
        }
    }

    fn begin_window(&mut self) {
        self.bytes = 0;
        self.window_end = self.waited + self.limits.window;
    }

    /// Returns the next bytes of a response, all of which count, or `None` at its end.
    ///
    /// # Errors
    /// Returns the errors of [`part`](Self::part).
    pub(crate) async fn chunk(
        &mut self,
        response: &mut Response,
    ) -> Result<Option<impl Deref<Target = [u8]> + use<>>, FetchError> {
        let chunk = self.part(response).await?;
        if let Some(chunk) = &chunk {
            self.count(chunk.len())?;
        }
        Ok(chunk)
    }

    /// Returns the next bytes of a response, or `None` at its end. May be canceled and called again. The caller passes
    /// the number of bytes that count to [`count`](Self::count).
    ///
    /// # Errors
    /// Returns [`FetchError::Stalled`], [`FetchError::TooSlow`], [`FetchError::Outpaced`] while only
    /// keep-alives arrived, or [`FetchError::Network`].
    pub(crate) async fn part(
        &mut self,
        response: &mut Response,
    ) -> Result<Option<impl Deref<Target = [u8]> + use<>>, FetchError> {
        let PaceLimits { stall, total, .. } = self.limits;
        let mut patience = stall.min(total.saturating_sub(self.waited));
        if self.bytes < self.per_window() {
            // If the window ends before anything arrives, it is judged.
            patience = patience.min(self.window_end.saturating_sub(self.waited));
        }
        let begun = *self.begun.get_or_insert_with(Instant::now);
        let left = patience.saturating_sub(begun.elapsed());
        let chunk = read_chunk(response, left).await;
        self.waited += begun.elapsed();
        self.begun = None;
        match chunk {
            Err(FetchError::Stalled { .. }) if patience < stall => Err(self.too_slow()),
            Err(FetchError::Stalled { .. }) => Err(FetchError::Stalled {
                seconds: stall.as_secs(),
            }),
            other => other,
        }
    }

    /// Returns the minimum number of bytes in a window.
    fn per_window(&self) -> u64 {
        let millis = u64::try_from(self.limits.window.as_millis()).unwrap_or(u64::MAX);
        self.limits.rate.saturating_mul(millis) / 1000
    }

    /// Counts bytes that arrived, 0 for a keep-alive.
    ///
    /// # Errors
    /// Returns the errors of [`part`](Self::part).
    pub(crate) fn count(&mut self, bytes: usize) -> Result<(), FetchError> {
        if self.prepares && bytes > 0 {
            self.prepares = false;
            self.window_end = self.waited.max(self.limits.grace) + self.limits.window;
        }
        self.bytes += bytes as u64;
        if self.waited < self.window_end {
            return Ok(());
        }
        if self.bytes < self.per_window() || self.waited >= self.limits.total {
            return Err(self.too_slow());
        }
        self.begin_window();
        Ok(())
    }

    fn too_slow(&self) -> FetchError {
        let seconds = self.waited.as_secs();
        if self.prepares && self.waited < self.limits.total {
            FetchError::Outpaced { seconds }
        } else {
            FetchError::TooSlow { seconds }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(prepare: Option<Duration>) -> PaceLimits {
        let seconds = Duration::from_secs;
        PaceLimits {
            stall: seconds(20),
            total: seconds(100),
            grace: seconds(10),
            window: seconds(20),
            rate: 10,
            prepare,
        }
    }

    #[test]
    fn a_slow_answer_is_given_up_at_the_end_of_a_window() {
        let (seconds, limits) = (Duration::from_secs, limits(None));
        let mut drops = Pace::new(limits);
        for second in 1..30 {
            drops.waited = seconds(second);
            drops.count(1).unwrap();
        }
        drops.waited = seconds(30);
        let error = drops.count(1).unwrap_err();
        assert!(matches!(error, FetchError::TooSlow { seconds: 30 }));
        // Fast at first and then slow; steady but endless.
        let mut wanes = Pace::new(limits);
        wanes.waited = seconds(30);
        wanes.count(1_000_000).unwrap();
        wanes.waited = seconds(49);
        wanes.count(100).unwrap();
        wanes.waited = seconds(50);
        assert!(wanes.count(1).is_err());
        let mut steady = Pace::new(limits);
        for second in 1..100 {
            steady.waited = seconds(second);
            steady.count(20).unwrap();
        }
        steady.waited = seconds(110);
        assert!(steady.count(1_000).is_err());
    }

    #[test]
    fn signs_of_life_are_no_bytes_but_count_as_preparing() {
        let seconds = Duration::from_secs;
        let limits = limits(Some(seconds(30)));
        let alive_for = |limits: PaceLimits, most: u64| {
            let mut pace = Pace::new(limits);
            let ended = (1..=most).find_map(|second| {
                pace.waited = seconds(second);
                pace.count(0).err()
            });
            (pace, ended)
        };
        let (_, ended) = alive_for(limits, 200);
        assert!(matches!(ended, Some(FetchError::Outpaced { seconds: 30 })));
        let patient = PaceLimits {
            prepare: Some(limits.total),
            ..limits
        };
        let (_, ended) = alive_for(patient, 200);
        assert!(matches!(ended, Some(FetchError::TooSlow { seconds: 100 })));
        // Once it sends, it has to continue: keep-alives do not count any more.
        let (mut pace, ended) = alive_for(patient, 60);
        assert!(ended.is_none());
        pace.count(50).unwrap();
        pace.waited = seconds(79);
        pace.count(0).unwrap();
        pace.waited = seconds(80);
        assert!(matches!(pace.count(0), Err(FetchError::TooSlow { .. })));
    }
}
