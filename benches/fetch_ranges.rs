//! Pushed ranges per second: fetched from a local upload-pack, scanned, responded to and finished in a SQLite
//! database, compared with the cost of the same `git upload-pack` processes if nothing reads the packs.
//!
//! `cargo bench --bench fetch_ranges [-- RANGES]`

#[path = "support/history.rs"]
mod history;
#[path = "support/random.rs"]
mod random;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use reqwest::Url;
use rescind::clock::{SharedClock, SystemClock};
use rescind::fetch::{FetchLimits, GitFetcher, http_client};
use rescind::issuer::{IssueRequest, Issuer, IssuerFormats};
use rescind::keyformat::{FormatSet, KeyValue};
use rescind::respond::Responder;
use rescind::sandbox::git_server::{GitServer, Repository};
use rescind::scan::{Encodings, Engine};
use rescind::store::{Key, NewWorkItem, Owner, Priority, Store, StoreOptions, WorkKind};
use rescind::work::{Origin, Worker, WorkerOptions, WorkerParts};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use history::{BRANCH, commit, git, import, run};
use random::Random;

const REPOSITORIES: usize = 10;

/// Number of files that every repository has before the first push, in folders of ten.
const OLD_FILES: usize = 300;

/// Number of files changed by one push. With their trees and the commit they make a pack of about 25 kB, like a
/// mean push on GitHub (14 to 65 kB).
const CHANGED_FILES: usize = 5;

/// Number of pushes per leaked key.
const LEAK_EVERY: usize = 10;

/// Number of concurrent `git upload-pack` processes in the comparison.
const BASELINE_THREADS: usize = 4;

struct Push {
    repository: usize,
    before: String,
    after: String,
}

struct Rig {
    store: Store,
    responder: Responder,
    issuer: Issuer,
    formats: FormatSet,
    clock: SharedClock,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let ranges = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok());
    let ranges: usize = ranges.unwrap_or(2000);
    let folder = tempfile::tempdir()?;
    let rig = Rig::open(folder.path()).await?;
    let keys = rig.issue(ranges / LEAK_EVERY + 1).await?;
    let tracker = TaskTracker::new();
    let forge = GitServer::start(&folder.path().join("forge"), &tracker).await?;
    let (repositories, pushes) = fill(&forge, &keys, ranges)?;
    let worker = rig.worker(&forge)?;
    rig.add(&forge, &repositories, &pushes).await?;

    let baseline = measure_upload_pack(&repositories, &pushes)?;
    let measured = measure_worker(&worker, pushes.len()).await?;
    rig.check(&keys, pushes.len()).await?;
    report(pushes.len(), &baseline, &measured);
    Ok(())
}

impl Rig {
    async fn open(folder: &Path) -> anyhow::Result<Self> {
        let url = format!("sqlite://{}/rescind.db", folder.display());
        let store = Store::open(StoreOptions::new(url)).await?;
        store.migrate().await?;
        let formats = FormatSet::builtin();
        let minting = IssuerFormats {
            secret: "rescind_secret".to_owned(),
            public: "rescind_public".to_owned(),
        };
        let clock: SharedClock = Arc::new(SystemClock);
        let responder = Responder::new(store.clone(), formats.clone(), Arc::clone(&clock));
        let issuer = Issuer::new(responder.clone(), minting);
        Ok(Self {
            store,
            responder,
            issuer,
            formats,
            clock,
        })
    }

    async fn issue(&self, count: usize) -> anyhow::Result<Vec<(Key, KeyValue)>> {
        let mut keys = Vec::new();
        for _ in 0..count {
            let request = IssueRequest {
                project: "default".to_owned(),
                owner: Owner::user("user-1"),
                description: "bench".to_owned(),
                expires_at: None,
                is_public: false,
                policy: None,
                notify_emails: Vec::new(),
            };
            keys.push(self.issuer.issue(request).await?);
        }
        Ok(keys)
    }

