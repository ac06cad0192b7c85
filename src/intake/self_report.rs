//! Self-reports: possession of a key is proof enough to have it revoked.

use jiff::Timestamp;

use super::place::{reported_place, understand};
use crate::keyformat::KeyValue;
use crate::respond::{Known, Outcome, Responder, Sighting, Turn};
use crate::store::{Reason, StoreError};

/// Actor of self-reports in the revocation log.
const ACTOR: &str = "self_report";

/// Outcome of a self-report, in ascending order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SelfReport {
    /// There is no such key.
    Unknown,
    /// The key is public by design and remains valid.
    Public,
    /// The key had already expired.
    Expired,
    /// The key or access token is revoked, by this report or before.
    Revoked,
}

/// Revokes the key, or the access token of Rescind itself, that an anonymous reporter presents, if it is one of the
/// `known`.
///
/// A revoked key is reported as revoked even after its expiry, so that the answer does not change over
/// time. A URL that cannot be stored is left out, and the log says so: it decides nothing.
///
/// # Errors
/// Returns any [`StoreError`]. Nothing was changed in that case.
pub async fn self_report(
    responder: &Responder,
    known: &Known,
    value: KeyValue,
    url: Option<&str>,
) -> Result<SelfReport, StoreError> {
    let place = reported_place(url);
    if url.is_some() && place.url.is_none() {
        tracing::info!(
            "the url of a self-report was left out: it is no http or https URL of at most 2048 bytes"
        );
    }
    let now = responder.clock().now();
    let sighting = Sighting {
        value,
        place,
        detected_at: now,
    };
    let (seen, reason, turn) = (vec![sighting], Reason::SelfReport, &mut Turn::default());
    let answers = responder
        .report_known(seen, known, understand, reason, ACTOR, turn)
        .await?;
    let outcomes = answers.into_iter().flat_map(|answer| answer.outcomes);
    let reports = outcomes.map(|outcome| match outcome {
        Outcome::Public(_) => SelfReport::Public,
        Outcome::Revoked(_) => SelfReport::Revoked,
        Outcome::AlreadyInvalid(key) => ended(key.revoked_at, key.expires_at, now),
        Outcome::RevokedToken(token, _) | Outcome::InvalidToken(token) => {
            // A leak revokes an expired token, too, by which it is no other one to whoever reports it.
            let in_time = |at: &Timestamp| token.expires_at.is_none_or(|end| *at < end);
            ended(token.revoked_at.filter(in_time), token.expires_at, now)
        }
    });
    // Several projects may hold the value; the strongest outcome among them is the answer.
    Ok(reports.max().unwrap_or(SelfReport::Unknown))
}

fn ended(
    revoked_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> SelfReport {
    if revoked_at.is_none() && expires_at.is_some_and(|end| end <= now) {
        SelfReport::Expired
    } else {
        SelfReport::Revoked
    }
}
