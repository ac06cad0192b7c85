//! The real daemon as a child process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cli::Binary;

/// Longer than any of this takes on a busy machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running `rescind serve`, killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) address: SocketAddr,
    lines: Receiver<String>,
    /// `true` while the log is not being read.
    paused: Arc<AtomicBool>,
    log: Vec<String>,
    stdout: Option<JoinHandle<String>>,
}

/// Guard that stops reading a daemon's log. Reading resumes when it is dropped.
pub(crate) struct PausedLog(Arc<AtomicBool>);

impl Drop for PausedLog {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Exit code and output of a daemon.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) log: Vec<String>,
}

impl Daemon {
    /// Starts the daemon on a free port and waits until it listens.
    pub(crate) fn start(binary: &Binary, arguments: &[&str]) -> Self {
        Self::start_as(binary.command(arguments))
    }

    /// Starts the daemon with this command, on a free port, and waits until it listens.
    pub(crate) fn start_as(mut command: Command) -> Self {
        command.env("RESCIND__SERVER__BIND", "127.0.0.1:0");
        let mut daemon = Self::begin_as(command, SocketAddr::from(([127, 0, 0, 1], 0)));
        daemon.wait_until_it_listens();
        daemon
    }

    /// Starts the daemon on a port that is free now, and waits for nothing.
    pub(crate) fn begin(binary: &Binary) -> Self {
        let address = free_address();
        let mut command = binary.command(["serve"]);
        command.env("RESCIND__SERVER__BIND", address.to_string());
        Self::begin_as(command, address)
    }

    /// Starts the daemon with this command, and waits for nothing.
    pub(crate) fn begin_as(mut command: Command, address: SocketAddr) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (send, lines) = channel();
        let paused = Arc::new(AtomicBool::new(false));
        let waits = Arc::clone(&paused);
        let stderr = BufReader::new(child.stderr.take().expect("standard error"));
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                while waits.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let _ = send.send(line);
            }
        });
        let mut stdout = child.stdout.take().expect("standard output");
        let stdout = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stdout.read_to_string(&mut text);
            text
        });
        Self {
            child,
            address,
            lines,
            paused,
            log: Vec::new(),
            stdout: Some(stdout),
        }
    }

    /// Waits until the daemon does what it is for.
    pub(crate) fn wait_until_it_listens(&mut self) {
        let line = self.wait_for("listening on http://");
        let address = line.split("http://").nth(1).unwrap_or_default();
        let address: String = address
            .chars()
            .take_while(|c| c.is_ascii_digit() || ".:".contains(*c))
            .collect();
        self.address = address.parse().expect("an address");
    }

    /// Waits for a log line that contains `text`.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no `{text}` in {:#?}", self.log));
            self.log.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Reads no more of the log than is in flight, until the guard is dropped.
    pub(crate) fn stop_reading(&self) -> PausedLog {
        self.paused.store(true, Ordering::Relaxed);
        PausedLog(Arc::clone(&self.paused))
    }

    /// Returns whether the process exits within `patience` while nobody reads its output.
    pub(crate) fn ends_within(&mut self, patience: Duration) -> bool {
        let began = Instant::now();
        while began.elapsed() < patience {
            if self.child.try_wait().expect("a process").is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Waits for the process to exit.
    pub(crate) fn wait(mut self) -> Ended {
        // Standard error is closed when the process has ended.
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.log.push(line),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(error) => panic!("still running ({error}): {:#?}", self.log),
            }
        }
        let status = self.child.wait().expect("the process ends");
        let stdout = self.stdout.take().expect("read once").join();
        Ended {
            code: status.code(),
            stdout: stdout.expect("standard output"),
            log: std::mem::take(&mut self.log),
        }
    }

    /// Stops the daemon as a service manager does.
    pub(crate) fn stop(self) -> Ended {
        self.signal("TERM");
        self.wait()
    }

    /// A connection to the API.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// Sends a request without body; gives the status and the body.
    pub(crate) fn get(&self, path: &str, token: Option<&str>) -> (u16, String) {
        get(self.address, path, token)
    }

    /// Sends a request with a JSON body; gives the status and the body.
    pub(crate) fn post(&self, path: &str, token: Option<&str>, json: &str) -> (u16, String) {
        post(self.address, path, token, json)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address of this machine that nobody has at the moment.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// Sends a request without body; gives the status and the body.
pub(crate) fn get(address: SocketAddr, path: &str, token: Option<&str>) -> (u16, String) {
    request(address, "GET", path, token, "", "")
}

/// Sends a request with a JSON body; gives the status and the body.
pub(crate) fn post(
    address: SocketAddr,
    path: &str,
    token: Option<&str>,
    json: &str,
) -> (u16, String) {
    let head = format!(
        "content-type: application/json\r\ncontent-length: {}\r\n",
        json.len()
    );
    request(address, "POST", path, token, &head, json)
}

fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    head: &str,
    body: &str,
) -> (u16, String) {
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n"));
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: rescind\r\nconnection: close\r\n{}{head}\r\n{body}",
        authorization.unwrap_or_default()
    );
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("sent");
    answer(stream)
}

/// Reads an answer to its end.
pub(crate) fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.expect("a status"), body.to_owned())
}
