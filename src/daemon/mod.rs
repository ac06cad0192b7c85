//! Lifecycle, schedule, workers, shutdown, telemetry.
//!
//! [`Daemon::start`] opens everything, [`Daemon::run`] serves until a signal comes.

mod descriptors;
mod intake;
mod lifecycle;
mod opening;
mod outgoing;
mod poller;
mod sources;
mod token;
mod work;
mod workshop;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

pub use descriptors::Descriptors;
pub use intake::{ContentServers, content_servers};
pub use lifecycle::{Ended, Lifecycle, Signals};
pub use sources::{app_installation, configured_sources};
pub use token::{MintTokenError, bootstrap_token, mint_token};
use work::Work;
pub use workshop::Workshop;

use crate::clock::SharedClock;
use crate::config::Config;
use crate::fetch::{HttpClientError, guarded_client};
use crate::intake::webhook::InboxTask;
use crate::keyformat::{FormatSet, KeyValue};
use crate::respond::{IssuerFormats, Responder};
use crate::server::{self, AppState, Connections, Entrance, Intake, Limits, TrustedProxies};
use crate::source::PollError;
use crate::store::{Lookup, Store, StoreError};

/// How long requests and work items under way may take to finish after a signal. Service managers
/// commonly kill after 90 s, container runtimes after 10 to 30 s.
const PATIENCE: Duration = Duration::from_secs(25);

/// How long closing the database may take after that.
const CLOSING: Duration = Duration::from_secs(3);

/// How long requests may take to finish when the start fails. All they are told is that it is under way.
const FAREWELL: Duration = Duration::from_secs(1);

