use jiff::Timestamp;

use super::super::troubles::{FIRST_WAIT, KNOWN_MAX, LATELY, PROBE_MAX, Troubles};
use super::record::{LASTING, PROBE};
use super::*;
use crate::store::{Priority, WorkKind};

pub(in crate::work) fn item(host: &str, repository: &str) -> NewWorkItem {
    NewWorkItem {
        kind: WorkKind::Range,
        host: host.to_owned(),
        repository_id: repository.to_owned(),
        repository: "acme/shop".to_owned(),
        clone_url: None,
        ref_name: String::new(),
        before: String::new(),
        after: String::new(),
        source: String::new(),
        priority: Priority::Webhook,
        event_at: Timestamp::UNIX_EPOCH,
    }
}

impl Pauses {
    /// Returns the remaining pause of a repository or its host.
    fn left(&self, host: &str, remote: &str) -> Option<Duration> {
        let of_repository = self.left_of_repository(host, remote);
        of_repository.max(self.left_of_host(host))
    }
}

/// Returns the remote of [`item`].
fn remote(repository: &str) -> String {
    item("", repository).remote()
}

fn fails_so(pauses: &Pauses, host: &str, repository: &str, failure: Failure) -> Judged {
    pauses.failed(Uuid::now_v7(), &item(host, repository), failure, "")
}

fn fails(pauses: &Pauses, host: &str, repository: &str) -> Option<Duration> {
    fails_so(pauses, host, repository, Failure::Unreachable).wait
}

fn is_away(pauses: &Pauses) -> bool {
    pauses.condition("a") == Condition::Unreachable
}

#[test]
fn what_was_asked_for_counts_and_is_no_failure() {
    let pauses = Pauses::default();
    let judged = pauses.asked(&item("a", "1"), Duration::from_mins(5), "slower");
    assert!(judged.wait.unwrap() > Duration::from_mins(4) && !judged.is_hosts);
    assert!(pauses.left("a", &remote("1")).unwrap() > Duration::from_mins(4));
    assert_eq!(pauses.paused_of("a"), [remote("1")]);
    assert_eq!(
        (pauses.left("a", &remote("2")), pauses.why("a")),
        (None, None)
    );
    assert_eq!(pauses.condition("a"), Condition::Well);
    assert!(
        pauses
            .host_asked("b", Duration::from_mins(5), "slower")
            .is_hosts
    );
    assert_eq!(pauses.why("b").as_deref(), Some("slower"));
    // Other responses do not end a pause that was asked for.
    pauses.answered(&item("b", "1"));
    pauses.answered(&item("a", "1"));
    assert!(pauses.left("a", &remote("1")).is_some() && pauses.left_of_host("b").is_some());
}

#[test]
fn one_item_that_fails_for_ever_is_no_trouble_of_others() {
    let pauses = Pauses::default();
    let (id, one) = (Uuid::now_v7(), item("a", "1"));
    assert!((0..20).all(|_| {
        pauses
            .failed(id, &one, Failure::Answerless, "")
            .wait
            .is_none()
    }));
    assert_eq!(fails(&pauses, "a", "1"), None);
    assert!(fails(&pauses, "a", "1").is_some());
    assert!(pauses.left("a", &remote("1")).is_some() && pauses.left("a", &remote("2")).is_none());
    pauses.answered(&item("a", "2"));
    assert!(
        pauses.left("a", &remote("1")).is_some(),
        "another's answer is none of its own"
    );
    pauses.answered(&one);
    assert_eq!(fails(&pauses, "a", "1").map(|_| ()), None);
}

#[test]
fn several_repositories_without_a_connection_are_the_hosts_trouble() {
    let pauses = Pauses::default();
    assert_eq!(fails(&pauses, "a", "1"), None);
    assert_eq!(fails(&pauses, "a", "2"), None);
    pauses.answered(&item("a", "3"));
    assert_eq!(fails(&pauses, "a", "1"), None);
    assert_eq!(fails(&pauses, "a", "2"), None);
    assert_eq!(fails(&pauses, "a", "3"), Some(TROUBLE));
    assert!(pauses.left("a", &remote("4")).is_some() && is_away(&pauses));
    assert!(pauses.left("b", &remote("4")).is_none());
}

