use super::*;
use crate::schedule::CronSchedule;
use crate::store::HostWait;

fn at(text: &str) -> Timestamp {
    format!("2026-11-22T{text}Z").parse().unwrap()
}

fn configured(schedule: Option<Schedule>) -> ConfiguredSource {
    ConfiguredSource {
        name: "feed".to_owned(),
        kind: "github_events".to_owned(),
        schedule,
    }
}

fn state(polled: &str, succeeded: Option<&str>, error: Option<&str>) -> SourceState {
    SourceState {
        name: "feed".to_owned(),
        kind: "github_events".to_owned(),
        polled_at: Some(at(polled)),
        succeeded_at: succeeded.map(at),
        next_poll_at: Some(
            at(polled)
                .checked_add(SignedDuration::from_mins(1))
                .unwrap(),
        ),
        error: error.map(str::to_owned),
        ..SourceState::default()
    }
}

fn waiting_since(time: &str) -> SourceWork {
    SourceWork {
        source: "feed".to_owned(),
        waiting: 1,
        oldest_waiting_at: Some(at(time)),
        ..SourceWork::default()
    }
}

#[test]
fn one_word_for_every_case() {
    use SourceCondition::{Behind, Failing, Ok, Removed, Waiting};
    let poll = || vec![configured(Some(Schedule::Poll))];
    let cron = CronSchedule::parse("0 * * * *").unwrap();
    let hourly = vec![configured(Some(Schedule::Cron(cron)))];
    let hook = vec![configured(None)];
    let fine = state("12:00:00", Some("12:00:00"), None);
    let partly = state("12:00:00", Some("12:00:00"), Some("page 2"));
    let failed = state("12:00:00", Some("11:00:00"), Some("HTTP 500"));
    let delivered = SourceState {
        polled_at: None,
        next_poll_at: None,
        ..fine.clone()
    };
    let unheard = SourceState {
        name: "feed".to_owned(),
        ..SourceState::default()
    };
    let dropped = SourceState {
        next_poll_at: None,
        ..failed.clone()
    };
    let all_dead = SourceWork {
        source: "feed".to_owned(),
        dead: 2,
        last_death: Some("HTTP 500".to_owned()),
        ..SourceWork::default()
    };
    let never_well = state("12:00:00", None, Some("HTTP 500"));
    let cases = [
        (Waiting, poll(), None, None, "12:00:30"),
        (Ok, poll(), Some(fine.clone()), None, "12:00:30"),
        (Ok, poll(), Some(partly), None, "12:00:30"),
        (Failing, poll(), Some(failed.clone()), None, "12:00:30"),
        (Failing, poll(), Some(never_well), None, "12:00:30"),
        (Behind, poll(), Some(fine.clone()), None, "12:06:01"),
        (Ok, hourly.clone(), Some(fine.clone()), None, "12:59:00"),
        (Behind, hourly, Some(fine.clone()), None, "13:05:01"),
        (
            Ok,
            poll(),
            Some(fine.clone()),
            Some(waiting_since("11:56:00")),
            "12:00:30",
        ),
        (
            Behind,
            poll(),
            Some(fine.clone()),
            Some(waiting_since("11:55:00")),
            "12:00:30",
        ),
        (Removed, Vec::new(), Some(failed), None, "12:00:30"),
        (Failing, hook.clone(), Some(dropped), None, "12:00:30"),
        (
            Failing,
            hook.clone(),
            Some(delivered.clone()),
            Some(all_dead),
            "12:00:30",
        ),
        (Waiting, hook.clone(), None, None, "12:00:30"),
        (Waiting, hook.clone(), Some(unheard), None, "12:00:30"),
        (Ok, hook.clone(), Some(delivered), None, "12:30:00"),
        (
            Ok,
            hook.clone(),
            None,
            Some(waiting_since("12:00:00")),
            "12:00:30",
        ),
        (
            Behind,
            hook,
            None,
            Some(waiting_since("11:00:00")),
            "12:00:30",
        ),
    ];
    for (number, (expected, configured, state, work, now)) in cases.into_iter().enumerate() {
        let states = state.into_iter().collect();
        let work = work.into_iter().collect();
        let all = statuses_of(&configured, states, work, at(now));
        assert_eq!(all.len(), 1, "case {number}");
        assert_eq!(all[0].condition, expected, "case {number}");
    }
}

