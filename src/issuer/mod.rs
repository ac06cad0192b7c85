//! Issuance of keys and access tokens: minting, changing, rotating and importing them.
//!
//! Rotations, and revocations that are part of a change, are logged in the same transaction.

mod given;
mod import;
mod keys;
mod request;
mod tokens;

pub use given::{end_at, is_blank, time};
pub use import::{COLUMNS, ImportRow, RowError, RowFormat, UNNAMED_FORMAT, parse_rows};
pub use keys::Rotation;
pub use request::{IssueError, IssueRequest, Once, RequestName, RotateRequest};
pub use tokens::{FirstToken, MintTokenError, Show, mint_token};

use crate::clock::SharedClock;
use crate::keyformat::FormatSet;
use crate::respond::Responder;
use crate::scan::Redactor;
use crate::store::Store;

/// Identifiers of the key formats in which new keys are minted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerFormats {
    /// Format of secret keys and access tokens.
    pub secret: String,
    /// Format of public keys.
    pub public: String,
}

/// Operations on keys other than the response to their leaks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Issuer {
    responder: Responder,
    minting: IssuerFormats,
}

impl Issuer {
    /// Creates an issuer that mints in the formats `minting`. Keys that a change revokes are revoked by `responder`.
    pub fn new(responder: Responder, minting: IssuerFormats) -> Self {
        Self { responder, minting }
    }

    /// Returns the responder to leaks of the same keys.
    pub fn responder(&self) -> &Responder {
        &self.responder
    }

    /// Returns the formats in which new keys are minted.
    pub fn minting(&self) -> &IssuerFormats {
        &self.minting
    }

    fn store(&self) -> &Store {
        self.responder.store()
    }

    fn formats(&self) -> &FormatSet {
        self.responder.formats()
    }

    fn redactor(&self) -> &Redactor {
        self.responder.redactor()
    }

    fn clock(&self) -> &SharedClock {
        self.responder.clock()
    }
}