#[test]
fn a_configured_host_is_tried_every_few_seconds_until_one_answer_ends_it() {
    let pauses = Pauses::new(HashSet::from(["a".to_owned()]));
    // No try of a single item counts either, and the next try goes to another repository.
    assert_eq!(fails(&pauses, "a", "1"), Some(PROBE_MAX));
    assert!(pauses.failed_lately("a", &remote("1")) && !pauses.failed_lately("a", &remote("2")));
    assert!(pauses.left_of_host("a").is_none());
    fails(&pauses, "a", "2");
    assert_eq!(fails(&pauses, "a", "3"), Some(PROBE));
    for times in [1, 5, 100] {
        let mut known = pauses.lock();
        let trouble = known.hosts.of(&"a".to_owned(), Instant::now());
        (trouble.until, trouble.times) = (Instant::now(), times);
        drop(known);
        let wait = fails(&pauses, "a", "3").unwrap();
        assert!(PROBE < wait && wait <= PROBE_MAX, "{wait:?}");
    }
    assert!(is_away(&pauses) && pauses.left("a", &remote("4")).is_some());
    // An item that was in flight gets through.
    pauses.answered(&item("a", "5"));
    assert!(!is_away(&pauses) && pauses.left("a", &remote("3")).is_none());
    assert_eq!(pauses.why("a"), None);
}

#[test]
fn what_repositories_answer_is_not_the_hosts_trouble() {
    let pauses = Pauses::default();
    let fails = |repository: &str| fails_so(&pauses, "a", repository, Failure::Answerless).wait;
    for n in 0..20 {
        let wait = fails(&n.to_string());
        // No repository fails alone, so none is at fault; but each is retried soon.
        assert_eq!(wait, (n >= 2).then_some(FIRST_WAIT), "{n}");
        assert!(pauses.left("a", &remote("quiet")).is_none() && pauses.left_of_host("a").is_none());
    }
    assert_eq!(pauses.condition("a"), Condition::Silent);
    assert_eq!(fails("5"), Some(FIRST_WAIT * 2));
    assert!(
        pauses.failed_lately("a", &remote("5")) && !pauses.failed_lately("a", &remote("quiet"))
    );
    pauses.answered(&item("a", "quiet"));
    assert_eq!(fails("6"), None, "others answer, so it is its own");
    assert_eq!(pauses.condition("a"), Condition::Well);
}

#[test]
fn waits_double_up_to_a_quarter_of_an_hour() {
    let mut troubles = Troubles::<String, Uuid>::default();
    let (mut now, name) = (Instant::now(), "a".to_owned());
    let mut waits = Vec::new();
    while waits.len() < 8 {
        let failed = troubles.failed(&name, Uuid::now_v7(), now, (TROUBLE, TROUBLE_MAX));
        if let Some(wait) = failed {
            waits.push(wait.as_secs());
            now += wait;
        }
    }
    assert_eq!(waits, [20, 40, 80, 160, 320, 640, 900, 900]);
}

#[test]
fn a_configured_host_that_gives_no_answers_is_tried_every_few_seconds() {
    let pauses = Pauses::new(HashSet::from(["a".to_owned()]));
    for failure in [Failure::Unanswered, Failure::Tokenless] {
        // However many items of however many repositories fail for however long.
        for n in 0..20 {
            let name = (n % 4).to_string();
            let judged = fails_so(&pauses, "a", &name, failure);
            assert!(judged.is_hosts && judged.wait.unwrap() <= PROBE_MAX, "{n}");
            assert!(
                pauses
                    .left("a", &remote(&name))
                    .is_none_or(|left| left <= PROBE_MAX)
            );
        }
        assert!(pauses.left_of_host("a").is_some() && pauses.condition("a") != Condition::Well);
        pauses.answered(&item("a", "5"));
        assert_eq!(pauses.left_of_host("a"), None);
        assert_eq!(pauses.condition("a"), Condition::Well);
    }
}

