//! Look-ups of names, each of which takes a thread until the operating system answers.
//!
//! It cannot be asked to stop: where a name server is silent, the thread of a look-up stays for half a minute after
//! everybody gave it up. So there is one look-up of a name at a time, which all wait for who want to know, and few in
//! all. Names that answered the last time have places of their own, and those that did not have few: however many hang,
//! others are looked up.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

/// Maximum number of look-ups in flight of names of which nothing is known, and of any that answered the last time.
const ORDINARY: usize = 16;

/// Maximum number of further ones of names that answered the last time.
const PROVEN: usize = 8;

/// Maximum number of names in flight that were not answered the last time.
const SILENT: usize = 8;

/// Times of look-ups without an answer.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// Time after which nobody joins one any more. A resolver that asks a second name server after the usual 5 s is
    /// waited for.
    hangs: Duration,
    /// Time after which a name that is not found counts as one that was not answered.
    slow: Duration,
    /// Time for which such a name is not looked up again.
    refused: Duration,
}

const TIMES: Times = Times {
    hangs: Duration::from_secs(8),
    slow: Duration::from_secs(2),
    refused: Duration::from_secs(5),
};

/// Maximum number of names that are remembered. Strangers can make up more.
const KNOWN_MAX: usize = 1_024;

/// Asks the operating system. Blocks the thread.
type Resolver = fn(&str) -> io::Result<Vec<SocketAddr>>;

/// Addresses of a name. All that asked at the same time share an error.
type Answer = Result<Arc<[SocketAddr]>, Arc<io::Error>>;

/// Look-ups of this process.
static ALL: LazyLock<LookUps> = LazyLock::new(|| {
    LookUps::new(|host| Ok(std::net::ToSocketAddrs::to_socket_addrs(&(host, 0))?.collect()))
});

/// Returns the addresses of a name.
///
/// # Errors
/// Returns the error of the operating system, or one of the kind `TimedOut` if the name hangs.
pub(super) async fn look_up(host: &str) -> io::Result<Arc<[SocketAddr]>> {
    ALL.look_up(host).await
}

/// Bounded look-ups. Cheap to clone.
#[derive(Debug, Clone)]
struct LookUps {
    resolver: Resolver,
    times: Times,
    names: Arc<Mutex<HashMap<String, Name>>>,
    ordinary: Arc<Semaphore>,
    proven: Arc<Semaphore>,
    silent: Arc<Semaphore>,
}

/// Knowledge of a name.
#[derive(Debug, Default)]
struct Name {
    /// The look-up of it, until that ends.
    coming: Option<watch::Receiver<Option<Answer>>>,
    /// Time at which the operating system was asked.
    asked_at: Option<Instant>,
    last: Last,
}

/// End of the last look-up of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Last {
    /// There was none, or it failed soon.
    #[default]
    Unknown,
    /// With addresses.
    Answered,
    /// Without an answer, at this time.
    Silent(Instant),
}

/// Part of a caller in a look-up.
enum Part {
    /// It is the first one, and has it done.
    First(watch::Sender<Option<Answer>>, Last),
    /// It waits with others.
    Joined(watch::Receiver<Option<Answer>>),
}

