//! The events feed, and the worker behind it.

mod archive;
mod feed;
mod github;
mod names;
mod remote;
pub(crate) mod work;

use std::sync::Arc;

use jiff::Timestamp;
use reqwest::Url;
use rescind::clock::{Clock, ManualClock, SharedClock};
use rescind::fetch::http_client;
use rescind::github::Credential;
use rescind::issuer::IssueRequest;
use rescind::keyformat::{FormatSet, KeyValue};
use rescind::respond::Responder;
use rescind::scan::{Encodings, Engine};
use rescind::source::{GitHubEvents, GitHubOptions, Scope, SourceParts};
use rescind::store::{Key, Owner, Store};
use tokio::sync::Notify;

use crate::support::responder::issuer;

/// Key formats whose keys look like identifiers and object ids.
const HEX: &str = r#"
[[format]]
id = "hexkey"
description = "hex key"
visibility = "secret"
prefix = "acefee"
body = { alphabet = "hex", length = 32 }
[[format]]
id = "hex40"
description = "hex key of 40"
visibility = "secret"
prefix = "beefca"
body = { alphabet = "hex", length = 34 }
"#;

/// Returns a key of each of the [formats](HEX) whose keys consist of hexadecimal digits, and these formats.
pub(crate) fn hex_keys() -> (String, String, FormatSet) {
    let formats = FormatSet::parse(&[("hex.toml", HEX)]).unwrap();
    let mint = |id| {
        let key = formats.get(id).unwrap().mint().unwrap();
        key.expose().to_owned()
    };
    (mint("hexkey"), mint("hex40"), formats)
}

/// Everything around a database that a source or a worker needs.
pub(crate) struct Rig {
    pub(crate) store: Store,
    responder: Responder,
    engine: Arc<Engine>,
    clock: Arc<ManualClock>,
    wake: Arc<Notify>,
    /// `true` if its sources follow a schedule.
    is_scheduled: bool,
}

impl Rig {
    pub(crate) fn new(store: &Store) -> Self {
        Self::with_formats(store, FormatSet::builtin())
    }

    pub(crate) fn with_formats(store: &Store, formats: FormatSet) -> Self {
        let clock = Arc::new(ManualClock::new(
            Timestamp::from_second(1_780_000_000).unwrap(),
        ));
        Self {
            store: store.clone(),
            engine: Arc::new(Engine::new(&formats, Encodings::ALL)),
            responder: Responder::new(store.clone(), formats, shared(&clock)),
            clock,
            wake: Arc::new(Notify::new()),
            is_scheduled: false,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) async fn issue(&self, is_public: bool) -> (Key, KeyValue) {
        let request = IssueRequest {
            project: "default".to_owned(),
            owner: Owner::user("user-1"),
            description: "deploys".to_owned(),
            expires_at: None,
            is_public,
            policy: None,
            notify_emails: Vec::new(),
        };
        issuer(&self.responder).issue(request).await.unwrap()
    }

    pub(crate) async fn is_revoked(&self, key: &Key) -> bool {
        let key = self.store.key(key.id).await.unwrap().unwrap();
        key.revoked_at.is_some()
    }

    fn source(&self, api_url: &str) -> GitHubEvents {
        self.source_of(api_url, Scope::Public, None)
    }

    fn source_of(&self, api_url: &str, scope: Scope, token: Option<&str>) -> GitHubEvents {
        let token = token.map(|token| Credential::Token(token.into()));
        self.source_with(api_url, scope, token.into_iter().collect())
    }

    fn source_with(
        &self,
        api_url: &str,
        scope: Scope,
        credentials: Vec<Credential>,
    ) -> GitHubEvents {
        let options = GitHubOptions {
            name: "feed".to_owned(),
            scope,
            api_url: Url::parse(api_url).unwrap(),
            host: "git.example".to_owned(),
            credentials,
        };
        GitHubEvents::new(options, self.parts()).unwrap()
    }

    pub(crate) fn parts(&self) -> SourceParts {
        SourceParts {
            client: http_client().unwrap(),
            store: self.store.clone(),
            responder: self.responder.clone(),
            engine: Arc::clone(&self.engine),
            clock: shared(&self.clock),
            wake: Arc::clone(&self.wake),
            is_scheduled: self.is_scheduled,
        }
    }
}

fn shared(clock: &Arc<ManualClock>) -> SharedClock {
    let clock: SharedClock = Arc::<ManualClock>::clone(clock);
    clock
}
