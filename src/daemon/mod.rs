//! Daemon: startup, tasks, polling, workers and shutdown.
//!
//! [`Daemon::start`] opens everything, [`Daemon::run`] serves until a signal comes.

mod app;
mod descriptors;
mod intake;
mod lifecycle;
mod opening;
mod outgoing;
mod poller;
mod signals;
mod sources;
mod standalone;
mod tokens;
mod work;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

pub use app::app_installation;
pub use descriptors::Descriptors;
pub use intake::{ContentServers, content_servers};
pub use lifecycle::{Ended, Lifecycle};
pub use signals::{OtherSignals, Signals};
pub use sources::configured_sources;
pub use tokens::{token_of_source, token_of_webhook};

use outgoing::Clients;
pub use standalone::Standalone;
use work::Work;

use crate::clock::SharedClock;
use crate::config::Config;
use crate::fetch::HttpClientError;
use crate::intake::webhook::InboxTask;
use crate::issuer::{FirstToken, Issuer, IssuerFormats, MintTokenError, Show};
use crate::keyformat::FormatSet;
use crate::respond::Responder;
use crate::server::{self, AppState, Connections, Entrance, Intake, Limits, TrustedProxies};
use crate::store::{Lookup, Store, StoreError};

/// Maximum time for requests and work items in flight to finish after a signal. Service managers commonly kill after 90
/// seconds, container runtimes after 10 to 30 seconds.
const PATIENCE: Duration = Duration::from_secs(25);

/// Maximum time for closing the database after that.
const CLOSING: Duration = Duration::from_secs(3);

/// Maximum time for requests to finish if the start fails. They can only be answered that the server is starting.
const FAREWELL: Duration = Duration::from_secs(1);