impl LookUps {
    fn new(resolver: Resolver) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            resolver,
            times: TIMES,
            names: Arc::default(),
            ordinary: places(ORDINARY),
            proven: places(PROVEN),
            silent: places(SILENT),
        }
    }

    async fn look_up(&self, host: &str) -> io::Result<Arc<[SocketAddr]>> {
        loop {
            let mut coming = match self.join(host)? {
                Part::Joined(coming) => coming,
                Part::First(answer, last) => {
                    let coming = answer.subscribe();
                    let place = self.place(last).await;
                    self.ask(host, answer, place);
                    coming
                }
            };
            // If the first one was given up while it waited for a place, another one is the first.
            if let Ok(answer) = coming.wait_for(Option::is_some).await
                && let Some(answer) = answer.clone()
            {
                return answer.map_err(|error| io::Error::new(error.kind(), error.to_string()));
            }
        }
    }

    /// Joins the look-up of a name, or begins it.
    fn join(&self, host: &str) -> io::Result<Part> {
        let mut names = self.names();
        if names.len() >= KNOWN_MAX && !names.contains_key(host) {
            names.retain(|_, name| name.is_in_flight());
        }
        let name = names.entry(host.to_owned()).or_default();
        if name.is_refused(self.times) {
            let why = format!("no name server answers for {host}");
            return Err(io::Error::new(ErrorKind::TimedOut, why));
        }
        if name.is_in_flight()
            && let Some(coming) = &name.coming
        {
            return Ok(Part::Joined(coming.clone()));
        }
        let (answer, coming) = watch::channel(None);
        (name.coming, name.asked_at) = (Some(coming), None);
        Ok(Part::First(answer, name.last))
    }

    /// Waits for a place for a name.
    async fn place(&self, last: Last) -> Option<OwnedSemaphorePermit> {
        let free = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        let places = match last {
            Last::Unknown => &self.ordinary,
            Last::Silent(_) => &self.silent,
            Last::Answered => match free(&self.ordinary) {
                Some(place) => return Some(place),
                None => &self.proven,
            },
        };
        // They are never closed.
        Arc::clone(places).acquire_owned().await.ok()
    }

    /// Asks the operating system, on a thread that holds the place until it knows, even if nobody waits any more.
    fn ask(
        &self,
        host: &str,
        answer: watch::Sender<Option<Answer>>,
        place: Option<OwnedSemaphorePermit>,
    ) {
        let (all, host) = (self.clone(), host.to_owned());
        let asked_at = Instant::now();
        if let Some(name) = self.names().get_mut(&host) {
            name.asked_at = Some(asked_at);
        }
        tokio::task::spawn_blocking(move || {
            let found = (all.resolver)(&host);
            let last = match &found {
                Ok(_) => Last::Answered,
                Err(_) if asked_at.elapsed() >= all.times.slow => Last::Silent(Instant::now()),
                Err(_) => Last::Unknown,
            };
            if let Some(name) = all.names().get_mut(&host) {
                *name = Name {
                    last,
                    ..Name::default()
                };
            }
            drop(place);
            answer.send_replace(Some(found.map(Arc::from).map_err(Arc::new)));
        });
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Name>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Name {
    /// Returns whether the name is looked up, or somebody waits to do so.
    fn is_in_flight(&self) -> bool {
        let coming = self.coming.as_ref();
        coming.is_some_and(|coming| coming.has_changed().is_ok())
    }

    /// Returns whether the name hangs, or did a moment ago.
    fn is_refused(&self, times: Times) -> bool {
        if self.is_in_flight() {
            return self.asked_at.is_some_and(|at| at.elapsed() >= times.hangs);
        }
        matches!(self.last, Last::Silent(at) if at.elapsed() < times.refused)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;

    use futures_util::future::join_all;
    use tokio::task::JoinSet;

    use super::*;

    /// Names that are being looked up, and whether those that are answered may be, and those that hang may end.
    #[derive(Default)]
    struct Server {
        asked: Vec<String>,
        may_answer: bool,
        may_end: bool,
        most: usize,
        now: usize,
    }

    static NEXT: Condvar = Condvar::new();
    static SERVER: Mutex<Server> = Mutex::new(Server {
        asked: Vec::new(),
        may_answer: false,
        may_end: false,
        most: 0,
        now: 0,
    });

    fn server() -> MutexGuard<'static, Server> {
        SERVER.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name server that answers once it is told to, but for no name of `silent`.
    fn resolver(host: &str) -> io::Result<Vec<SocketAddr>> {
        let mut state = server();
        state.asked.push(host.to_owned());
        state.now += 1;
        state.most = state.most.max(state.now);
        let is_silent = host.ends_with(".silent");
        while is_silent && !state.may_end || !is_silent && !state.may_answer {
            state = NEXT.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.now -= 1;
        if is_silent {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(vec!["192.0.2.1:0".parse().unwrap()])
    }

    /// Waits until so many threads look names up.
    async fn until_in_flight(count: usize) {
        while server().now != count {
            assert!(server().now <= ORDINARY + PROVEN + SILENT);
            tokio::task::yield_now().await;
        }
    }

    fn answer() {
        server().may_answer = true;
        NEXT.notify_all();
    }

    fn end_all() {
        server().may_end = true;
        NEXT.notify_all();
    }

    /// Ends all look-ups on drop: the test waits for its threads, also if it fails.
    struct EndAll;

    impl Drop for EndAll {
        fn drop(&mut self) {
            answer();
            end_all();
        }
    }

    /// One test, since there is one name server.
    #[tokio::test]
    async fn names_that_hang_take_few_threads_and_keep_no_others_waiting() {
        let _end = EndAll;
        let all = LookUps::new(resolver);
        let hasty = |refused| LookUps {
            times: Times {
                hangs: Duration::ZERO,
                slow: Duration::ZERO,
                refused,
            },
            ..all.clone()
        };
        // Those who ask for a name at the same time share a thread.
        let same = join_all((0..50).map(|_| all.look_up("git.good")));
        let first = async {
            until_in_flight(1).await;
            answer();
        };
        let (same, ()) = tokio::join!(same, first);
        assert!(same.iter().all(Result::is_ok));
        assert_eq!(server().asked.len(), 1);

        let mut asking = JoinSet::new();
        for n in 0..200 {
            let all = hasty(Duration::MAX);
            asking.spawn(async move { all.look_up(&format!("{n}.silent")).await });
        }
        until_in_flight(ORDINARY).await;
        // It answered before, and others share its look-up.
        let same = join_all((0..50).map(|_| all.look_up("git.good"))).await;
        assert!(same.iter().all(Result::is_ok));
        // Whoever comes now need not wait to find out.
        let error = hasty(Duration::MAX).look_up("0.silent").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().contains("0.silent"), "{error}");
        asking.abort_all();
        while asking.join_next().await.is_some() {}
        // Those that gave up left their threads, which keep the places.
        assert_eq!(server().now, ORDINARY);
        end_all();
        until_in_flight(0).await;
        assert_eq!(server().most, ORDINARY + 1);

        // Of those that are known to hang few are looked up, and not at once.
        server().may_end = false;
        let mut silent = server().asked.clone();
        silent.retain(|host| host.ends_with("silent"));
        let before = server().asked.len();
        for name in &silent {
            hasty(Duration::MAX).look_up(name).await.unwrap_err();
        }
        assert_eq!(server().asked.len(), before);
        for name in silent {
            let all = hasty(Duration::ZERO);
            asking.spawn(async move { all.look_up(&name).await });
        }
        until_in_flight(SILENT).await;
        all.look_up("new.good").await.unwrap();
        assert_eq!(server().now, SILENT);
        asking.abort_all();
        while asking.join_next().await.is_some() {}
        end_all();
        until_in_flight(0).await;
    }
}
