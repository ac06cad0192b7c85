//! A single repository at any address, polled on a schedule: for forges without events.
//!
//! Each poll lists the branches and tags and compares them with those of the previous poll. A reference that moved is
//! treated as a push from its old commit to its new one, so commits that were force-pushed over are fetched as well,
//! as long as the server still has them. References that appear and disappear between two polls are not seen.
//! `HEAD` is one of them where no branch or tag leads to its commit.

mod seen;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::kept::Kept;
use super::state::{Frame, note_success};
use super::{PollError, PollFailure, PollOutcome, Source, SourceParts};
use crate::fetch::{
    FetchError, GitFetcher, HEAD, ObjectId, References, RepositoryName, Token, host_of,
};
use crate::forge::{Push, Remote, no_commit};
use crate::github::GitHubError;
use crate::memory;
use crate::offload::apart;
use crate::respond::URL_MAX;
use crate::store::Priority;
use seen::{NameDigest, Seen};

/// Interval between two polls when the configuration names no schedule.
const INTERVAL: Duration = Duration::from_mins(5);

/// Maximum number of moved references that one poll turns into work items. The next poll, which follows [`SOON`], goes
/// on after the last of them: references that move all the time do not hide the others.
const MAX_MOVED: usize = 1_000;

/// Delay before the next poll when there is more to read.
const SOON: Duration = Duration::from_secs(30);

/// Memory that comparing and storing a list takes for each reference, in bytes, beside the list itself.
const REFERENCE: usize = 256;

/// Unit in which memory is taken, in bytes.
const STEP: usize = 1 << 10;

/// Memory for comparing lists of references, of all sources, until what came of them is stored.
static COMPARING: Semaphore = Semaphore::const_new(memory::COMPARED_REFERENCES / STEP);

/// Description of a list that is too long to be read.
pub const TOO_MANY_REFERENCES: &str =
    "more than 50,000 branches and tags, or more than 4 MiB of their names";

/// Configuration of a source of the kind `git`.
#[derive(Debug, Clone)]
pub struct GitRemoteOptions {
    /// Name of the source in the configuration.
    pub name: String,
    /// URL that the repository is cloned from, over smart HTTP.
    pub url: Url,
    /// Access token.
    pub token: Option<Token>,
}

/// A source that polls one repository.
#[derive(Debug)]
pub struct GitRemote {
    frame: Frame,
    fetcher: GitFetcher,
    remote: Arc<Remote>,
    url: Url,
    token: Option<Token>,
    /// Number of references in the stored state, as far as that is known.
    kept: AtomicUsize,
}

/// State of the branches and tags at the last poll; stored in the database as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Cursor {
    /// Commits of the references.
    #[serde(default)]
    seen: Seen,
    /// Commits by the stored form of the names, as earlier versions noted them.
    #[serde(default, skip_serializing)]
    references: BTreeMap<String, String>,
    /// `true` once the repository was polled, be it empty.
    #[serde(default)]
    begun: bool,
    /// `true` if the first reading of the repository is unfinished, because one poll could not take all references.
    #[serde(default)]
    incomplete: bool,
    /// Digest of the name of the last reference that was taken, if one poll could not take all.
    #[serde(default)]
    last: Option<String>,
}

impl Cursor {
    /// Takes over what an earlier version noted.
    fn convert(&mut self) {
        let old = std::mem::take(&mut self.references);
        // An even earlier one noted only what it found.
        self.begun |= !old.is_empty();
        let old = old.into_iter().filter_map(|(name, hex)| {
            let id = ObjectId::from_hex(hex.as_bytes()).ok()?;
            Some((NameDigest::of(&name, 1), id))
        });
        self.seen.0.extend(old);
    }
}

/// References that moved since the last poll.
struct Moved {
    /// Those that one poll takes.
    pushes: Vec<Push>,
    /// Number of those that are left to the next poll.
    left: usize,
    /// `true` if some of the others were never read.
    unread: bool,
    /// Number of references that have a key in place of a commit, of a format that consists of digits.
    malformed: u64,
}

/// Returns the name of the repository at the address of a source.
///
/// # Errors
/// Returns [`PollError::Api`] if the address cannot be that of a repository.
pub fn repository_at(url: &Url) -> Result<RepositoryName, PollError> {
    if url.as_str().len() > URL_MAX {
        return Err(PollError::Api(GitHubError::Address(
            "it is longer than 2 KiB",
        )));
    }
    RepositoryName::of_url(url)
        .map_err(|_| PollError::Api(GitHubError::Address("its path is no repository's")))
}

