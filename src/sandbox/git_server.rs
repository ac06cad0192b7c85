//! Minimal forge: bare repositories in a folder, served over smart HTTP by `git upload-pack`.
//!
//! The forge only starts the process and passes bytes on, as git's `Documentation/gitprotocol-http.adoc` describes,
//! so a client sees what git itself serves. Anybody may read and nobody may write. It listens on the loopback
//! interface only.

mod repository;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path as UrlPath, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use futures_util::stream;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_util::io::ReaderStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::fetch::RepositoryName;
pub use repository::{Pushed, Repository};

/// Maximum size of a request body in bytes.
const MAX_REQUEST: usize = 1 << 20;

/// Size in bytes of the chunks in which a process's output is sent.
const PIECE: usize = 64 << 10;

/// Variables that would point git to other repositories or settings.
const FOREIGN: [&str; 10] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_TEMPLATE_DIR",
];

/// Running forge. It stops when dropped.
#[derive(Debug)]
pub struct GitServer {
    root: PathBuf,
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    is_old: Arc<AtomicBool>,
    _stop: DropGuard,
}

impl GitServer {
    /// Serves the repositories under `root` on a free port of the loopback interface, as a task of `tracker`.
    ///
    /// # Errors
    /// Returns an error if no port can be opened.
    pub async fn start(root: &Path, tracker: &TaskTracker) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let requests = Arc::new(AtomicUsize::new(0));
        let is_old = Arc::new(AtomicBool::new(false));
        let app = router(Served {
            root: root.to_owned(),
            requests: Arc::clone(&requests),
            is_old: Arc::clone(&is_old),
        });
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        // git writes a few bytes before its pack. Unless they are sent at once, the pack waits for the client's
        // delayed acknowledgment of them: 40 ms, with both sides idle.
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        tracker.spawn(async move {
            let server = axum::serve(listener, app).with_graceful_shutdown(stopped);
            if let Err(error) = server.await {
                tracing::error!(%error, "the demo's forge stopped");
            }
        });
        Ok(Self {
            root: root.to_owned(),
            address,
            requests,
            is_old,
            _stop: stop.drop_guard(),
        })
    }

    /// Returns the base address of the repositories, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the number of requests for a repository so far, including those for one that does not exist.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Has the forge speak version 0 of the protocol from now on, whatever clients ask for.
    pub fn speak_version_0(&self) {
        self.is_old.store(true, Ordering::Relaxed);
    }

    /// Creates an empty repository `owner/name` whose objects are named by SHA-256. Blocks on git.
    ///
    /// # Errors
    /// Returns an error if the name is not a valid repository name, or git fails.
    pub fn create_sha256(&self, name: &str) -> anyhow::Result<Repository> {
        Repository::create(&self.root, name, gix_hash::Kind::Sha256)
    }

    /// Creates an empty repository `owner/name`, with a work tree to fill it from. Blocks on git.
    ///
    /// # Errors
    /// Returns an error if the name is not a valid repository name, or git fails.
    pub fn create(&self, name: &str) -> anyhow::Result<Repository> {
        Repository::create(&self.root, name, gix_hash::Kind::Sha1)
    }
}

#[derive(Debug, Clone)]
struct Served {
    root: PathBuf,
    requests: Arc<AtomicUsize>,
    is_old: Arc<AtomicBool>,
}

fn router(served: Served) -> Router {
    Router::new()
        .route("/{owner}/{name}/info/refs", get(advertise))
        .route("/{owner}/{name}/git-upload-pack", post(upload_pack))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(served)
}

impl Served {
    /// Returns the version of the protocol that a client asks for.
    fn version<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        let version = headers.get("git-protocol")?.to_str().ok()?;
        (!self.is_old.load(Ordering::Relaxed)).then_some(version)
    }

    /// Returns the folder of `{owner}/{name}.git`, if it is a repository, and counts the request.
    fn find(&self, owner: &str, name: &str) -> Option<PathBuf> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let name = format!("{owner}/{}", name.strip_suffix(".git")?);
        let folder = bare_folder(&self.root, &RepositoryName::parse(&name).ok()?);
        folder.join("HEAD").is_file().then_some(folder)
    }
}

#[derive(serde::Deserialize)]
struct Advertise {
    service: String,
}

async fn advertise(
    State(served): State<Served>,
    UrlPath((owner, name)): UrlPath<(String, String)>,
    Query(query): Query<Advertise>,
    headers: HeaderMap,
) -> Response {
    let Some(folder) = served.find(&owner, &name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if query.service != "git-upload-pack" {
        return StatusCode::FORBIDDEN.into_response();
    }
    // Protocol v2 omits the line that names the service.
    let version = served.version(&headers);
    let is_v2 = version.is_some_and(|version| version.contains("version=2"));
    let greeting: &[u8] = if is_v2 {
        b""
    } else {
        b"001e# service=git-upload-pack\n0000"
    };
    let arguments = ["--http-backend-info-refs"];
    let kind = "application/x-git-upload-pack-advertisement";
    run(&folder, &arguments, version, &[], greeting, kind).await
}

async fn upload_pack(
    State(served): State<Served>,
    UrlPath((owner, name)): UrlPath<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(folder) = served.find(&owner, &name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if headers.contains_key(header::CONTENT_ENCODING) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let kind = "application/x-git-upload-pack-result";
    let version = served.version(&headers);
    run(&folder, &[], version, &body, b"", kind).await
}

/// Responds with `greeting`, followed by the output of `git upload-pack` for `input`.
async fn run(
    folder: &Path,
    arguments: &[&str],
    version: Option<&str>,
    input: &[u8],
    greeting: &'static [u8],
    kind: &'static str,
) -> Response {
    let mut command = git();
    command.args(["upload-pack", "--strict", "--stateless-rpc"]);
    command.args(arguments).arg(folder);
    if let Some(version) = version {
        command.env("GIT_PROTOCOL", version);
    }
    match start(command, input).await {
        Ok(output) => {
            let headers = [
                (header::CONTENT_TYPE, kind),
                (header::CACHE_CONTROL, "no-cache"),
            ];
            let greeting = stream::iter([Ok(Bytes::from_static(greeting))]);
            let whole = futures_util::StreamExt::chain(greeting, output);
            (headers, Body::from_stream(whole)).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "cannot run git upload-pack");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Starts a process, writes its input and returns its output as a stream. The process is killed when the stream is
/// dropped.
async fn start(
    mut command: Command,
    input: &[u8],
) -> io::Result<impl stream::Stream<Item = io::Result<Bytes>> + use<>> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .spawn()?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("the process has no input or output"));
    };
    // git reads the whole request before it answers. If it exits early, its answer says why.
    match stdin.write_all(input).await {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
        _ => drop(stdin),
    }
    let output = ReaderStream::with_capacity(stdout, PIECE);
    Ok(stream::unfold(
        (child, output),
        |(child, mut output)| async {
            let piece = futures_util::StreamExt::next(&mut output).await?;
            Some((piece, (child, output)))
        },
    ))
}

/// Returns a `git` command that ignores the settings of the machine and of the user.
fn git() -> Command {
    let mut command = Command::new("git");
    for name in FOREIGN {
        command.env_remove(name);
    }
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "Demo")
        .env("GIT_AUTHOR_EMAIL", "demo@example.com")
        .env("GIT_COMMITTER_NAME", "Demo")
        .env("GIT_COMMITTER_EMAIL", "demo@example.com")
        .env("LC_ALL", "C");
    command
}

fn bare_folder(root: &Path, name: &RepositoryName) -> PathBuf {
    root.join(name.owner()).join(format!("{}.git", name.name()))
}
