//! Reports of partners: verify the raw bytes, read the rows, hand them on, answer every row.
//!
//! GitHub began it; GitLab and deps.dev do the same with headers and keys of their own. A [`Partner`] knows
//! the keys of one of them only, so that nobody's key verifies somebody else's report.

use std::collections::HashSet;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use serde::Serialize;

use super::place::partner_place;
use super::public_keys::{NoKey, PublicKeys};
use super::rows::{ReportError, Row, parse_report};
use super::signature::{ReportSignature, SignatureError};
use crate::respond::{Outcome, Responder, Sighting};
use crate::store::{Reason, StoreError};

/// The largest report that is read, in bytes.
pub const MAX_REPORT: usize = 25 << 20;

/// The longest key identifier that is looked up. GitHub's have 64 characters.
const MAX_IDENTIFIER: usize = 128;

/// Who reports, and how its headers are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartnerOptions {
    /// Its name, such as `github`: who acts in the revocation log is `partner:github`.
    pub name: &'static str,
    /// The header that names the key which signed the report.
    pub key_identifier_header: String,
    /// The header with the signature over the raw body.
    pub signature_header: String,
}

/// Why a report is not answered row by row.
#[derive(Debug, thiserror::Error)]
pub enum PartnerError {
    /// 401: a header that carries the proof is missing.
    #[error("the header `{0}` is missing or empty")]
    MissingHeader(String),
    /// 401: no such key, even after asking the origin again.
    #[error("the key that the report names is not among the published ones")]
    UnknownKey,
    /// 401: malformed, or not made over this body by this key.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// 503: the proof cannot be checked at present.
    #[error("the sender's public keys cannot be fetched at present; send the report again later")]
    KeysUnavailable {
        /// When to send it again.
        retry_after: Duration,
    },
    /// 400 or 413: the body as a whole is no report.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// 503 mostly: nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// 500: a task of this program died.
    #[error("reading the report failed inside the program")]
    Died,
}

/// The answer to one row, in the form GitHub documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Feedback {
    /// SHA-256 of the token as sent, in lower-case hex.
    pub token_hash: String,
    /// The row's `type` as sent, or `unknown`.
    pub token_type: String,
    /// `true_positive` when the token is or was a secret key or an access token of ours.
    pub label: Label,
}

/// Whether a row named a secret of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// A secret key of ours, or an access token of Rescind itself: valid until now, or revoked, rotated or
    /// expired before.
    TruePositive,
    /// Anything else: unknown, malformed, or a key that is public by design.
    FalsePositive,
}

/// A verified report, answered.
#[derive(Debug)]
pub struct Answered {
    /// One per row, in order.
    pub feedback: Vec<Feedback>,
    /// Rows without a usable token.
    pub malformed: usize,
    /// Keys that this report revoked.
    pub revoked: usize,
}

/// The receiving end of one partner's programme.
#[derive(Debug)]
pub struct Partner {
    options: PartnerOptions,
    actor: String,
    keys: PublicKeys,
    responder: Responder,
}

impl Partner {
    /// Verifies with `keys` and hands what was reported to `responder`.
    pub fn new(options: PartnerOptions, keys: PublicKeys, responder: Responder) -> Self {
        Self {
            actor: format!("partner:{}", options.name),
            options,
            keys,
            responder,
        }
    }

    /// Its name, such as `github`.
    pub fn name(&self) -> &'static str {
        self.options.name
    }

    /// Takes a report as it arrived: its headers and the untouched bytes of the body.
    ///
    /// # Errors
    /// [`PartnerError`]; nothing was changed then.
    pub async fn receive(
        &self,
        headers: &HeaderMap,
        body: impl AsRef<[u8]> + Send + 'static,
    ) -> Result<Answered, PartnerError> {
        let rows = self.verified_rows(headers, body).await?;
        self.answer(rows).await
    }

    async fn verified_rows(
        &self,
        headers: &HeaderMap,
        body: impl AsRef<[u8]> + Send + 'static,
    ) -> Result<Vec<Row>, PartnerError> {
        let needed = |name: &str| {
            let value = headers.get(name).map(HeaderValue::as_bytes);
            let value = value.filter(|value| !value.is_empty());
            value.ok_or_else(|| PartnerError::MissingHeader(name.to_owned()))
        };
        let identifier = needed(&self.options.key_identifier_header)?;
        let signature = needed(&self.options.signature_header)?;
        // What cannot be right leads to no fetch of keys.
        let signature = ReportSignature::parse(signature)?;
        let identifier = str::from_utf8(identifier)
            .ok()
            .filter(|id| id.len() <= MAX_IDENTIFIER && id.bytes().all(|b| b.is_ascii_graphic()))
            .ok_or(PartnerError::UnknownKey)?;
        let key = self
            .keys
            .find(identifier)
            .await
            .map_err(|none| match none {
                NoKey::Unknown => PartnerError::UnknownKey,
                NoKey::Unavailable { retry_after } => PartnerError::KeysUnavailable { retry_after },
            })?;
        // Hashing and parsing 25 MiB takes a tenth of a second, which other requests must not wait.
        tokio::task::spawn_blocking(move || {
            key.verify(body.as_ref(), &signature)?;
            Ok(parse_report(body.as_ref())?)
        })
        .await
        .map_err(|_| PartnerError::Died)?
    }

    /// Responds to rows, whoever has verified them.
    async fn answer(&self, rows: Vec<Row>) -> Result<Answered, PartnerError> {
        answer(&self.responder, &self.actor, rows).await
    }
}

/// Responds to the rows of a report of `actor`.
pub(super) async fn answer(
    responder: &Responder,
    actor: &str,
    rows: Vec<Row>,
) -> Result<Answered, PartnerError> {
    let detected_at = responder.clock().now();
    let mut sightings = Vec::new();
    let mut feedback = Vec::with_capacity(rows.len());
    let mut reported = Vec::new();
    for row in rows {
        feedback.push(Feedback {
            token_hash: row.token_hash().to_hex(),
            token_type: row.token_type,
            label: Label::FalsePositive,
        });
        if let Some(value) = row.token {
            let place = partner_place(
                actor,
                row.url.as_deref(),
                row.source.as_deref(),
                &value,
                responder.redactor(),
            );
            reported.push(feedback.len() - 1);
            sightings.push(Sighting {
                value,
                place,
                detected_at,
            });
        }
    }
    let malformed = feedback.len() - sightings.len();
    let answers = responder
        .report_from_outside(sightings, Reason::Leaked, actor)
        .await?;
    let mut revoked = HashSet::new();
    for (row, answer) in reported.into_iter().zip(answers) {
        if answer.is_secret() {
            feedback[row].label = Label::TruePositive;
        }
        for outcome in answer.outcomes {
            if let Outcome::Revoked(key) = outcome {
                revoked.insert(key.id);
            }
        }
    }
    Ok(Answered {
        feedback,
        malformed,
        revoked: revoked.len(),
    })
}
