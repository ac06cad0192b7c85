//! The worker for what sources and webhooks find.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;

use super::Parts;
use crate::fetch::{FetchLimits, GitFetcher};
use crate::scan::Engine;
use crate::source::{Origin, Worker, WorkerOptions, WorkerParts};

/// What those who find work share with those who do it.
#[derive(Debug)]
pub(super) struct Work {
    /// Finds candidates.
    pub(super) engine: Arc<Engine>,
    /// Tells workers that there are new items.
    pub(super) wake: Arc<Notify>,
}

impl Work {
    pub(super) fn new(parts: &Parts<'_>) -> Self {
        let encodings = parts.config.scan.encodings;
        Self {
            engine: Arc::new(Engine::new(&parts.formats, encodings)),
            wake: Arc::new(Notify::new()),
        }
    }

    /// Starts working on what is found. The worker runs without sources too: webhooks find work, and an
    /// earlier configuration may have left some.
    pub(super) fn start(self, parts: &Parts<'_>, origins: HashMap<String, Origin>) {
        let scan = &parts.config.scan;
        let limits = FetchLimits {
            max_fetch_bytes: scan.max_fetch_bytes,
            max_blob_bytes: scan.max_blob_bytes,
            ..FetchLimits::default()
        };
        let worker_parts = WorkerParts {
            store: parts.responder.store().clone(),
            responder: parts.responder.clone(),
            engine: self.engine,
            fetcher: GitFetcher::new(parts.http.clone(), limits),
            clock: Arc::clone(&parts.clock),
            wake: self.wake,
        };
        let options = WorkerOptions::default();
        let worker = Worker::new(worker_parts, origins.into_values(), options);
        let stop = parts.lifecycle.stop_token();
        parts
            .lifecycle
            .spawn("worker", async move { worker.run(&stop).await });
    }
}
