//! Polling of sources by their schedules.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Mutex as Turn;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::schedule::Schedule;
use crate::source::Source;

/// Pause after the database could not tell when the next poll is due.
const AFTER_FAILURE: Duration = Duration::from_secs(30);

/// Interval at which the clock is checked, since it may have been set.
const LOOK: Duration = Duration::from_mins(1);

/// The times at which a poller begins and ends.
#[derive(Debug, Clone)]
pub(super) struct Term {
    /// Held by the one poller of the source that has begun, until it ended.
    pub(super) turn: Arc<Turn<()>>,
    /// Canceled when another configuration takes over: a poll that has begun goes on to its end.
    pub(super) replaced: CancellationToken,
    /// Canceled when the source is configured otherwise, or no longer: a poll that has begun is aborted. It has not moved
    /// on; what it had read is read again.
    pub(super) outdated: CancellationToken,
    /// Canceled when the daemon stops, which aborts a poll likewise.
    pub(super) stop: CancellationToken,
}

/// Sources that are polled, by name.
#[derive(Debug, Default)]
pub(super) struct Pollers(Mutex<HashMap<String, Polled>>);

#[derive(Debug)]
struct Polled {
    /// Digest of everything that a poll depends on.
    digest: String,
    outdated: CancellationToken,
    turn: Arc<Turn<()>>,
}

impl Pollers {
    /// Returns the term of a new poller of the source of this name, and aborts the poll of a former one that depends on
    /// something else.
    pub(super) fn term(
        &self,
        name: &str,
        digest: String,
        replaced: &CancellationToken,
        stop: CancellationToken,
    ) -> Term {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let polled = all.entry(name.to_owned()).or_insert_with(|| Polled {
            digest: digest.clone(),
            outdated: CancellationToken::new(),
            turn: Arc::default(),
        });
        if polled.digest != digest {
            polled.outdated.cancel();
            polled.outdated = CancellationToken::new();
            polled.digest = digest;
        }
        Term {
            turn: Arc::clone(&polled.turn),
            replaced: replaced.clone(),
            outdated: polled.outdated.clone(),
            stop,
        }
    }

    /// Aborts the polls of all sources but those of these names.
    pub(super) fn retain(&self, names: &[&str]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|name, polled| {
            if names.contains(&name.as_str()) {
                return true;
            }
            polled.outdated.cancel();
            // It may be configured again before its poller has ended.
            polled.digest.clear();
            Arc::strong_count(&polled.turn) > 1
        });
    }
}

/// Polls `source` by its schedule, never sooner than its server allows, for a term.
pub(super) async fn poll(
    source: Arc<dyn Source>,
    schedule: Schedule,
    clock: SharedClock,
    term: Term,
) {
    let Term {
        turn,
        replaced,
        outdated,
        stop,
    } = term;
    let polling = async {
        // Pollers that wait end as soon as they are replaced, however many there are while a poll hangs.
        let _turn = tokio::select! {
            biased;
            () = replaced.cancelled() => return,
            turn = turn.lock() => turn,
        };
        let due_in = source.due_in().await.unwrap_or_else(|error| {
            tracing::warn!(source = source.name(), %error, "loading the state of the source failed");
            Some(AFTER_FAILURE)
        });
        poll_from(&*source, schedule, clock, due_in, &replaced).await;
    };
    tokio::select! {
        () = polling => {}
        () = outdated.cancelled() => {}
        () = stop.cancelled() => {}
    }
}

/// Polls until it is replaced, regardless of failures, for the first time after `due_in`, or at once. An outage is waited for
/// beside the schedule: a time at which the server was away is made up for as soon as it is back. So is what one poll left to
/// the next.
async fn poll_from(
    source: &dyn Source,
    schedule: Schedule,
    clock: SharedClock,
    due_in: Option<Duration>,
    replaced: &CancellationToken,
) {
    const NONE: &Schedule = &Schedule::Poll;
    let mut next = due_in.map_or((Duration::ZERO, NONE), |wait| (wait, &schedule));
    loop {
        let (allowed_in, by) = next;
        tokio::select! {
            biased;
            () = replaced.cancelled() => return,
            () = sleep_until_due(by, &clock, allowed_in, LOOK) => {}
        }
        next = match source.poll_once().await {
            Ok(outcome) if outcome.more => (outcome.next_after, NONE),
            Ok(outcome) => (outcome.next_after, &schedule),
            Err(failure) if failure.error.is_outage() => (failure.next_after, NONE),
            Err(failure) => (failure.next_after, &schedule),
        };
    }
}

/// Sleeps until the next poll is due. A cron schedule is reevaluated at every `look`, since the clock may be set.
async fn sleep_until_due(
    schedule: &Schedule,
    clock: &SharedClock,
    allowed_in: Duration,
    look: Duration,
) {
    let allowed = Instant::now() + allowed_in;
    let mut left = wait(schedule, clock.now(), allowed_in);
    if matches!(schedule, Schedule::Poll) {
        return tokio::time::sleep(left).await;
    }
    let mut due = clock.now().checked_add(left).unwrap_or(Timestamp::MAX);
    while !left.is_zero() {
        tokio::time::sleep(left.min(look)).await;
        let (now, allowed_in) = (clock.now(), allowed.duration_since(Instant::now()));
        let until_due = Duration::try_from(due.duration_since(now)).unwrap_or_default();
        left = if until_due.is_zero() {
            allowed_in
        } else {
            until_due.min(wait(schedule, now, allowed_in))
        };
        due = due.min(now.checked_add(left).unwrap_or(Timestamp::MAX));
    }
}