    fn worker(&self, forge: &GitServer) -> anyhow::Result<Worker> {
        let engine = Engine::new(&self.formats, Encodings::ALL);
        let parts = WorkerParts {
            store: self.store.clone(),
            responder: self.responder.clone(),
            engine: Arc::new(engine),
            fetcher: GitFetcher::new(http_client()?, FetchLimits::default()),
            clock: Arc::clone(&self.clock),
            wake: Arc::new(Notify::new()),
        };
        let clone_url = Url::parse(&forge.url())?;
        let origin = Origin {
            app: None,
            host: rescind::fetch::host_of(&clone_url),
            clone_url,
            token: None,
            without_token: None,
        };
        Ok(Worker::new(parts, [origin], WorkerOptions::default()))
    }

    async fn add(
        &self,
        forge: &GitServer,
        repositories: &[Repository],
        pushes: &[Push],
    ) -> anyhow::Result<()> {
        let host = rescind::fetch::host_of(&Url::parse(&forge.url())?);
        let now = self.clock.now();
        let items: Vec<_> = pushes
            .iter()
            .map(|push| NewWorkItem {
                kind: WorkKind::Range,
                clone_url: None,
                host: host.clone(),
                repository_id: push.repository.to_string(),
                repository: repositories[push.repository].name().to_owned(),
                ref_name: BRANCH.to_owned(),
                before: push.before.clone(),
                after: push.after.clone(),
                source: "bench".to_owned(),
                priority: Priority::Firehose,
                event_at: now,
            })
            .collect();
        let mut tx = self.store.begin().await?;
        tx.add_work_items(&items, now).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn check(&self, keys: &[(Key, KeyValue)], ranges: usize) -> anyhow::Result<()> {
        let counts = self.store.work_counts().await?;
        ensure!(
            counts.done == ranges as u64,
            "not all items are done: {counts:?}"
        );
        ensure!(counts.truncated == 0, "something was left out: {counts:?}");
        for (key, _) in keys.iter().take(ranges / LEAK_EVERY) {
            let key = self.store.key(key.id).await?.context("a key is missing")?;
            ensure!(key.revoked_at.is_some(), "a leaked key is still valid");
        }
        Ok(())
    }
}

/// Fills the forge's repositories with histories in which every commit is one push.
fn fill(
    forge: &GitServer,
    keys: &[(Key, KeyValue)],
    ranges: usize,
) -> anyhow::Result<(Vec<Repository>, Vec<Push>)> {
    let mut random = Random(1);
    let mut repositories = Vec::new();
    let mut pushes = Vec::new();
    for number in 0..REPOSITORIES {
        let repository = forge.create(&format!("acme/shop{number}"))?;
        let mut history = String::new();
        let old = (0..OLD_FILES).map(|file| (path(file), random.text("")));
        commit(&mut history, 0, old);
        let own: Vec<usize> = (0..ranges).filter(|n| n % REPOSITORIES == number).collect();
        for (at, range) in own.iter().enumerate() {
            let leaks = range % LEAK_EVERY == 0;
            let leak = if leaks {
                keys[range / LEAK_EVERY].1.expose()
            } else {
                ""
            };
            let changed = (0..CHANGED_FILES).map(|file| {
                let at = path((range * 7 + file * 31) % OLD_FILES);
                (at, random.text(if file == 2 { leak } else { "" }))
            });
            commit(&mut history, at + 1, changed);
        }
        import(&repository, &history)?;
        let commits = run(git(&repository).args(["rev-list", "--reverse", BRANCH]))?;
        let commits: Vec<&str> = commits.lines().collect();
        ensure!(
            commits.len() == own.len() + 1,
            "git imported something else"
        );
        pushes.extend(commits.windows(2).map(|pair| Push {
            repository: number,
            before: pair[0].to_owned(),
            after: pair[1].to_owned(),
        }));
        repositories.push(repository);
    }
    Ok((repositories, pushes))
}

fn path(file: usize) -> String {
    format!("src/part{}/file{file}.rs", file / 10)
}

struct Measured {
    wall: Duration,
    /// CPU time of this process, in seconds.
    own: f64,
    /// CPU time of the git processes that it started, in seconds.
    git: f64,
    /// Peak resident memory, in KiB.
    peak: u64,
    bytes: usize,
}

async fn measure_worker(worker: &Worker, ranges: usize) -> anyhow::Result<Measured> {
    forget_peak()?;
    let (own, git) = cpu()?;
    let start = Instant::now();
    let done = worker.drain().await?;
    let wall = start.elapsed();
    ensure!(done == ranges, "{done} items ended, not {ranges}");
    let (own_after, git_after) = cpu()?;
    Ok(Measured {
        wall,
        own: own_after - own,
        git: git_after - git,
        peak: peak()?,
        bytes: 0,
    })
}

/// Requests the same ranges from `git upload-pack`, and discards the responses.
fn measure_upload_pack(repositories: &[Repository], pushes: &[Push]) -> anyhow::Result<Measured> {
    let next = AtomicUsize::new(0);
    let bytes = AtomicUsize::new(0);
    let (own, git) = cpu()?;
    let start = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..BASELINE_THREADS)
            .map(|_| {
                scope.spawn(|| -> anyhow::Result<()> {
                    while let Some(push) = pushes.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let size = upload_pack(&repositories[push.repository], push)?;
                        bytes.fetch_add(size, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a panic")))
    })?;
    let wall = start.elapsed();
    let (own_after, git_after) = cpu()?;
    Ok(Measured {
        wall,
        own: own_after - own,
        git: git_after - git,
        peak: 0,
        bytes: bytes.into_inner(),
    })
}

fn upload_pack(repository: &Repository, push: &Push) -> anyhow::Result<usize> {
    let mut request = String::new();
    let lines = [
        "command=fetch".to_owned(),
        "no-progress".to_owned(),
        "ofs-delta".to_owned(),
        format!("want {}", push.after),
        format!("have {}", push.before),
    ];
    for (at, line) in lines.iter().enumerate() {
        if at == 1 {
            request.push_str("0001");
        }
        let _ = writeln!(request, "{:04x}{line}", line.len() + 5);
    }
    request.push_str("0000");
    let mut child = Command::new("git")
        .args(["upload-pack", "--strict", "--stateless-rpc"])
        .arg(repository.bare())
        .env("GIT_PROTOCOL", "version=2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("git has no input")?;
    stdin.write_all(request.as_bytes())?;
    drop(stdin);
    let mut answer = Vec::new();
    let mut stdout = child.stdout.take().context("git has no output")?;
    stdout.read_to_end(&mut answer)?;
    ensure!(child.wait()?.success(), "git upload-pack failed");
    let has_pack = answer.windows(9).any(|bytes| bytes == b"packfile\n");
    ensure!(has_pack, "git upload-pack sent no pack");
    Ok(answer.len())
}

/// Returns the CPU time in seconds of this process, and of the processes that it waited for (proc(5), `stat`).
fn cpu() -> anyhow::Result<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("an odd /proc/self/stat")?;
    let fields: Vec<f64> = fields
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [user, system, child_user, child_system] = fields[..] else {
        anyhow::bail!("an odd /proc/self/stat");
    };
    // Linux reports hundredths of a second, regardless of its own clock tick.
    Ok(((user + system) / 100.0, (child_user + child_system) / 100.0))
}

/// Resets the peak of resident memory (proc(5), `clear_refs`).
fn forget_peak() -> anyhow::Result<()> {
    Ok(fs::write("/proc/self/clear_refs", "5")?)
}

fn peak() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmHWM in /proc/self/status")?.parse()?)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn report(ranges: usize, baseline: &Measured, measured: &Measured) {
    let n = ranges as f64;
    let rate = |measured: &Measured| n / measured.wall.as_secs_f64();
    let cores = thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{ranges} pushed ranges on {cores} cores, {:.1} kB each",
        baseline.bytes as f64 / n / 1e3
    );
    println!(
        "git upload-pack alone:       {:6.0} ranges/s, {:5.2} ms CPU of git per range",
        rate(baseline),
        baseline.git * 1e3 / n
    );
    println!(
        "fetch, scan, respond, finish:{:6.0} ranges/s, {:5.2} ms CPU of git and {:.2} ms of rescind per range",
        rate(measured),
        measured.git * 1e3 / n,
        measured.own * 1e3 / n
    );
    println!(
        "ratio {:.2}; peak resident {:.0} MiB",
        rate(measured) / rate(baseline),
        measured.peak as f64 / 1024.0
    );
    let met = rate(measured) >= 100.0 && measured.peak <= 200 * 1024;
    println!(
        "target (>= 100 ranges/s at <= 200 MiB): {}",
        if met { "met" } else { "MISSED" }
    );
}
