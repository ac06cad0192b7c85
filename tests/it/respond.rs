//! One leaked key: one incident, one revocation, one entry of the log.

use std::sync::Arc;
use std::time::Duration;

use rescind::clock::{Clock, ManualClock};
use rescind::keyformat::{FormatSet, KeyValue};
use rescind::respond::{Answer, IssueRequest, IssuerFormats, Responder, Sighting};
use rescind::store::{Owner, Place, Reason, Store};

use crate::support::databases::on_both_databases;

fn responder(store: &Store) -> (Responder, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new("2026-11-22T20:46:15Z".parse().unwrap()));
    let issuer = IssuerFormats {
        secret: "rescind_secret".to_owned(),
        public: "rescind_public".to_owned(),
    };
    let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
    let responder = Responder::new(store.clone(), FormatSet::builtin(), issuer, shared);
    (responder, clock)
}

fn request(description: &str) -> IssueRequest {
    IssueRequest {
        project: "default".to_owned(),
        owner: Owner::user("user-1"),
        description: description.to_owned(),
        expires_at: None,
        is_public: false,
        policy: None,
        notify_emails: Vec::new(),
    }
}

fn sighting(responder: &Responder, value: &KeyValue, line: u64) -> Sighting {
    Sighting {
        value: value.clone(),
        place: Place {
            source: "github-public".to_owned(),
            url: Some("https://github.com/acme/app".to_owned()),
            repository: Some("acme/app".to_owned()),
            commit: None,
            path: Some("config/prod.env".to_owned()),
            line: Some(line),
        },
        detected_at: responder.clock().now(),
    }
}

on_both_databases! {
    async fn a_leaked_key_is_revoked_once(database) {
        let store = database.store().await;
        let (responder, clock) = responder(&store);
        let (key, value) = responder.issue(request("deploys")).await.unwrap();
        let seen = sighting(&responder, &value, 3);
        clock.advance(Duration::from_secs(1).try_into().unwrap());
        let batch = vec![seen.clone(), seen.clone(), sighting(&responder, &KeyValue::new("nobody's"), 1)];
        let answers = responder.report(batch, Reason::Leaked, "test").await.unwrap();
        assert!(matches!(&answers[0], Answer::Revoked(now) if now.id == key.id && now.revoked_at.is_some()));
        assert!(matches!(&answers[1], Answer::AlreadyInvalid(now) if now.id == key.id));
        assert_eq!(answers[2], Answer::Unknown);
        let again = responder.report(vec![seen], Reason::Leaked, "test").await.unwrap();
        assert!(matches!(&again[0], Answer::AlreadyInvalid(_)));
        let verified = store.verify_log().await.unwrap().unwrap();
        assert_eq!(verified.entries, 1);
        let incident = store.incident_of_key(key.id).await.unwrap().unwrap();
        assert_eq!((incident.occurrences, incident.sightings), (1, 3));
        assert_eq!(incident.key.revoked_at, Some(responder.clock().now()));
    }
}
