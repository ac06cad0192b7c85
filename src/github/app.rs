//! Authentication as a GitHub App: a signed JWT that identifies the app is exchanged for the tokens of an
//! installation.
//!
//! Source: <https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app>. The available
//! client libraries pull in another TLS or RSA implementation; ring, which is a dependency anyway, signs as well
//! (`docs/decisions/0009-github-without-octocrab.md`).

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, Method, Url};
use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::Mutex;

use super::answer::{read_body, refusal};
use super::error::GitHubError;
use super::request::Request;
use crate::clock::SharedClock;

/// Offset of a JWT's issue time, which allows for GitHub's clock being behind the local one.
const ISSUED: SignedDuration = SignedDuration::from_secs(-60);

/// Lifetime of a JWT. GitHub accepts at most ten minutes.
const EXPIRES: SignedDuration = SignedDuration::from_mins(9);

/// Remaining lifetime below which a token is replaced.
const MARGIN: SignedDuration = SignedDuration::from_mins(5);

/// Maximum size of a response, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// An app's private key cannot be used. The error reveals nothing about the key itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AppKeyError {
    /// The text is not a private key in PEM form.
    #[error(
        "it is no private key in PEM form, as GitHub lets it be downloaded (BEGIN RSA PRIVATE KEY)"
    )]
    NotPem,
    /// The key is not an RSA key that can sign.
    #[error("it is no RSA key of 2048 to 4096 bits")]
    NotRsa,
    /// Signing failed.
    #[error("it could not sign")]
    Signing,
}

/// Identity of a GitHub App: its id and its private key.
pub struct AppAuth {
    id: u64,
    key: KeyPair,
    random: SystemRandom,
}

impl fmt::Debug for AppAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppAuth({})", self.id)
    }
}

impl AppAuth {
    /// Creates the identity of the app `id`. The key is in PEM form: PKCS#1, as issued by GitHub, or PKCS#8.
    ///
    /// # Errors
    /// Returns [`AppKeyError::NotPem`] or [`AppKeyError::NotRsa`] if `private_key` is not such a key.
    pub fn new(id: u64, private_key: &SecretString) -> Result<Self, AppKeyError> {
        let pem = private_key.expose_secret().as_bytes();
        let key = match PrivateKeyDer::from_pem_slice(pem) {
            Ok(PrivateKeyDer::Pkcs1(der)) => KeyPair::from_der(der.secret_pkcs1_der()),
            Ok(PrivateKeyDer::Pkcs8(der)) => KeyPair::from_pkcs8(der.secret_pkcs8_der()),
            _ => return Err(AppKeyError::NotPem),
        };
        Ok(Self {
            id,
            key: key.map_err(|_| AppKeyError::NotRsa)?,
            random: SystemRandom::new(),
        })
    }

    /// Returns a JWT that identifies the app, to be sent as a bearer token within nine minutes of `now`. The JWT is
    /// signed with RS256 (RFC 7519, RFC 7518 §3.3).
    ///
    /// # Errors
    /// Returns [`AppKeyError::Signing`] if the key cannot sign, or `now` is out of range.
    pub fn jwt(&self, now: Timestamp) -> Result<SecretString, AppKeyError> {
        let at = |distance| now.saturating_add(distance).map(Timestamp::as_second);
        let (Ok(issued), Ok(expires)) = (at(ISSUED), at(EXPIRES)) else {
            return Err(AppKeyError::Signing);
        };
        let claims = format!(r#"{{"iat":{issued},"exp":{expires},"iss":"{}"}}"#, self.id);
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
        let mut jwt = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &self.random,
                jwt.as_bytes(),
                &mut signature,
            )
            .map_err(|_| AppKeyError::Signing)?;
        jwt.push('.');
        jwt.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(jwt.into())
    }
}

/// An installation of an app, which keeps an access token and renews it before it expires.
#[derive(Debug)]
pub struct Installation {
    auth: Arc<AppAuth>,
    client: Client,
    api_url: Url,
    /// Id of the installation, or the path to look it up.
    id: InstallationId,
    clock: SharedClock,
    token: Mutex<Option<Token>>,
}

/// Identifier of an installation of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstallationId {
    /// The installation with this id.
    Known(u64),
    /// The installation for the resource at this path below the API's base, such as `orgs/acme`.
    Of(Vec<String>),
}

#[derive(Debug)]
struct Token {
    value: SecretString,
    expires_at: Timestamp,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: SecretString,
    expires_at: Timestamp,
}

