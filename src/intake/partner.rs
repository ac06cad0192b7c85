//! Partner reports: verify the raw bytes, parse the rows, respond to them, and answer every row.
//!
//! The scheme is GitHub's; GitLab and deps.dev use it with headers and keys of their own. A [`Partner`]
//! holds the keys of one partner only, so that no partner's key verifies another partner's report.

mod name;
mod report;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use serde::Serialize;

pub use name::PartnerName;
pub use report::PartnerReport;

use super::public_keys::{NoKey, PublicKeys};
use super::rows::ReportError;
use super::signature::{ReportKey, ReportSignature, SignatureError};
use crate::respond::Responder;
use crate::store::StoreError;

/// Maximum size of a report, in bytes.
pub const MAX_REPORT: usize = 25 << 20;

/// Maximum length of a key identifier that is looked up, in bytes. GitHub's have 64 characters.
const MAX_IDENTIFIER: usize = 128;

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
    /// 413: the report has too many rows.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// 400: no row of the body could be read. Keys of ours that are in it were acted upon.
    #[error(
        "the body is not a JSON array of rows, and no row of it could be read; its text was searched for keys: of {found} that \
         could be some, {revoked} were revoked"
    )]
    NoRows {
        /// Number of strings in the text that have the shape of a key.
        found: usize,
        /// Number of keys that were revoked.
        revoked: usize,
    },
    /// Usually 503: the report can be sent again. What was revoked before stays revoked.
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
    /// Number of keys that this report revoked, whether a row named them or not.
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
    /// Returns a [`PartnerError`] if the body is not genuine, or has too many rows.
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
    /// Returns [`PartnerError::NoRows`] if there is no row to answer, after keys in the text were acted upon. Returns any
    /// other [`PartnerError`] if the report could not be answered; it can be sent again.
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
