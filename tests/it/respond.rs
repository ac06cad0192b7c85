//! One leaked key: one incident, one revocation, one entry of the log.

use std::time::Duration;

use jiff::SignedDuration;
use rescind::issuer::{IssueError, IssueRequest};
use rescind::keyformat::KeyValue;
use rescind::respond::{Answer, Outcome, Report, SeenKey, What};
use rescind::store::{
    Action, Fetched, KeyPatch, LogFilter, NewWorkItem, PageRequest, Priority, Reason, WhyInvalid,
    WorkKind,
};
use uuid::Uuid;

use crate::support::databases::{Kind, on_both_databases};
use crate::support::responder::{issuer, request, responder, rotate_request, sighting};

on_both_databases! {
    async fn a_leaked_key_is_revoked_once(database) {
        let store = database.store().await;
        let (responder, clock) = responder(&store);
        let (key, value) = issuer(&responder).issue(request("deploys")).await.unwrap();
        let seen = sighting(&responder, &value, 3);
        clock.advance(SignedDuration::from_secs(1));
        let nobodys = sighting(&responder, &KeyValue::new("nobody's"), 1);
        let batch = vec![nobodys, seen.clone(), seen.clone(), sighting(&responder, &value, 4)];
        let answers = responder.report(batch, Reason::Leaked, "test").await.unwrap();
        assert!(answers[0].is_unknown());
        let [Outcome::Revoked(now)] = &*answers[1].outcomes else {
            panic!("{answers:?}");
        };
        assert_eq!((now.id, now.revoked_at), (key.id, Some(responder.clock().now())));
        let stored = store.key(key.id).await.unwrap().unwrap();
        assert_eq!(stored.exposed_at, Some(seen.detected_at));
        assert_eq!(SeenKey::of(&stored), **now);
        assert!(matches!(&*answers[2].outcomes, [Outcome::AlreadyInvalid(now)] if now.id == key.id));
        clock.advance(SignedDuration::from_secs(1));
        let again = responder.report(vec![seen.clone()], Reason::Leaked, "test").await.unwrap();
        assert!(matches!(&*again[0].outcomes, [Outcome::AlreadyInvalid(again)] if again == now));

        let log = store.list_log(&LogFilter::default(), &PageRequest::first()).await.unwrap().items;
        let [entry] = &*log else {
            panic!("{log:?}");
        };
        let incident = store.incident_of_key(key.id).await.unwrap().unwrap();
        assert_eq!((entry.action, entry.reason, entry.key_id), (Action::Revoked, Reason::Leaked, key.id));
        assert_eq!((entry.policy.as_deref(), entry.incident_id), (Some("revoke"), Some(incident.id)));
        assert_eq!(entry.occurrence.as_ref(), Some(&seen.place));
        assert_eq!(entry.detected_at, Some(seen.detected_at));
        assert_eq!((incident.occurrences, incident.sightings), (2, 4));
        assert_eq!(incident.opened_at, seen.detected_at);
        let detail = responder.incident(incident.id).await.unwrap().unwrap();
        assert_eq!(detail.occurrences[0].sightings, 3);
        assert_eq!(detail.occurrences[0].place, seen.place);
        let happened: Vec<_> = detail.timeline.iter().map(|moment| match &moment.what {
            What::Issued => "issued",
            What::Seen(_) => "seen",
            What::Logged(entry) => entry.action.name(),
            What::Used(_) => "used",
        }).collect();
        assert_eq!(happened, ["issued", "seen", "seen", "revoked"]);
        store.verify_log().await.unwrap().unwrap();
    }

    async fn fifty_reports_at_once_make_one_revocation(database) {
        let store = database.store().await;
        let (responder, _) = responder(&store);
        let (key, value) = issuer(&responder).issue(request("deploys")).await.unwrap();
        let (_, other) = issuer(&responder).issue(request("other")).await.unwrap();
        let mut reports = tokio::task::JoinSet::new();
        for n in 0..50 {
            let responder = responder.clone();
            // In both orders, which would lock two transactions into each other.
            let mut batch = vec![sighting(&responder, &value, n % 5), sighting(&responder, &other, 1)];
            if n % 2 == 0 {
                batch.reverse();
            }
            reports.spawn(async move {
                let answers = responder.report(batch, Reason::Leaked, "test").await.unwrap();
                answers.iter().filter(|answer| matches!(*answer.outcomes, [Outcome::Revoked(_)])).count()
            });
        }
        assert_eq!(reports.join_all().await.into_iter().sum::<usize>(), 2);
        assert_eq!(store.verify_log().await.unwrap().unwrap().entries, 2);
        let incident = store.incident_of_key(key.id).await.unwrap().unwrap();
        assert_eq!((incident.occurrences, incident.sightings), (5, 50));
    }

    async fn a_batch_of_many_rows_is_answered_row_by_row(database) {
        let store = database.store().await;
        let (responder, _) = responder(&store);
        let mut values = Vec::new();
        for n in 0..20 {
            values.push(issuer(&responder).issue(request(&format!("key {n}"))).await.unwrap());
        }
        let batch: Vec<_> = (0..2_000).map(|row| match row % 100 {
            0 => sighting(&responder, &values[row / 100].1, 1),
            50 => sighting(&responder, &values[row / 100].1, 2),
            _ => sighting(&responder, &KeyValue::new(format!("rsc_sk_{row}")), 1),
        }).collect();
        let answers = responder.report(batch, Reason::Leaked, "partner:github").await.unwrap();
        for (row, answer) in answers.iter().enumerate() {
            let id = answer.keys().next().map(|key| key.id);
            match row % 100 {
                0 | 50 => assert_eq!(id, Some(values[row / 100].0.id), "row {row}"),
                _ => assert_eq!(*answer, Answer::default(), "row {row}"),
            }
        }
        assert_eq!(store.verify_log().await.unwrap().unwrap().entries, 20);
    }

    async fn a_public_key_is_recorded_and_left_alone(database) {
        let store = database.store().await;
        let (responder, _) = responder(&store);
        let (key, value) = issuer(&responder).issue(IssueRequest { is_public: true, ..request("web") }).await.unwrap();
        let answers = responder.report(vec![sighting(&responder, &value, 1)], Reason::Leaked, "test").await.unwrap();
        assert_eq!(answers[0].outcomes, [Outcome::Public(SeenKey::of(&key).into())]);
        assert!(!answers[0].is_secret());
        assert_eq!(store.key(key.id).await.unwrap(), Some(key.clone()));
        assert_eq!(store.occurrences(key.id, 10).await.unwrap().len(), 1);
        assert_eq!(store.incident_of_key(key.id).await.unwrap(), None);
        assert_eq!(store.log_head().await.unwrap().seq, 0);
        // Its owner may still revoke it.
        assert!(responder.revoke(key.id, "cli").await.unwrap().unwrap().revoked_at.is_some());
    }

    async fn description_and_end_can_be_changed(database) {
        let store = database.store().await;
        let (responder, _) = responder(&store);
        let (key, _) = issuer(&responder).issue(request("deploys")).await.unwrap();
        let end = responder.clock().now() + SignedDuration::from_secs(60);
        let change = async |patch: KeyPatch| {
            let changed = issuer(&responder).update(key.id, patch).await.unwrap();
            assert_eq!(store.key(key.id).await.unwrap().unwrap(), changed);
            changed
        };
        let key = change(KeyPatch { expires_at: Some(Some(end)), ..KeyPatch::default() }).await;
        assert_eq!((key.expires_at, &*key.description), (Some(end), "deploys"));
        let key = change(KeyPatch { description: Some("renamed".to_owned()), ..KeyPatch::default() }).await;
        assert_eq!((key.expires_at, &*key.description), (Some(end), "renamed"));
        let key = change(KeyPatch { expires_at: Some(None), ..KeyPatch::default() }).await;
        assert_eq!(key.expires_at, None);
        let nobody = issuer(&responder).update(Uuid::nil(), KeyPatch::default()).await;
        assert!(matches!(nobody, Err(IssueError::NotFound)));
    }

    async fn an_expired_key_opens_an_incident_and_stays_expired(database) {
        let store = database.store().await;
        let (responder, clock) = responder(&store);
        let end = responder.clock().now() + SignedDuration::from_secs(5);
        let (key, value) = issuer(&responder).issue(IssueRequest { expires_at: Some(end), ..request("old") }).await.unwrap();
        clock.advance(SignedDuration::from_secs(5));
        let answers = responder.report(vec![sighting(&responder, &value, 1)], Reason::Leaked, "test").await.unwrap();
        assert!(matches!(&*answers[0].outcomes, [Outcome::AlreadyInvalid(key)] if key.revoked_at.is_none()));
        assert!(store.incident_of_key(key.id).await.unwrap().is_some());
        assert_eq!(store.log_head().await.unwrap().seq, 0);
        let longer = KeyPatch { expires_at: Some(None), ..KeyPatch::default() };
        let error = issuer(&responder).update(key.id, longer).await.unwrap_err();
        assert!(matches!(error, IssueError::Leaked), "{error}");
        let renamed = KeyPatch { description: Some("older".to_owned()), ..KeyPatch::default() };
        assert!(issuer(&responder).update(key.id, renamed).await.is_ok());
        assert_eq!(store.key(key.id).await.unwrap().unwrap().expires_at, Some(end));
    }

    async fn a_key_that_leaked_while_the_clock_was_ahead_is_never_valid_again(database) {
        let store = database.store().await;
        let (responder, clock) = responder(&store);
        let end = responder.clock().now() + SignedDuration::from_hours(720);
        let (key, value) = issuer(&responder).issue(IssueRequest { expires_at: Some(end), ..request("old") }).await.unwrap();
        let (ahead, back) = (SignedDuration::from_hours(1_440), SignedDuration::from_hours(-1_440));
        clock.advance(ahead);
        let seen = sighting(&responder, &value, 1);
        let answers = responder.report(vec![seen], Reason::Leaked, "test").await.unwrap();
        assert!(matches!(&*answers[0].outcomes, [Outcome::AlreadyInvalid(_)]));
        clock.advance(back);
        let now = responder.clock().now();
        let stored = store.key(key.id).await.unwrap().unwrap();
        assert_eq!(stored.why_invalid(now), Some(WhyInvalid::Expired));
        let longer = KeyPatch { expires_at: Some(None), ..KeyPatch::default() };
        let error = issuer(&responder).update(key.id, longer).await.unwrap_err();
        assert!(matches!(error, IssueError::Leaked), "{error}");
        // Seen once more, it is revoked, and the log says so.
        let answers = responder.report(vec![sighting(&responder, &value, 2)], Reason::Leaked, "test").await.unwrap();
        assert!(matches!(&*answers[0].outcomes, [Outcome::Revoked(_)]));
    }

    async fn revoking_by_hand_is_logged_once(database) {
        let store = database.store().await;
        let (responder, clock) = responder(&store);
        let (key, value) = issuer(&responder).issue(request("deploys")).await.unwrap();
        let first = responder.revoke(key.id, "token:1").await.unwrap().unwrap();
        clock.advance(SignedDuration::from_secs(9));
        let second = responder.revoke(key.id, "token:2").await.unwrap().unwrap();
        assert_eq!(first, second);
        assert_eq!(responder.revoke(Uuid::nil(), "cli").await.unwrap(), None);
        let entry = store.log_entry(1).await.unwrap().unwrap();
        assert_eq!((entry.reason, &*entry.actor, entry.policy), (Reason::Manual, "token:1", None));
        // A later sighting is still one of ours.
        let answers = responder.report(vec![sighting(&responder, &value, 1)], Reason::Leaked, "test").await.unwrap();
        assert!(matches!(&*answers[0].outcomes, [Outcome::AlreadyInvalid(_)]));
        assert_eq!(store.verify_log().await.unwrap().unwrap().entries, 1);
    }

    async fn a_successor_does_not_end_before_the_key_that_it_replaces(database) {
        let store = database.store().await;
        let (responder, clock) = responder(&store);
        let now = responder.clock().now();
        let day = SignedDuration::from_hours(24);
        let mut keys: Vec<_> = (0..3).map(crate::store::new_key).collect();
        // Dated into the future by a clock that was ahead, or by an import of an earlier version.
        for (key, begin) in keys.iter_mut().zip([now + day * 2, now + day, now + day - SignedDuration::from_secs(1)]) {
            (key.created_at, key.expires_at) = (begin, Some(now + day));
        }
        crate::store::import(&store, &keys).await;
        clock.advance(SignedDuration::from_secs(10));
        for key in keys {
            let rotation = issuer(&responder).rotate(rotate_request(key.id, Duration::ZERO)).await.unwrap();
            assert_eq!(rotation.new.expires_at, key.expires_at);
            assert_eq!(rotation.new.why_invalid(responder.clock().now()), None);
        }
    }

    async fn a_rotated_key_lives_until_the_overlap_ends_unless_it_leaks(database) {
        let store = database.store().await;
        let (responder, clock) = responder(&store);
        let now = responder.clock().now();
        let end = now + SignedDuration::from_hours(30 * 24);
        let wanted = IssueRequest { expires_at: Some(end), ..request("deploys") };
        let (key, value) = issuer(&responder).issue(wanted).await.unwrap();
        clock.advance(SignedDuration::from_hours(24));
        let hour = Duration::from_hours(1);
        let rotation = issuer(&responder).rotate(rotate_request(key.id, hour)).await.unwrap();
        let now = responder.clock().now();
        assert_eq!(rotation.old.expires_at, Some(now + SignedDuration::from_hours(1)));
        assert_eq!(rotation.old.replaced_by, Some(rotation.new.id));
        assert_eq!(store.key(key.id).await.unwrap(), Some(rotation.old.clone()));
        assert_eq!(store.find_key("default", &rotation.value.sha256()).await.unwrap(), Some(rotation.new.clone()));
        assert_eq!(rotation.new.expires_at, Some(now + SignedDuration::from_hours(30 * 24)));
        assert_eq!((&rotation.new.owner, &rotation.new.description), (&key.owner, &key.description));
        assert_eq!(store.log_entry(1).await.unwrap().unwrap().action, Action::Rotated);
        let error = issuer(&responder).rotate(rotate_request(key.id, hour)).await.unwrap_err();
        assert!(matches!(error, IssueError::Replaced(new) if new == rotation.new.id), "{error}");
        let answers = responder.report(vec![sighting(&responder, &value, 1)], Reason::Leaked, "test").await.unwrap();
        assert!(matches!(&*answers[0].outcomes, [Outcome::Revoked(old)] if old.id == key.id));
        assert_eq!(store.key(rotation.new.id).await.unwrap(), Some(rotation.new.clone()));
        // No longer than its own life, and only a valid key at all.
        let long = Duration::from_secs(1 << 40);
        let second = issuer(&responder).rotate(rotate_request(rotation.new.id, long)).await.unwrap();
        assert_eq!(second.old.expires_at, rotation.new.expires_at);
        responder.revoke(second.new.id, "cli").await.unwrap();
        let error = issuer(&responder).rotate(rotate_request(second.new.id, hour)).await.unwrap_err();
        assert!(matches!(error, IssueError::Invalid(WhyInvalid::ManuallyRevoked)), "{error}");
        let error = issuer(&responder).rotate(rotate_request(Uuid::nil(), hour)).await.unwrap_err();
        assert!(matches!(error, IssueError::NotFound), "{error}");
        store.verify_log().await.unwrap().unwrap();
    }

    async fn a_workers_transaction_is_all_or_nothing(database) {
        let store = database.store().await;
        let (responder, _) = responder(&store);
        let (key, value) = issuer(&responder).issue(request("deploys")).await.unwrap();
        let range = NewWorkItem {
            kind: WorkKind::Range,
            clone_url: None,
            host: "github.com".to_owned(),
            repository_id: "1".to_owned(),
            repository: "acme/app".to_owned(),
            ref_name: "refs/heads/main".to_owned(),
            before: "0".repeat(40),
            after: "1".repeat(40),
            source: "github-public".to_owned(),
            priority: Priority::Firehose,
            event_at: responder.clock().now(),
        };
        let mut tx = store.begin().await.unwrap();
        tx.add_work_items(&[range], responder.clock().now()).await.unwrap();
        tx.commit().await.unwrap();
        let item = store.claim(1, "w", Duration::from_mins(1)).await.unwrap().remove(0);
        let seen = responder.clean(vec![sighting(&responder, &value, 1)]).await;
        for kept in [false, true] {
            let mut tx = store.begin().await.unwrap();
            assert!(tx.finish(item.id, "w", Fetched::default()).await.unwrap());
            let report = Report { sightings: &seen, reason: Reason::Leaked, actor: "source:x" };
            let reported = responder.report_in(&mut tx, &[report]).await.unwrap();
            let answer = reported.into_answers().next().unwrap();
            assert!(matches!(*answer.outcomes, [Outcome::Revoked(_)]));
            if kept {
                tx.commit().await.unwrap();
            } else {
                drop(tx);
            }
            let now = store.key(key.id).await.unwrap().unwrap();
            assert_eq!(now.revoked_at.is_some(), kept);
            assert_eq!(store.work_counts().await.unwrap().done, u64::from(kept));
            assert_eq!(store.log_head().await.unwrap().seq, u64::from(kept));
        }
        store.verify_log().await.unwrap().unwrap();
    }

    async fn keys_are_kept_out_of_every_text(database) {
        let store = database.store().await;
        let (responder, _) = responder(&store);
        let (_, value) = issuer(&responder).issue(request("first")).await.unwrap();
        let secret = value.expose();
        let wanted = IssueRequest {
            owner: rescind::store::Owner::user(secret),
            notify_emails: vec![format!("{secret}@example.com")],
            ..request(&format!("copy of {secret}"))
        };
        let (copy, _) = issuer(&responder).issue(wanted).await.unwrap();
        let renamed = KeyPatch { description: Some(secret.to_owned()), ..KeyPatch::default() };
        let renamed = issuer(&responder).update(copy.id, renamed).await.unwrap();
        let mut seen = sighting(&responder, &value, 1);
        seen.place.url = Some(format!("https://example.com/?key={secret}"));
        seen.place.path = Some(format!("{secret}/{secret}"));
        seen.place.repository = Some(format!("acme/{secret}"));
        seen.place.commit = Some(secret.to_owned());
        seen.place.source = secret.to_owned();
        let answers = responder.report(vec![seen], Reason::Leaked, "test").await.unwrap();
        let key = answers[0].keys().next().unwrap();
        let incident = store.incident_of_key(key.id).await.unwrap().unwrap();
        let detail = responder.incident(incident.id).await.unwrap().unwrap();
        let everything = format!("{copy:?} {renamed:?} {answers:?} {detail:?}");
        assert!(!everything.contains(secret));
        assert!(everything.contains(&format!("acme/{}", value.redacted("rsc_sk_"))), "{everything}");
    }

    async fn uses_after_exposure_are_recorded_and_bounded(database) {
        let store = database.store().await;
        let (responder, clock) = responder(&store);
        let (key, value) = issuer(&responder).issue(request("deploys")).await.unwrap();
        let now = || responder.clock().now();
        store.record_use(key.id, now(), Some("203.0.113.7")).await.unwrap();
        assert!(store.uses_after_exposure(key.id, 10).await.unwrap().is_empty());
        responder.report(vec![sighting(&responder, &value, 1)], Reason::Leaked, "test").await.unwrap();
        clock.advance(SignedDuration::from_mins(1));
        store.record_use(key.id, now(), Some("203.0.113.7")).await.unwrap();
        store.record_use(key.id, now(), None).await.unwrap();
        let incident = store.incident_of_key(key.id).await.unwrap().unwrap();
        let detail = responder.incident(incident.id).await.unwrap().unwrap();
        assert_eq!(detail.uses.len(), 2);
        assert_eq!(detail.uses[0].at, now());
        assert!(detail.uses.iter().any(|used| used.client_address.as_deref() == Some("203.0.113.7")));
        assert!(matches!(detail.timeline.last().unwrap().what, What::Used(_)));
        let mut tx = store.begin().await.unwrap();
        for _ in 0..1_100 {
            tx.record_use(key.id, now(), None).await.unwrap();
        }
        tx.commit().await.unwrap();
        assert_eq!(store.uses_after_exposure(key.id, 5_000).await.unwrap().len(), 1_000);
        assert_eq!(store.incident_of_key(key.id).await.unwrap().unwrap().uses, 1_102);
    }

    async fn places_kept_of_one_key_are_bounded(database) {
        let store = database.store().await;
        let (responder, _) = responder(&store);
        let (key, value) = issuer(&responder).issue(request("deploys")).await.unwrap();
        responder.report(vec![sighting(&responder, &value, 1)], Reason::Leaked, "test").await.unwrap();
        let print = match database.kind {
            Kind::Sqlite => "randomblob(32)",
            Kind::Postgres => "sha256(i::text::bytea)",
        };
        let others = format!(
            "WITH RECURSIVE many(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM many WHERE i < 9998)
            INSERT INTO occurrences (id, fingerprint, key_id, incident_id, source, line,
                detected_at, last_seen_at, sightings)
            SELECT 'place ' || i, {print}, key_id, incident_id, source, i, detected_at, last_seen_at, 1
            FROM many, occurrences"
        );
        database.run(&others).await.unwrap();
        let batch: Vec<_> = (1..=9).map(|line| sighting(&responder, &value, line)).collect();
        for _ in 0..2 {
            responder.report(batch.clone(), Reason::Leaked, "test").await.unwrap();
        }
        assert_eq!(database.count("SELECT COUNT(*) FROM occurrences").await, 10_000);
        let incident = store.incident_of_key(key.id).await.unwrap().unwrap();
        // The first, the two that still found room, and every sighting of the nine, twice.
        assert_eq!((incident.occurrences, incident.sightings), (3, 19));
    }
}
