//! GitLab's token revocation API: what a GitLab instance asks of whoever can revoke what its secret detection
//! finds.
//!
//! Source: <https://docs.gitlab.com/development/sec/token_revocation_api/>. The pre-shared token stands in
//! `Authorization` as it is; behind `Bearer` it is taken, too. `type` is a finding's identifier, such as
//! `gitleaks_rule_id_` and the id of a rule; here it decides nothing.

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::partner::{Answered, PartnerError, Report};
use crate::keyformat::Visibility;
use crate::respond::Responder;

/// What GitLab puts in front of the id of a rule.
const RULE: &str = "gitleaks_rule_id_";

/// Who does what a request leads to, in the revocation log. The findings are GitLab's, as those of its
/// partner programme.
const ACTOR: &str = "partner:gitlab";

/// The receiving end of the token revocation API.
#[derive(Debug)]
pub struct RevocationApi {
    tokens: Vec<SecretString>,
    responder: Responder,
}

impl RevocationApi {
    /// Whoever presents one of `tokens` may report; `responder` revokes.
    pub fn new(tokens: Vec<SecretString>, responder: Responder) -> Self {
        Self { tokens, responder }
    }

    /// Which of the tokens the value of `Authorization` is, counted from 0, as it is or behind `Bearer`. Digests
    /// are compared, and all of them, so that the time it takes tells nothing, not even a length.
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

    /// The types that may be sent: for each secret format its id, and the identifier under which GitLab
    /// knows the findings of a rule of that id.
    pub fn types(&self) -> Vec<String> {
        let formats = self.responder.formats().iter();
        let secret = formats.filter(|format| format.visibility() == Visibility::Secret);
        let types = secret.flat_map(|format| {
            let id = format.id().to_owned();
            [format!("{RULE}{id}"), id]
        });
        let mut types: Vec<String> = types.collect();
        types.sort();
        types
    }

    /// Looks how much an admitted request asks for.
    ///
    /// # Errors
    /// [`PartnerError::Report`] when the body is no list, or too long a one.
    pub async fn look_at(&self, body: Vec<u8>) -> Result<Report, PartnerError> {
        tokio::task::spawn_blocking(move || Report::of(body))
            .await
            .map_err(|_| PartnerError::Died)?
    }

    /// Revokes what an admitted request names and is a key of ours.
    ///
    /// # Errors
    /// [`PartnerError::Report`] when the body is no list after all, and any failure of the database; nothing was
    /// changed then.
    pub async fn revoke(&self, report: Report) -> Result<Answered, PartnerError> {
        report.answer(&self.responder, ACTOR).await
    }
}

/// What stands behind the scheme `Bearer`, which is written in any case (RFC 9110, 11.1).
fn without_bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}
