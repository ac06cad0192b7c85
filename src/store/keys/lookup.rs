//! Batched look-ups for many callers: everything that is requested while a query runs goes into the next one together.
//! No request waits for others to join it, and nothing is cached between queries, so a revocation by any process takes
//! effect at once.
//!
//! Whoever asks for what no query finds is told that it does not exist only if it does not: while there are keys under a
//! pepper that this process lacks, the answer is an error.
//!
//! A query that takes longer than usual holds up only the callers that are part of it: the next query starts beside it.
//! A connection that no longer answers therefore costs its own callers their deadline, and others nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::super::{Key, Store, StoreError, Token};
use crate::keyformat::Sha256Digest;

/// Maximum number of look-ups that wait. Beyond it, callers wait to submit theirs.
const WAITING_MAX: usize = 4_096;
/// Maximum number of digests in a query.
const BATCH_MAX: usize = 256;
/// Maximum number of concurrent queries, if all of them take long.
const QUERIES_MAX: usize = 4;
/// Time after which a query counts as taking long.
const LONG: Duration = Duration::from_millis(50);
/// Maximum time that a caller waits for its turn and its answer together. A partner waits 10 s.
const ANSWER_WAIT: Duration = Duration::from_secs(8);

/// Handle for looking up keys and access tokens by the digests of their values. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lookup {
    store: Store,
    keys: mpsc::Sender<Request<Vec<Key>>>,
    tokens: mpsc::Sender<Request<Token>>,
}

/// Task that serves a [`Lookup`]. Its owner runs [`LookupTask::run`] until every [`Lookup`] is dropped.
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

/// Answer to a look-up. All callers of a failed query share its error.
type Answer<T> = Result<Option<T>, Arc<StoreError>>;

/// Result of a query.
struct Found<T> {
    found: HashMap<Sha256Digest, T>,
    /// Reason for which nobody can tell of what was not found whether it exists.
    others: Option<Arc<StoreError>>,
}

impl<T: Clone> Found<T> {
    /// Checks, once for all that a query did not find, whether there is something that it could not find.
    async fn of(store: &Store, asked: &[Sha256Digest], found: HashMap<Sha256Digest, T>) -> Self {
        let others = if asked.iter().all(|digest| found.contains_key(digest)) {
            None
        } else {
            store.check_peppers().await.err().map(Arc::new)
        };
        Self { found, others }
    }

    fn answer(&self, digest: &Sha256Digest) -> Answer<T> {
        match (self.found.get(digest), &self.others) {
            (Some(found), _) => Ok(Some(found.clone())),
            (None, None) => Ok(None),
            (None, Some(error)) => Err(Arc::clone(error)),
        }
    }
}

impl Lookup {
    /// Creates a look-up service on `store`, and the task that has to run for it.
    pub fn new(store: Store) -> (Self, LookupTask) {
        let (keys, asked_keys) = mpsc::channel(WAITING_MAX);
        let (tokens, asked_tokens) = mpsc::channel(WAITING_MAX);
        let task = LookupTask {
            store: store.clone(),
            keys: asked_keys,
            tokens: asked_tokens,
        };
        let lookup = Self {
            store,
            keys,
            tokens,
        };
        (lookup, task)
    }

    /// Returns the key of the project whose value has this digest, whichever pepper it was stored under.
    ///
    /// # Errors
    /// Returns [`StoreError::UnknownPepper`] if it was not found and there are keys that would not be, any
    /// [`StoreError`] of a read, or [`StoreError::Unavailable`] if the task has ended or does not answer in time.
    pub async fn key(&self, project: &str, digest: Sha256Digest) -> Answer<Key> {
        let Some(keys) = ask(&self.keys, digest).await? else {
            return Ok(None);
        };
        let own = keys.into_iter().find(|key| key.project == project);
        if own.is_none() {
            // Other projects have the value. That of this one may stand under another pepper.
            self.store.check_peppers().await?;
        }
        Ok(own)
    }

    /// Returns whether any project has a key with this digest.
    ///
    /// # Errors
    /// Returns the errors of [`Lookup::key`].
    pub async fn is_key(&self, digest: Sha256Digest) -> Result<bool, Arc<StoreError>> {
        let keys = ask(&self.keys, digest).await?;
        Ok(keys.is_some_and(|keys| !keys.is_empty()))
    }

