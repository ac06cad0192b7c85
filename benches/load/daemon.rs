//! Daemon under load, and the state of its database afterward.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use rescind::fetch::http_client;
use rescind::keyformat::KeyValue;
use rescind::store::{Store, StoreOptions};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sqlx::{Connection as _, Row as _, SqliteConnection};

use crate::forge::Push;
use crate::hooks::SECRET;

/// Running daemon.
pub(crate) struct Daemon {
    child: Mutex<Child>,
    url: String,
    token: String,
    database: PathBuf,
}

/// Resident memory in KiB: after 10 s, at the end, and the peak.
#[derive(Default, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) early: u64,
    pub(crate) late: u64,
    pub(crate) peak: u64,
}

/// Watcher of a process's memory.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Memory>,
}

impl Watch {
    pub(crate) fn end(self) -> Memory {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Final state of the database.
pub(crate) struct Outcome {
    pub(crate) lags: Vec<Duration>,
    pub(crate) scanned: usize,
    pub(crate) shed: usize,
    pub(crate) waiting: usize,
    pub(crate) dead: usize,
    pub(crate) gaps: u64,
    pub(crate) leaks: usize,
    pub(crate) revoked: usize,
    pub(crate) entries: usize,
}

impl Outcome {
    /// Checks that the counts are consistent, and prints the result.
    ///
    /// # Errors
    /// Returns an error that names the first inconsistency.
    pub(crate) fn check(&self, pushed: usize, fetched_twice: usize) -> anyhow::Result<()> {
        ensure!(
            fetched_twice == 0,
            "{fetched_twice} pushes were fetched twice"
        );
        ensure!(self.waiting == 0 && self.dead == 0, "items are left");
        ensure!(
            self.scanned + self.shed == pushed || self.gaps > 0,
            "pushes were lost"
        );
        ensure!(
            self.leaks == self.revoked && self.revoked == self.entries,
            "leaks and revocations differ"
        );
        println!("nothing was lost, nothing was scanned twice, and the counts add up");
        Ok(())
    }
}

impl Daemon {
    /// Starts the daemon with a fresh database. Its feed and its repositories are at `forge`.
    pub(crate) async fn start(folder: &Path, forge: SocketAddr) -> anyhow::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let database = folder.join("rescind.db");
        let config = format!(
            "[server]\nbind = \"{address}\"\n[database]\nurl = \"sqlite://{}\"\n\
             [partners.github]\nenabled = false\n[webhooks.github]\nsecrets = [\"{SECRET}\"]\n\
             [[sources]]\nname = \"feed\"\nkind = \"github_events\"\napi_url = \"http://{forge}\"\n\
             clone_url = \"http://{forge}\"\n",
            database.display()
        );
        let file = folder.join("config.toml");
        fs::write(&file, config)?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_rescind"))
            .arg("--config")
            .arg(&file)
            .arg("serve")
            .env("RESCIND_LOG", "error")
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()?;
        let token = token_of(&mut child)?;
        let daemon = Self {
            child: Mutex::new(child),
            url: format!("http://{address}"),
            token,
            database,
        };
        daemon.ready().await?;
        Ok(daemon)
    }

    #[expect(clippy::disallowed_methods, reason = "the load comes from outside")]
    async fn ready(&self) -> anyhow::Result<()> {
        let client = http_client()?;
        for _ in 0..200 {
            let answer = client.get(format!("{}/readyz", self.url)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("the program does not answer")
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Issues `count` keys and returns their values.
    #[expect(clippy::disallowed_methods, reason = "the load comes from outside")]
    pub(crate) async fn issue(&self, count: usize) -> anyhow::Result<Vec<KeyValue>> {
        let client = http_client()?;
        let mut keys = Vec::new();
        for _ in 0..count {
            let answer = client
                .post(format!("{}/api/v1/user-api-keys", self.url))
                .bearer_auth(&self.token)
                .json(&json!({"user_id": "u", "description": "load", "expires_at_millis": null}))
                .send()
                .await?;
            let key: Value = answer.error_for_status()?.json().await?;
            keys.push(KeyValue::new(key["value"].as_str().context("no value")?));
        }
        Ok(keys)
    }

    /// Starts watching the daemon's memory.
    pub(crate) fn watch_memory(&self) -> Watch {
        let id = self
            .child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .id();
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let start = Instant::now();
            let mut memory = Memory::default();
            while !ended.load(Ordering::Relaxed) {
                memory.late = resident(id).unwrap_or(memory.late);
                memory.peak = memory.peak.max(memory.late);
                if start.elapsed() < Duration::from_secs(10) {
                    memory.early = memory.late;
                }
                thread::sleep(Duration::from_millis(250));
            }
            memory
        });
        Watch { stop, thread }
    }

    /// Waits until the queue is empty, and returns the time that this took.
    ///
    /// # Errors
    /// Returns an error if items are left after `patience`.
    pub(crate) async fn drained(&self, patience: Duration) -> anyhow::Result<Duration> {
        let start = Instant::now();
        // The last pushes shown by the feed are read by the next poll.
        let mut settled = 0;
        while start.elapsed() < patience {
            let left = self
                .number("SELECT COUNT(*) FROM work_items WHERE state = 'waiting'")
                .await?;
            settled = if left == 0 { settled + 1 } else { 0 };
            if settled >= 15 {
                return Ok(start.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::bail!("items are left after {} s", patience.as_secs())
    }

    async fn number(&self, sql: &'static str) -> anyhow::Result<i64> {
        let mut connection = self.connection().await?;
        Ok(sqlx::query_scalar(sql).fetch_one(&mut connection).await?)
    }

    async fn connection(&self) -> anyhow::Result<SqliteConnection> {
        let url = format!("sqlite://{}?mode=ro", self.database.display());
        Ok(SqliteConnection::connect(&url).await?)
    }

    /// Stops the daemon as a service manager does, with SIGTERM.
    pub(crate) async fn stop(&self) -> anyhow::Result<()> {
        let id = self
            .child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .id();
        let pid = Pid::from_raw(i32::try_from(id)?).context("no process")?;
        kill_process(pid, Signal::TERM)?;
        for _ in 0..600 {
            let ended = self
                .child
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .try_wait()?;
            if let Some(status) = ended {
                ensure!(status.success(), "the program ended with {status}");
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("the program did not stop")
    }

    /// Reads the outcome of the pushes.
    pub(crate) async fn outcome(&self, pushes: &[Push]) -> anyhow::Result<Outcome> {
        let mut connection = self.connection().await?;
        let rows = sqlx::query("SELECT after_id, state, finished_at FROM work_items")
            .fetch_all(&mut connection)
            .await?;
        let by_commit: HashMap<String, &Push> = pushes
            .iter()
            .map(|push| (push.after.to_string(), push))
            .collect();
        let mut states: HashMap<String, usize> = HashMap::new();
        let (mut lags, mut leaks) = (Vec::new(), 0);
        for row in rows {
            let state: String = row.try_get(1)?;
            let push = by_commit
                .get(row.try_get::<&str, _>(0)?)
                .context("an unknown push")?;
            if state == "done" {
                let finished = Timestamp::from_microsecond(row.try_get(2)?)?;
                let at = push.at.get().context("a push that did not happen")?;
                lags.push(Duration::try_from(finished.duration_since(*at)).unwrap_or_default());
                leaks += usize::from(push.leak.is_some());
            }
            *states.entry(state).or_default() += 1;
        }
        let store = Store::open(StoreOptions::new(format!(
            "sqlite://{}",
            self.database.display()
        )))
        .await?;
        let gaps = store
            .list_sources()
            .await?
            .iter()
            .map(|source| source.gaps)
            .sum();
        let verified = store.verify_log().await?;
        ensure!(verified.is_ok(), "the revocation log is broken");
        let count = |state: &str| states.get(state).copied().unwrap_or_default();
        Ok(Outcome {
            lags,
            scanned: count("done"),
            shed: count("shed"),
            waiting: count("waiting"),
            dead: count("dead"),
            gaps,
            leaks,
            revoked: usize::try_from(
                self.number("SELECT COUNT(*) FROM keys WHERE revoked_at IS NOT NULL")
                    .await?,
            )?,
            entries: usize::try_from(
                self.number("SELECT COUNT(*) FROM revocation_log WHERE action = 'revoked'")
                    .await?,
            )?,
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The process has ended before, unless something failed.
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Returns the admin token, which the first start prints.
fn token_of(child: &mut Child) -> anyhow::Result<String> {
    let stdout = child.stdout.take().context("no output")?;
    let mut lines = BufReader::new(stdout).lines();
    for line in lines.by_ref() {
        let line = line?;
        if let Some(token) = line
            .split_whitespace()
            .find(|word| word.starts_with("rsc_sk_"))
        {
            // The rest is read so that the daemon never blocks on a full pipe.
            let token = token.to_owned();
            thread::spawn(move || lines.for_each(drop));
            return Ok(token);
        }
    }
    anyhow::bail!("the program showed no token")
}

fn resident(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
