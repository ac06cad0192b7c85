//! Responder on a store, with the built-in key formats and a manual clock.

use std::sync::Arc;
use std::time::Duration;

use rescind::clock::{Clock, ManualClock};
use rescind::issuer::{IssueRequest, Issuer, IssuerFormats, RotateRequest};
use rescind::keyformat::{FormatSet, KeyValue};
use rescind::respond::{Responder, Sighting};
use rescind::store::{Owner, Place, Store};
use uuid::Uuid;

/// Returns a responder and its clock.
pub(crate) fn responder(store: &Store) -> (Responder, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new("2026-11-22T20:46:15Z".parse().unwrap()));
    let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
    let responder = Responder::new(store.clone(), FormatSet::builtin(), shared);
    (responder, clock)
}

/// Returns an issuer of keys that this responder responds to, in the built-in formats.
pub(crate) fn issuer(responder: &Responder) -> Issuer {
    let minting = IssuerFormats {
        secret: "rescind_secret".to_owned(),
        public: "rescind_public".to_owned(),
    };
    Issuer::new(responder.clone(), minting)
}

/// Returns the parameters of a secret key of `user-1` that never expires.
pub(crate) fn request(description: &str) -> IssueRequest {
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

/// Returns the parameters of a rotation from the command line.
pub(crate) fn rotate_request(id: Uuid, overlap: Duration) -> RotateRequest<'static> {
    RotateRequest {
        id,
        overlap,
        actor: "cli",
    }
}

/// Returns a sighting of the value, detected now in a line of a file on GitHub.
pub(crate) fn sighting(responder: &Responder, value: &KeyValue, line: u64) -> Sighting {
    Sighting {
        value: value.clone(),
        place: Place {
            source: "github-public".to_owned(),
            url: Some("https://github.com/acme/app".to_owned()),
            repository: Some("acme/app".to_owned()),
            commit: Some("b2c4".repeat(10)),
            path: Some("config/prod.env".to_owned()),
            line: Some(line),
        },
        detected_at: responder.clock().now(),
    }
}
