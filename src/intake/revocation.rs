//! GitLab's token revocation API, which a GitLab instance calls to revoke the tokens that its secret
//! detection finds.
//!
//! Source: <https://docs.gitlab.com/development/sec/token_revocation_api/>. The pre-shared token is the
//! value of `Authorization`; it is accepted after `Bearer` as well. `type` is the identifier of a
//! finding, such as `gitleaks_rule_id_` followed by the id of a rule; it has no effect here.

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::partner::{Answered, PartnerError, PartnerName, PartnerReport};
use crate::respond::Responder;

/// Prefix that GitLab puts before the identifier of a rule.
const RULE: &str = "gitleaks_rule_id_";

/// Receiver of the token revocation API.
#[derive(Debug)]
pub struct RevocationApi {
    tokens: Vec<SecretString>,
    responder: Responder,
}

impl RevocationApi {
    /// Creates a receiver that admits whoever presents one of `tokens` and revokes through `responder`.
    pub fn new(tokens: Vec<SecretString>, responder: Responder) -> Self {
        Self { tokens, responder }
    }

    /// Returns the index of the token that the value of `Authorization` contains, as it is or after
    /// `Bearer`. Returns `None` if it contains none of them.
    ///
    /// Digests are compared, and all of them, so that the time taken reveals nothing, not even a length.
    pub fn admits(&self, authorization: Option<&[u8]>) -> Option<u32> {
        let presented = authorization.unwrap_or_default();
        let plain = Sha256::digest(presented);
        let bare = Sha256::digest(without_bearer(presented).unwrap_or(presented));
        let mut admitted = 0_u32;
        for (number, token) in (1..).zip(&self.tokens) {
            let ours = Sha256::digest(token.expose_secret().as_bytes());
            let same = ours.as_slice().ct_eq(&plain) | ours.as_slice().ct_eq(&bare);
            admitted.conditional_assign(&number, same);
        }
        admitted.checked_sub(1)
    }

    /// Returns the types that may be sent, sorted: for each secret format its identifier, and the
    /// identifier under which GitLab reports the findings of a rule with that name.
    pub fn types(&self) -> Vec<String> {
        let secret = self.responder.formats().secret();
        let types = secret.flat_map(|(_, format)| {
            let id = format.id().to_owned();
            [format!("{RULE}{id}"), id]
        });
        let mut types: Vec<String> = types.collect();
        types.sort();
        types
    }

    /// Counts the rows of an admitted request.
    ///
    /// # Errors
    /// Returns [`PartnerError::Report`] if the body is not a list, or has too many rows.
    pub async fn look_at(&self, body: Vec<u8>) -> Result<PartnerReport, PartnerError> {
        tokio::task::spawn_blocking(move || PartnerReport::of(body))
            .await
            .map_err(|_| PartnerError::Died)?
    }

    /// Revokes the known keys that an admitted request names.
    ///
    /// # Errors
    /// Returns [`PartnerError::Report`] if the body turns out not to be a list, and any failure of the
    /// database. Keys beside rows may be revoked already; the report can be sent again.
    pub async fn revoke(&self, report: PartnerReport) -> Result<Answered, PartnerError> {
        // The findings are GitLab's, like those of its partner program.
        report.answer(&self.responder, PartnerName::GitLab).await
    }
}

/// Returns the credentials after the scheme `Bearer`, which is case-insensitive (RFC 9110 section 11.1).
fn without_bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}
