//! When a source is polled.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::config::Schedule;
use crate::source::Source;

/// The wait after the database could not tell when the next poll is due.
const AFTER_FAILURE: Duration = Duration::from_secs(30);

/// Polls `source` by its schedule, never sooner than its server allows, until `stop` is cancelled. A poll
/// that is cut off by it has committed nothing; what it had read is read again after the next start.
pub(super) async fn poll(
    source: Arc<dyn Source>,
    schedule: Schedule,
    clock: SharedClock,
    stop: CancellationToken,
) {
    let polling = async {
        let allowed_in = source.due_in().await.unwrap_or_else(|error| {
            tracing::warn!(source = source.name(), %error, "cannot tell when the source is due");
            AFTER_FAILURE
        });
        poll_from(source, schedule, clock, allowed_in).await;
    };
    tokio::select! {
        () = polling => {}
        () = stop.cancelled() => {}
    }
}

/// Polls for ever, whatever becomes of it, the first time after `allowed_in`.
async fn poll_from(
    source: Arc<dyn Source>,
    schedule: Schedule,
    clock: SharedClock,
    mut allowed_in: Duration,
) {
    loop {
        tokio::time::sleep(wait(&schedule, clock.now(), allowed_in)).await;
        allowed_in = match source.poll_once().await {
            Ok(outcome) => outcome.next_after,
            Err(failure) => failure.next_after,
        };
    }
}

/// How long to wait from `now`: until the schedule's first time at which the server allows a poll.
fn wait(schedule: &Schedule, now: Timestamp, allowed_in: Duration) -> Duration {
    let Schedule::Cron(cron) = schedule else {
        return allowed_in;
    };
    let allowed_at = now.checked_add(allowed_in).unwrap_or(Timestamp::MAX);
    let next = cron.next_after(allowed_at).unwrap_or(Timestamp::MAX);
    Duration::try_from(next.duration_since(now)).unwrap_or(allowed_in)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::clock::SystemClock;
    use crate::config::CronSchedule;
    use crate::source::{PollError, PollFailure, PollOutcome};

    #[test]
    fn waits_for_the_schedule_and_for_the_servers_leave() {
        let now: Timestamp = "2026-11-22T12:00:30Z".parse().unwrap();
        let seconds = Duration::from_secs;
        let hourly = Schedule::Cron(CronSchedule::parse("0 * * * *").unwrap());
        assert_eq!(wait(&Schedule::Poll, now, seconds(60)), seconds(60));
        assert_eq!(wait(&hourly, now, seconds(60)), seconds(3600 - 30));
        // Not allowed before 13:00:30: the next hour it is.
        assert_eq!(wait(&hourly, now, seconds(3600)), seconds(7200 - 30));
        assert_eq!(wait(&hourly, now, Duration::ZERO), seconds(3600 - 30));
    }

    /// Fails the first times, and counts.
    struct Shaky(AtomicUsize);

    impl Source for Shaky {
        fn name(&self) -> &'static str {
            "shaky"
        }

        fn due_in(&self) -> BoxFuture<'_, Result<Duration, PollError>> {
            async { Err(PollError::Address("the database is away")) }.boxed()
        }

        fn poll_once(&self) -> BoxFuture<'_, Result<PollOutcome, PollFailure>> {
            let count = self.0.fetch_add(1, Ordering::SeqCst);
            let next_after = Duration::from_millis(1);
            let failed = PollFailure {
                error: PollError::Server { status: 502 },
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
    async fn goes_on_after_failures_until_it_is_stopped() {
        let source = Arc::new(Shaky(AtomicUsize::new(0)));
        let stop = CancellationToken::new();
        let shared: Arc<dyn Source> = Arc::<Shaky>::clone(&source);
        let clock: SharedClock = Arc::new(SystemClock);
        let polling = poll_from(shared, Schedule::Poll, clock, Duration::ZERO);
        let enough = async {
            while source.0.load(Ordering::SeqCst) < 8 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            stop.cancel();
        };
        tokio::select! {
            () = polling => panic!("it ended"),
            () = enough => {}
        }
    }
}
