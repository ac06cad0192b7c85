//! Dependencies of the daemon's tasks: those that all of them share, and those that follow from the configuration.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Url;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::outgoing::Clients;
use super::poller::{Pollers, Term};
use super::{DaemonError, Lifecycle};
use crate::clock::SharedClock;
use crate::config::Config;
use crate::intake::{PartnerName, PublicKeys};
use crate::issuer::IssuerFormats;
use crate::keyformat::FormatSet;
use crate::respond::Responder;
use crate::server::{Entrance, TrustedProxies};
use crate::store::Store;

/// A configuration with the key formats that it names.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The key formats.
    pub formats: FormatSet,
    /// Formats in which new keys are minted.
    pub minting: IssuerFormats,
}

/// State that all generations of a daemon share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) clock: SharedClock,
    pub(super) lifecycle: Lifecycle,
    pub(super) entrance: Entrance,
    pub(super) proxies: TrustedProxies,
    /// The key formats in force.
    pub(super) formats: watch::Sender<FormatSet>,
    pub(super) pollers: Pollers,
    /// Public keys of partners, which are fetched once and not for each generation.
    public_keys: Mutex<HashMap<PartnerName, (Url, Arc<PublicKeys>)>>,
}

impl Shared {
    pub(super) fn new(
        store: Store,
        clock: SharedClock,
        lifecycle: Lifecycle,
        entrance: Entrance,
        proxies: TrustedProxies,
        formats: FormatSet,
    ) -> Self {
        Self {
            store,
            clock,
            lifecycle,
            entrance,
            proxies,
            formats: watch::Sender::new(formats),
            pollers: Pollers::default(),
            public_keys: Mutex::default(),
        }
    }

    /// Returns the public keys of a partner: those that there are, unless they come from another address now.
    pub(super) fn public_keys(
        &self,
        name: PartnerName,
        url: &Url,
        make: impl FnOnce() -> PublicKeys,
    ) -> Arc<PublicKeys> {
        let mut all = self
            .public_keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match all.get(&name) {
            Some((from, keys)) if from == url => Arc::clone(keys),
            _ => {
                let keys = Arc::new(make());
                all.insert(name, (url.clone(), Arc::clone(&keys)));
                keys
            }
        }
    }
}

/// Dependencies of the tasks of one generation.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) config: &'a Config,
    pub(super) formats: FormatSet,
    pub(super) clock: SharedClock,
    pub(super) clients: Clients,
    pub(super) responder: Responder,
    pub(super) shared: &'a Shared,
    /// Canceled when the next generation takes over, or the daemon stops.
    pub(super) replaced: CancellationToken,
}

impl<'a> Parts<'a> {
    /// Creates the dependencies of a generation that acts through `responder`.
    ///
    /// # Errors
    /// Returns an error if the operating system prevents the setup of an HTTP client.
    pub(super) fn new(
        config: &'a Config,
        responder: Responder,
        shared: &'a Shared,
    ) -> Result<Self, DaemonError> {
        Ok(Self {
            config,
            clients: Clients::new(config)?,
            formats: responder.formats().clone(),
            clock: Arc::clone(&shared.clock),
            responder,
            replaced: shared.lifecycle.stop_token().child_token(),
            shared,
        })
    }

    /// Runs a task that lasts as long as the generation.
    pub(super) fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let may_end = self.replaced.clone();
        self.shared.lifecycle.spawn_until(name, may_end, task);
    }

    /// Returns the term of a poller of the source of this name, whose polls depend on what has this digest.
    pub(super) fn term(&self, name: &str, digest: String) -> Term {
        let stop = self.shared.lifecycle.stop_token();
        let pollers = &self.shared.pollers;
        pollers.term(name, digest, &self.replaced, stop)
    }
}
