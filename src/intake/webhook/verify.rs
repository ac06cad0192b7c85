//! Verification that a delivery comes from somebody who knows the secret.
//!
//! GitHub, Gitea and Bitbucket sign the raw body with HMAC-SHA-256. GitLab sends its secret token in
//! plain text, or signs identifier, time and body according to Standard Webhooks. Sources:
//! <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>,
//! <https://docs.gitlab.com/user/project/integrations/webhooks/>,
//! <https://docs.gitea.com/usage/webhooks>,
//! <https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/>,
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

mod claims;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use reqwest::header::HeaderMap;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

use super::payload::{form_payload, is_form};
use crate::forge::Forge;
use claims::{Claim, gitea_digest, hub_digest, standard_claim, value};

/// Maximum difference between the time of a signed delivery and the server's, in seconds (Standard
/// Webhooks: 5 minutes).
const TOLERANCE: i64 = 300;

/// Error returned for a delivery that is not genuine. Every variant is a 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// The header that carries the proof is missing or empty.
    #[error("the header `{0}` is missing or empty; give the webhook a secret")]
    Missing(&'static str),
    /// Only GitHub's older signature is present.
    #[error("`X-Hub-Signature` (SHA-1) alone is no proof; `X-Hub-Signature-256` is missing")]
    Sha1Only,
    /// The proof is malformed, was made with a secret that is not configured, or was made over another
    /// body.
    #[error("the header `{0}` does not fit the body and any configured secret")]
    Mismatch(&'static str),
    /// The signature is valid, but its time is too far in the past or the future.
    #[error(
        "the delivery was signed more than 5 minutes away from this server's time (`webhook-timestamp`); \
         check both clocks"
    )]
    ClockSkew,
}

/// Verifier of one forge's deliveries.
#[derive(Debug)]
pub(super) struct Verifier {
    forge: Forge,
    secrets: Vec<SecretString>,
    /// The signing tokens of Standard Webhooks among the secrets, decoded.
    signing_keys: Vec<SecretSlice<u8>>,
}

impl Verifier {
    pub(super) fn new(forge: Forge, secrets: Vec<SecretString>) -> Self {
        let signing_keys = secrets.iter().filter_map(|secret| {
            let key = secret.expose_secret().strip_prefix("whsec_")?;
            Some(SecretSlice::from(STANDARD.decode(key).ok()?))
        });
        Self {
            forge,
            signing_keys: signing_keys.collect(),
            secrets,
        }
    }

    /// Checks that some body could fit the proof in the headers: the proof is present and well-formed.
    /// GitLab's secret token is already verified here, since it is the whole proof.
    pub(super) fn expects(&self, headers: &HeaderMap) -> Result<(), Unverified> {
        match self.forge {
            Forge::GitHub => {
                let header = "X-Hub-Signature-256";
                if value(headers, header).is_none() && value(headers, "X-Hub-Signature").is_some() {
                    return Err(Unverified::Sha1Only);
                }
                hub_digest(headers, header).map(drop)
            }
            Forge::GitLab if value(headers, "webhook-signature").is_some() => {
                standard_claim(headers).map(drop)
            }
            Forge::GitLab => self.token(headers),
            Forge::Gitea => gitea_digest(headers).map(drop),
            Forge::Bitbucket => hub_digest(headers, "X-Hub-Signature").map(drop),
        }
    }

    /// Verifies the proof over the bytes of the body exactly as they arrived.
    pub(super) fn verify(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), Unverified> {
        self.expects(headers)?;
        match self.forge {
            Forge::GitHub => self.hub(headers, "X-Hub-Signature-256", body),
            Forge::GitLab if value(headers, "webhook-signature").is_some() => {
                self.standard(headers, body, now)
            }
            Forge::GitLab => Ok(()),
            Forge::Gitea => self.gitea(headers, body),
            Forge::Bitbucket => self.hub(headers, "X-Hub-Signature", body),
        }
    }

    fn hub(
        &self,
        headers: &HeaderMap,
        header: &'static str,
        body: &[u8],
    ) -> Result<(), Unverified> {
        self.digest(&hub_digest(headers, header)?, header, body)
    }

