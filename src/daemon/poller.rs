//! Polling of sources by their schedules.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
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
    /// Canceled once the poller of the same source ended that a former configuration had.
    pub(super) begin: Option<CancellationToken>,
    /// Canceled when another configuration takes over: a poll that has begun goes on to its end.
    pub(super) replaced: CancellationToken,
    /// Canceled when the daemon stops. A poll that is aborted has not moved on; what it had read is read again after the
    /// next start.
    pub(super) stop: CancellationToken,
    /// Canceled by the poller when it ended.
    pub(super) ended: CancellationToken,
}

/// The pollers that were started, by source: of one that is replaced, the next one waits for its end.
#[derive(Debug, Default)]
pub(super) struct Pollers(Mutex<HashMap<String, CancellationToken>>);

impl Pollers {
    /// Returns the term of a new poller of the source of this name.
    pub(super) fn term(
        &self,
        name: &str,
        replaced: &CancellationToken,
        stop: CancellationToken,
    ) -> Term {
        let ended = CancellationToken::new();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Term {
            begin: all.insert(name.to_owned(), ended.clone()),
            replaced: replaced.clone(),
            stop,
            ended,
        }
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
        begin,
        replaced,
        stop,
        ended,
    } = term;
    // However it ends: somebody may wait for it.
    let _ended = ended.drop_guard();
    let polling = async {
        if let Some(begin) = begin {
            begin.cancelled().await;
        }
        let due_in = source.due_in().await.unwrap_or_else(|error| {
            tracing::warn!(source = source.name(), %error, "loading the state of the source failed");
            Some(AFTER_FAILURE)
        });
        poll_from(source, schedule, clock, due_in, &replaced).await;
    };
    tokio::select! {
        () = polling => {}
        () = stop.cancelled() => {}
    }
}

/// Polls until it is replaced, regardless of failures, for the first time after `due_in`, or at once. An outage is waited for
/// beside the schedule: a time at which the server was away is made up for as soon as it is back.
async fn poll_from(
    source: Arc<dyn Source>,
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
            };
            async move { if count < 5 { Err(failed) } else { Ok(outcome) } }.boxed()
        }
    }

    #[tokio::test]
    async fn an_outage_is_waited_for_beside_the_schedule() {
        let source = Arc::new(Shaky(AtomicUsize::new(0)));
        let stop = CancellationToken::new();
        let shared: Arc<dyn Source> = Arc::<Shaky>::clone(&source);
        let clock: SharedClock = Arc::new(SystemClock);
        // By its schedule it would be polled once a year.
        let yearly = Schedule::Cron(CronSchedule::parse("0 0 1 1 *").unwrap());
        let never = CancellationToken::new();
        let polling = poll_from(shared, yearly, clock, None, &never);
        let enough = async {
            let polls = async || source.0.load(Ordering::SeqCst) >= 6;
            eventually("it was polled six times", polls).await;
            stop.cancel();
        };
        tokio::select! {
            () = polling => panic!("it ended"),
            () = enough => {}
        }
    }
}
