//! The real router on a real loopback port, over a real database.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rescind::clock::{Clock as _, ManualClock, SharedClock};
use rescind::intake::webhook::{InboxParts, Webhook, WebhookOptions};
use rescind::intake::{
    Partner, PartnerName, PartnerOptions, PublicKeyTimings, PublicKeys, RevocationApi,
};
use rescind::keyformat::{FormatSet, KeyValue};
use rescind::respond::Responder;
use rescind::scan::{Encodings, Engine};
use rescind::server::serve;
use rescind::server::{AppState, Connections, Intake, Limits, router};
use rescind::source::ConfiguredSource;
use rescind::store::{Lookup, NewToken, Role, Store};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::described;
use crate::support::databases::{Kind, TestDatabase};
use crate::support::http::Ask as _;
use crate::support::responder::issuer;

/// Start time of the clock in every test.
pub(crate) const START: &str = "2026-11-22T20:46:15.123456Z";

/// Options of a test server.
pub(crate) struct Setup {
    /// URL of GitHub's public keys.
    pub(crate) public_keys_url: Option<String>,
    /// Other partners, and the URLs of their keys.
    pub(crate) partners: Vec<(PartnerName, String)>,
    pub(crate) revocation_tokens: Vec<&'static str>,
    pub(crate) webhooks: Vec<WebhookOptions>,
    /// Sources that the configuration names.
    pub(crate) sources: Vec<ConfiguredSource>,
    pub(crate) timings: PublicKeyTimings,
    pub(crate) limits: Limits,
    pub(crate) connections: Connections,
}

impl Default for Setup {
    fn default() -> Self {
        let many = NonZeroU32::new(10_000).unwrap();
        Self {
            public_keys_url: None,
            partners: Vec::new(),
            revocation_tokens: Vec::new(),
            webhooks: Vec::new(),
            sources: Vec::new(),
            timings: PublicKeyTimings::default(),
            connections: Connections::default(),
            limits: Limits {
                self_reports_per_minute: many,
                revocations_per_minute: many,
                uses_per_minute: many,
                ..Limits::default()
            },
        }
    }
}

/// A server and a client for it.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) store: Store,
    pub(crate) responder: Responder,
    pub(crate) formats: FormatSet,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) http: reqwest::Client,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    /// Of a database that this server has for itself.
    own_database: Option<TestDatabase>,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl TestServer {
    /// On a new SQLite file.
    pub(crate) async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    /// On a new SQLite file.
    pub(crate) async fn start_with(setup: Setup) -> Self {
        let database = TestDatabase::new(Kind::Sqlite).await;
        let mut server = Self::on(&database, setup).await;
        server.own_database = Some(database);
        server
    }

    /// On this database.
    pub(crate) async fn on(database: &TestDatabase, setup: Setup) -> Self {
        Self::over(database.store().await, setup).await
    }

    /// On this store.
    pub(crate) async fn over(store: Store, setup: Setup) -> Self {
        let formats = FormatSet::builtin();
        let clock = Arc::new(ManualClock::new(START.parse().unwrap()));
        let shared: SharedClock = Arc::clone(&clock) as SharedClock;
        let responder = Responder::new(store.clone(), formats.clone(), Arc::clone(&shared));
        let http = http_client();
        let github = setup.public_keys_url.map(|url| (PartnerName::GitHub, url));
        let partners = github.into_iter().chain(setup.partners).map(|(name, url)| {
            let keys = PublicKeys::new(
                url.parse().unwrap(),
                http.clone(),
                Arc::clone(&shared),
                setup.timings,
            );
            Partner::new(partner_options(name), keys, responder.clone())
        });
        let tokens = setup.revocation_tokens.into_iter().map(Into::into);
        let tokens: Vec<_> = tokens.collect();
        let wake = Arc::new(Notify::new());
        let inbox = InboxParts::new(responder.clone(), wake);
        let engine = Arc::new(Engine::new(&formats, Encodings::ALL));
        let webhooks = setup.webhooks.into_iter().map(|options| {
            let engine = Arc::clone(&engine);
            Arc::new(Webhook::new(options, responder.clone(), engine, &inbox))
        });
        let intake = Intake {
            partners: partners.collect(),
            revocation: (!tokens.is_empty()).then(|| RevocationApi::new(tokens, responder.clone())),
            webhooks: webhooks.collect(),
        };
        let (lookup, task) = Lookup::new(store.clone());
        let state = AppState::new(
            issuer(&responder),
            lookup,
            intake,
            setup.sources,
            setup.limits,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(task.run());
        tasks.spawn(inbox.task.run());
        tasks.spawn(serve(
            listener,
            router(state),
            setup.connections,
            shutdown.clone(),
        ));
        Self {
            address,
            store,
            responder,
            formats,
            clock,
            http,
            shutdown,
            tasks,
            own_database: None,
        }
    }

    /// Ends the server and waits for it.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.store.close().await;
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// An access token of this role in the project `default`.
    pub(crate) async fn token(&self, role: Role) -> String {
        self.token_in(role, "default").await
    }

    pub(crate) async fn token_in(&self, role: Role, project: &str) -> String {
        self.token_until(role, project, None).await
    }

    pub(crate) async fn token_until(
        &self,
        role: Role,
        project: &str,
        expires_at: Option<Timestamp>,
    ) -> String {
        let value = self.mint();
        let mut tx = self.store.begin().await.unwrap();
        let new = NewToken {
            id: Uuid::now_v7(),
            project: project.to_owned(),
            digest: value.sha256(),
            role,
            description: "for a test".to_owned(),
            prefix: "rsc_sk_".to_owned(),
            last_four: value.last_four().to_owned(),
            created_at: self.clock.now(),
            expires_at,
            definition: None,
        };
        tx.insert_token(new).await.unwrap();
        tx.commit().await.unwrap();
        value.expose().to_owned()
    }

    /// A value in the secret format that is in no database.
    pub(crate) fn mint(&self) -> KeyValue {
        self.formats.get("rescind_secret").unwrap().mint().unwrap()
    }

    /// A client that shows an admin token.
    pub(crate) async fn admin(&self) -> Client<'_> {
        self.client(Role::Admin).await
    }

    /// A client that shows a token of this role.
    pub(crate) async fn client(&self, role: Role) -> Client<'_> {
        Client {
            server: self,
            token: Some(self.token(role).await),
        }
    }

    /// A client that shows this token.
    pub(crate) fn with_token(&self, token: impl Into<String>) -> Client<'_> {
        Client {
            server: self,
            token: Some(token.into()),
        }
    }

    /// A client without a token.
    pub(crate) fn anonymous(&self) -> Client<'_> {
        Client {
            server: self,
            token: None,
        }
    }
}

