//! A daemon under attack, and a healthy partner that reports a leaked key meanwhile.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::api::harness::http_client;
use crate::cli::{Binary, Ran};
use crate::intake::signer::{ENDPOINT, IDENTIFIER, Origin, SIGNATURE, Signer};
use crate::serve::Daemon;
use crate::support::http::Ask as _;

/// Maximum resident memory of the daemon, in MiB, whatever the attack.
pub(in crate::attacks) const MOST_MIB: u64 = 256;

/// Maximum time that a healthy sender waits.
pub(in crate::attacks) const PATIENCE: Duration = Duration::from_secs(10);

pub(in crate::attacks) const SECRET: &str = "a secret of webhooks";

pub(in crate::attacks) struct Target {
    binary: Binary,
    pub(in crate::attacks) daemon: Daemon,
    pub(in crate::attacks) signer: Signer,
    _origin: Origin,
}

impl Target {
    pub(in crate::attacks) async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts a daemon with more configuration: keys of the webhook, and sections.
    pub(in crate::attacks) async fn start_with(config: &str) -> Self {
        Self::start_as(config, |binary| binary.command(["serve"])).await
    }

    /// Starts a daemon with these limits on file descriptors.
    pub(in crate::attacks) async fn with_descriptors(soft: u32, hard: u32) -> Self {
        Self::start_as("", |binary| limited(binary, ["serve"], soft, hard)).await
    }

    async fn start_as(more: &str, command: impl FnOnce(&Binary) -> Command) -> Self {
        let signer = Signer::new("k1");
        let origin = Origin::start(&[signer.listed()]).await;
        let binary = Binary::new();
        let config = format!(
            "[partners.github]\npublic_keys_url = \"{}\"\n[webhooks.github]\nsecrets = [\"{SECRET}\"]\n{more}",
            origin.url()
        );
        binary.write("config.toml", config);
        let daemon = Daemon::start_as(command(&binary));
        let target = Self {
            binary,
            daemon,
            signer,
            _origin: origin,
        };
        // From here on the partner's key is known, as it is to a daemon that has run for a while.
        let key = target.mint();
        target.reports(&key).await;
        target
    }

    /// Stops the daemon and starts it again.
    pub(in crate::attacks) fn restarted(self) -> Self {
        self.daemon.signal("TERM");
        self.started_again()
    }

    /// Starts the daemon again once it has stopped.
    pub(in crate::attacks) fn started_again(self) -> Self {
        let ended = self.daemon.wait();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let daemon = Daemon::start_as(self.binary.command(["serve"]));
        Self { daemon, ..self }
    }

    /// Runs a command line, its words separated by spaces, on the database of the daemon.
    pub(in crate::attacks) fn run(&self, line: &str) -> Ran {
        self.binary.run(line)
    }

    /// Returns the URL of the daemon's database.
    pub(in crate::attacks) fn database(&self) -> String {
        format!("sqlite://{}", self.binary.path("data/rescind.db").display())
    }

    /// Creates a key that somebody holds.
    pub(in crate::attacks) fn mint(&self) -> String {
        let key = self.binary.run("keys create --user u --description x").ok();
        key.trim().to_owned()
    }

    /// Creates an access token with this role, in another project than the default one.
    pub(in crate::attacks) fn token(&self, role: &str) -> String {
        self.token_of(role, "other")
    }

    /// Creates an access token with this role in this project.
    pub(in crate::attacks) fn token_of(&self, role: &str, project: &str) -> String {
        let create = format!("tokens create --role {role} --project {project}");
        self.binary.run(&create).ok().trim().to_owned()
    }

    pub(in crate::attacks) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.daemon.address)
            .await
            .expect("a connection")
    }

    /// Connects from one of this machine's many addresses.
    pub(in crate::attacks) async fn connect_from(&self, from: Ipv4Addr) -> TcpStream {
        let stream = try_connect_from(from, self.daemon.address).await;
        stream.expect("a connection")
    }

    /// Returns the head of a partner's report.
    pub(in crate::attacks) fn report_head(signature: &str, length: usize) -> String {
        format!(
            "POST {ENDPOINT} HTTP/1.1\r\nhost: x\r\n{IDENTIFIER}: k1\r\n{SIGNATURE}: {signature}\r\n\
             content-length: {length}\r\n\r\n"
        )
    }

    /// Asserts that the key is reported, and revoked, in time.
    pub(in crate::attacks) async fn reports(&self, key: &str) {
        let body = json!([{"token": key, "type": "t", "url": "", "source": "commit"}]).to_string();
        let began = Instant::now();
        let request = http_client()
            .post(format!("http://{}{ENDPOINT}", self.daemon.address))
            .header(IDENTIFIER, "k1")
            .header(SIGNATURE, self.signer.sign(body.as_bytes()))
            .body(body);
        let answer = request.ask().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let feedback = answer.text().await.expect("feedback");
        assert!(feedback.contains("true_positive"), "{feedback}");
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    }

    /// Asserts that the daemon reports in time that it is alive and ready.
    pub(in crate::attacks) async fn lives(&self) {
        for path in ["/healthz", "/readyz"] {
            let request = http_client().get(format!("http://{}{path}", self.daemon.address));
            let answer = request.timeout(PATIENCE).ask().await.expect("an answer");
            assert_eq!(answer.status(), 200, "{path}");
        }
    }

    /// Returns the peak resident memory of the daemon, in MiB.
    pub(in crate::attacks) fn peak(&self) -> u64 {
        self.status_of("VmHWM:") >> 10
    }

    /// Returns the current resident memory of the daemon, in KiB.
    pub(in crate::attacks) fn resident(&self) -> u64 {
        self.status_of("VmRSS:")
    }

    fn status_of(&self, name: &str) -> u64 {
        let status = format!("/proc/{}/status", self.daemon.id());
        let status = std::fs::read_to_string(status).expect("a process");
        let line = status.lines().find(|line| line.starts_with(name));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.and_then(|kib| kib.parse().ok()).expect("a size")
    }
}

/// Returns a command that runs the binary with these limits on file descriptors.
pub(in crate::attacks) fn limited<const N: usize>(
    binary: &Binary,
    arguments: [&str; N],
    soft: u32,
    hard: u32,
) -> Command {
    let plain = binary.command(arguments);
    let mut limited = Command::new("/bin/sh");
    let script = format!("ulimit -Sn {soft}; ulimit -Hn {hard}; exec \"$0\" \"$@\"");
    let variables = plain.get_envs();
    limited
        .args([OsStr::new("-c"), OsStr::new(&script), plain.get_program()])
        .args(plain.get_args())
        .current_dir(binary.folder())
        .env_clear()
        .envs(variables.filter_map(|(name, value)| Some((name, value?))));
    limited
}

/// Connects from one of this machine's many addresses, retrying until it succeeds: in a flood the operating system may
/// have no room for another connection that has not been accepted yet.
pub(in crate::attacks) async fn connect_from(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    loop {
        match try_connect_from(from, to).await {
            Ok(stream) => return stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn try_connect_from(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// Sends a head and a body as far as they are accepted, and returns the status of the answer, if there is one.
pub(in crate::attacks) async fn exchange(
    mut stream: TcpStream,
    head: String,
    body: &[u8],
) -> Option<u16> {
    stream.write_all(head.as_bytes()).await.ok()?;
    // An answer before the end of the body is an answer all the same.
    let _ = stream.write_all(body).await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.ok()?;
    str::from_utf8(&answer[9..]).ok()?.parse().ok()
}