impl GitRemote {
    /// Creates a source that is ready to be polled.
    ///
    /// # Errors
    /// Returns the error of [`repository_at`].
    pub fn new(
        options: GitRemoteOptions,
        parts: SourceParts,
        fetcher: GitFetcher,
    ) -> Result<Self, PollError> {
        let GitRemoteOptions { name, url, token } = options;
        let host = host_of(&url);
        let repository = repository_at(&url)?;
        let path = url.path().trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        Ok(Self {
            frame: Frame::new(name, "git", parts),
            fetcher,
            remote: Arc::new(Remote {
                host,
                repository_id: path.to_owned(),
                repository,
                clone_url: Some(url.clone()),
            }),
            url,
            token,
            kept: AtomicUsize::new(usize::MAX),
        })
    }

    async fn poll(&self) -> Result<PollOutcome, PollFailure> {
        let polled = self.read_and_commit().await;
        // The state is loaded for that, with all that was seen.
        let _room = match polled {
            Ok(_) => None,
            Err(_) => self.room_for(0, 0).await,
        };
        self.frame.ended(polled, Duration::ZERO, |_| {}).await
    }

    /// Waits for the memory to compare a list of this many references, with this many bytes of names, with the stored
    /// state.
    async fn room_for(&self, references: usize, names: usize) -> Option<SemaphorePermit<'static>> {
        let references = references.max(self.kept.load(Ordering::Relaxed));
        let needed = references.saturating_mul(REFERENCE).saturating_add(names);
        let needed = needed.min(memory::COMPARED_REFERENCES).div_ceil(STEP);
        let steps = u32::try_from(needed).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        COMPARING.acquire_many(steps).await.ok()
    }

    async fn read_and_commit(&self) -> Result<PollOutcome, PollError> {
        let listed = self
            .fetcher
            .references_in_turn(&self.url, self.token.as_ref());
        let (references, _long) = listed.await.map_err(failure)?;
        if references.cut {
            return Err(PollError::TooMuch(TOO_MANY_REFERENCES));
        }
        let names = references.list.iter().map(|(name, _)| name.len()).sum();
        let _room = self.room_for(references.list.len(), names).await;
        let mut state = self.frame.state().await?;
        let cursor = std::mem::take(&mut state.cursor);
        let mut cursor = apart(cursor.len(), || {
            let mut kept = Kept::<Cursor>::load(&cursor, self.url.as_str());
            drop(cursor);
            kept.convert();
            kept
        });
        let is_first = !cursor.begun || cursor.incomplete;
        let now = self.frame.now();
        let mut gatherer = self.frame.gatherer();
        if references.malformed > 0 {
            gatherer.gathered.malformed += references.malformed;
            gatherer.gathered.wrong = Some("a line of the list of references names none");
        }
        let Moved {
            pushes: moved,
            left,
            unread,
            malformed,
        } = apart(names, || self.moved(references, &mut cursor));
        if malformed > 0 {
            let source = &self.frame.name;
            gatherer.gathered.malformed += malformed;
            gatherer.gathered.wrong = Some("a reference has a key in place of a commit");
            tracing::warn!(
                %source, references = malformed,
                "references have a key in place of a commit; they are not read"
            );
        }
        (cursor.begun, cursor.incomplete) = (true, unread && is_first);
        let interval = match left {
            0 => self.frame.interval(INTERVAL),
            _ => SOON,
        };
        apart(names, || {
            for push in &moved {
                // The existing contents of a repository are read only when nothing else waits.
                let is_existing = is_first && push.before.is_null();
                let priority = if is_existing {
                    Priority::Backfill
                } else {
                    Priority::Watched
                };
                gatherer.push(push, priority, now);
            }
        });
        let found = gatherer.gathered;

        let kept = cursor.seen.0.len();
        state.cursor = apart(names, || cursor.to_json());
        drop(cursor);
        note_success(&mut state, now, interval);
        state.error = (left > 0).then(|| {
            format!("{left} more branches and tags moved, of which the next polls take {MAX_MOVED} at a time")
        });
        let events = moved.len() as u64;
        state.events += events;
        if events > 0 {
            state.newest_event_at = Some(now);
        }
        let malformed = found.malformed;
        let items = self.frame.commit(&mut state, found).await?;
        self.kept.store(kept, Ordering::Relaxed);
        Ok(PollOutcome {
            next_after: interval,
            events,
            items,
            malformed,
            gap: false,
            more: left > 0,
        })
    }

    /// Returns the pushes since the last poll, as many as one poll takes. Updates the cursor to reflect the pushes that
    /// are returned.
    fn moved(&self, references: References, cursor: &mut Cursor) -> Moved {
        let before = std::mem::take(&mut cursor.seen.0);
        let after = cursor.last.take();
        let after = after.and_then(|hex| NameDigest::from_hex(&hex));
        let (mut moved, mut latest) = (Vec::new(), None);
        let (mut left, mut unread, mut malformed) = (0, false, 0);
        let redactor = self.frame.parts.responder.redactor();
        let head = &references.head;
        let is_head_listed = references.unnamed_head().is_none();
        let mut times = HashMap::new();
        let list = references.list.into_iter().map(|(name, id)| {
            let number = if name.contains('\u{fffd}') {
                let times: &mut u32 = times.entry(name.clone()).or_default();
                *times += 1;
                *times
            } else {
                1
            };
            (NameDigest::of(&name, number), name, id)
        });
        let mut list: Vec<_> = list.collect();
        // The default branch first: most other branches derive from it, so they add little once it has been read.
        list.sort_unstable_by_key(|(digest, name, _)| {
            let was_taken = after.is_some_and(|after| *digest <= after);
            (head.as_ref() != Some(name), was_taken, *digest)
        });
        for (digest, name, id) in list {
            let known = before.get(&digest).copied();
            if known != Some(id) && redactor.holds_key(id.to_string()) {
                malformed += 1;
                continue;
            }
            if known != Some(id) && moved.len() >= MAX_MOVED {
                left += 1;
                unread |= known.is_none();
                cursor.seen.0.extend(known.map(|known| (digest, known)));
                continue;
            }
            if known != Some(id) {
                if head.as_ref() != Some(&name) {
                    latest = Some(digest);
                }
                moved.push(Push {
                    remote: Arc::clone(&self.remote),
                    reference: name,
                    before: known.unwrap_or(no_commit()),
                    after: id,
                });
            }
            cursor.seen.0.insert(digest, id);
        }
        if let Some(id) = references.head_id {
            let known = before.get(&NameDigest::of(HEAD, 1)).copied();
            if !is_head_listed || !redactor.holds_key(id.to_string()) {
                moved.extend(self.head_moved(id, known, &mut cursor.seen));
            }
        }
        cursor.last = latest.filter(|_| left > 0).map(NameDigest::to_hex);
        Moved {
            pushes: moved,
            left,
            unread,
            malformed,
        }
    }
}