    /// Verifies a delivery of Gitea. Unlike with GitHub, a form is signed over the JSON in it
    /// (`services/webhook/deliver.go` in <https://github.com/go-gitea/gitea>).
    fn gitea(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), Unverified> {
        let (claimed, header) = gitea_digest(headers)?;
        let form = if is_form(headers) {
            form_payload(body)
        } else {
            None
        };
        self.digest(&claimed, header, form.as_deref().unwrap_or(body))
    }

    fn digest(
        &self,
        claimed: &[u8; 32],
        header: &'static str,
        body: &[u8],
    ) -> Result<(), Unverified> {
        let mut fits = Choice::from(0);
        for secret in &self.secrets {
            fits |= hmac(secret.expose_secret().as_bytes(), &[body]).ct_eq(claimed);
        }
        accept(fits, header)
    }

    /// Verifies GitLab's secret token. Digests are compared, so that the length of a secret is not
    /// revealed.
    fn token(&self, headers: &HeaderMap) -> Result<(), Unverified> {
        let header = "X-Gitlab-Token";
        let token = value(headers, header).ok_or(Unverified::Missing(header))?;
        let mut fits = Choice::from(0);
        for secret in &self.secrets {
            let ours = hmac(b"", &[secret.expose_secret().as_bytes()]);
            fits |= ours.ct_eq(&hmac(b"", &[token]));
        }
        accept(fits, header)
    }

