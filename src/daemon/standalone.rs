//! Sources and a worker without the daemon, for commands that do by hand what the daemon does by itself.

use super::parts::{Parts, Shared};
use super::work::Work;
use super::{DaemonError, Lifecycle, intake, sources};
use crate::clock::SharedClock;
use crate::config::Config;
use crate::respond::Responder;
use crate::server::{Entrance, TrustedProxies};
use crate::source::Source;
use crate::work::Worker;

/// The configured sources and a worker for what they find. Nothing runs by itself. A daemon may work on the same
/// database at the same time: items are leased, and events that both see become a single item.
#[derive(Debug)]
pub struct Standalone {
    sources: sources::Sources,
    worker: Worker,
}

impl Standalone {
    /// Creates the configured sources and the worker, on the open database of `responder`.
    ///
    /// # Errors
    /// Returns an error if the HTTP client cannot be created.
    pub fn new(
        config: &Config,
        responder: Responder,
        clock: SharedClock,
    ) -> Result<Self, DaemonError> {
        let shared = Shared::new(
            responder.store().clone(),
            clock,
            Lifecycle::default(),
            Entrance::default(),
            TrustedProxies::default(),
            responder.formats().clone(),
        );
        let parts = Parts::new(config, responder, &shared)?;
        let work = Work::new(&parts);
        let mut sources = sources::make(&parts, &work);
        if let Some((source, schedule)) = intake::redelivery(&parts, &work) {
            sources.add(source, schedule);
        }
        let mut origins = std::mem::take(&mut sources.origins);
        intake::add_origins(config, &mut origins);
        let worker = work.worker(&parts, origins);
        Ok(Self { sources, worker })
    }

    /// Returns the source of this name, which may be the search for failed deliveries.
    pub fn source(&self, name: &str) -> Option<&dyn Source> {
        self.sources.find(name)
    }

    /// Returns the worker, which takes items of all sources.
    pub fn worker(&self) -> &Worker {
        &self.worker
    }
}
