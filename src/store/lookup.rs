//! Look-ups for many callers at once: whatever has been asked for while one query ran goes into the
//! next one together. Nothing waits for company, and nothing is remembered between queries, so a
//! revocation by any process is seen at once.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{Key, Store, StoreError, Token};
use crate::keyformat::Sha256Digest;

/// How many look-ups may wait; beyond it, callers wait to ask.
const WAITING_MAX: usize = 4_096;
/// The most digests of one query.
const BATCH_MAX: usize = 256;

/// Looks keys and access tokens up by the digest of their values. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lookup {
    keys: mpsc::Sender<Request<Vec<Key>>>,
    tokens: mpsc::Sender<Request<Token>>,
}

/// The work behind a [`Lookup`]. Its owner runs [`LookupTask::run`] until every [`Lookup`] is gone.
#[derive(Debug)]
pub struct LookupTask {
    store: Store,
    keys: mpsc::Receiver<Request<Vec<Key>>>,
    tokens: mpsc::Receiver<Request<Token>>,
}

#[derive(Debug)]
struct Request<T> {
    digest: Sha256Digest,
    answer: oneshot::Sender<Answer<T>>,
}

/// One failure is the answer to all callers of a query.
type Answer<T> = Result<Option<T>, Arc<StoreError>>;

impl Lookup {
    /// A look-up service on `store`, and the task that has to run for it.
    pub fn new(store: Store) -> (Self, LookupTask) {
        let (keys, asked_keys) = mpsc::channel(WAITING_MAX);
        let (tokens, asked_tokens) = mpsc::channel(WAITING_MAX);
        let task = LookupTask {
            store,
            keys: asked_keys,
            tokens: asked_tokens,
        };
        (Self { keys, tokens }, task)
    }

    /// As [`Store::find_key`].
    ///
    /// # Errors
    /// Any [`StoreError`] of a read; [`StoreError::Unavailable`] when the task has ended.
    pub async fn key(&self, project: &str, digest: Sha256Digest) -> Answer<Key> {
        let keys = ask(&self.keys, digest).await?.unwrap_or_default();
        Ok(keys.into_iter().find(|key| key.project == project))
    }

    /// As [`Store::find_token`].
    ///
    /// # Errors
    /// Any [`StoreError`] of a read; [`StoreError::Unavailable`] when the task has ended.
    pub async fn token(&self, digest: Sha256Digest) -> Answer<Token> {
        ask(&self.tokens, digest).await
    }
}

async fn ask<T>(to: &mpsc::Sender<Request<T>>, digest: Sha256Digest) -> Answer<T> {
    let ended = || {
        Arc::new(StoreError::Unavailable {
            database: "behind the look-ups".to_owned(),
            cause: "the program is shutting down".to_owned(),
        })
    };
    let (answer, answered) = oneshot::channel();
    to.send(Request { digest, answer })
        .await
        .map_err(|_| ended())?;
    answered.await.map_err(|_| ended())?
}

impl LookupTask {
    /// Answers look-ups until every [`Lookup`] is gone and everything asked before has been answered.
    pub async fn run(self) {
        let Self {
            store,
            keys,
            tokens,
        } = self;
        let token_store = store.clone();
        let answer_keys = serve(keys, move |digests: Vec<Sha256Digest>| {
            let store = store.clone();
            async move { store.find_keys(&digests).await }
        });
        let answer_tokens = serve(tokens, move |digests: Vec<Sha256Digest>| {
            let store = token_store.clone();
            async move { store.find_tokens(&digests).await }
        });
        futures_util::future::join(answer_keys, answer_tokens).await;
    }
}

async fn serve<T, F>(
    mut requests: mpsc::Receiver<Request<T>>,
    find: impl Fn(Vec<Sha256Digest>) -> F,
) where
    T: Clone,
    F: Future<Output = Result<HashMap<Sha256Digest, T>, StoreError>>,
{
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while requests.recv_many(&mut batch, BATCH_MAX).await > 0 {
        // A caller that went away, be it by a timeout, needs no answer.
        batch.retain(|request| !request.answer.is_closed());
        let mut digests: Vec<_> = batch.iter().map(|request| request.digest).collect();
        digests.sort_unstable();
        digests.dedup();
        if digests.is_empty() {
            continue;
        }
        let found = find(digests).await.map_err(Arc::new);
        for request in batch.drain(..) {
            let answer = match &found {
                Ok(found) => Ok(found.get(&request.digest).cloned()),
                Err(error) => Err(Arc::clone(error)),
            };
            // Nobody is left to tell when the caller went away meanwhile.
            let _ = request.answer.send(answer);
        }
    }
}
