//! Daemon: startup, tasks, polling, workers and shutdown.
//!
//! [`Daemon::start`] opens everything, [`Daemon::run`] serves until a signal comes.

mod app;
mod changes;
mod descriptors;
mod generation;
mod hunting;
mod intake;
mod lifecycle;
mod opening;
mod outgoing;
mod parts;
mod poller;
mod reading;
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
pub use parts::Loaded;
pub use reading::Load;
pub use signals::{Hangups, OtherSignals, Signals, deliver, hold_back};
pub use sources::configured_sources;
pub use tokens::{token_of_source, token_of_webhook};

use changes::Fingerprint;
use generation::{Generation, Next};
use parts::Shared;
use reading::Readings;
pub use standalone::Standalone;
use work::Work;

use crate::clock::SharedClock;
use crate::fetch::HttpClientError;
use crate::issuer::{FirstToken, Issuer, MintTokenError, Show};
use crate::server::{self, Connections, Entrance, TrustedProxies};
use crate::store::StoreError;

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
    shared: Shared,
    loaded: Loaded,
    generation: Generation,
    /// Configuration that the daemon started with: what of it needs a restart stays in force.
    started_with: Fingerprint,
    readings: Readings,
}

impl Daemon {
    /// Listens, opens and migrates the database, mints the first access token on an empty one, and starts serving.
    /// Until then requests are answered that the process is up but not ready. `show` is called with the first access
    /// token. `init` makes a new database even where there was one.
    ///
    /// # Errors
    /// Returns an error if the address is taken, the database cannot be used, there are too few file descriptors, the
    /// first access token cannot be shown, or a signal came. Nothing keeps running then.
    pub async fn start(
        loaded: Loaded,
        init: bool,
        clock: SharedClock,
        signals: &mut Signals,
        show: Show<'_>,
    ) -> Result<Self, DaemonError> {
        let config = &loaded.config.clone();
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
        let proxies = TrustedProxies::new(config.server.trusted_proxies.clone());
        let connections = Connections {
            most: descriptors.connections,
            momentary: descriptors.momentary,
            proxies: proxies.clone(),
        };
        let (lifecycle, entrance) = (Lifecycle::default(), Entrance::default());
        let stop = lifecycle.stop_token();
        let serving = server::serve(listener, entrance.clone(), connections, stop);
        lifecycle.spawn("api", serving);
        let started = async {
            let store = opening::open(config, init, address, &entrance, signals).await?;
            let shared = Shared::new(
                store.clone(),
                clock,
                lifecycle.clone(),
                entrance.clone(),
                proxies,
                loaded.formats.clone(),
            );
            let started = Self::start_on(shared, loaded, address, signals, show).await;
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
        shared: Shared,
        loaded: Loaded,
        address: SocketAddr,
        signals: &mut Signals,
        show: Show<'_>,
    ) -> Result<Self, DaemonError> {
        let next = Next::new(&loaded, &shared, None)?;
        first_token(&loaded, &next.issuer, &shared.entrance, signals, show).await?;
        let generation = next.take_over(None);
        work::start_housekeeping(&shared, loaded.config.work.remember);
        start_hunting(&shared, address);
        let (hurried, stop) = (shared.store.clone(), shared.lifecycle.stop_token());
        shared.lifecycle.spawn("hurry", async move {
            stop.cancelled().await;
            hurried.hurry();
        });
        let url = loaded.config.public_url(address);
        tracing::info!(%address, url, "listening on http://{address}");
        Ok(Self {
            address,
            url,
            shared,
            started_with: Fingerprint::of(&loaded),
            loaded,
            generation,
            readings: Readings::default(),
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
        &self.shared.lifecycle
    }

    /// Serves until a signal comes or a task dies, then finishes the work in flight. Reads the configuration again with
    /// `load` whenever that is asked for.
    pub async fn run(mut self, signals: Signals, mut hangups: Hangups, load: Load) -> Ended {
        let lifecycle = self.shared.lifecycle.clone();
        let store = self.shared.store.clone();
        let stop = lifecycle.stop_token();
        let reloading = async move {
            let heeding = async {
                loop {
                    hangups.next().await;
                    self.reload(&load).await;
                }
            };
            // A reading that hangs does not keep the daemon from stopping.
            let () = tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = heeding => {}
            };
            // Tasks that serve requests end once nobody can send them any.
            drop(self);
        };
        let (ended, ()) = tokio::join!(lifecycle.run(signals, PATIENCE), reloading);
        // Tasks that have not ended find the database closed, and their work is repeated.
        opening::close(&store).await;
        if ended == Ended::Cleanly {
            tracing::info!("stopped");
        }
        ended
    }

    /// Reads the configuration again, and puts it in force. If anything is wrong with it, all stays as it is.
    async fn reload(&mut self, load: &Load) {
        const KEPT: &str = "the configuration was not read again, and all stays as it is";
        tracing::info!("SIGHUP: the configuration is read again");
        let loaded = match self.readings.read(load, &self.loaded).await {
            Ok(loaded) => loaded,
            Err(error) => return tracing::error!(error, "{KEPT}"),
        };
        if self.shared.lifecycle.stop_token().is_cancelled() {
            return;
        }
        let next = match Next::new(&loaded, &self.shared, Some(&self.generation)) {
            Ok(next) => next,
            Err(error) => return tracing::error!(%error, "{KEPT}"),
        };
        self.generation = next.take_over(Some(&self.generation));
        for warning in &loaded.config.warnings {
            tracing::warn!("{warning}");
        }
        let now = Fingerprint::of(&loaded);
        let changed = now.swapped_since(&Fingerprint::of(&self.loaded));
        let restart = now.fixed_since(&self.started_with);
        self.loaded = loaded;
        if !restart.is_empty() {
            let keys = restart.join(", ");
            tracing::warn!(keys, "a changed value takes effect with a restart only");
        }
        let changed = if changed.is_empty() {
            "nothing".to_owned()
        } else {
            changed.join(", ")
        };
        tracing::info!(changed, "the configuration was read again, and is in force");
    }
}

/// Starts to compare what is hunted with the keys that there are, and with what other daemons hunt.
fn start_hunting(shared: &Shared, address: SocketAddr) {
    // Daemons in containers may all have the same process and address.
    let (pid, unique) = (std::process::id(), uuid::Uuid::now_v7());
    let process = format!("process {pid} at {address} ({unique})");
    let (store, clock) = (shared.store.clone(), Arc::clone(&shared.clock));
    let (formats, stop) = (shared.formats.subscribe(), shared.lifecycle.stop_token());
    let hunting = hunting::keep(store, clock, formats, process, stop);
    shared.lifecycle.spawn("hunting", hunting);
}

/// Mints, shows and stores the first access token on an empty database, waiting for room on the disk.
async fn first_token(
    loaded: &Loaded,
    issuer: &Issuer,
    entrance: &Entrance,
    signals: &mut Signals,
    show: Show<'_>,
) -> Result<(), DaemonError> {
    let now = issuer.responder().clock().now();
    let store = issuer.responder().store();
    let first = FirstToken::mint(&loaded.formats, &loaded.minting.secret, now)?;
    let mut room = opening::Room::default();
    while let Err(error) = first.store(store, show).await {
        room.wait(error.into(), entrance, signals).await?;
    }
    Ok(())
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
