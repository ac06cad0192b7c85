//! Signals: those that stop the daemon, the one that has it read its configuration again, and those that it outlives.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal as Named};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// Time after the first signal within which further ones count as the same: terminals, shells and service managers
/// often send a signal to a group of processes and to each of them.
const SAME: Duration = Duration::from_secs(1);

/// Signals that have handlers only later, or of which the daemon outlives all: every one but those that stop it, and
/// those of a fault of the program itself.
fn held_back() -> SigSet {
    let others = [
        Named::SIGTERM,
        Named::SIGINT,
        Named::SIGABRT,
        Named::SIGBUS,
        Named::SIGFPE,
        Named::SIGILL,
        Named::SIGSEGV,
        Named::SIGSYS,
        Named::SIGTRAP,
    ];
    let mut held = SigSet::all();
    for other in others {
        held.remove(other);
    }
    held
}

/// Has signals wait that would end the process as long as nothing handles them, until [`deliver`] is called. That outlives
/// an exec(3), as no handler does. To be called before any thread is started.
///
/// # Errors
/// Returns an error if the operating system refuses that.
pub fn hold_back() -> io::Result<()> {
    Ok(held_back().thread_block()?)
}

/// Has signals come that were held back, by this process or by whoever started it, and those that come later: to this
/// thread, on behalf of all.
///
/// # Errors
/// Returns an error if the operating system refuses that.
pub fn deliver() -> io::Result<()> {
    Ok(SigSet::all().thread_unblock()?)
}

/// Signals that stop the daemon: SIGTERM and SIGINT.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers. From here on the signals no longer end the process by themselves.
    ///
    /// # Errors
    /// Returns an error if the operating system refuses a handler.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal and returns its name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Waits for the next signal that does not count as the one received at `first`, and returns its name.
    pub(super) async fn another(&mut self, first: Option<Instant>) -> &'static str {
        loop {
            let name = self.next().await;
            if first.is_none_or(|first| first.elapsed() >= SAME) {
                return name;
            }
        }
    }
}

/// SIGHUP, which has the daemon read its configuration again.
#[derive(Debug)]
pub struct Hangups(Signal);

impl Hangups {
    /// Installs the handler. From here on the signal no longer ends the process.
    ///
    /// # Errors
    /// Returns an error if the operating system refuses the handler.
    pub fn listen() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for the next signal. Those that came together, or while nobody waited, are one.
    pub(super) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Signals that would end or stop the process and that the daemon outlives: all that can be caught, but for those that
/// tell of a fault of the program itself, such as SIGABRT and SIGSEGV.
#[derive(Debug)]
pub struct OtherSignals(Vec<Other>);

#[derive(Debug)]
struct Other {
    name: String,
    signal: Signal,
    /// `true` if it was logged and need not be again.
    is_told: bool,
}

impl OtherSignals {
    /// Installs the handlers. From here on the signals no longer end the process by themselves. One that the operating
    /// system does not have is left out.
    pub fn listen() -> Self {
        let others = others().into_iter().filter_map(|(name, kind)| {
            let signal = signal(kind).ok()?;
            Some(Other {
                name,
                signal,
                is_told: false,
            })
        });
        Self(others.collect())
    }

    /// Logs the signals that come, forever.
    pub async fn ignore(mut self) -> Infallible {
        poll_fn(|cx| {
            for other in &mut self.0 {
                while matches!(other.signal.poll_recv(cx), Poll::Ready(Some(()))) {
                    other.tell();
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Other {
    fn tell(&mut self) {
        if !self.is_told {
            tracing::warn!(signal = self.name, "ignored: SIGTERM stops the daemon");
            self.is_told = true;
        }
    }
}

/// Returns the signals to outlive, with their names. Those with which a terminal stops a process are among them: a
/// stopped daemon revokes nothing, and looks to others like one that runs. SIGPIPE is ignored by the standard library
/// already, and SIGXFSZ is handled for every command.
fn others() -> Vec<(String, SignalKind)> {
    let portable = [
        ("SIGQUIT", SignalKind::quit()),
        ("SIGALRM", SignalKind::alarm()),
        ("SIGUSR1", SignalKind::user_defined1()),
        ("SIGUSR2", SignalKind::user_defined2()),
    ];
    let portable = portable.map(|(name, kind)| (name.to_owned(), kind));
    portable
        .into_iter()
        .chain(others_of_this_system())
        .collect()
}

#[cfg(target_os = "linux")]
fn others_of_this_system() -> impl Iterator<Item = (String, SignalKind)> {
    use rustix::process::Signal;

    /// Real-time signals. The C library keeps the first two of the kernel's, 32 and 33, for itself.
    const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

    let named = [
        ("SIGTSTP", Signal::TSTP),
        ("SIGTTIN", Signal::TTIN),
        ("SIGTTOU", Signal::TTOU),
        ("SIGVTALRM", Signal::VTALARM),
        ("SIGPROF", Signal::PROF),
        ("SIGIO", Signal::IO),
        ("SIGPWR", Signal::POWER),
        ("SIGXCPU", Signal::XCPU),
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        ("SIGSTKFLT", Signal::STKFLT),
    ];
    let named = named.map(|(name, signal)| (name.to_owned(), signal.as_raw()));
    let real_time = REAL_TIME.map(|number| (format!("signal {number}"), number));
    let all = named.into_iter().chain(real_time);
    all.map(|(name, number)| (name, SignalKind::from_raw(number)))
}

#[cfg(not(target_os = "linux"))]
fn others_of_this_system() -> impl Iterator<Item = (String, SignalKind)> {
    std::iter::empty()
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;

    use super::*;

    /// Without being held back, the first one ends this process.
    #[test]
    fn what_comes_before_the_handlers_is_heeded_once_they_are_there() {
        hold_back().unwrap();
        for early in [
            Named::SIGHUP,
            Named::SIGUSR1,
            Named::SIGUSR2,
            Named::SIGQUIT,
        ] {
            raise(early).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut hangups = Hangups::listen().unwrap();
            let _others = OtherSignals::listen();
            deliver().unwrap();
            let come = tokio::time::timeout(Duration::from_mins(1), hangups.next());
            come.await.unwrap();
        });
    }
}