#[test]
fn what_gives_no_answers_while_others_do_is_its_own_trouble() {
    let pauses = Pauses::new(HashSet::from(["a".to_owned()]));
    assert!(fails_so(&pauses, "a", "1", Failure::Unanswered).is_hosts);
    pauses.answered(&item("a", "2"));
    for _ in 0..2 {
        let judged = fails_so(&pauses, "a", "1", Failure::Unanswered);
        assert_eq!((judged.wait, judged.is_hosts), (None, false));
    }
    let judged = fails_so(&pauses, "a", "1", Failure::Unanswered);
    assert!(judged.wait.is_some() && !judged.is_hosts);
    assert!(pauses.left_of_host("a").is_none());
    // One that begins to fail now may be the first to notice that the host is down, but no other waits for it.
    for n in 10..20 {
        let judged = fails_so(&pauses, "a", &n.to_string(), Failure::Unanswered);
        assert_eq!((judged.wait, judged.is_hosts), (Some(PROBE_MAX), false));
    }
    assert!(pauses.left("a", &remote("10")).is_some() && pauses.failed_lately("a", &remote("10")));
    assert_eq!(pauses.condition("a"), Condition::Well);
    assert!(pauses.left_of_host("a").is_none());
    let long_ago = Instant::now().checked_sub(LATELY).unwrap();
    pauses.lock().answered.insert("a".to_owned(), long_ago);
    assert!(fails_so(&pauses, "a", "21", Failure::Unanswered).is_hosts);
    // Nor is a host probed for ever that refuses, or that nobody configured.
    for (host, failure) in [("a", Failure::Refused), ("b", Failure::Unanswered)] {
        for n in 4..7 {
            fails_so(&pauses, host, &n.to_string(), failure);
        }
    }
    assert!(pauses.left_of_host("a").unwrap() > PROBE_MAX);
    assert!(pauses.left_of_host("b").is_none());
}

#[test]
fn what_is_known_is_bounded() {
    let pauses = Pauses::default();
    for n in 0..3 * KNOWN_MAX {
        fails(&pauses, &format!("{n}.example"), "1");
    }
    let known = pauses.lock();
    assert!(known.hosts.0.len() <= KNOWN_MAX && known.repositories.0.len() <= KNOWN_MAX);
}

#[test]
fn a_host_that_denies_all_repositories_is_tried_every_few_seconds_and_later_every_minute() {
    let pauses = Pauses::new(HashSet::from(["a".to_owned()]));
    let denied = |repository: &str| pauses.denied(&item("a", repository), "HTTP 404");
    // Any repository may be gone, and it may be denied as often as it is asked for.
    assert!((0..9).all(|_| denied("1").is_none()));
    assert!(denied("2").is_none() && pauses.left_of_host("a").is_none());
    let judged = denied("3").unwrap();
    assert!(judged.is_hosts && judged.wait.unwrap() <= PROBE);
    assert_eq!(pauses.condition("a"), Condition::Silent);
    assert_eq!(pauses.why("a").as_deref(), Some("HTTP 404"));
    let again = |since: Duration| {
        let (mut known, host) = (pauses.lock(), "a".to_owned());
        let trouble = known.barren.of(&host, Instant::now());
        (trouble.until, trouble.times) = (Instant::now(), 9);
        trouble.failing_since = Instant::now().checked_sub(since);
        drop(known);
        denied("3").unwrap().wait.unwrap()
    };
    assert!(again(LASTING / 2) <= PROBE_MAX);
    assert!(again(LASTING * 2) > PROBE_MAX);
    pauses.answered(&item("a", "4"));
    assert!(pauses.left_of_host("a").is_none());
    // It was well a moment ago: these are gone.
    assert!(
        "123456"
            .chars()
            .all(|name| denied(&name.to_string()).is_none())
    );
    assert_eq!(pauses.condition("a"), Condition::Well);
    let stranger = |name: char| pauses.denied(&item("b", &name.to_string()), "HTTP 404");
    assert!("123456".chars().all(|name| stranger(name).is_none()));
}

