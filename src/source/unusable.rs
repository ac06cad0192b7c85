//! Sources that their configuration keeps from being polled.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::state::Frame;
use super::{PollError, PollFailure, PollOutcome, Source, SourceParts};

/// A source of which nothing can be read until the configuration is changed. Each poll fails for the same reason, which is
/// recorded like that of any other source, so that the others can be polled.
#[derive(Debug)]
pub struct Unusable {
    frame: Frame,
    why: String,
}

impl Unusable {
    /// Creates a source whose polls fail because of `error`.
    pub fn new(name: String, kind: &'static str, error: &PollError, parts: SourceParts) -> Self {
        Self {
            why: error.to_string(),
            frame: Frame::new(name, kind, parts),
        }
    }
}

impl Source for Unusable {
    fn name(&self) -> &str {
        &self.frame.name
    }

    fn due_in(&self) -> BoxFuture<'_, Result<Option<Duration>, PollError>> {
        // Its state is to tell of it from the start.
        async { Ok(None) }.boxed()
    }

    fn poll_once(&self) -> BoxFuture<'_, Result<PollOutcome, PollFailure>> {
        let error = PollError::Unusable(self.why.clone());
        self.frame.ended(Err(error), Duration::ZERO, |_| {}).boxed()
    }
}
