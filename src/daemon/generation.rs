//! A configuration in force, and everything that follows from it. When the daemon is told to read its configuration
//! again, the next generation is made beside the one in force, and takes over at once: requests, work items and polls
//! that have begun go on in the former one to their end.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::parts::{Loaded, Parts, Shared};
use super::sources::Sources;
use super::work::Work;
use super::{DaemonError, configured_sources, intake, sources};
use crate::issuer::Issuer;
use crate::respond::Responder;
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
}

/// The generation in force.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) responder: Responder,
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
        let responder = match former {
            Some(former) => former.responder.with_formats(formats),
            None => Responder::new(shared.store.clone(), formats, Arc::clone(&shared.clock)),
        };
        let issuer = Issuer::new(responder.clone(), loaded.minting.clone());
        let parts = Parts::new(&loaded.config, responder, shared)?;
        let work = match former {
            Some(former) => former.work.renewed(&parts),
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
        if let Some(redelivery) = redelivery {
            intake::start_redelivery(&parts, redelivery);
        }
        sources.start(&parts);
        Generation {
            responder,
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
