//! A configuration in force, and everything that follows from it. When the daemon is told to read its configuration
//! again, the next generation is made beside the one in force, and takes over at once: requests and work items that have
//! begun go on in the former one to their end, and polls of sources that are the same.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::changes::{Fingerprint, same_formats};
use super::parts::{Loaded, Parts, Shared};
use super::sources::Sources;
use super::work::Work;
use super::{DaemonError, configured_sources, intake, sources};
use crate::issuer::Issuer;
use crate::respond::Responder;
use crate::scan::Encodings;
use crate::schedule::Schedule;
use crate::server::{self, AppState, Limits};
use crate::source::{ConfiguredSource, Source};
use crate::store::Lookup;

/// A generation that is complete and has not begun.
pub(super) struct Next<'a> {
    parts: Parts<'a>,
    pub(super) issuer: Issuer,
    work: Work,
    sources: Sources,
    redelivery: Option<(Arc<dyn Source>, Schedule)>,
    digests: Fingerprint,
}

/// The generation in force.
#[derive(Debug)]
pub(super) struct Generation {
    responder: Responder,
    encodings: Encodings,
    work: Work,
    state: AppState,
    replaced: CancellationToken,
}

impl<'a> Next<'a> {
    /// Makes everything that can fail, and changes nothing.
    ///
    /// # Errors
    /// Returns an error if an HTTP client cannot be made.
    pub(super) fn new(
        loaded: &'a Loaded,
        shared: &'a Shared,
        former: Option<&Generation>,
    ) -> Result<Self, DaemonError> {
        let formats = loaded.formats.clone();
        let has_same = |former: &Generation| same_formats(former.responder.formats(), &formats);
        let is_same = former.is_some_and(has_same);
        let responder = match former {
            // What is the same is there once, however many generations have requests in flight.
            Some(former) if is_same => former.responder.clone(),
            Some(former) => former.responder.with_formats(formats),
            None => Responder::new(shared.store.clone(), formats, Arc::clone(&shared.clock)),
        };
        let issuer = Issuer::new(responder.clone(), loaded.minting.clone());
        let parts = Parts::new(&loaded.config, responder, shared)?;
        let work = match former {
            Some(former) => {
                let is_same = is_same && former.encodings == loaded.config.scan.encodings;
                former.work.renewed(&parts, is_same)
            }
            None => Work::new(&parts),
        };
        let sources = sources::make(&parts, &work);
        let redelivery = intake::redelivery(&parts, &work);
        Ok(Self {
            parts,
            issuer,
            work,
            sources,
            redelivery,
            digests: Fingerprint::of(loaded),
        })
    }

    /// Takes over: opens the API to requests, starts polling and working, and lets the former generation finish.
    pub(super) fn take_over(self, former: Option<&Generation>) -> Generation {
        let Self {
            parts,
            issuer,
            work,
            mut sources,
            redelivery,
            digests,
        } = self;
        let shared = parts.shared;
        let (intake, inbox) = intake::make(&parts, &work, &mut sources.origins);
        if !intake.webhooks.is_empty() {
            parts.spawn("inbox", inbox.run());
        }
        let configured = configured_sources(parts.config);
        let responder = issuer.responder().clone();
        let state = match former {
            Some(former) => former.state.renewed(issuer, intake, configured),
            None => begin(shared, issuer, intake, configured),
        };
        let proxies = parts.config.server.trusted_proxies.clone();
        shared.proxies.replace(proxies);
        let until = parts.replaced.clone();
        parts.spawn("public keys", state.clone().keep_public_keys(until));
        shared.entrance.open(server::router(state.clone()));
        if let Some(former) = former {
            former.replaced.cancel();
            shared.formats.send_replace(parts.formats.clone());
        }
        work.start(&parts, std::mem::take(&mut sources.origins));
        let redelivery_name = redelivery.iter().map(|(source, _)| source.name());
        let names: Vec<&str> = sources.names().chain(redelivery_name).collect();
        shared.pollers.retain(&names);
        if let Some(redelivery) = redelivery {
            intake::start_redelivery(&parts, redelivery, &digests);
        }
        sources.start(&parts, &digests);
        Generation {
            responder,
            encodings: parts.config.scan.encodings,
            work,
            state,
            replaced: parts.replaced,
        }
    }
}

/// Makes the state of the server, and starts the tasks that it depends on as long as the daemon runs.
fn begin(
    shared: &Shared,
    issuer: Issuer,
    intake: server::Intake,
    sources: Vec<ConfiguredSource>,
) -> AppState {
    let (lookup, task) = Lookup::new(shared.store.clone());
    shared.lifecycle.spawn("lookup", task.run());
    let state = AppState::new(issuer, lookup, intake, sources, Limits::default());
    let keeping = state.clone().keep_senders(shared.lifecycle.stop_token());
    shared.lifecycle.spawn("senders", keeping);
    state
}