#[derive(Deserialize)]
struct InstallationAnswer {
    id: u64,
}

impl Installation {
    /// Creates an installation. Sends no request yet.
    pub fn new(
        auth: Arc<AppAuth>,
        id: InstallationId,
        client: Client,
        api_url: Url,
        clock: SharedClock,
    ) -> Self {
        Self {
            auth,
            client,
            api_url,
            id,
            clock,
            token: Mutex::default(),
        }
    }

    /// Returns a token that is valid for at least five more minutes.
    ///
    /// # Errors
    /// Returns a [`GitHubError`] if GitHub issues none.
    pub async fn token(&self) -> Result<SecretString, GitHubError> {
        let mut held = self.token.lock().await;
        let now = self.clock.now();
        if let Some(token) = &*held
            && token.expires_at.duration_since(now) > MARGIN
        {
            return Ok(token.value.clone());
        }
        let answer = self.ask().await?;
        let fresh = held.insert(Token {
            value: answer.token,
            expires_at: answer.expires_at,
        });
        Ok(fresh.value.clone())
    }

    /// Discards the token, because GitHub no longer accepts it.
    pub async fn forget(&self) {
        *self.token.lock().await = None;
    }

    async fn ask(&self) -> Result<TokenAnswer, GitHubError> {
        let id = match &self.id {
            InstallationId::Known(id) => *id,
            InstallationId::Of(path) => {
                let path = path.iter().map(String::as_str).chain(["installation"]);
                let answer: InstallationAnswer = self.call(Method::GET, path).await?;
                answer.id
            }
        };
        let id = id.to_string();
        let path = ["app", "installations", &id, "access_tokens"];
        self.call(Method::POST, path).await
    }

    async fn call<'p, T: DeserializeOwned>(
        &self,
        method: Method,
        path: impl IntoIterator<Item = &'p str>,
    ) -> Result<T, GitHubError> {
        let mut url = self.api_url.clone();
        url.path_segments_mut()
            .map_err(|()| GitHubError::Address("it cannot carry a path"))?
            .pop_if_empty()
            .extend(path);
        let jwt = self.auth.jwt(self.clock.now());
        let jwt = jwt.map_err(|_| GitHubError::App("its private key could not sign"))?;
        let request = Request {
            method,
            url: &url,
            token: Some(&jwt),
            etag: None,
        };
        let mut response = request.send(&self.client).await?;
        if !response.status().is_success() {
            return Err(refusal(&mut response, self.clock.now()).await);
        }
        let body = read_body(&mut response, MAX_ANSWER).await?;
        serde_json::from_slice(&body)
            .map_err(|_| GitHubError::App("the answer to its request for a token cannot be read"))
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
    use serde_json::{Value, json};

    use super::*;

    /// Generated for these tests, and used nowhere else.
    const PKCS1: &str = include_str!("../../fixtures/github/app_test_key.pem");
    const PKCS8: &str = include_str!("../../fixtures/github/app_test_key_pkcs8.pem");

    #[test]
    fn signs_a_claim_that_holds_for_nine_minutes() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        for pem in [PKCS1, PKCS8] {
            let auth = AppAuth::new(12345, &pem.into()).unwrap();
            let jwt = auth.jwt(now).unwrap();
            let jwt = jwt.expose_secret();
            let (signed, signature) = jwt.rsplit_once('.').unwrap();
            let (header, claims) = signed.split_once('.').unwrap();
            let json = |text: &str| -> Value {
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
            };
            assert_eq!(json(header), json!({"alg": "RS256", "typ": "JWT"}));
            let at = now.as_second();
            let expected = json!({"iat": at - 60, "exp": at + 540, "iss": "12345"});
            assert_eq!(json(claims), expected);
            let public = auth.key.public().as_ref().to_vec();
            let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public);
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            assert!(public.verify(signed.as_bytes(), &signature).is_ok());
            assert_eq!(format!("{auth:?}"), "AppAuth(12345)");
        }
    }

    #[test]
    fn what_is_no_private_key_is_refused_without_being_shown() {
        for text in [
            "",
            "sesame",
            &PKCS1[..200],
            "-----BEGIN RSA PRIVATE KEY-----",
        ] {
            assert_eq!(
                AppAuth::new(1, &text.into()).unwrap_err(),
                AppKeyError::NotPem
            );
        }
    }
}
