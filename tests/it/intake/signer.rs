//! A partner that signs reports with keys of its own.

use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::{EncodePublicKey as _, LineEnding};
use serde_json::{Value, json};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use std::sync::Arc;

use crate::api::harness::{Reply, Setup, TestServer};

pub(crate) const ENDPOINT: &str = "/webhooks/github/secret-scanning";
pub(crate) const IDENTIFIER: &str = "Github-Public-Key-Identifier";
pub(crate) const SIGNATURE: &str = "Github-Public-Key-Signature";

/// A key pair with its identifier.
pub(crate) struct Signer {
    pub(crate) identifier: String,
    key: SigningKey,
}

impl Signer {
    pub(crate) fn new(identifier: &str) -> Self {
        let key = loop {
            if let Ok(key) = SigningKey::from_slice(&rand::random::<[u8; 32]>()) {
                break key;
            }
        };
        Self {
            identifier: identifier.to_owned(),
            key,
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.key
            .verifying_key()
            .to_public_key_pem(LineEnding::LF)
            .unwrap()
    }

    pub(crate) fn listed(&self) -> Value {
        json!({"key_identifier": self.identifier, "key": self.pem(), "is_current": true})
    }

    pub(crate) fn raw_signature(&self, body: &[u8]) -> Signature {
        self.key.sign(body)
    }

    pub(crate) fn sign(&self, body: &[u8]) -> String {
        STANDARD.encode(self.raw_signature(body).to_der())
    }

    /// Sends a signed body.
    pub(crate) async fn send(&self, server: &TestServer, body: impl Into<Vec<u8>>) -> Reply {
        let body = body.into();
        let signature = self.sign(&body);
        send(server, Some(&self.identifier), Some(&signature), body).await
    }
}

pub(crate) async fn send(
    server: &TestServer,
    identifier: Option<&str>,
    signature: Option<&str>,
    body: impl Into<reqwest::Body>,
) -> Reply {
    let mut request = server
        .http
        .post(server.url(ENDPOINT))
        .header("content-type", "application/json");
    if let Some(identifier) = identifier {
        request = request.header(IDENTIFIER, identifier);
    }
    if let Some(signature) = signature {
        request = request.header(SIGNATURE, signature);
    }
    Reply::of(request.body(body)).await
}

/// Server at which GitHub publishes its keys. Its response can be changed at any time.
pub(crate) struct Origin {
    server: MockServer,
    answer: Arc<Mutex<ResponseTemplate>>,
}

impl Origin {
    pub(crate) async fn start(keys: &[Value]) -> Self {
        let server = MockServer::start().await;
        let answer = Arc::new(Mutex::new(list(keys)));
        let current = Arc::clone(&answer);
        Mock::given(method("GET"))
            .and(path("/meta/public_keys/secret_scanning"))
            .respond_with(move |_: &Request| current.lock().unwrap().clone())
            .mount(&server)
            .await;
        Self { server, answer }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/meta/public_keys/secret_scanning", self.server.uri())
    }

    pub(crate) fn publish(&self, keys: &[Value]) {
        self.answer_with(list(keys));
    }

    pub(crate) fn answer_with(&self, answer: ResponseTemplate) {
        *self.answer.lock().unwrap() = answer;
    }

    /// Returns the number of times the list was fetched.
    pub(crate) async fn fetches(&self) -> usize {
        self.server.received_requests().await.unwrap().len()
    }

    /// The last request for the list.
    pub(crate) async fn last_request(&self) -> Request {
        let requests = self.server.received_requests().await.unwrap();
        requests.into_iter().next_back().unwrap()
    }

    pub(crate) fn setup(&self) -> Setup {
        Setup {
            public_keys_url: Some(self.url()),
            ..Setup::default()
        }
    }
}

pub(crate) fn list(keys: &[Value]) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({ "public_keys": keys }))
}

/// A server, the origin of its partner's keys, and the partner.
pub(crate) async fn partnership() -> (TestServer, Origin, Signer) {
    let signer = Signer::new("k1");
    let origin = Origin::start(&[signer.listed()]).await;
    let server = TestServer::start_with(origin.setup()).await;
    (server, origin, signer)
}
