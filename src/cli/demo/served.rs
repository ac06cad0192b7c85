//! Daemon of the demo, running `rescind serve` in a process of its own.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::keyformat::KeyValue;

/// Maximum duration of the first start, which creates the database.
const START: Duration = Duration::from_mins(1);
/// Interval at which the log is searched for the address.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Maximum duration of a shutdown.
const STOP: Duration = Duration::from_secs(30);

/// Running daemon. It is killed when dropped; [`Served::stop`] shuts it down gracefully.
#[derive(Debug)]
pub(super) struct Served {
    child: Child,
    /// Address of the API, without a trailing slash.
    pub(super) url: String,
    /// Admin token, which the first start on an empty database makes.
    pub(super) admin_token: KeyValue,
}

impl Served {
    /// Starts `rescind --config CONFIG serve` with its log in `log`, waits until it listens, and takes the admin token
    /// out of `token`.
    ///
    /// # Errors
    /// Returns an error with the end of the log if the daemon cannot be started or does not listen within
    /// [`START`].
    pub(super) async fn start(config: &Path, log: &Path, token: &Path) -> anyhow::Result<Self> {
        let stderr = std::fs::File::create(log).context("cannot create the daemon's log file")?;
        let mut daemon = Command::from(own_command(config)?);
        let mut child = daemon
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            // Ctrl-C reaches only the demo, which then shuts the daemon down gracefully.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start `rescind serve`")?;
        let url = tokio::select! {
            url = timeout(START, address(log)) => url,
            ended = child.wait() => bail!("the daemon ended with {:?}: {}", ended?.code(), tail_of(log)),
        };
        let url = match url {
            Ok(url) => url.with_context(|| tail_of(log))?,
            Err(_) => bail!(
                "the daemon did not listen within {START:?}: {}",
                tail_of(log)
            ),
        };
        let admin_token = take_token(token).context("cannot read the admin token")?;
        Ok(Self {
            child,
            url,
            admin_token,
        })
    }

    /// Sends SIGTERM and waits for the daemon to exit.
    ///
    /// # Errors
    /// Returns an error if the daemon fails or does not exit within [`STOP`].
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let pid =
                rustix::process::Pid::from_raw(pid).context("the daemon has no process id")?;
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .context("cannot end the daemon")?;
        }
        let ended = timeout(STOP, self.child.wait()).await;
        match ended {
            Ok(status) if status.as_ref().is_ok_and(std::process::ExitStatus::success) => Ok(()),
            Ok(status) => bail!("the daemon ended with {:?}", status?.code()),
            Err(_) => bail!("the daemon did not end within {STOP:?} of SIGTERM"),
        }
    }

    /// Waits until the daemon exits by itself.
    pub(super) async fn wait(&mut self) -> anyhow::Result<()> {
        self.child.wait().await?;
        Ok(())
    }
}

/// Takes the admin token out of the file that `serve` wrote before it listened.
fn take_token(file: &Path) -> std::io::Result<KeyValue> {
    let text = zeroize::Zeroizing::new(std::fs::read_to_string(file)?);
    std::fs::remove_file(file)?;
    Ok(KeyValue::new(text.trim()))
}

/// Reads the address, which `serve` writes to its log.
async fn address(log: &Path) -> anyhow::Result<String> {
    loop {
        let text = tokio::fs::read_to_string(log).await?;
        if let Some((_, rest)) = text.split_once("listening on ")
            && let Some((address, _)) = rest.split_once(char::is_whitespace)
        {
            return Ok(address.to_owned());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn tail_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

/// Returns a command that runs this binary with the demo's configuration and nothing else: the environment of an
/// instance that is in use would overlay it. All servers of the demo are on the loopback interface, so no proxy is used.
pub(super) fn own_command(config: &Path) -> anyhow::Result<std::process::Command> {
    let binary = std::env::current_exe();
    let binary = binary.context("cannot find the path of the running rescind binary")?;
    let mut command = std::process::Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"RESCIND_") {
            command.env_remove(name);
        }
    }
    for name in ["NO_PROXY", "no_proxy"] {
        command.env(name, "127.0.0.1");
    }
    command.arg("--config").arg(config);
    Ok(command)
}
