//! Repositories, and hosts, that asked to be left alone.
//!
//! A request to slow down is an answer to a request for one repository, and whoever runs the server behind that
//! repository may write it. It therefore pauses that repository only. If repositories of several owners ask for the
//! same, with no other answer in between, the host itself throttles, and all of it is paused: for a few seconds, and
//! for twice as long each further time, but no longer than any of them asked for. If many repositories of fewer owners
//! do, it is asked every few seconds only. What one of them is given ends such a pause.
//!
//! However little a repository asks for, it is left alone for a second, and for twice as long each further time in a
//! row.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::troubles::{PROBE_MAX, TROUBLE_MAX, make_room};
use crate::backoff::Backoff;
use crate::store::NewWorkItem;

/// Maximum pause of a repository, whatever it asks for: the longest period that forges count requests in.
const REPOSITORY_MAX: Duration = Duration::from_hours(1);

/// Minimum pause of a repository after the first of several requests in a row.
const REPOSITORY_MIN: Duration = Duration::from_secs(1);

/// Minimum pauses of a repository after further ones.
const REPOSITORY_LEAST: Backoff = Backoff::new(REPOSITORY_MIN, REPOSITORY_MAX);

/// Maximum pause of a host. It is tried again after that, by few items.
const HOST_MAX: Duration = TROUBLE_MAX;

/// Maximum pauses of a host whose repositories ask for them time after time.
const HOST_MOST: Backoff = Backoff::new(PROBE_MAX, HOST_MAX);

/// Number of owners whose repositories have to ask for it before the whole host is paused.
const OWNERS_OF_HOST: usize = 3;

/// Number of repositories, whoever owns them, that have to ask for it before their host is asked less often: every
/// [`PROBE_MAX`], by few items.
const REPOSITORIES_OF_HOST: usize = 8;

/// Time for which a request counts toward those of its host, even if the pause it asked for is shorter.
const LATELY: Duration = Duration::from_mins(1);

/// Pauses that were asked for.
#[derive(Debug, Default)]
pub(super) struct Throttles {
    /// Pauses by host and remote.
    repositories: HashMap<(String, String), Pause>,
    hosts: HashMap<String, Host>,
}

/// Pause of one repository.
#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Instant,
    /// Number of pauses since another answer came.
    times: u32,
}

impl Pause {
    /// Returns the time until which its requests are in a row.
    fn remembered(&self) -> Instant {
        self.until + REPOSITORY_LEAST.after(self.times)
    }
}

/// Requests to slow down of one host.
#[derive(Debug)]
struct Host {
    /// End of the pause of the whole host that follows from what its repositories asked for.
    until: Instant,
    /// End of the pause that the host itself asked for.
    itself_until: Instant,
    /// Number of pauses for several owners' requests since another answer came.
    times: u32,
    /// Requests of repositories since another answer came, by owner, up to [`OWNERS_OF_HOST`].
    owners: HashMap<String, Request>,
    /// Times of the latest requests of repositories since another answer came, up to [`REPOSITORIES_OF_HOST`].
    repositories: HashMap<String, Instant>,
    why: String,
}

impl Host {
    fn paused_until(&self) -> Instant {
        self.until.max(self.itself_until)
    }
}

#[derive(Debug, Clone, Copy)]
struct Request {
    at: Instant,
    until: Instant,
}

impl Throttles {
    /// Records that the repository of an item asked to be left alone for `wait`. Returns the pause that follows.
    pub(super) fn asked(
        &mut self,
        item: &NewWorkItem,
        wait: Duration,
        why: &str,
        now: Instant,
    ) -> Duration {
        let name = (item.host.clone(), item.remote());
        make_room(&mut self.repositories, &name, Pause::remembered, now);
        let pause = self.repositories.entry(name).or_insert(Pause {
            until: now,
            times: 0,
        });
        // An item that was already in flight when the pause began says nothing new.
        let shortest = if pause.until <= now {
            pause.times = pause.times.saturating_add(1);
            REPOSITORY_LEAST.after(pause.times - 1)
        } else {
            REPOSITORY_MIN
        };
        pause.until = pause.until.max(now + wait.clamp(shortest, REPOSITORY_MAX));
        let longest = pause.until;
        let until = now + wait.clamp(REPOSITORY_MIN, REPOSITORY_MAX);
        let host = self.host(&item.host, why, now);
        let owners = &mut host.owners;
        owners.retain(|_, of| of.until > now || now.duration_since(of.at) < LATELY);
        if owners.len() < OWNERS_OF_HOST {
            owners.insert(item.owner(), Request { at: now, until });
        }
        if owners.len() >= OWNERS_OF_HOST && host.until <= now {
            let asked = owners.values().map(|of| of.until);
            let least = asked.filter(|until| *until > now).fold(until, Instant::min);
            host.until = least.min(now + HOST_MOST.after(host.times));
            host.times = host.times.saturating_add(1);
        }
        let repositories = &mut host.repositories;
        repositories.retain(|_, at| now.duration_since(*at) < LATELY);
        if repositories.len() < REPOSITORIES_OF_HOST {
            repositories.insert(item.remote(), now);
        }
        if repositories.len() >= REPOSITORIES_OF_HOST {
            host.until = host.until.max(until.min(now + PROBE_MAX));
        }
        longest
            .max(host.paused_until())
            .saturating_duration_since(now)
    }

