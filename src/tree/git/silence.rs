//! Ends a git that says nothing and does nothing.
//!
//! A repository can have git wait without end: for a pipe that its configuration includes, for one that came after
//! [`special`](super::special) looked, or that is beyond what is looked at. Nobody knows how long an honest git
//! takes, but it does something meanwhile.

use std::io::{self, Read};
use std::process::{Child, ChildStdout};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Interval at which processes are checked.
const TICK: Duration = Duration::from_millis(500);
/// For so many ticks nothing may happen: 10 s on Linux, which tells whether a process does something, else 10 min.
const PATIENCE: u32 = if cfg!(target_os = "linux") { 20 } else { 1_200 };
/// Maximum depth at which descendants of a process are searched for. A `git` may be a script that starts the real one.
const DEPTH_MAX: u32 = 4;

/// A process that several look after.
pub(super) type Shared = Arc<Mutex<Child>>;

/// Locks a process. No lock is held while anybody waits.
pub(super) fn locked(child: &Shared) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Processes that work for each other, and that are ended when one of them is waited for and none of them does
/// anything.
#[derive(Debug)]
pub(super) struct Watch {
    watched: Arc<Watched>,
    /// The watch is over when it is dropped.
    _ends: Sender<()>,
}

#[derive(Debug)]
struct Watched {
    processes: Vec<Shared>,
    /// Odd while somebody waits for them.
    turns: AtomicU64,
    is_over: AtomicBool,
}

/// Somebody waits, until this is dropped.
#[derive(Debug)]
pub(super) struct Waiting<'w>(&'w Watched);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.turns.fetch_add(1, Ordering::Relaxed);
    }
}

impl Watch {
    /// Watches processes that were started.
    pub(super) fn over(processes: Vec<Shared>) -> Self {
        let watched = Arc::new(Watched {
            processes,
            turns: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let (ends, ended) = channel();
        let here = Arc::clone(&watched);
        thread::spawn(move || here.watch(&ended));
        Self {
            watched,
            _ends: ends,
        }
    }

    /// Says that somebody waits from now on.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.watched.turns.fetch_add(1, Ordering::Relaxed);
        Waiting(&self.watched)
    }

    /// Checks that the processes were not ended.
    ///
    /// # Errors
    /// Returns an error of the kind [`io::ErrorKind::TimedOut`] if they were.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.watched.is_over.load(Ordering::Relaxed) {
            return Err(silent());
        }
        Ok(())
    }
}

fn silent() -> io::Error {
    let seconds = (TICK * PATIENCE).as_secs();
    let words = format!(
        "it said and did nothing for {seconds} s, so it was ended: does the repository name a pipe or a device?"
    );
    io::Error::new(io::ErrorKind::TimedOut, words)
}

impl Watched {
    fn watch(&self, ended: &Receiver<()>) {
        let mut patience = Patience::default();
        while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            let turns = self.turns.load(Ordering::Relaxed);
            let signs = self
                .processes
                .iter()
                .map(|child| Sign::of(locked(child).id()));
            if patience.ends(turns, signs.collect()) {
                self.is_over.store(true, Ordering::Relaxed);
                for child in &self.processes {
                    end(&mut locked(child));
                }
                return;
            }
        }
    }
}

/// Waits for the end of a process that has nothing more to say.
pub(super) fn wait_for(child: &Shared) -> io::Result<std::process::ExitStatus> {
    let mut patience = Patience::default();
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = locked(child).try_wait()? {
            return Ok(status);
        }
        thread::sleep(pause);
        if pause < TICK {
            pause *= 2;
            continue;
        }
        let sign = Sign::of(locked(child).id());
        if patience.ends(1, vec![sign]) {
            end(&mut locked(child));
            return Err(silent());
        }
    }
}

/// Time for which nothing has happened.
#[derive(Default)]
struct Patience {
    last: (u64, Vec<Sign>),
    ticks: u32,
}

impl Patience {
    /// Counts another tick and returns whether the time is up: in the current turn of waiting there was no output, and
    /// no process did anything.
    fn ends(&mut self, turns: u64, signs: Vec<Sign>) -> bool {
        let now = (turns, signs);
        let is_still = turns % 2 == 1 && now == self.last && !now.1.contains(&Sign::Busy);
        self.ticks = if is_still { self.ticks + 1 } else { 0 };
        self.last = now;
        self.ticks >= PATIENCE
    }
}

/// Observable activity of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// The process is running, or waiting for a disk.
    Busy,
    /// The process is waiting for something else. Holds the work done so far: processor time and page faults.
    Waits(u64),
    /// The activity cannot be observed.
    Unknown,
}

impl Sign {
    fn of(process: u32) -> Self {
        Self::of_tree(process, DEPTH_MAX)
    }

    fn of_tree(process: u32, depth: u32) -> Self {
        let Some(mut sign) = Self::of_one(process) else {
            return Self::Unknown;
        };
        if depth > 0 {
            for child in children(process) {
                sign = match (sign, Self::of_tree(child, depth - 1)) {
                    (Self::Busy, _) | (_, Self::Busy) => Self::Busy,
                    (Self::Waits(a), Self::Waits(b)) => Self::Waits(a.wrapping_add(b)),
                    // It ended meanwhile.
                    (sign, _) => sign,
                };
            }
        }
        sign
    }

    /// Reads the line that Linux has of a process: its name in brackets, its state, and numbers (`proc_pid_stat(5)`).
    fn of_one(process: u32) -> Option<Self> {
        let line = std::fs::read(format!("/proc/{process}/stat")).ok()?;
        let (_, rest) = line.split_at(line.iter().rposition(|byte| *byte == b')')? + 1);
        let rest = std::str::from_utf8(rest).ok()?;
        let words: Vec<&str> = rest.split_ascii_whitespace().collect();
        if matches!(*words.first()?, "R" | "D") {
            return Some(Self::Busy);
        }
        // Minor and major faults, time in user and in system mode: fields 10, 12, 14 and 15.
        let numbers = [7, 9, 11, 12].map(|at| words.get(at)?.parse::<u64>().ok());
        let done = numbers
            .into_iter()
            .try_fold(0_u64, |sum, number| Some(sum.wrapping_add(number?)));
        done.map(Self::Waits)
    }
}

fn children(process: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let list = list.unwrap_or_default();
    list.split_ascii_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// Ends a process and those that it started.
fn end(child: &mut Child) {
    #[cfg(unix)]
    for below in below(child.id(), DEPTH_MAX) {
        let process = i32::try_from(below)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(process) = process {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
    }
    let _ = child.kill();
}

#[cfg(unix)]
fn below(process: u32, depth: u32) -> Vec<u32> {
    let mut found = Vec::new();
    if depth > 0 {
        for child in children(process) {
            found.extend(below(child, depth - 1));
            found.push(child);
        }
    }
    found
}

/// The output of a process that is watched.
#[derive(Debug)]
pub(super) struct Listening {
    output: ChildStdout,
    watch: Watch,
}

impl Listening {
    pub(super) fn new(output: ChildStdout, watch: Watch) -> Self {
        Self { output, watch }
    }
}

impl Read for Listening {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let waiting = self.watch.wait();
        let read = self.output.read(buffer);
        drop(waiting);
        self.watch.check()?;
        read
    }
}
