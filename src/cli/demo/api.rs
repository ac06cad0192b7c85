//! Client for the few HTTP API calls of the demo, as any backend would make them.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde_json::{Value, json};

use crate::fetch::send;
use crate::keyformat::KeyValue;

/// Maximum time without an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Client of a running daemon.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    url: String,
    token: KeyValue,
}

/// Result of checking a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checked {
    /// The key is valid.
    Valid,
    /// The key is not valid, with the error code that says why.
    Refused(String),
}

/// Entry of the revocation log, reduced to the fields of the timeline.
#[derive(Debug, Clone)]
pub(super) struct Revocation {
    /// Time of the detection.
    pub(super) detected_at: Timestamp,
    /// Time of the revocation.
    pub(super) at: Timestamp,
    /// Source that detected the key.
    pub(super) source: String,
}

impl Api {
    /// Creates a client of the daemon at `url` with an access token.
    pub(super) fn new(client: Client, url: &str, token: KeyValue) -> Self {
        Self {
            client,
            url: url.to_owned(),
            token,
        }
    }

    /// Mints a key for a user. Returns its identifier and value.
    ///
    /// # Errors
    /// Returns an error if the request fails or is refused.
    pub(super) async fn mint(
        &self,
        user: &str,
        description: &str,
        public: bool,
    ) -> anyhow::Result<(String, KeyValue)> {
        let body = json!({
            "user_id": user,
            "description": description,
            "expires_at_millis": null,
            "is_public": public,
        });
        let (status, answer) = self.post("/api/v1/user-api-keys", &body).await?;
        ensure!(
            status.is_success(),
            "minting a key was refused with {status}: {}",
            answer["code"]
        );
        let id = answer["id"]
            .as_str()
            .context("a new key has no id")?
            .to_owned();
        let value = answer["value"].as_str().context("a new key has no value")?;
        Ok((id, KeyValue::new(value)))
    }

    /// Checks whether a key is valid.
    ///
    /// # Errors
    /// Returns an error if the request fails, or is refused without an error code.
    pub(super) async fn check(&self, key: &KeyValue) -> anyhow::Result<Checked> {
        let body = json!({ "api_key": key.expose() });
        let (status, answer) = self.post("/api/v1/user-api-keys/check", &body).await?;
        if status.is_success() {
            return Ok(Checked::Valid);
        }
        match answer["code"].as_str() {
            Some(code) => Ok(Checked::Refused(code.to_owned())),
            None => bail!("a check was answered with {status} and no error code"),
        }
    }

    /// Returns the log entry that revoked the key, if there is one yet.
    ///
    /// # Errors
    /// Returns an error if the request fails or its response is malformed.
    pub(super) async fn revocation(&self, key_id: &str) -> anyhow::Result<Option<Revocation>> {
        let request = |url| self.client.get(url).bearer_auth(self.token.expose());
        let answer = self.ask("/api/v1/revocations?limit=200", request).await?;
        let answer: Value = answer.error_for_status()?.json().await?;
        let items = answer["items"]
            .as_array()
            .context("the revocation log has no items")?;
        let Some(entry) = items
            .iter()
            .find(|entry| entry["key_id"] == key_id && entry["action"] == "revoked")
        else {
            return Ok(None);
        };
        let time = |name: &str| -> anyhow::Result<Timestamp> {
            let text = entry[name]
                .as_str()
                .with_context(|| format!("an entry has no {name}"))?;
            Ok(text.parse()?)
        };
        Ok(Some(Revocation {
            detected_at: time("detected_at")?,
            at: time("at")?,
            source: entry["occurrence"]["source"]
                .as_str()
                .unwrap_or("?")
                .to_owned(),
        }))
    }

    /// Sends a signed partner report and returns its feedback rows.
    ///
    /// # Errors
    /// Returns an error if the request fails or is refused.
    pub(super) async fn partner_report(
        &self,
        body: Vec<u8>,
        identifier: &str,
        signature: &str,
    ) -> anyhow::Result<Vec<Value>> {
        let request = |url| {
            let request = self.client.post(url).body(body.clone());
            request
                .header("content-type", "application/json")
                .header("github-public-key-identifier", identifier)
                .header("github-public-key-signature", signature)
        };
        let path = "/webhooks/github/secret-scanning";
        let answer = self.ask(path, request).await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<(StatusCode, Value)> {
        let request = |url| {
            let request = self.client.post(url).bearer_auth(self.token.expose());
            request.json(body)
        };
        let answer = self.ask(path, request).await?;
        Ok((answer.status(), answer.json().await?))
    }

    async fn ask(
        &self,
        path: &str,
        request: impl Fn(Url) -> RequestBuilder,
    ) -> anyhow::Result<Response> {
        let url = Url::parse(&format!("{}{path}", self.url))?;
        Ok(send(&url, PATIENCE, request).await?)
    }
}
