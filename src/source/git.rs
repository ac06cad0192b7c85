//! A single repository at any address, polled on a schedule: for forges without events.
//!
//! Each poll lists the branches and tags and compares them with those of the previous poll. A reference that moved is
//! treated as a push from its old commit to its new one, so commits that were force-pushed over are fetched as well,
//! as long as the server still has them. References that appear and disappear between two polls are not seen.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use reqwest::Url;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::kept::Kept;
use super::state::{Frame, note_success};
use super::{PollError, PollFailure, PollOutcome, Source, SourceParts};
use crate::fetch::{FetchError, GitFetcher, ObjectId, References, RepositoryName, host_of};
use crate::forge::{Push, Remote, is_to_the_letter};
use crate::offload::apart;
use crate::respond::URL_MAX;
use crate::store::Priority;

/// Interval between two polls when the configuration names no schedule.
const INTERVAL: Duration = Duration::from_mins(5);

/// Maximum number of moved references that one poll turns into work items. The next poll, which follows [`SOON`], goes
/// on after the last of them: references that move all the time do not hide the others.
const MAX_MOVED: usize = 1_000;

/// Delay before the next poll when there is more to read.
const SOON: Duration = Duration::from_secs(30);

/// Configuration of a source of the kind `git`.
#[derive(Debug, Clone)]
pub struct GitRemoteOptions {
    /// Name of the source in the configuration.
    pub name: String,
    /// URL that the repository is cloned from, over smart HTTP.
    pub url: Url,
    /// Access token, sent as the password.
    pub token: Option<SecretString>,
}

/// A source that polls one repository.
#[derive(Debug)]
pub struct GitRemote {
    frame: Frame,
    fetcher: GitFetcher,
    remote: Remote,
    url: Url,
    token: Option<SecretString>,
}

/// State of the branches and tags at the last poll; stored in the database as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Cursor {
    /// Commit ids by the stored form of reference names, numbered where several names have the same.
    #[serde(default)]
    references: BTreeMap<String, String>,
    /// `true` once the repository was polled, be it empty.
    #[serde(default)]
    begun: bool,
    /// `true` if the first reading of the repository is unfinished, because one poll could not take all references.
    #[serde(default)]
    incomplete: bool,
    /// Name of the last reference that was taken, as in `references`, if one poll could not take all.
    #[serde(default)]
    after: Option<String>,
}

/// References that moved since the last poll.
struct Moved {
    /// Those that one poll takes.
    pushes: Vec<Push>,
    /// `true` if there are more.
    more: bool,
    /// `true` if some of the others were never read.
    unread: bool,
}

impl GitRemote {
    /// Creates a source that is ready to be polled.
    ///
    /// # Errors
    /// Returns [`PollError::Address`] if the path of `url` is not the path of a repository.
    pub fn new(
        options: GitRemoteOptions,
        parts: SourceParts,
        fetcher: GitFetcher,
    ) -> Result<Self, PollError> {
        let GitRemoteOptions { name, url, token } = options;
        let host = host_of(&url);
        if url.as_str().len() > URL_MAX {
            return Err(PollError::Address("it is longer than 2 KiB"));
        }
        let path = url.path().trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        let repository = RepositoryName::of_url(&url)
            .map_err(|_| PollError::Address("its path is no repository's"))?;
        Ok(Self {
            frame: Frame::new(name, "git", parts),
            fetcher,
            remote: Remote {
                host,
                repository_id: path.to_owned(),
                repository,
                clone_url: Some(url.clone()),
            },
            url,
            token,
        })
    }

    async fn poll(&self) -> Result<PollOutcome, PollFailure> {
        let polled = self.read_and_commit().await;
        self.frame.ended(polled, Duration::ZERO, |_| {}).await
    }