    /// Records that a host itself asked to be left alone for `wait`. Returns the pause that follows.
    pub(super) fn host_asked(
        &mut self,
        host: &str,
        wait: Duration,
        why: &str,
        now: Instant,
    ) -> Duration {
        let host = self.host(host, why, now);
        host.itself_until = host.itself_until.max(now + wait.min(HOST_MAX));
        host.paused_until().saturating_duration_since(now)
    }

    fn host(&mut self, name: &str, why: &str, now: Instant) -> &mut Host {
        let name = name.to_owned();
        make_room(&mut self.hosts, &name, Host::paused_until, now);
        let host = self.hosts.entry(name).or_insert_with(|| Host {
            until: now,
            itself_until: now,
            times: 0,
            owners: HashMap::new(),
            repositories: HashMap::new(),
            why: String::new(),
        });
        why.clone_into(&mut host.why);
        host
    }

    /// Records another answer of a repository. Pauses that were asked for stay in force.
    pub(super) fn answered(&mut self, item: &NewWorkItem, now: Instant) {
        let name = (item.host.clone(), item.remote());
        if let Some(pause) = self.repositories.get_mut(&name) {
            pause.times = 0;
            if pause.until <= now {
                self.repositories.remove(&name);
            }
        }
        let host = item.host.as_str();
        if let Some(of) = self.hosts.get_mut(host) {
            of.times = 0;
            of.owners.clear();
            of.repositories.clear();
            if of.paused_until() <= now {
                self.hosts.remove(host);
            }
        }
    }

    /// Ends the pause of a host that follows from what its repositories asked for: it gave one of them what it wanted.
    pub(super) fn end_doubt(&mut self, host: &str, now: Instant) {
        if let Some(of) = self.hosts.get_mut(host) {
            of.until = now;
            if of.paused_until() <= now {
                self.hosts.remove(host);
            }
        }
    }

    /// Returns whether so many repositories of a host asked to be left alone, with no other answer in between, that the
    /// host itself may throttle.
    pub(super) fn is_in_doubt(&self, host: &str, now: Instant) -> bool {
        self.hosts.get(host).is_some_and(|of| {
            let lately = of.repositories.values();
            let lately = lately.filter(|at| now.duration_since(**at) < LATELY);
            of.times > 0 || lately.count() >= REPOSITORIES_OF_HOST
        })
    }

    /// Returns whether a host is paused because it asked for it itself.
    pub(super) fn asked_itself(&self, host: &str, now: Instant) -> bool {
        let host = self.hosts.get(host);
        host.is_some_and(|of| of.itself_until > now)
    }

    /// Returns the remaining pause of a repository, apart from that of its host, if there is one.
    pub(super) fn left(&self, name: &(String, String), now: Instant) -> Option<Duration> {
        rest(self.repositories.get(name)?.until, now)
    }

    /// Returns whether a repository asked to be left alone and has given no other answer since.
    pub(super) fn asks(&self, name: &(String, String)) -> bool {
        let pause = self.repositories.get(name);
        pause.is_some_and(|pause| pause.times > 0)
    }

    /// Returns the remaining pause of a host, if there is one.
    pub(super) fn left_of_host(&self, host: &str, now: Instant) -> Option<Duration> {
        rest(self.hosts.get(host)?.paused_until(), now)
    }

    /// Returns the reason for a host's pause, in redacted text, if it is paused.
    pub(super) fn why(&self, host: &str, now: Instant) -> Option<String> {
        self.left_of_host(host, now)?;
        Some(self.hosts.get(host)?.why.clone())
    }

    /// Returns the repositories of a host that are paused now.
    pub(super) fn paused_of(&self, host: &str, now: Instant) -> impl Iterator<Item = &String> {
        let paused = self.repositories.iter();
        paused
            .filter(move |((at, _), pause)| at == host && pause.until > now)
            .map(|((_, repository), _)| repository)
    }
}

fn rest(until: Instant, now: Instant) -> Option<Duration> {
    Some(until.saturating_duration_since(now)).filter(|rest| !rest.is_zero())
}

#[cfg(test)]
mod tests {
    use super::super::pauses::tests::item;
    use super::super::troubles::KNOWN_MAX;
    use super::*;

    fn of(owner: &str, id: &str) -> NewWorkItem {
        NewWorkItem {
            repository: format!("{owner}/{id}"),
            ..item("a", id)
        }
    }

