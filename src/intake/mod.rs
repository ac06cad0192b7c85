//! Intake of reports from third parties: verified on their raw bytes, parsed leniently, and passed on.
//!
//! A report of GitHub, GitLab or deps.dev is handled by its [`Partner`]: [`ReportSignature`] and
//! [`PublicKeys`] establish that it is genuine, [`parse_report`] splits it into rows, and the rows become
//! sightings for the [`Responder`](crate::respond::Responder). [`self_report`] does the same for a single
//! key that somebody presents. Deliveries of forges about pushes and texts are handled by a
//! [`webhook::Webhook`].

mod partner;
mod place;
mod public_keys;
mod revocation;
mod rows;
mod self_report;
mod signature;
mod token;
pub mod webhook;
mod wide;

pub(crate) use crate::fetch::as_json as mended_json;
pub use partner::{
    Answered, Feedback, Label, MAX_REPORT, Partner, PartnerError, PartnerName, PartnerOptions,
    PartnerReport, ReportProof,
};
pub use public_keys::{NoKey, PublicKeyTimings, PublicKeys};
pub use revocation::RevocationApi;
pub use rows::{MAX_ROWS, ReportError, Row, UNKNOWN_TYPE, count_rows, parse_report};
pub use self_report::{SelfReport, self_report};
pub use signature::{ReportKey, ReportSignature, SignatureError};
pub use token::key_within;