#[test]
fn what_was_put_aside_last_is_told_with_the_remedy() {
    let work = SourceWork {
        source: "feed".to_owned(),
        dead: 2,
        last_death: Some("HTTP 500".to_owned()),
        ..SourceWork::default()
    };
    let all = statuses_of(&[configured(None)], Vec::new(), vec![work], at("12:00:00"));
    let error = all[0].polled.error.as_ref().unwrap();
    for part in ["2 items", "HTTP 500", "rescind sources requeue --all feed"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_host_that_is_left_alone_is_told_with_the_reason_and_the_next_try() {
    let wait = HostWait {
        host: "git.example".to_owned(),
        why: "the connection failed: refused".to_owned(),
        until: Some(at("12:00:03")),
    };
    let mut work = waiting_since("12:00:00");
    work.waits_for = Some(wait);
    let hook = [configured(None)];
    let all = statuses_of(&hook, Vec::new(), vec![work.clone()], at("12:00:01"));
    assert_eq!(all[0].condition, SourceCondition::Behind);
    let told =
        "waits for git.example: the connection failed: refused, next try 2026-11-22T12:00:03Z";
    assert_eq!(all[0].polled.error.as_deref(), Some(told));
    let failed = state("12:00:00", Some("11:00:00"), Some("HTTP 500"));
    let poll = [configured(Some(Schedule::Poll))];
    let all = statuses_of(&poll, vec![failed], vec![work], at("12:00:01"));
    assert_eq!(all[0].condition, SourceCondition::Failing);
    let error = all[0].polled.error.as_deref();
    assert_eq!(error, Some(format!("HTTP 500; {told}").as_str()));
}

#[test]
fn the_schedule_says_when_the_next_poll_is() {
    let cron = CronSchedule::parse("0 * * * *").unwrap();
    let hourly = [configured(Some(Schedule::Cron(cron)))];
    let next = |states| statuses_of(&hourly, states, Vec::new(), at("12:30:00"))[0].next_poll_at;
    assert_eq!(next(Vec::new()), Some(at("13:00:00")));
    let polled = state("12:00:00", Some("12:00:00"), None);
    assert_eq!(next(vec![polled]), Some(at("13:00:00")));
    let removed = statuses_of(
        &[],
        vec![state("12:00:00", None, None)],
        Vec::new(),
        at("12:00:01"),
    );
    assert_eq!(removed[0].next_poll_at, None);
}

#[test]
fn a_source_is_failing_from_the_first_failure_until_something_is_read() {
    let mut work = waiting_since("12:00:00");
    work.failed = 2;
    work.last_failure = Some("HTTP 500".to_owned());
    let hook = [configured(None)];
    let status = |work: &SourceWork, now| {
        let mut all = statuses_of(&hook, Vec::new(), vec![work.clone()], at(now));
        all.remove(0)
    };
    let failing = status(&work, "12:00:01");
    assert_eq!(failing.condition, SourceCondition::Failing);
    let error = failing.polled.error.unwrap();
    for part in ["2 items", "tried again", "HTTP 500"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // Something fails all the time on a busy source.
    work.scanned_at = Some(at("12:00:00"));
    let busy = status(&work, "12:00:04");
    assert_eq!(busy.condition, SourceCondition::Ok);
    assert_eq!(busy.polled.error, None);
    let failing = status(&work, "12:00:05");
    assert_eq!(failing.condition, SourceCondition::Failing);
    // The reason says more of a host that is left alone.
    work.waits_for = Some(HostWait {
        host: "git.example".to_owned(),
        why: "HTTP 502".to_owned(),
        until: None,
    });
    let behind = status(&work, "12:00:05");
    assert_eq!(behind.condition, SourceCondition::Behind);
}