    async fn read_and_commit(&self) -> Result<PollOutcome, PollError> {
        let mut state = self.frame.state().await?;
        let mut cursor = Kept::<Cursor>::load(&state.cursor, self.url.as_str());
        // An earlier version noted only what it found.
        let has_begun = cursor.begun || !cursor.references.is_empty();
        let is_first = !has_begun || cursor.incomplete;
        let listed = self
            .fetcher
            .references(&self.url, self.token.as_ref())
            .await;
        let references = listed.map_err(failure)?;
        if references.cut {
            return Err(PollError::TooMuch(
                "more than 50,000 branches and tags, or more than 4 MiB of their names",
            ));
        }
        let now = self.frame.now();
        let mut gatherer = self.frame.gatherer();
        gatherer.gathered.malformed += references.malformed;
        let names = references.list.iter().map(|(name, _)| name.len()).sum();
        let Moved {
            pushes: moved,
            more,
            unread,
        } = apart(names, || self.moved(references, &mut cursor));
        (cursor.begun, cursor.incomplete) = (true, unread && is_first);
        let interval = self.frame.interval(if more { SOON } else { INTERVAL });
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

        state.cursor = cursor.to_json();
        note_success(&mut state, now, interval);
        let events = moved.len() as u64;
        state.events += events;
        if events > 0 {
            state.newest_event_at = Some(now);
        }
        let items = self.frame.commit(&mut state, &found).await?;
        Ok(PollOutcome {
            next_after: interval,
            events,
            items,
            malformed: found.malformed,
            gap: false,
        })
    }

    /// Returns the pushes since the last poll, as many as one poll takes. Updates the cursor to reflect the pushes that
    /// are returned.
    fn moved(&self, references: References, cursor: &mut Cursor) -> Moved {
        let mut before = std::mem::take(&mut cursor.references);
        let after = cursor.after.take();
        let (mut moved, mut latest) = (Vec::new(), None);
        let (mut more, mut unread) = (false, false);
        // The default branch first: most other branches derive from it, so they add little once it has been read.
        let head = references.head;
        let mut times = HashMap::new();
        let list = references.list.into_iter().map(|(name, id)| {
            let mut key = self.frame.reference(&name);
            if !is_to_the_letter(&key) {
                let times: &mut u32 = times.entry(key.clone()).or_default();
                *times += 1;
                if *times > 1 {
                    // No name has a space in it.
                    key = format!("{key} {times}");
                }
            }
            (key, name, id)
        });
        let mut list: Vec<_> = list.collect();
        list.sort_by(|(key, name, _), (other_key, other_name, _)| {
            let place = |key: &String, name: &String| {
                let was_taken = after.as_ref().is_some_and(|after| key <= after);
                (head.as_ref() != Some(name), was_taken)
            };
            let order = place(key, name).cmp(&place(other_key, other_name));
            order.then_with(|| key.cmp(other_key))
        });
        for (key, name, id) in list {
            let hex = before.remove(&key);
            let known = hex
                .as_ref()
                .and_then(|hex| ObjectId::from_hex(hex.as_bytes()).ok());
            if known != Some(id) && moved.len() >= MAX_MOVED {
                more = true;
                unread |= hex.is_none();
                cursor.references.extend(hex.map(|hex| (key, hex)));
                continue;
            }
            if known != Some(id) {
                if head.as_ref() != Some(&name) {
                    latest = Some(key.clone());
                }
                moved.push(Push {
                    remote: self.remote.clone(),
                    reference: name,
                    before: known.unwrap_or(ObjectId::null(id.kind())),
                    after: id,
                });
            }
            cursor.references.insert(key, id.to_string());
        }
        cursor.after = latest.filter(|_| more);
        Moved {
            pushes: moved,
            more,
            unread,
        }
    }
}

/// Converts a fetch error, preserving the server's `Retry-After` so that it is honored.
fn failure(error: FetchError) -> PollError {
    match error {
        FetchError::RateLimited {
            status,
            retry_after,
        } => PollError::RateLimited {
            status,
            retry_after,
        },
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
