//! Partner reports: verify the raw bytes, parse the rows, respond to them, and answer every row.
//!
//! The scheme is GitHub's; GitLab and deps.dev use it with headers and keys of their own. A [`Partner`]
//! holds the keys of one partner only, so that no partner's key verifies another partner's report.

mod name;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use serde::Serialize;

pub use name::PartnerName;

use super::place::{partner_place, understand};
use super::public_keys::{NoKey, PublicKeys};
use super::rows::{ReportError, Row, UNKNOWN_TYPE, count_rows, parse_report};
use super::signature::{ReportKey, ReportSignature, SignatureError};
use crate::fetch::as_text;
use crate::keyformat::Sha256Digest;
use crate::offload;
use crate::respond::{Known, Outcome, PlacesPerValue, Responder, Sighting, Turn, divided};
use crate::scan::Redactor;
use crate::store::{Reason, StoreError};

/// Maximum size of a report, in bytes.
pub const MAX_REPORT: usize = 25 << 20;

/// Maximum length of a key identifier that is looked up, in bytes. GitHub's have 64 characters.
const MAX_IDENTIFIER: usize = 128;

/// Maximum number of places that one report adds to one key.
const PLACES_PER_KEY: u32 = 1000;

/// Maximum number of different types of one report that are sent back. Partners have one for each format.
const MAX_TYPES: usize = 1000;

/// Memory that a row takes in addition to its texts while it is read and answered, in bytes.
const ROW_COST: usize = 256;

/// Name and headers of a partner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartnerOptions {
    /// Partner that signs the reports.
    pub name: PartnerName,
    /// Name of the header that identifies the key that signed the report.
    pub key_identifier_header: String,
    /// Name of the header that carries the signature over the raw body.
    pub signature_header: String,
}

/// Error returned when a report is not answered row by row.
#[derive(Debug, thiserror::Error)]
pub enum PartnerError {
    /// 401: a header that carries the proof is missing.
    #[error("the header `{0}` is missing or empty")]
    MissingHeader(String),
    /// 401: no such key, even after fetching the list from the origin again.
    #[error("the key that the report names is not among the published ones")]
    UnknownKey,
    /// 401: the signature is malformed, or was not made over this body with this key.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// 503: the proof cannot be checked at present.
    #[error("the sender's public keys cannot be fetched at present; send the report again later")]
    KeysUnavailable {
        /// Time to wait before the report is sent again.
        retry_after: Duration,
    },
    /// 400 or 413: the body as a whole is not a report.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// Usually 503: nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// 500: a task of this program died.
    #[error("reading the report failed inside the program")]
    Died,
}

impl From<NoKey> for PartnerError {
    fn from(none: NoKey) -> Self {
        match none {
            NoKey::Unknown => Self::UnknownKey,
            NoKey::Unavailable { retry_after } => Self::KeysUnavailable { retry_after },
        }
    }
}

/// The answer to one row, in the form that GitHub documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Feedback {
    /// SHA-256 of the token as sent, in lower-case hex.
    pub token_hash: String,
    /// The row's `type` as sent, without keys, or `unknown`.
    #[schema(value_type = String)]
    pub token_type: Cow<'static, str>,
    /// `true_positive` if the token is or was a secret key or an access token of this service.
    pub label: Label,
}

/// Classification of the token in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// A secret key of this service, or an access token of Rescind itself: valid until now, or already
    /// revoked, rotated or expired.
    TruePositive,
    /// Anything else: unknown, malformed, or a key that is public by design.
    FalsePositive,
}

/// Answer to a verified report.
#[derive(Debug)]
pub struct Answered {
    /// Feedback on the rows, one entry per row, in order.
    pub feedback: Vec<Feedback>,
    /// Number of rows without a usable token.
    pub malformed: usize,
    /// Number of keys that this report revoked.
    pub revoked: usize,
}

/// Receiver of one partner's reports.
#[derive(Debug)]
pub struct Partner {
    options: PartnerOptions,
    keys: Arc<PublicKeys>,
    responder: Responder,
}

impl Partner {
    /// Creates a receiver that verifies reports with `keys` and passes them to `responder`.
    pub fn new(
        options: PartnerOptions,
        keys: impl Into<Arc<PublicKeys>>,
        responder: Responder,
    ) -> Self {
        Self {
            options,
            keys: keys.into(),
            responder,
        }
    }