/// The daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}; {remedy}")]
    Bind {
        /// `server.bind`.
        address: SocketAddr,
        /// What the operating system said.
        cause: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// There are fewer file descriptors than it takes to work.
    #[error("{what}; {remedy}")]
    Descriptors {
        /// How many there are, and how many it takes.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A signal of this name came before everything was started. Nothing is wrong.
    #[error("stopped by {0} before the start was complete")]
    Stopped(&'static str),
    /// The first access token could not be made.
    #[error(transparent)]
    Token(#[from] MintTokenError),
    /// No HTTP client.
    #[error(transparent)]
    HttpClient(#[from] HttpClientError),
    /// A source's address cannot be used.
    #[error("source {name}: {error}")]
    Source {
        /// The source's name.
        name: String,
        /// What is wrong.
        error: PollError,
    },
}

/// A started daemon: listening, its database open, its tasks running.
#[derive(Debug)]
pub struct Daemon {
    address: SocketAddr,
    url: String,
    admin_token: Option<KeyValue>,
    store: Store,
    lifecycle: Lifecycle,
}

/// What the tasks share.
#[derive(Debug)]
struct Parts<'a> {
    config: &'a Config,
    formats: FormatSet,
    clock: SharedClock,
    http: reqwest::Client,
    responder: Responder,
    lifecycle: &'a Lifecycle,
}

impl<'a> Parts<'a> {
    fn new(
        config: &'a Config,
        formats: FormatSet,
        store: &Store,
        clock: SharedClock,
        http: reqwest::Client,
        lifecycle: &'a Lifecycle,
    ) -> Self {
        let issuer = IssuerFormats {
            secret: config.issuer.secret.clone(),
            public: config.issuer.public.clone(),
        };
        Self {
            config,
            http,
            responder: Responder::new(store.clone(), formats.clone(), issuer, Arc::clone(&clock)),
            formats,
            clock,
            lifecycle,
        }
    }
}

impl Daemon {
    /// Listens, opens the database, migrates it, makes the first access token on an empty one, and
    /// starts serving. Until then requests are answered that it is not ready, and that the process is up.
    ///
    /// # Errors
    /// When the address is taken, the database cannot be used, there are too few file descriptors, or a signal came.
    /// Nothing keeps running then.
    pub async fn start(
        config: &Config,
        formats: FormatSet,
        clock: SharedClock,
        signals: &mut Signals,
    ) -> Result<Self, DaemonError> {
        let descriptors = Descriptors::raise();
        if let Some((what, remedy)) = descriptors.far_too_few() {
            return Err(DaemonError::Descriptors { what, remedy });
        }
        if let Some((what, remedy)) = descriptors.too_few() {
            tracing::warn!("{what}; {remedy}");
        }
        // Before anything is written: a token that is made and then not shown would be lost.
        let listener = bind(config.server.bind).await?;
        let address = listener.local_addr().unwrap_or(config.server.bind);
        let http = guarded_client(&outgoing::guard(config))?;
        let connections = Connections {
            most: descriptors.connections,
            momentary: descriptors.momentary,
            proxies: TrustedProxies::new(config.server.trusted_proxies.clone()),
        };
        let (lifecycle, entrance) = (Lifecycle::default(), Entrance::default());
        let stop = lifecycle.stop_token();
        let serving = server::serve(listener, entrance.clone(), connections, stop);
        lifecycle.spawn("api", serving);
        let started = async {
            let store = opening::open(config, address, &entrance, signals).await?;
            let parts = Parts::new(config, formats, &store, clock, http, &lifecycle);
            let started = Self::start_on(parts, &entrance, address, signals).await;
            if started.is_err() {
                opening::close(&store).await;
            }
            started
        };
        let started = started.await;
        if started.is_err() {
            lifecycle.abandon(FAREWELL).await;
        }
        started
    }

    /// Starts everything that works on the open database.
    async fn start_on(
        parts: Parts<'_>,
        entrance: &Entrance,
        address: SocketAddr,
        signals: &mut Signals,
    ) -> Result<Self, DaemonError> {
        let (config, lifecycle) = (parts.config, parts.lifecycle);
        let store = parts.responder.store().clone();
        let work = Work::new(&parts);
        let mut sources = sources::make(&parts, &work)?;
        let redelivery = intake::redelivery(&parts, &work)?;
        let admin_token = first_token(&parts, &store, entrance, signals).await?;
        let intake = intake::make(&parts, &work, &mut sources.origins);
        if let Some(redelivery) = redelivery {
            intake::start_redelivery(&parts, redelivery);
        }
        serve(&parts, intake, entrance);
        work.start(&parts, std::mem::take(&mut sources.origins));
        sources.start(&parts);
        let (hurried, stop) = (store.clone(), lifecycle.stop_token());
        lifecycle.spawn("hurry", async move {
            stop.cancelled().await;
            hurried.hurry();
        });
        let url = config.public_url(address);
        tracing::info!(%address, url, "listening on http://{address}");
        Ok(Self {
            address,
            url,
            admin_token,
            store,
            lifecycle: lifecycle.clone(),
        })
    }

    /// The address it listens on; the port is the real one where 0 was configured.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL under which others reach it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The administrator's token, if this start was the first one on its database. To be shown once.
    pub fn take_admin_token(&mut self) -> Option<KeyValue> {
        self.admin_token.take()
    }

    /// The tasks, to add others or to stop all.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Serves until a signal comes or a task dies, then finishes what is under way.
    pub async fn run(self, signals: Signals) -> Ended {
        let ended = self.lifecycle.run(signals, PATIENCE).await;
        // Whatever did not end finds the database closed, and is done again.
        opening::close(&self.store).await;
        if ended == Ended::Cleanly {
            tracing::info!("stopped");
        }
        ended
    }
}

/// Makes the first access token on an empty database, when there is room for it.
async fn first_token(
    parts: &Parts<'_>,
    store: &Store,
    entrance: &Entrance,
    signals: &mut Signals,
) -> Result<Option<KeyValue>, DaemonError> {
    let mut room = opening::Room::default();
    loop {
        let (issuer, now) = (&parts.config.issuer, parts.clock.now());
        match bootstrap_token(store, &parts.formats, issuer, now).await {
            Ok(token) => return Ok(token),
            Err(error) => room.wait(error.into(), entrance, signals).await?,
        }
    }
}

/// Lets requests in, and starts the tasks that they wait for. Those end when the API has.
fn serve(parts: &Parts<'_>, (intake, inbox): (Intake, InboxTask), entrance: &Entrance) {
    let (lookup, task) = Lookup::new(parts.responder.store().clone());
    parts.lifecycle.spawn("lookup", task.run());
    let limits = Limits::default();
    if !intake.webhooks.is_empty() {
        parts.lifecycle.spawn("inbox", inbox.run());
    }
    let sources = configured_sources(parts.config);
    let state = AppState::new(parts.responder.clone(), lookup, intake, sources, limits);
    let stop = parts.lifecycle.stop_token();
    parts
        .lifecycle
        .spawn("senders", state.clone().keep_senders(stop.clone()));
    parts
        .lifecycle
        .spawn("public keys", state.clone().keep_public_keys(stop));
    entrance.open(server::router(state));
}

async fn bind(address: SocketAddr) -> Result<TcpListener, DaemonError> {
    use std::io::ErrorKind;
    TcpListener::bind(address).await.map_err(|cause| {
        let remedy = match cause.kind() {
            ErrorKind::AddrInUse => {
                "stop the program that has this port, or set server.bind to another one (port 0 takes a free one)"
            }
            ErrorKind::AddrNotAvailable => {
                "set server.bind to an address that this machine has, or to 0.0.0.0"
            }
            ErrorKind::PermissionDenied => {
                "ports below 1024 need a privilege: set server.bind to a higher one and put a proxy in front"
            }
            _ => "check server.bind",
        };
        DaemonError::Bind {
            address,
            cause,
            remedy,
        }
    })
}
