//! A stretch of network between Rescind and PostgreSQL that can freeze: connections stay open, and nothing
//! goes through them any more.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct State {
    /// The connection over which these bytes are sent freezes, once.
    trap: Mutex<Option<Vec<u8>>>,
    /// Of the connections that were made so far.
    frozen: Mutex<Vec<Arc<AtomicBool>>>,
    /// Ends the connections that were made so far.
    cut: Mutex<CancellationToken>,
    /// New connections are frozen from their beginning.
    all: AtomicBool,
    caught: AtomicUsize,
}

impl Proxy {
    /// In front of the server of this URL.
    pub(crate) async fn before(url: &str) -> Self {
        let upstream = server_of(url).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let mut task = JoinSet::new();
        task.spawn(accept(listener, upstream, Arc::clone(&state)));
        Self {
            address,
            state,
            _task: task,
        }
    }

    /// The URL with this proxy in the place of the server.
    pub(crate) fn url(&self, url: &str) -> String {
        url.replace(server_of(url), &self.address.to_string())
    }

    /// Freezes the connection over which these bytes are sent next.
    pub(crate) fn set_trap(&self, bytes: &[u8]) {
        *self.state.trap.lock().unwrap() = Some(bytes.to_vec());
    }

    /// Returns the number of connections that the trap has frozen.
    pub(crate) fn caught(&self) -> usize {
        self.state.caught.load(Ordering::SeqCst)
    }

    /// Freezes every connection that there is. New ones are free.
    pub(crate) fn freeze(&self) {
        for frozen in &*self.state.frozen.lock().unwrap() {
            frozen.store(true, Ordering::SeqCst);
        }
    }

    /// Freezes every connection, new ones too.
    pub(crate) fn freeze_all(&self) {
        self.state.all.store(true, Ordering::SeqCst);
        self.freeze();
    }

    /// Ends what is frozen. New connections are free.
    pub(crate) fn thaw(&self) {
        self.state.all.store(false, Ordering::SeqCst);
        self.cut();
    }

    /// Ends every connection that there is, as a server does that is restarted.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.state.cut.lock().unwrap()).cancel();
    }
}

/// `HOST:PORT` of a URL.
fn server_of(url: &str) -> &str {
    let rest = url.split_once("://").expect("a URL").1;
    let authority = rest.split('/').next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

async fn accept(listener: TcpListener, upstream: String, state: Arc<State>) {
    let mut pumps = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(&upstream).await.unwrap();
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
        }
        let frozen = Arc::new(AtomicBool::new(state.all.load(Ordering::SeqCst)));
        state.frozen.lock().unwrap().push(Arc::clone(&frozen));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let cut = state.cut.lock().unwrap().clone();
        let there = pump(
            from_client,
            to_server,
            Arc::clone(&frozen),
            Some(Arc::clone(&state)),
        );
        let back = pump(from_server, to_client, frozen, None);
        pumps.spawn(async move {
            tokio::select! {
                () = async { tokio::join!(there, back); } => {}
                () = cut.cancelled() => {}
            }
        });
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    frozen: Arc<AtomicBool>,
    trap: Option<Arc<State>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..count];
        if let Some(state) = &trap {
            let mut trap = state.trap.lock().unwrap();
            if trap
                .as_ref()
                .is_some_and(|trap| bytes.windows(trap.len()).any(|part| part == *trap))
            {
                *trap = None;
                frozen.store(true, Ordering::SeqCst);
                state.caught.fetch_add(1, Ordering::SeqCst);
            }
        }
        if frozen.load(Ordering::SeqCst) {
            // Neither goes through nor ends.
            std::future::pending::<()>().await;
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}
