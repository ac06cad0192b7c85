//! Server on a loopback port, with a SQLite file full of imported keys.

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use rescind::clock::{Clock as _, SharedClock, SystemClock};
use rescind::intake::{Partner, PartnerName, PartnerOptions, PublicKeyTimings, PublicKeys};
use rescind::issuer::{Issuer, IssuerFormats};
use rescind::keyformat::{FormatSet, KeyValue, Sha256Digest};
use rescind::respond::Responder;
use rescind::server::serve;
use rescind::server::{AppState, Connections, Intake, Limits, router};
use rescind::store::{Lookup, NewKey, NewToken, Owner, Role, Store, StoreOptions};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Number of rows per transaction of the import.
const BATCH: usize = 10_000;

/// Running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    pub(crate) store: Store,
    tasks: TaskTracker,
    _folder: TempDir,
}

impl Server {
    /// Starts a server whose database has `keys` keys in addition to `own`. It accepts GitHub's reports if
    /// `public_keys_url` is set.
    #[expect(
        clippy::disallowed_methods,
        reason = "the server asks this machine only"
    )]
    pub(crate) async fn start(
        keys: usize,
        own: &[KeyValue],
        public_keys_url: Option<String>,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite://{}/rescind.db", folder.path().display());
        let store = Store::open(StoreOptions::new(url))
            .await
            .expect("a database");
        store.migrate().await.expect("a schema");
        import(&store, keys, own).await;
        let token = token(&store).await;

        let clock: SharedClock = Arc::new(SystemClock);
        let minting = IssuerFormats {
            secret: "rescind_secret".to_owned(),
            public: "rescind_public".to_owned(),
        };
        let responder = Responder::new(store.clone(), FormatSet::builtin(), Arc::clone(&clock));
        let github = public_keys_url.map(|url| {
            let client = reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client");
            let keys = PublicKeys::new(
                url.parse().expect("a URL"),
                client,
                clock,
                PublicKeyTimings::default(),
            );
            let options = PartnerOptions {
                name: PartnerName::GitHub,
                key_identifier_header: "Github-Public-Key-Identifier".to_owned(),
                signature_header: "Github-Public-Key-Signature".to_owned(),
            };
            Partner::new(options, keys, responder.clone())
        });
        let intake = Intake {
            partners: github.into_iter().collect(),
            ..Intake::default()
        };
        let (lookup, task) = Lookup::new(store.clone());
        let state = AppState::new(
            Issuer::new(responder, minting),
            lookup,
            intake,
            Vec::new(),
            Limits::default(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let tasks = TaskTracker::new();
        tasks.spawn(task.run());
        tasks.spawn(serve(
            listener,
            router(state),
            Connections::default(),
            CancellationToken::new(),
        ));
        Self {
            address,
            token,
            store,
            tasks,
            _folder: folder,
        }
    }

    /// Runs a task alongside the server.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }
}

/// Mints a value in the secret format.
pub(crate) fn mint() -> KeyValue {
    let formats = FormatSet::builtin();
    let format = formats.get("rescind_secret").expect("a built-in format");
    format.mint().expect("a key")
}

/// Fills the database: `own` as they are, the rest with digests of counters.
async fn import(store: &Store, keys: usize, own: &[KeyValue]) {
    let now = SystemClock.now();
    let digests = own.iter().map(KeyValue::sha256);
    let filler = (0..keys).map(|n| Sha256Digest::of(&n.to_be_bytes()));
    let mut all = digests.chain(filler).map(|digest| new_key(digest, now));
    loop {
        let batch: Vec<_> = all.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            break;
        }
        let mut tx = store.begin().await.expect("a transaction");
        tx.import_keys(&batch).await.expect("an import");
        tx.commit().await.expect("a commit");
    }
}

fn new_key(digest: Sha256Digest, now: Timestamp) -> NewKey {
    NewKey {
        id: Uuid::now_v7(),
        project: "default".to_owned(),
        digest,
        format: "rescind_secret".to_owned(),
        owner: Owner::user("user-1"),
        description: "a key".to_owned(),
        is_public: false,
        prefix: "rsc_sk_".to_owned(),
        last_four: "wxyz".to_owned(),
        policy: None,
        notify_emails: Vec::new(),
        created_at: now,
        expires_at: None,
        definition: None,
    }
}

async fn token(store: &Store) -> String {
    let value = mint();
    let mut tx = store.begin().await.expect("a transaction");
    let new = NewToken {
        id: Uuid::now_v7(),
        project: "default".to_owned(),
        digest: value.sha256(),
        role: Role::Issuer,
        description: "benchmark".to_owned(),
        prefix: "rsc_sk_".to_owned(),
        last_four: value.last_four().to_owned(),
        created_at: SystemClock.now(),
        expires_at: None,
        definition: None,
    };
    tx.insert_token(new).await.expect("a token");
    tx.commit().await.expect("a commit");
    value.expose().to_owned()
}