    /// Returns the partner that signs the reports.
    pub fn name(&self) -> PartnerName {
        self.options.name
    }

    /// Returns the names of the headers that carry the key identifier and the signature.
    pub fn headers(&self) -> [&str; 2] {
        [
            &self.options.key_identifier_header,
            &self.options.signature_header,
        ]
    }

    /// Checks the headers of a report before its body is read.
    ///
    /// # Errors
    /// Returns a [`PartnerError`] if no body could make the report genuine, or if none could be verified
    /// at present.
    pub fn proof(&self, headers: &HeaderMap) -> Result<ReportProof, PartnerError> {
        let needed = |name: &str| {
            let value = headers.get(name).map(HeaderValue::as_bytes);
            let value = value.filter(|value| !value.is_empty());
            value.ok_or_else(|| PartnerError::MissingHeader(name.to_owned()))
        };
        let identifier = needed(&self.options.key_identifier_header)?;
        let signature = needed(&self.options.signature_header)?;
        // A signature that cannot be right must not cause a fetch of keys.
        let signature = ReportSignature::parse(signature)?;
        let identifier = str::from_utf8(identifier)
            .ok()
            .filter(|id| id.len() <= MAX_IDENTIFIER && id.bytes().all(|b| b.is_ascii_graphic()))
            .ok_or(PartnerError::UnknownKey)?;
        if let Some(none) = self.keys.refusal(identifier) {
            return Err(none.into());
        }
        Ok(ReportProof {
            identifier: identifier.to_owned(),
            signature,
        })
    }

    /// Returns the public key that a report names, fetching the list if necessary.
    ///
    /// # Errors
    /// Returns a [`PartnerError`] if there is no such key, or if the list cannot be fetched.
    pub async fn key(&self, proof: &ReportProof) -> Result<ReportKey, PartnerError> {
        Ok(self.keys.find(&proof.identifier).await?)
    }

    /// Fetches the list of public keys anew if it was fetched once and is old by now. Whatever goes wrong with that,
    /// the list stays in use.
    pub async fn refresh_keys(&self) {
        self.keys.refresh().await;
    }

    /// Checks the untouched bytes of a report's body.
    ///
    /// # Errors
    /// Returns a [`PartnerError`] if the body is not genuine, or is not a report.
    pub async fn verify(
        &self,
        proof: ReportProof,
        key: ReportKey,
        body: Vec<u8>,
    ) -> Result<PartnerReport, PartnerError> {
        // Hashing and parsing 25 MiB takes a tenth of a second, which must not delay other requests.
        tokio::task::spawn_blocking(move || {
            key.verify(&body, &proof.signature)?;
            PartnerReport::of(body)
        })
        .await
        .map_err(|_| PartnerError::Died)?
    }

    /// Responds to a verified report, row by row.
    ///
    /// # Errors
    /// Returns a [`PartnerError`] if the report could not be answered. Nothing was changed in that case.
    pub async fn receive(&self, report: PartnerReport) -> Result<Answered, PartnerError> {
        report.answer(&self.responder, self.name()).await
    }
}

/// Proof that the body of a report has to match.
#[derive(Debug)]
pub struct ReportProof {
    identifier: String,
    signature: ReportSignature,
}

/// Body of a report whose sender is verified and whose rows are not parsed yet.
#[derive(Debug)]
pub struct PartnerReport {
    body: Vec<u8>,
    rows: usize,
}

impl PartnerReport {
    pub(super) fn of(mut body: Vec<u8>) -> Result<Self, PartnerError> {
        // An odd character in one row must not affect the others.
        as_text(&mut body);
        let rows = count_rows(&body)?;
        Ok(Self { body, rows })
    }

    /// Returns an estimate of the memory that parsing and answering the report takes at most beside its body, in bytes:
    /// that of its texts, plus a fixed amount for each row, however short.
    pub fn cost(&self) -> usize {
        self.body.len() + self.rows * ROW_COST
    }

    pub(super) async fn answer(
        self,
        responder: &Responder,
        partner: PartnerName,
    ) -> Result<Answered, PartnerError> {
        let rows = tokio::task::spawn_blocking(move || parse_report(&self.body))
            .await
            .map_err(|_| PartnerError::Died)??;
        answer(responder, partner, rows).await
    }
}

