//! Self-reports: whoever presents a key has proved enough to have it revoked.

use jiff::Timestamp;

use super::place::reported_place;
use crate::keyformat::KeyValue;
use crate::respond::{Outcome, Responder, Sighting};
use crate::store::{Reason, StoreError};

/// Who does what a self-report leads to, in the revocation log.
const ACTOR: &str = "self_report";

/// What became of a self-report, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SelfReport {
    /// The URL is not one that can be kept: not http(s), or too long. Nothing was done.
    BadUrl,
    /// There is no such key.
    Unknown,
    /// The key is public by design and stays as it is.
    Public,
    /// The key's time was over before.
    Expired,
    /// The key or access token is revoked, by this report or before.
    Revoked,
}

/// Revokes the key, or the access token of Rescind itself, that a stranger presents. A key that is revoked
/// stays so when its time is over too: the answer does not change while the world goes on.
///
/// # Errors
/// Any [`StoreError`]; nothing was changed then.
pub async fn self_report(
    responder: &Responder,
    value: KeyValue,
    url: Option<&str>,
) -> Result<SelfReport, StoreError> {
    let Some(place) = reported_place(url, &value, responder.redactor()) else {
        return Ok(SelfReport::BadUrl);
    };
    let now = responder.clock().now();
    let sighting = Sighting {
        value,
        place,
        detected_at: now,
    };
    let answers = responder
        .report_from_outside(vec![sighting], Reason::SelfReport, ACTOR)
        .await?;
    let outcomes = answers.into_iter().flat_map(|answer| answer.outcomes);
    let reports = outcomes.map(|outcome| match outcome {
        Outcome::Public(_) => SelfReport::Public,
        Outcome::Revoked(_) => SelfReport::Revoked,
        Outcome::AlreadyInvalid(key) => ended(key.revoked_at, key.expires_at, now),
        Outcome::AccessToken(token) => ended(token.revoked_at, token.expires_at, now),
    });
    // Several projects may hold the value; what was done for any of them is the answer.
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