    fn name(id: &str) -> (String, String) {
        ("a".to_owned(), of("mallory", id).remote())
    }

    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn one_owners_request_pauses_his_repository_and_no_other() {
        let (mut throttles, now) = (Throttles::default(), Instant::now());
        for id in ["1", "2", "3", "4"] {
            let pause = throttles.asked(&of("mallory", id), DAY, "", now);
            assert_eq!(pause, REPOSITORY_MAX, "bounded");
        }
        assert!(throttles.left(&name("1"), now).is_some());
        assert_eq!(throttles.left(&name("5"), now), None);
        assert_eq!(throttles.left_of_host("a", now), None);
        assert_eq!(throttles.paused_of("a", now).count(), 4);
        // A shorter request does not shorten it, and its end is the end.
        throttles.asked(&of("mallory", "1"), Duration::ZERO, "", now);
        assert!(throttles.left(&name("1"), now).is_some());
        assert_eq!(throttles.left(&name("1"), now + REPOSITORY_MAX), None);
    }

    #[test]
    fn a_repository_that_asks_for_nothing_is_left_alone_ever_longer() {
        let (mut throttles, mut now) = (Throttles::default(), Instant::now());
        let mut asks = |now| throttles.asked(&of("mallory", "1"), Duration::ZERO, "", now);
        let mut pauses = Vec::new();
        for _ in 0..14 {
            let pause = asks(now);
            // What was in flight as well changes nothing.
            assert_eq!(asks(now), pause);
            pauses.push(pause.as_secs());
            now += pause;
        }
        assert_eq!((&pauses[..4], pauses[13]), (&[1, 2, 4, 8][..], 3_600));
        assert!(throttles.asks(&name("1")) && !throttles.asks(&name("2")));
        throttles.answered(&of("mallory", "1"), now);
        let pause = throttles.asked(&of("mallory", "1"), Duration::ZERO, "", now);
        assert_eq!(pause, REPOSITORY_MIN);
    }

    #[test]
    fn many_repositories_of_one_owner_have_their_host_asked_less_often() {
        let (mut throttles, now) = (Throttles::default(), Instant::now());
        for n in 0..2 * REPOSITORIES_OF_HOST {
            let before = throttles.left_of_host("a", now).is_some();
            assert_eq!(before, n >= REPOSITORIES_OF_HOST, "{n}");
            throttles.asked(&of("mallory", &n.to_string()), DAY, "", now);
        }
        assert_eq!(throttles.left_of_host("a", now), Some(PROBE_MAX));
        throttles.answered(&item("a", "other"), now);
        let later = now + PROBE_MAX;
        throttles.asked(&of("mallory", "99"), DAY, "", later);
        assert_eq!(throttles.left_of_host("a", later), None);
    }

    #[test]
    fn several_owners_in_a_row_are_the_host_for_the_least_of_what_they_ask() {
        let (mut throttles, now) = (Throttles::default(), Instant::now());
        let (short, long) = (Duration::from_secs(30), Duration::from_mins(5));
        throttles.asked(&of("alice", "1"), long, "", now);
        throttles.asked(&of("bob", "2"), short, "", now);
        throttles.answered(&item("a", "other"), now);
        throttles.asked(&of("carol", "3"), DAY, "", now);
        assert_eq!(throttles.left_of_host("a", now), None, "others answer");
        throttles.asked(&of("alice", "1"), long, "", now);
        throttles.asked(&of("bob", "2"), short, "slower", now);
        assert_eq!(throttles.left_of_host("a", now), Some(PROBE_MAX));
        assert_eq!(throttles.why("a", now).as_deref(), Some("slower"));
        throttles.answered(&item("a", "other"), now);
        assert!(
            throttles.left_of_host("a", now).is_some(),
            "it was asked for"
        );
        let later = now + short;
        assert_eq!(throttles.why("a", later), None);
        throttles.answered(&item("a", "other"), later);
        let (mut at, mut pauses) = (later, Vec::new());
        for _ in 0..10 {
            for owner in ["alice", "bob", "carol", "dave"] {
                throttles.asked(&of(owner, owner), DAY, "", at);
            }
            let pause = throttles.left_of_host("a", at).unwrap();
            pauses.push(pause);
            at += pause;
        }
        assert_eq!(pauses[..3], [1, 2, 4].map(|times| PROBE_MAX * times));
        assert_eq!(pauses.last(), Some(&HOST_MAX));
        for owner in ["alice", "bob", "carol"] {
            throttles.asked(&of(owner, "new"), Duration::ZERO, "", at);
        }
        assert_eq!(throttles.left_of_host("a", at), Some(REPOSITORY_MIN));
        assert!(throttles.host_asked("b", DAY, "", now) <= HOST_MAX);
    }

    #[test]
    fn what_is_known_is_bounded_and_the_longest_pauses_are_kept() {
        let (mut throttles, now) = (Throttles::default(), Instant::now());
        for n in 0..3 * KNOWN_MAX as u64 {
            let host = format!("{n}.example");
            let item = item(&host, "1");
            throttles.asked(&item, Duration::from_millis(n + 1), "", now);
            throttles.host_asked(&host, Duration::from_millis(n + 1), "", now);
        }
        assert!(throttles.hosts.len() <= KNOWN_MAX && throttles.repositories.len() <= KNOWN_MAX);
        let last = format!("{}.example", 3 * KNOWN_MAX - 1);
        assert!(throttles.left_of_host(&last, now).is_some());
    }
}