/// Takes keys out of the types of rows, which are sent back.
async fn redact_types(redactor: &Redactor, rows: &mut [Row]) {
    // `None` is a type without a key.
    let mut known: HashMap<Cow<'static, str>, Option<String>> = HashMap::new();
    let mut bytes = 0;
    for row in rows {
        let kind = &mut row.token_type;
        if let Some(redacted) = known.get(kind) {
            if let Some(redacted) = redacted {
                *kind = redacted.clone().into();
            }
            continue;
        }
        if known.len() >= MAX_TYPES {
            *kind = Cow::Borrowed(UNKNOWN_TYPE);
            continue;
        }
        // Of many types, all but the first wait for their turns.
        bytes += kind.len();
        let redacted = offload::in_turn(bytes, || match redactor.redact(kind) {
            Cow::Owned(redacted) => Some(redacted),
            Cow::Borrowed(_) => None,
        });
        let redacted = redacted.await;
        let sent = match &redacted {
            Some(redacted) => std::mem::replace(kind, redacted.clone().into()),
            None => kind.clone(),
        };
        known.insert(sent, redacted);
    }
}

/// Responds to the rows of a report of `partner`.
async fn answer(
    responder: &Responder,
    partner: PartnerName,
    mut rows: Vec<Row>,
) -> Result<Answered, PartnerError> {
    redact_types(responder.redactor(), &mut rows).await;
    let malformed = rows.iter().filter(|row| row.token.is_none()).count();
    let bytes = rows.iter().filter_map(|row| row.token.as_ref());
    let bytes = bytes.map(|token| token.expose().len()).sum();
    let digests: Vec<Sha256Digest> =
        offload::apart(bytes, || rows.iter().map(Row::token_hash).collect());
    let known = Known::of(responder.store(), digests.iter().copied()).await?;
    let detected_at = responder.clock().now();
    let mut feedback = Vec::with_capacity(rows.len());
    let (mut reported, mut sighted) = (Vec::new(), Vec::new());
    // Keys of ours are not so many that they had to be forgotten.
    let mut places = PlacesPerValue::new(PLACES_PER_KEY, usize::MAX);
    for (at, (row, digest)) in rows.iter_mut().zip(&digests).enumerate() {
        feedback.push(Feedback {
            token_hash: digest.to_hex(),
            token_type: std::mem::take(&mut row.token_type),
            label: Label::FalsePositive,
        });
        // Nothing else is needed of an unknown token, and a report may contain a hundred thousand of
        // them.
        if row.token.is_none() || !known.contains(digest) {
            *row = Row::default();
            continue;
        }
        reported.push((at, *digest));
        if places.admits(*digest) {
            sighted.push(at);
        }
    }
    let left_out = reported.len() - sighted.len();
    if left_out > 0 {
        tracing::warn!(
            actor = partner.source(),
            left_out,
            "a report names one key in very many places"
        );
    }
    let mut positive = HashSet::new();
    let mut revoked = HashSet::new();
    let mut turn = Turn::default();
    for piece in divided(&sighted, &digests) {
        let sightings = piece.iter().filter_map(|at| {
            let row = std::mem::take(&mut rows[*at]);
            let (url, source) = (row.url.as_deref(), row.source.as_deref());
            Some(Sighting {
                value: row.token?,
                place: partner_place(partner.source(), url, source),
                detected_at,
            })
        });
        let sightings = sightings.collect();
        let actor = partner.source();
        let reason = Reason::Leaked;
        let answers =
            responder.report_known(sightings, &known, understand, reason, actor, &mut turn);
        for (at, answer) in piece.iter().zip(answers.await?) {
            if answer.is_secret() {
                positive.insert(digests[*at]);
            }
            for outcome in answer.outcomes {
                if let Outcome::Revoked(key) = outcome {
                    revoked.insert(key.id);
                }
            }
        }
    }
    for (row, digest) in reported {
        if positive.contains(&digest) {
            feedback[row].label = Label::TruePositive;
        }
    }
    Ok(Answered {
        feedback,
        malformed,
        revoked: revoked.len(),
    })
}