    /// Returns the access token whose value has this digest, valid or not.
    ///
    /// # Errors
    /// Returns the errors of [`Lookup::key`].
    pub async fn token(&self, digest: Sha256Digest) -> Answer<Token> {
        ask(&self.tokens, digest).await
    }
}

async fn ask<T>(to: &mpsc::Sender<Request<T>>, digest: Sha256Digest) -> Answer<T> {
    let unavailable = |cause: String| {
        Arc::new(StoreError::Unavailable {
            database: "behind the look-ups".to_owned(),
            cause,
        })
    };
    let ended = |()| unavailable("the program is shutting down".to_owned());
    let (answer, answered) = oneshot::channel();
    let asking = async {
        let request = Request { digest, answer };
        to.send(request).await.map_err(|_| ended(()))?;
        answered.await.map_err(|_| ended(()))?
    };
    match tokio::time::timeout(ANSWER_WAIT, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(unavailable(format!(
            "no answer within {} s",
            ANSWER_WAIT.as_secs()
        ))),
    }
}

impl LookupTask {
    /// Serves look-ups until every [`Lookup`] is dropped and every request has been answered.
    pub async fn run(self) {
        let Self {
            store,
            keys,
            tokens,
        } = self;
        let token_store = store.clone();
        let answer_keys = serve(keys, move |digests: Vec<Sha256Digest>| {
            let store = store.clone();
            async move {
                let found = store.find_keys(&digests).await?;
                Ok(Found::of(&store, &digests, found).await)
            }
        });
        let answer_tokens = serve(tokens, move |digests: Vec<Sha256Digest>| {
            let store = token_store.clone();
            async move {
                let found = store.find_tokens(&digests).await?;
                Ok(Found::of(&store, &digests, found).await)
            }
        });
        futures_util::future::join(answer_keys, answer_tokens).await;
    }
}

async fn serve<T, F>(
    mut requests: mpsc::Receiver<Request<T>>,
    find: impl Fn(Vec<Sha256Digest>) -> F,
) where
    T: Clone,
    F: Future<Output = Result<Found<T>, StoreError>>,
{
    let mut in_flight = FuturesUnordered::new();
    // Start of each query in flight, the latest last.
    let mut begun: VecDeque<Instant> = VecDeque::new();
    let mut batch = Vec::with_capacity(BATCH_MAX);
    loop {
        let all_are_long = begun.back().is_none_or(|at| at.elapsed() >= LONG);
        let next_is_due = begun.back().map_or_else(Instant::now, |at| *at + LONG);
        let has_room = in_flight.len() < QUERIES_MAX;
        tokio::select! {
            Some(at) = in_flight.next(), if !in_flight.is_empty() => {
                begun.retain(|begun| *begun != at);
            }
            received = requests.recv_many(&mut batch, BATCH_MAX), if all_are_long && has_room => {
                if received == 0 {
                    break;
                }
                // A caller that is gone, for example after a timeout, needs no answer.
                batch.retain(|request| !request.answer.is_closed());
                if batch.is_empty() {
                    continue;
                }
                let at = Instant::now();
                begun.push_back(at);
                let asked = std::mem::replace(&mut batch, Vec::with_capacity(BATCH_MAX));
                let found = find(digests(&asked));
                in_flight.push(async move {
                    answer(asked, found.await);
                    at
                });
            }
            () = tokio::time::sleep_until(next_is_due), if !all_are_long && has_room => {}
        }
    }
    while in_flight.next().await.is_some() {}
}

fn digests<T>(asked: &[Request<T>]) -> Vec<Sha256Digest> {
    let mut digests: Vec<_> = asked.iter().map(|request| request.digest).collect();
    digests.sort_unstable();
    digests.dedup();
    digests
}

fn answer<T: Clone>(asked: Vec<Request<T>>, found: Result<Found<T>, StoreError>) {
    let found = found.map_err(Arc::new);
    for request in asked {
        let answer = match &found {
            Ok(found) => found.answer(&request.digest),
            Err(error) => Err(Arc::clone(error)),
        };
        // The receiver is gone if the caller was dropped meanwhile.
        let _ = request.answer.send(answer);
    }
}