#[test]
fn a_host_that_garbles_all_answers_is_down_and_one_repository_that_does_is_not() {
    let pauses = Pauses::new(HashSet::from(["a".to_owned()]));
    let garbled = |repository: &str| fails_so(&pauses, "a", repository, Failure::Garbled);
    assert!((0..9).all(|_| !garbled("1").is_hosts) && garbled("2").wait.is_none());
    assert!(garbled("3").is_hosts && pauses.left_of_host("a").is_some());
    pauses.answered(&item("a", "4"));
    assert!(!garbled("1").is_hosts && pauses.left_of_host("a").is_none());
}

#[test]
fn a_paused_host_is_tried_for_an_owner_with_whom_nothing_failed_and_one_answer_ends_the_pause() {
    let of = |owner: &str| NewWorkItem {
        repository: format!("{owner}/app"),
        ..item("a", owner)
    };
    let owners = ["mallory-1", "mallory-2", "mallory-3"];
    let minutes = Duration::from_mins(5);
    let throttle = |pauses: &Pauses| {
        for owner in owners {
            pauses.asked(&of(owner), minutes, "slower");
        }
    };
    let unreachable = |pauses: &Pauses| {
        for owner in owners {
            pauses.failed(Uuid::now_v7(), &of(owner), Failure::Unreachable, "");
        }
    };
    let unanswered = |pauses: &Pauses| {
        for owner in owners {
            pauses.failed(Uuid::now_v7(), &of(owner), Failure::Unanswered, "");
        }
    };
    let denied = |pauses: &Pauses| {
        for owner in owners {
            pauses.denied(&of(owner), "HTTP 404");
        }
    };
    let causes: [&dyn Fn(&Pauses); 4] = [&throttle, &unreachable, &unanswered, &denied];
    for (cause, is_quick) in causes.into_iter().zip([false, false, false, true]) {
        let pauses = Pauses::new(HashSet::from(["a".to_owned()]));
        cause(&pauses);
        assert!(pauses.left_of_host("a").is_some() && pauses.is_open("a"));
        assert_ne!(pauses.condition("a"), Condition::Well);
        assert!(pauses.may_probe("a", &of("alice").owner(), &of("alice").remote()));
        assert!(!pauses.may_probe("a", &of("mallory-1").owner(), &remote("another")));
        // Not again at once, unless it answers at once.
        assert!(pauses.probed("a", true));
        assert_eq!(pauses.is_open("a"), is_quick);
        assert!(pauses.probed("a", false) && !pauses.is_open("a"));
        let before = Instant::now().checked_sub(PROBE_EVERY).unwrap();
        pauses.lock().probed.insert("a".to_owned(), before);
        assert!(pauses.is_open("a"));
        pauses.answered(&of("alice"));
        assert_eq!(pauses.left_of_host("a"), None);
        assert_eq!(pauses.condition("a"), Condition::Well);
        assert!(!pauses.probed("a", true), "nothing is paused");
    }
    // Nobody tries what the host itself asked for, or a host that strangers named.
    let pauses = Pauses::new(HashSet::from(["a".to_owned()]));
    pauses.host_asked("a", minutes, "slower");
    assert!(!pauses.is_open("a"));
    pauses.answered(&of("alice"));
    assert!(!pauses.is_open("a"));
    let strangers = Pauses::default();
    throttle(&strangers);
    assert!(!strangers.is_open("a"));
}