impl GitRemote {
    /// Returns the push of `HEAD`, if it leads to a commit that was not read and will not be by another name. Its commit
    /// is noted in any case, for the day on which it has no other name.
    fn head_moved(
        &self,
        id: ObjectId,
        known: Option<ObjectId>,
        Seen(seen): &mut Seen,
    ) -> Option<Push> {
        let is_named = seen.values().any(|seen| *seen == id);
        seen.insert(NameDigest::of(HEAD, 1), id);
        (known != Some(id) && !is_named).then(|| Push {
            remote: Arc::clone(&self.remote),
            reference: HEAD.to_owned(),
            before: known.unwrap_or(no_commit()),
            after: id,
        })
    }
}

/// Converts a fetch error, preserving the server's `Retry-After` so that it is honored.
fn failure(error: FetchError) -> PollError {
    match error {
        FetchError::RateLimited {
            status,
            retry_after,
        } => PollError::Api(GitHubError::RateLimited {
            status,
            retry_after,
        }),
        error => PollError::Remote(error),
    }
}

impl Source for GitRemote {
    fn name(&self) -> &str {
        &self.frame.name
    }

    fn due_in(&self) -> BoxFuture<'_, Result<Option<Duration>, PollError>> {
        self.frame.due_in().boxed()
    }

    fn poll_once(&self) -> BoxFuture<'_, Result<PollOutcome, PollFailure>> {
        self.poll().boxed()
    }
}
