//! Forges that send deliveries.

use hmac::{Hmac, KeyInit as _, Mac as _};
use rescind::forge::Forge;
use rescind::intake::webhook::{ClonePlaces, WebhookOptions};
use sha2::Sha256;

use crate::api::harness::{Reply, Setup, TestServer};

pub(crate) const SECRET: &str = "It's a Secret to Everybody";

/// Returns the webhook options of a forge.
pub(super) fn options(forge: Forge) -> WebhookOptions {
    WebhookOptions {
        forge,
        secrets: vec!["retired".into(), SECRET.into()],
        places: ClonePlaces {
            // Those of the tests and of published payloads.
            hosts: [
                "http://gitea.example:3000",
                "https://gitlab.example",
                "https://bb.example",
                "https://github.com",
                "http://localhost:3000",
                "http://example.com",
                "https://server.bitbucket.local",
            ]
            .map(|host| host.parse().unwrap())
            .to_vec(),
            ..ClonePlaces::default()
        },
    }
}

/// All forges are configured.
pub(crate) fn all() -> Setup {
    Setup {
        webhooks: Forge::ALL.into_iter().map(options).collect(),
        ..Setup::default()
    }
}

pub(crate) fn hmac(secret: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// The headers of a delivery that was signed as this forge signs.
pub(crate) fn headers(
    forge: Forge,
    event: &str,
    id: &str,
    body: &[u8],
) -> Vec<(&'static str, String)> {
    let digits = hmac(SECRET.as_bytes(), body);
    let (event, id) = (event.to_owned(), id.to_owned());
    match forge {
        Forge::GitHub => vec![
            ("X-Hub-Signature-256", format!("sha256={digits}")),
            ("X-GitHub-Event", event),
            ("X-GitHub-Delivery", id),
        ],
        Forge::GitLab => vec![
            ("X-Gitlab-Token", SECRET.to_owned()),
            ("X-Gitlab-Event", event),
            ("Idempotency-Key", id),
        ],
        Forge::Gitea => vec![
            ("X-Gitea-Signature", digits),
            ("X-Gitea-Event", event.clone()),
            ("X-GitHub-Event", event),
            ("X-Gitea-Delivery", id),
        ],
        Forge::Bitbucket => vec![
            ("X-Hub-Signature", format!("sha256={digits}")),
            ("X-Event-Key", event),
            ("X-Request-UUID", id),
        ],
    }
}

/// Posts a body with these headers.
pub(super) async fn post(
    server: &TestServer,
    forge: Forge,
    headers: &[(&'static str, String)],
    body: impl Into<reqwest::Body>,
) -> Reply {
    let url = server.url(&format!("/webhooks/{}", forge.name()));
    let mut request = server.http.post(url);
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    Reply::of(request.body(body)).await
}

/// Sends a signed delivery.
pub(crate) async fn send(
    server: &TestServer,
    forge: Forge,
    event: &str,
    id: &str,
    body: impl ToString,
) -> Reply {
    let body = body.to_string();
    let headers = headers(forge, event, id, body.as_bytes());
    post(server, forge, &headers, body).await
}
