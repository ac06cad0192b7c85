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
}

/// Sees to it that an answer comes, and fast enough: each place that a slow server takes is one that a healthy
/// server waits for.
#[derive(Debug)]
pub(crate) struct Pace {
    limits: PaceLimits,
    /// The rate that is asked of the server now, at least the one of the limits.
    rate: u64,
    waited: Duration,
    /// The end of the present window, in time waited.
    window_end: Duration,
    /// Bytes of the present window.
    bytes: u64,
}

impl Pace {
    pub(crate) fn new(limits: PaceLimits) -> Self {
        Self {
            window_end: limits.grace + limits.window,
            rate: limits.rate,
            limits,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// From here on the answer has to come at this rate, since others wait for its place.
    pub(crate) fn hurry(&mut self, rate: u64) {
        if self.rate < rate {
            self.rate = rate;
            self.begin_window();
        }
    }

    /// How long the server was waited for so far.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }

    fn begin_window(&mut self) {
        self.bytes = 0;
        self.window_end = self.waited + self.limits.window;
    }

    /// The next bytes of an answer; nothing at its end.
    ///
    /// # Errors
    /// [`FetchError::Stalled`], [`FetchError::TooSlow`], [`FetchError::Outpaced`], and [`FetchError::Network`].
    pub(crate) async fn chunk(
        &mut self,
        response: &mut Response,
    ) -> Result<Option<impl Deref<Target = [u8]> + use<>>, FetchError> {
        let PaceLimits { stall, total, .. } = self.limits;
        let wanted = self.per_window(self.rate);
        let mut patience = stall.min(total.saturating_sub(self.waited));
        if self.bytes < wanted {
            // Should it end before anything comes, the window is judged.
            patience = patience.min(self.window_end.saturating_sub(self.waited));
        }
        let begun = Instant::now();
        let chunk = read_chunk(response, patience).await;
        self.waited += begun.elapsed();
        match chunk {
            Err(FetchError::Stalled { .. }) if patience < stall => Err(self.too_slow()),
            Ok(Some(chunk)) => {
                self.count(chunk.len())?;
                Ok(Some(chunk))
            }
            other => other,
        }
    }

    /// How many bytes a window has at a rate.
    fn per_window(&self, rate: u64) -> u64 {
        let millis = u64::try_from(self.limits.window.as_millis()).unwrap_or(u64::MAX);
        rate.saturating_mul(millis) / 1000
    }

    fn count(&mut self, bytes: usize) -> Result<(), FetchError> {
        self.bytes += bytes as u64;
        if self.waited < self.window_end {
            return Ok(());
        }
        if self.bytes < self.per_window(self.rate) || self.waited >= self.limits.total {
            return Err(self.too_slow());
        }
        self.begin_window();
        Ok(())
    }

    fn too_slow(&self) -> FetchError {
        let seconds = self.waited.as_secs();
        let is_hurried = self.rate > self.limits.rate && self.waited < self.limits.total;
        if is_hurried && self.bytes >= self.per_window(self.limits.rate) {
            return FetchError::Outpaced { seconds };
        }
        FetchError::TooSlow { seconds }
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

    #[test]
    fn a_slow_answer_is_given_up_at_the_end_of_a_window() {
        let seconds = Duration::from_secs;
        let limits = PaceLimits {
            stall: seconds(20),
            total: seconds(100),
            grace: seconds(10),
            window: seconds(20),
            rate: 10,
        };
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
        // Fast enough, but not for a place that others wait for.
        let mut hurried = Pace::new(limits);
        hurried.waited = seconds(5);
        hurried.hurry(100);
        hurried.waited = seconds(25);
        let error = hurried.count(1_000).unwrap_err();
        assert!(matches!(error, FetchError::Outpaced { seconds: 25 }));
        let mut steady = Pace::new(limits);
        for second in 1..100 {
            steady.waited = seconds(second);
            steady.count(20).unwrap();
        }
        steady.waited = seconds(110);
        assert!(steady.count(1_000).is_err());
    }
}