/// A client that speaks plain HTTP to loopback and nothing else.
#[expect(
    clippy::disallowed_methods,
    reason = "a test is not bound to what the program asks"
)]
pub(crate) fn http_client() -> reqwest::Client {
    // Several tests set it; one of them is the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_mins(1))
        .build()
        .unwrap()
}

/// Sends requests with one token.
pub(crate) struct Client<'a> {
    pub(crate) server: &'a TestServer,
    pub(crate) token: Option<String>,
}

impl Client<'_> {
    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().unwrap();
        let request = self.server.http.request(method, self.server.url(path));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        Reply::of(self.request("GET", path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        Reply::of(self.request("POST", path).json(&body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Reply {
        Reply::of(self.request("PATCH", path).json(&body)).await
    }

    /// Makes a user's key; its first view.
    pub(crate) async fn create(&self, more: Value) -> Value {
        let mut body = serde_json::json!({
            "user_id": "user-1", "description": "a key", "expires_at_millis": null
        });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let reply = self.post("/api/v1/user-api-keys", body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json()
    }
}

/// A partner with the headers that it has by default.
fn partner_options(name: PartnerName) -> PartnerOptions {
    let config = rescind::config::Partners::default();
    let partner = config.of(name);
    PartnerOptions {
        name,
        key_identifier_header: partner.key_identifier_header.clone(),
        signature_header: partner.signature_header.clone(),
    }
}

/// An answer that was read to its end, and is one that the description allows.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) async fn of(request: reqwest::RequestBuilder) -> Self {
        let asked = request.try_clone().and_then(|request| request.build().ok());
        let response = request.ask().await.unwrap();
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = response.text().await.unwrap();
        let reply = Self {
            status,
            headers,
            text,
        };
        // A body that is streamed cannot be asked for twice.
        if let Some(asked) = asked {
            described::check(asked.method().as_str(), asked.url().path(), &reply);
        }
        reply
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Asserts that this is an error in our shape with this status and code; its body.
    #[track_caller]
    pub(crate) fn error(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        let body = self.json();
        assert_eq!(body["code"], code, "{}", self.text);
        assert!(
            body["error"].as_str().is_some_and(|text| !text.is_empty()),
            "{}",
            self.text
        );
        let fields: Vec<_> = body.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["code", "details", "error"], "{}", self.text);
        assert!(body["details"].is_object(), "{}", self.text);
        for header in ["x-stack-known-error", "x-hexclave-known-error"] {
            assert_eq!(self.header(header), Some(code));
        }
        assert_eq!(self.header("content-type"), Some("application/json"));
        body
    }
}

/// Milliseconds of a time as the API gives them.
pub(crate) fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}