/// Error returned when the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The daemon cannot listen on the address.
    #[error("cannot listen on {address}: {cause}; {remedy}")]
    Bind {
        /// Value of `server.bind`.
        address: SocketAddr,
        /// Error of the operating system.
        cause: std::io::Error,
        /// Remedy for the operator.
        remedy: &'static str,
    },
    /// There are too few file descriptors to work with.
    #[error("{what}; {remedy}")]
    Descriptors {
        /// Number of descriptors, and the minimum.
        what: String,
        /// Remedy for the operator.
        remedy: &'static str,
    },
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A signal of this name came before the start was complete. This is not a fault.
    #[error("stopped by {0} before the start was complete")]
    Stopped(&'static str),
    /// The first access token could not be minted, shown or stored.
    #[error(transparent)]
    Token(#[from] MintTokenError),
    /// The HTTP client could not be created.
    #[error(transparent)]
    HttpClient(#[from] HttpClientError),
}

/// A started daemon, which is listening, has its database open and its tasks running.
#[derive(Debug)]
pub struct Daemon {
    address: SocketAddr,
    url: String,
    store: Store,
    lifecycle: Lifecycle,
}

/// Dependencies shared by the tasks.
#[derive(Debug)]
struct Parts<'a> {
    config: &'a Config,
    formats: FormatSet,
    clock: SharedClock,
    clients: Clients,
    responder: Responder,
    lifecycle: &'a Lifecycle,
}

impl<'a> Parts<'a> {
    fn new(
        config: &'a Config,
        responder: Responder,
        clock: SharedClock,
        clients: Clients,
        lifecycle: &'a Lifecycle,
    ) -> Self {
        Self {
            config,
            clients,
            formats: responder.formats().clone(),
            responder,
            clock,
            lifecycle,
        }
    }
}

impl Daemon {
    /// Listens, opens and migrates the database, mints the first access token on an empty one, and starts serving.
    /// Until then requests are answered that the process is up but not ready. `show` is called with the first access
    /// token; if there is nobody to see it, none is made.
    ///
    /// # Errors
    /// Returns an error if the address is taken, the database cannot be used, there are too few file descriptors, the
    /// first access token cannot be shown, or a signal came. Nothing keeps running then.
    pub async fn start(
        config: &Config,
        formats: FormatSet,
        minting: IssuerFormats,
        clock: SharedClock,
        signals: &mut Signals,
        show: Option<Show<'_>>,
    ) -> Result<Self, DaemonError> {
        let descriptors = Descriptors::raise();
        if let Some((what, remedy)) = descriptors.far_too_few() {
            return Err(DaemonError::Descriptors { what, remedy });
        }
        if let Some((what, remedy)) = descriptors.too_few() {
            tracing::warn!("{what}; {remedy}");
        }
        // Before anything is written.
        let listener = bind(config.server.bind).await?;
        let address = listener.local_addr().unwrap_or(config.server.bind);
        let clients = Clients::new(config)?;
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
            let responder = Responder::new(store.clone(), formats, Arc::clone(&clock));
            let issuer = Issuer::new(responder.clone(), minting);
            let parts = Parts::new(config, responder, clock, clients, &lifecycle);
            let started = Self::start_on(parts, issuer, &entrance, address, signals, show).await;
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
        issuer: Issuer,
        entrance: &Entrance,
        address: SocketAddr,
        signals: &mut Signals,
        show: Option<Show<'_>>,
    ) -> Result<Self, DaemonError> {
        let (config, lifecycle) = (parts.config, parts.lifecycle);
        let store = parts.responder.store().clone();
        let work = Work::new(&parts);
        let mut sources = sources::make(&parts, &work);
        let redelivery = intake::redelivery(&parts, &work);
        first_token(&parts, &issuer, entrance, signals, show).await?;
        let intake = intake::make(&parts, &work, &mut sources.origins);
        if let Some(redelivery) = redelivery {
            intake::start_redelivery(&parts, redelivery);
        }
        serve(&parts, issuer, intake, entrance);
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
            store,
            lifecycle: lifecycle.clone(),
        })
    }

    /// Returns the address that the daemon listens on, with the actual port if 0 was configured.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL under which the daemon is reachable.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the tasks of the daemon, to add others or to stop all.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Serves until a signal comes or a task dies, then finishes the work in flight.
    pub async fn run(self, signals: Signals) -> Ended {
        let ended = self.lifecycle.run(signals, PATIENCE).await;
        // Tasks that have not ended find the database closed, and their work is repeated.
        opening::close(&self.store).await;
        if ended == Ended::Cleanly {
            tracing::info!("stopped");
        }
        ended
    }
}

/// Mints, shows and stores the first access token on an empty database, waiting for room on the disk.
async fn first_token(
    parts: &Parts<'_>,
    issuer: &Issuer,
    entrance: &Entrance,
    signals: &mut Signals,
    show: Option<Show<'_>>,
) -> Result<(), DaemonError> {
    let (format, now) = (&issuer.minting().secret, parts.clock.now());
    let store = issuer.responder().store();
    let first = FirstToken::mint(&parts.formats, format, now)?;
    let Some(show) = show else {
        if !store.any_token_exists().await? {
            tracing::warn!(
                "no access token was made for the administrator, since nobody would see it: standard output is closed, \
                 or /dev/null; make one with `rescind tokens create --role admin`"
            );
        }
        return Ok(());
    };
    let mut room = opening::Room::default();
    while let Err(error) = first.store(store, show).await {
        room.wait(error.into(), entrance, signals).await?;
    }
    Ok(())
}

/// Opens the API to requests, and starts the tasks that they depend on, which end after the API.
fn serve(
    parts: &Parts<'_>,
    issuer: Issuer,
    (intake, inbox): (Intake, InboxTask),
    entrance: &Entrance,
) {
    let (lookup, task) = Lookup::new(parts.responder.store().clone());
    parts.lifecycle.spawn("lookup", task.run());
    let limits = Limits::default();
    if !intake.webhooks.is_empty() {
        parts.lifecycle.spawn("inbox", inbox.run());
    }
    let sources = configured_sources(parts.config);
    let state = AppState::new(issuer, lookup, intake, sources, limits);
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