/// Returns the time from `now` to the schedule's first time at which the server allows a poll.
fn wait(schedule: &Schedule, now: Timestamp, allowed_in: Duration) -> Duration {
    if matches!(schedule, Schedule::Poll) {
        return allowed_in;
    }
    let allowed_at = now.checked_add(allowed_in).unwrap_or(Timestamp::MAX);
    let next = schedule.next(now, allowed_at).unwrap_or(Timestamp::MAX);
    Duration::try_from(next.duration_since(now)).unwrap_or(allowed_in)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use jiff::SignedDuration;

    use super::*;
    use crate::clock::{ManualClock, SystemClock};
    use crate::eventually::eventually;
    use crate::github::GitHubError;
    use crate::schedule::CronSchedule;
    use crate::source::{PollError, PollFailure, PollOutcome};

    #[test]
    fn waits_for_the_schedule_and_for_the_servers_leave() {
        let now: Timestamp = "2026-11-22T12:00:30Z".parse().unwrap();
        let seconds = Duration::from_secs;
        let hourly = Schedule::Cron(CronSchedule::parse("0 * * * *").unwrap());
        assert_eq!(wait(&Schedule::Poll, now, seconds(60)), seconds(60));
        assert_eq!(wait(&hourly, now, seconds(60)), seconds(3600 - 30));
        // Not allowed before 13:00:30, in the hour's first minute; not before 13:01:30, after it.
        assert_eq!(wait(&hourly, now, seconds(3600)), seconds(3600));
        assert_eq!(wait(&hourly, now, seconds(3660)), seconds(7200 - 30));
        assert_eq!(wait(&hourly, now, Duration::ZERO), seconds(3600 - 30));
    }

    /// Returns the times of polls, in seconds since the first one. Each takes a second, and the server then asks for a
    /// pause of `asked` seconds.
    fn polls(cron: &str, asked: u64) -> Vec<i64> {
        let schedule = Schedule::Cron(CronSchedule::parse(cron).unwrap());
        let begin: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let (mut now, mut times) = (begin, Vec::new());
        for _ in 0..4 {
            times.push(now.duration_since(begin).as_secs());
            now += SignedDuration::from_secs(1);
            now += wait(&schedule, now, Duration::from_secs(asked));
        }
        times
    }

    #[test]
    fn no_time_of_a_schedule_is_passed_over() {
        assert_eq!(polls("*/5 * * * *", 0), [0, 300, 600, 900]);
        assert_eq!(polls("* * * * *", 0), [0, 60, 120, 180]);
        // As `X-Poll-Interval` asks.
        assert_eq!(polls("*/5 * * * *", 60), [0, 300, 600, 900]);
        assert_eq!(polls("* * * * *", 60), [0, 61, 122, 183]);
        // The pause reaches beyond the next time, which is skipped.
        assert_eq!(polls("*/5 * * * *", 400), [0, 600, 1200, 1800]);
    }

    #[test]
    fn the_schedules_of_the_shipped_file_are_kept() {
        let lines = include_str!("../../config.toml").lines();
        let values = lines.filter_map(|line| line.split_once("schedule = \"")?.1.split_once('"'));
        let cron: Vec<&str> = values
            .map(|(cron, _)| cron)
            .filter(|cron| *cron != "poll")
            .collect();
        assert_eq!(cron, ["*/30 * * * *", "*/5 * * * *"]);
        for (cron, minutes) in cron.into_iter().zip([30, 5]) {
            let times = [0, 1, 2, 3].map(|n| n * minutes * 60);
            assert_eq!(polls(cron, 0), times, "{cron}");
        }
    }

    #[tokio::test]
    async fn a_clock_that_is_set_meanwhile_is_heeded_in_both_directions() {
        let daily = Schedule::Cron(CronSchedule::parse("0 12 * * *").unwrap());
        let minutely = Schedule::Cron(CronSchedule::parse("* * * * *").unwrap());
        let look = Duration::from_millis(5);
        let hour = SignedDuration::from_hours(1);
        // The clock was behind, and noon has come. It was ahead, and goes back to just before the next minute.
        for (schedule, begin, set) in [
            (&daily, "2026-11-22T11:00:01Z", hour),
            (
                &minutely,
                "2026-11-22T11:00:01Z",
                SignedDuration::from_millis(-1_050),
            ),
        ] {
            let manual = Arc::new(ManualClock::new(begin.parse().unwrap()));
            let clock: SharedClock = Arc::<ManualClock>::clone(&manual);
            let mut sleeping = Box::pin(sleep_until_due(schedule, &clock, Duration::ZERO, look));
            tokio::select! {
                () = &mut sleeping => panic!("it is not due"),
                () = tokio::time::sleep(look * 10) => manual.advance(set),
            }
            let going_on = async {
                loop {
                    tokio::time::sleep(look).await;
                    manual.advance(SignedDuration::from_millis(5));
                }
            };
            tokio::select! {
                () = sleeping => {}
                () = going_on => {}
                () = tokio::time::sleep(Duration::from_secs(10)) => panic!("it is due"),
            }
        }
    }

    /// Source that fails at first, and counts its polls.
    struct Shaky(AtomicUsize);

    impl Source for Shaky {
        fn name(&self) -> &'static str {
            "shaky"
        }

        fn due_in(&self) -> BoxFuture<'_, Result<Option<Duration>, PollError>> {
            async { Err(PollError::Api(GitHubError::Address("the database is away"))) }.boxed()
        }

        fn poll_once(&self) -> BoxFuture<'_, Result<PollOutcome, PollFailure>> {
            let count = self.0.fetch_add(1, Ordering::SeqCst);
            let next_after = Duration::from_millis(1);
            let failed = PollFailure {
                error: PollError::Api(GitHubError::Server { status: 502 }),
                next_after,
            };
            let outcome = PollOutcome {
                next_after,
                events: 0,
                items: 0,
                malformed: 0,
                gap: false,
                more: count < 8,
            };
            async move { if count < 5 { Err(failed) } else { Ok(outcome) } }.boxed()
        }
    }

    #[tokio::test]
    async fn an_outage_and_what_is_left_are_waited_for_beside_the_schedule() {
        let source = Arc::new(Shaky(AtomicUsize::new(0)));
        let stop = CancellationToken::new();
        let clock: SharedClock = Arc::new(SystemClock);
        // By its schedule it would be polled once a year.
        let yearly = Schedule::Cron(CronSchedule::parse("0 0 1 1 *").unwrap());
        let never = CancellationToken::new();
        let polling = poll_from(&*source, yearly, clock, None, &never);
        let enough = async {
            let polls = async || source.0.load(Ordering::SeqCst) >= 9;
            eventually("it was polled nine times", polls).await;
            stop.cancel();
        };
        tokio::select! {
            () = polling => panic!("it ended"),
            () = enough => {}
        }
    }

    /// Source whose polls never end, and which says how many are under way.
    struct Hanging(Arc<AtomicUsize>);

    struct UnderWay(Arc<AtomicUsize>);

    impl Drop for UnderWay {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Source for Hanging {
        fn name(&self) -> &'static str {
            "hanging"
        }

        fn due_in(&self) -> BoxFuture<'_, Result<Option<Duration>, PollError>> {
            async { Ok(None) }.boxed()
        }

        fn poll_once(&self) -> BoxFuture<'_, Result<PollOutcome, PollFailure>> {
            async {
                self.0.fetch_add(1, Ordering::SeqCst);
                let _under_way = UnderWay(Arc::clone(&self.0));
                std::future::pending().await
            }
            .boxed()
        }
    }

    /// Begins to poll in a generation of its own, and returns how many polls are under way, and the generation.
    fn generation(
        pollers: &Pollers,
        digest: &str,
        tasks: &tokio_util::task::TaskTracker,
    ) -> (Arc<AtomicUsize>, CancellationToken) {
        let (polls, replaced) = (Arc::default(), CancellationToken::new());
        let stop = CancellationToken::new();
        let term = pollers.term("hanging", digest.to_owned(), &replaced, stop);
        let source = Arc::new(Hanging(Arc::clone(&polls)));
        tasks.spawn(poll(source, Schedule::Poll, Arc::new(SystemClock), term));
        (polls, replaced)
    }

    #[tokio::test]
    async fn a_poll_goes_on_while_nothing_that_it_depends_on_changes_and_ends_when_it_does() {
        let (pollers, tasks) = (Pollers::default(), tokio_util::task::TaskTracker::new());
        let polls = |of: &Arc<AtomicUsize>| of.load(Ordering::SeqCst);
        let (first, mut replaced) = generation(&pollers, "one", &tasks);
        eventually("it is polled", async || polls(&first) == 1).await;
        // Those that wait for it leave as soon as they are replaced.
        for _ in 0..20 {
            let (next, its) = generation(&pollers, "one", &tasks);
            replaced.cancel();
            replaced = its;
            eventually("one polls and one waits", async || tasks.len() == 2).await;
            assert_eq!((polls(&first), polls(&next)), (1, 0));
        }
        replaced.cancel();
        let (other, replaced) = generation(&pollers, "other", &tasks);
        eventually("the other is polled", async || polls(&other) == 1).await;
        assert_eq!((polls(&first), tasks.len()), (0, 1));
        replaced.cancel();
        pollers.retain(&["another"]);
        eventually("it is polled no more", async || tasks.is_empty()).await;
        assert_eq!(polls(&other), 0);
        // It comes back.
        let (again, _replaced) = generation(&pollers, "other", &tasks);
        eventually("it is polled again", async || polls(&again) == 1).await;
    }
}
