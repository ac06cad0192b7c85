//! Reports of partners: verify the raw bytes, read the rows, hand them on, answer every row.
//!
//! GitHub began it; GitLab and deps.dev do the same with headers and keys of their own. A [`Partner`] knows
//! the keys of one of them only, so that nobody's key verifies somebody else's report.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use serde::Serialize;

use super::place::partner_place;
use super::public_keys::{NoKey, PublicKeys};
use super::rows::{ReportError, Row, count_rows, parse_report};
use super::signature::{ReportKey, ReportSignature, SignatureError};
use crate::keyformat::Sha256Digest;
use crate::respond::{Outcome, Responder, Sighting};
use crate::store::{Reason, StoreError};

/// The largest report that is read, in bytes.
pub const MAX_REPORT: usize = 25 << 20;

/// The longest key identifier that is looked up. GitHub's have 64 characters.
const MAX_IDENTIFIER: usize = 128;

/// The places of one key that one report adds.
const PLACES_PER_KEY: u32 = 1000;

/// What a row takes besides its texts while it is read and answered, in bytes.
const ROW_COST: usize = 512;

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

impl From<NoKey> for PartnerError {
    fn from(none: NoKey) -> Self {
        match none {
            NoKey::Unknown => Self::UnknownKey,
            NoKey::Unavailable { retry_after } => Self::KeysUnavailable { retry_after },
        }
    }
}

/// The answer to one row, in the form GitHub documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Feedback {
    /// SHA-256 of the token as sent, in lower-case hex.
    pub token_hash: String,
    /// The row's `type` as sent, or `unknown`.
    #[schema(value_type = String)]
    pub token_type: Cow<'static, str>,
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

    /// Returns the names of the headers that it signs with.
    pub fn headers(&self) -> [&str; 2] {
        [
            &self.options.key_identifier_header,
            &self.options.signature_header,
        ]
    }

    /// Looks at the headers of a report before anybody reads its body.
    ///
    /// # Errors
    /// [`PartnerError`] when no body could make the report genuine, or none could be checked at present.
    pub fn proof(&self, headers: &HeaderMap) -> Result<ReportProof, PartnerError> {
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
        if let Some(none) = self.keys.refusal(identifier) {
            return Err(none.into());
        }
        Ok(ReportProof {
            identifier: identifier.to_owned(),
            signature,
        })
    }

    /// The public key that a report names, fetched if need be.
    ///
    /// # Errors
    /// [`PartnerError`] when there is none, or it cannot be had.
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
    /// [`PartnerError`] when it is not genuine, or is no report.
    pub async fn verify(
        &self,
        proof: ReportProof,
        key: ReportKey,
        body: Vec<u8>,
    ) -> Result<Report, PartnerError> {
        // Hashing and reading 25 MiB takes a tenth of a second, which other requests must not wait.
        tokio::task::spawn_blocking(move || {
            key.verify(&body, &proof.signature)?;
            Report::of(body)
        })
        .await
        .map_err(|_| PartnerError::Died)?
    }

    /// Responds to a verified report, row by row.
    ///
    /// # Errors
    /// [`PartnerError`]; nothing was changed then.
    pub async fn receive(&self, report: Report) -> Result<Answered, PartnerError> {
        report.answer(&self.responder, &self.actor).await
    }
}

/// What the body of a report has to fit.
#[derive(Debug)]
pub struct ReportProof {
    identifier: String,
    signature: ReportSignature,
}

/// The body of a report whose sender is known, not read yet.
#[derive(Debug)]
pub struct Report {
    body: Vec<u8>,
    rows: usize,
}

impl Report {
    pub(super) fn of(body: Vec<u8>) -> Result<Self, PartnerError> {
        let rows = count_rows(&body)?;
        Ok(Self { body, rows })
    }

    /// How many bytes reading and answering it takes at most, give or take: its texts twice, and what there is
    /// of each row however short.
    pub fn cost(&self) -> usize {
        2 * self.body.len() + self.rows * ROW_COST
    }

    pub(super) async fn answer(
        self,
        responder: &Responder,
        actor: &str,
    ) -> Result<Answered, PartnerError> {
        let rows = tokio::task::spawn_blocking(move || parse_report(&self.body))
            .await
            .map_err(|_| PartnerError::Died)??;
        answer(responder, actor, rows).await
    }
}

/// Responds to the rows of a report of `actor`.
async fn answer(
    responder: &Responder,
    actor: &str,
    rows: Vec<Row>,
) -> Result<Answered, PartnerError> {
    let malformed = rows.iter().filter(|row| row.token.is_none()).count();
    let digests: Vec<Sha256Digest> = rows.iter().map(Row::token_hash).collect();
    let ours = known_of(responder, &digests).await?;
    let detected_at = responder.clock().now();
    let mut feedback = Vec::with_capacity(rows.len());
    let mut reported = Vec::new();
    let mut sightings = Vec::new();
    let mut places: HashMap<Sha256Digest, u32> = HashMap::new();
    for (row, digest) in rows.into_iter().zip(&digests) {
        feedback.push(Feedback {
            token_hash: digest.to_hex(),
            token_type: row.token_type,
            label: Label::FalsePositive,
        });
        // Of nobody's token nothing else is needed, and a report may have a hundred thousand of them.
        let Some(value) = row.token.filter(|_| ours.contains(digest)) else {
            continue;
        };
        reported.push((feedback.len() - 1, *digest));
        let seen = places.entry(*digest).or_default();
        *seen += 1;
        if *seen <= PLACES_PER_KEY {
            let (url, source) = (row.url.as_deref(), row.source.as_deref());
            let place = partner_place(actor, url, source, &value, responder.redactor());
            sightings.push(Sighting {
                value,
                place,
                detected_at,
            });
        }
    }
    let left_out = reported.len() - sightings.len();
    if left_out > 0 {
        tracing::warn!(
            actor,
            left_out,
            "a report names one key in very many places"
        );
    }
    let sighted: Vec<Sha256Digest> = sightings.iter().map(|s| s.value.sha256()).collect();
    let answers = if sightings.is_empty() {
        Vec::new()
    } else {
        let reported = responder.report_from_outside(sightings, Reason::Leaked, actor);
        reported.await?
    };
    let mut positive = HashSet::new();
    let mut revoked = HashSet::new();
    for (digest, answer) in sighted.into_iter().zip(answers) {
        if answer.is_secret() {
            positive.insert(digest);
        }
        for outcome in answer.outcomes {
            if let Outcome::Revoked(key) = outcome {
                revoked.insert(key.id);
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

/// Which of the digests are of keys or access tokens of ours.
async fn known_of(
    responder: &Responder,
    digests: &[Sha256Digest],
) -> Result<HashSet<Sha256Digest>, StoreError> {
    let distinct: HashSet<Sha256Digest> = digests.iter().copied().collect();
    let distinct: Vec<Sha256Digest> = distinct.into_iter().collect();
    let keys = responder.store().find_keys(&distinct).await?;
    let tokens = responder.store().find_tokens(&distinct).await?;
    Ok(keys.into_keys().chain(tokens.into_keys()).collect())
}
