//! Servers that send too slowly are left: each place that one takes is one that a healthy server waits for.

use std::ops::Deref;
use std::time::Duration;

use reqwest::Response;
use tokio::time::Instant;

use super::FetchError;
use super::http::read_chunk;

/// How fast an answer of an API has to come: a page of 32 MiB within a minute, and no drops.
const API_PACE: PaceLimits = PaceLimits {
    stall: Duration::from_secs(30),
    total: Duration::from_mins(1),
    grace: Duration::from_secs(10),
    window: Duration::from_secs(20),
    rate: 1 << 10,
    prepare: None,
};

/// How fast an answer has to come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PaceLimits {
    /// How long nothing may come.
    pub(crate) stall: Duration,
    /// How long the answer may take in all. Only the time spent waiting for the server counts, here as below:
    /// what is done with the bytes is not its fault.
    pub(crate) total: Duration,
    /// How long it may begin slowly.
    pub(crate) grace: Duration,
    /// Over which time the rate is measured, after that.
    pub(crate) window: Duration,
    /// The least bytes per second.
    pub(crate) rate: u64,
    /// How long it may have nothing but signs of life before its first byte that counts, where it has such.
    pub(crate) prepare: Option<Duration>,
}

/// Sees to it that an answer comes, and fast enough: each place that a slow server takes is one that a healthy
/// server waits for.
#[derive(Debug)]
pub(crate) struct Pace {
    limits: PaceLimits,
    waited: Duration,
    /// The end of the present window, in time waited.
    window_end: Duration,
    /// Bytes of the present window.
    bytes: u64,
    /// Whether there was nothing but signs of life so far.
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
            bytes: 0,
        }
    }

    fn begin_window(&mut self) {
        self.bytes = 0;
        self.window_end = self.waited + self.limits.window;
    }

    /// The next bytes of an answer, all of which count; nothing at its end.
    ///
    /// # Errors
    /// As [`part`](Self::part).
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

    /// The next bytes of an answer; nothing at its end. How many of them count, [`count`](Self::count) is told.
    ///
    /// # Errors
    /// [`FetchError::Stalled`], [`FetchError::TooSlow`], [`FetchError::Outpaced`] while only signs of life came, and
    /// [`FetchError::Network`].
    pub(crate) async fn part(
        &mut self,
        response: &mut Response,
    ) -> Result<Option<impl Deref<Target = [u8]> + use<>>, FetchError> {
        let PaceLimits { stall, total, .. } = self.limits;
        let mut patience = stall.min(total.saturating_sub(self.waited));
        if self.bytes < self.per_window() {
            // Should it end before anything comes, the window is judged.
            patience = patience.min(self.window_end.saturating_sub(self.waited));
        }
        let begun = Instant::now();
        let chunk = read_chunk(response, patience).await;
        self.waited += begun.elapsed();
        match chunk {
            Err(FetchError::Stalled { .. }) if patience < stall => Err(self.too_slow()),
            other => other,
        }
    }

    /// Returns how many bytes a window has to have.
    fn per_window(&self) -> u64 {
        let millis = u64::try_from(self.limits.window.as_millis()).unwrap_or(u64::MAX);
        self.limits.rate.saturating_mul(millis) / 1000
    }

    /// Counts bytes that came, none for a sign of life.
    ///
    /// # Errors
    /// As [`part`](Self::part).
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

/// Reads the body of an answer of an API, at most `limit` bytes; `None` when it is longer.
///
/// # Errors
/// As [`Pace::chunk`]: it has to come within a minute.
pub(crate) async fn read_body(
    response: &mut Response,
    limit: usize,
) -> Result<Option<Vec<u8>>, FetchError> {
    let mut pace = Pace::new(API_PACE);
    let mut body = Vec::new();
    while let Some(chunk) = pace.chunk(response).await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
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
        // Fast at first and slow then, and steady but without end.
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
        // Once it sends, it has to go on: signs of life are none of that.
        let (mut pace, ended) = alive_for(patient, 60);
        assert!(ended.is_none());
        pace.count(50).unwrap();
        pace.waited = seconds(79);
        pace.count(0).unwrap();
        pace.waited = seconds(80);
        assert!(matches!(pace.count(0), Err(FetchError::TooSlow { .. })));
    }
}
