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
        let mut allowed_in = source.due_in().await.unwrap_or_else(|error| {
            tracing::warn!(source = source.name(), %error, "cannot tell when the source is due");
            AFTER_FAILURE
        });
        loop {
            tokio::time::sleep(wait(&schedule, clock.now(), allowed_in)).await;
            allowed_in = match source.poll_once().await {
                Ok(outcome) => outcome.next_after,
                Err(failure) => failure.next_after,
            };
        }
    };
    tokio::select! {
        () = polling => {}
        () = stop.cancelled() => {}
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
    use super::*;
    use crate::config::CronSchedule;

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
}