    /// Verifies a signature of Standard Webhooks: the HMAC over `{id}.{timestamp}.{body}`.
    fn standard(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<(), Unverified> {
        let Claim {
            id,
            signed_at,
            signatures,
        } = standard_claim(headers)?;
        let mut fits = Choice::from(0);
        for key in &self.signing_keys {
            let parts: [&[u8]; 5] = [id, b".", signed_at, b".", body];
            let ours = hmac(key.expose_secret(), &parts);
            for claimed in &signatures {
                fits |= ours.ct_eq(claimed);
            }
        }
        accept(fits, "webhook-signature")?;
        // Reported only to senders who have proved that they know the secret.
        let signed_at = str::from_utf8(signed_at).ok();
        let signed_at = signed_at.and_then(|text| text.parse::<i64>().ok());
        let distance = signed_at.and_then(|at| at.checked_sub(now.as_second()));
        match distance {
            Some(distance) if distance.unsigned_abs() <= TOLERANCE.unsigned_abs() => Ok(()),
            _ => Err(Unverified::ClockSkew),
        }
    }
}

fn accept(fits: Choice, header: &'static str) -> Result<(), Unverified> {
    if fits.into() {
        Ok(())
    } else {
        Err(Unverified::Mismatch(header))
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC accepts keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return [0; 32];
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};
    use serde_json::Value;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| {
                let name: HeaderName = name.parse().unwrap();
                (name, HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    fn verifier(forge: Forge, secrets: &[&str]) -> Verifier {
        Verifier::new(forge, secrets.iter().map(|&secret| secret.into()).collect())
    }

    fn now() -> Timestamp {
        "2026-11-22T20:46:15Z".parse().unwrap()
    }

    #[test]
    fn published_vectors_behave() {
        let text = include_str!("../../../fixtures/vectors/webhook_hmac.json");
        let vectors: Value = serde_json::from_str(text).unwrap();
        let vectors = vectors["x_hub_signature_256"].as_array().unwrap();
        assert_eq!(vectors.len(), 3);
        for vector in vectors {
            let text = |name: &str| vector[name].as_str().unwrap();
            let expected = vector["expected_valid"].as_bool().unwrap_or(true);
            let signed = headers(&[("x-hub-signature-256", text("signature"))]);
            for secrets in [[text("secret"), "another"], ["another", text("secret")]] {
                let receiver = verifier(Forge::GitHub, &secrets);
                let verified = receiver.verify(&signed, text("body").as_bytes(), now());
                assert_eq!(verified.is_ok(), expected, "{vector}");
            }
            let other = verifier(Forge::GitHub, &["another"]);
            let verified = other.verify(&signed, text("body").as_bytes(), now());
            assert_eq!(
                verified,
                Err(Unverified::Mismatch("X-Hub-Signature-256")),
                "{vector}"
            );
        }
    }

    #[test]
    fn every_bit_of_body_and_signature_counts() {
        let receiver = verifier(Forge::Gitea, &["s"]);
        let signature = hex::encode(hmac(b"s", &[b"{}"]));
        let check = |body: &[u8], header: &str, value: &str| {
            receiver.verify(&headers(&[(header, value)]), body, now())
        };
        for header in [
            "x-gitea-signature",
            "x-forgejo-signature",
            "x-gogs-signature",
        ] {
            assert_eq!(check(b"{}", header, &signature), Ok(()));
            assert!(check(b"{} ", header, &signature).is_err());
            assert!(check(b"{}", header, &format!("sha256={signature}")).is_err());
            assert!(check(b"{}", header, &signature[..62]).is_err());
            assert!(check(b"{}", header, &format!("{signature}00")).is_err());
        }
        let hub = format!("sha256={signature}");
        assert_eq!(check(b"{}", "x-hub-signature-256", &hub), Ok(()));
        assert_eq!(
            check(b"{}", "x-gitea-signature", ""),
            Err(Unverified::Missing("X-Gitea-Signature"))
        );
    }

    #[test]
    fn sha1_is_no_proof() {
        let receiver = verifier(Forge::GitHub, &["s"]);
        let sha1 = headers(&[(
            "x-hub-signature",
            "sha1=f75efc0f29bf50c23f99b30b86f7c78fdaf5f11d",
        )]);
        assert_eq!(
            receiver.verify(&sha1, b"{}", now()),
            Err(Unverified::Sha1Only)
        );
        let none = headers(&[]);
        let missing = Unverified::Missing("X-Hub-Signature-256");
        assert_eq!(receiver.verify(&none, b"{}", now()), Err(missing));
        let bitbucket = Verifier::new(Forge::Bitbucket, vec!["s".into()]);
        assert!(bitbucket.verify(&sha1, b"{}", now()).is_err());
    }

    #[test]
    fn gitlab_tokens_are_equal_or_not() {
        let receiver = verifier(Forge::GitLab, &["first", "second"]);
        for (token, expected) in [
            ("first", true),
            ("second", true),
            ("firs", false),
            ("first ", false),
            ("FIRST", false),
        ] {
            let headers = headers(&[("x-gitlab-token", token)]);
            let verified = receiver.verify(&headers, b"{}", now());
            assert_eq!(verified.is_ok(), expected, "{token}");
        }
    }

    #[test]
    fn gitlab_signatures_follow_standard_webhooks() {
        // The example of https://github.com/standard-webhooks/standard-webhooks (libraries/javascript).
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", r#"{"test": 2432232314}"#);
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let receiver = verifier(Forge::GitLab, &["plain", secret]);
        let check = |id: &str, signature: &str, now: i64| {
            let headers = headers(&[
                ("webhook-id", id),
                ("webhook-timestamp", "1614265330"),
                ("webhook-signature", signature),
                ("x-gitlab-token", "plain"),
            ]);
            let now = Timestamp::from_second(now).unwrap();
            receiver.verify(&headers, body.as_bytes(), now)
        };
        let at = 1_614_265_330;
        assert_eq!(check(id, signature, at), Ok(()));
        assert_eq!(check(id, &format!("v1,AAAA v2,x {signature}"), at), Ok(()));
        assert_eq!(check(id, signature, at + 300), Ok(()));
        for away in [301, -301, 100_000] {
            let skewed = check(id, signature, at + away);
            assert_eq!(skewed, Err(Unverified::ClockSkew));
        }
        let wrong = Err(Unverified::Mismatch("webhook-signature"));
        assert_eq!(check("msg_other", signature, at), wrong);
        // A wrong signature is refused even if the plain token next to it is right.
        assert_eq!(check(id, "v1,AAAA", at), wrong);
        assert_eq!(check(id, &signature.replace("v1,", ""), at), wrong);
    }

    #[test]
    fn gitea_signs_the_json_inside_a_form() {
        let receiver = verifier(Forge::Gitea, &["s"]);
        let signature = hex::encode(hmac(b"s", &[br#"{"a":"b c"}"#]));
        let headers = headers(&[
            ("content-type", "application/x-www-form-urlencoded"),
            ("x-gitea-signature", &signature),
        ]);
        let body = b"payload=%7B%22a%22%3A%22b+c%22%7D";
        assert_eq!(receiver.verify(&headers, body, now()), Ok(()));
        assert!(receiver.verify(&headers, b"payload=%7B%7D", now()).is_err());
    }
}
