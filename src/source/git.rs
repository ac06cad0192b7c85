//! One repository at any address, looked at on a schedule: for forges without events.
//!
//! Each poll lists the branches and tags and compares them with those of the last one. What moved is a push
//! from where it was to where it is, so commits that were pushed over are fetched as well, as long as the
//! server still has them. What came and went between two polls is not seen.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use reqwest::Url;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::apart::apart;
use super::keeper::{Keeper, after};
use super::{Origin, PollError, PollFailure, PollOutcome, Source, SourceParts};
use crate::fetch::{FetchError, GitFetcher, ObjectId, References, RepositoryName};
use crate::forge::{Push, Remote, is_reference};
use crate::store::Priority;

/// The time between two polls when the configuration names no schedule.
const INTERVAL: Duration = Duration::from_mins(5);

/// The most of them that one poll makes work of. The others are still news to the next one, which comes soon.
const MAX_MOVED: usize = 1_000;

/// The time until the next poll when there is more.
const SOON: Duration = Duration::from_secs(30);

/// A source of the kind `git`.
#[derive(Debug, Clone)]
pub struct GitRemoteOptions {
    /// Its name in the configuration.
    pub name: String,
    /// Where the repository is cloned from, over smart HTTP.
    pub url: Url,
    /// An access token, sent as the password.
    pub token: Option<SecretString>,
}

/// Polls one repository.
#[derive(Debug)]
pub struct GitRemote {
    keeper: Keeper,
    fetcher: GitFetcher,
    remote: Remote,
    url: Url,
    token: Option<SecretString>,
}

/// Where the branches and tags stood; kept in the database as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Cursor {
    /// What was polled, so that another address under the same name starts anew.
    #[serde(default)]
    url: String,
    /// Commits by name, names without keys.
    #[serde(default)]
    references: BTreeMap<String, String>,
    /// Not all that the repository always had was taken yet.
    #[serde(default)]
    incomplete: bool,
}

impl Cursor {
    fn load(json: &str, url: &str) -> Self {
        let saved = serde_json::from_str::<Self>(json).unwrap_or_default();
        if saved.url == url {
            return saved;
        }
        Self {
            url: url.to_owned(),
            ..Self::default()
        }
    }
}

impl GitRemote {
    /// A source that is ready to be polled.
    ///
    /// # Errors
    /// [`PollError::Address`] when `url` names no repository.
    pub fn new(
        options: GitRemoteOptions,
        parts: SourceParts,
        fetcher: GitFetcher,
    ) -> Result<Self, PollError> {
        let GitRemoteOptions { name, url, token } = options;
        let host = Origin::host_of(&url);
        let path = url.path().trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        // A repository at the top of its server has no owner but the server.
        let repository = RepositoryName::parse(path)
            .or_else(|_| {
                RepositoryName::parse(&format!("{}/{path}", url.host_str().unwrap_or("git")))
            })
            .map_err(|_| PollError::Address("its path is no repository's"))?;
        Ok(Self {
            keeper: Keeper::new(name, "git", parts),
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
        match self.read_and_commit().await {
            Ok(outcome) => {
                self.keeper.succeeded();
                Ok(outcome)
            }
            Err(error) => Err(self.keeper.failed(error).await),
        }
    }

    async fn read_and_commit(&self) -> Result<PollOutcome, PollError> {
        let mut state = self.keeper.state().await?;
        let mut cursor = Cursor::load(&state.cursor, self.url.as_str());
        let is_first = cursor.references.is_empty() || cursor.incomplete;
        let listed = self
            .fetcher
            .references(&self.url, self.token.as_ref())
            .await;
        let references = listed.map_err(failure)?;
        if references.cut {
            return Err(PollError::NotAList(
                "it has more than 50,000 branches and tags, or more than 4 MiB of their names",
            ));
        }
        let now = self.keeper.now();
        // What a repository always had is read when nothing else waits.
        let priority = if is_first {
            Priority::Backfill
        } else {
            Priority::Watched
        };
        let mut gatherer = self.keeper.gatherer();
        let names = references.list.iter().map(|(name, _)| name.len()).sum();
        let (moved, more) = apart(names, || self.moved(references, &mut cursor));
        cursor.incomplete = more;
        let interval = self.keeper.interval(if more { SOON } else { INTERVAL });
        for push in &moved {
            gatherer.push(push, priority, now);
        }
        let found = gatherer.gathered;

        state.cursor = serde_json::to_string(&cursor).unwrap_or_default();
        state.polled_at = Some(now);
        state.succeeded_at = Some(now);
        state.next_poll_at = after(now, interval);
        state.error = None;
        state.polls += 1;
        let events = moved.len() as u64;
        state.events += events;
        if events > 0 {
            state.newest_event_at = Some(now);
        }
        let items = self.keeper.commit(&mut state, &found).await?;
        Ok(PollOutcome {
            next_after: interval,
            events,
            items,
            malformed: found.malformed,
            gap: false,
        })
    }

    /// What moved since the last poll, and whether there is more than one poll takes; the cursor is brought up
    /// to what it takes.
    fn moved(&self, references: References, cursor: &mut Cursor) -> (Vec<Push>, bool) {
        let mut before = std::mem::take(&mut cursor.references);
        let mut moved = Vec::new();
        let mut more = false;
        // First what most of the others are made from, so that they add little to it.
        let head = references.head;
        let mut list = references.list;
        list.sort_by_key(|(name, _)| head.as_ref() != Some(name));
        for (name, id) in list.into_iter().filter(|(name, _)| is_reference(name)) {
            let key = self.keeper.words(&name);
            let hex = before.remove(&key);
            let known = hex
                .as_ref()
                .and_then(|hex| ObjectId::from_hex(hex.as_bytes()).ok());
            if known != Some(id) && moved.len() >= MAX_MOVED {
                more = true;
                cursor.references.extend(hex.map(|hex| (key, hex)));
                continue;
            }
            cursor.references.insert(key, id.to_string());
            if known != Some(id) {
                moved.push(Push {
                    remote: self.remote.clone(),
                    reference: name,
                    before: known.unwrap_or(ObjectId::null(id.kind())),
                    after: id,
                });
            }
        }
        (moved, more)
    }
}

/// A server that asks to slow down is waited for as long as it says.
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
        &self.keeper.name
    }

    fn due_in(&self) -> BoxFuture<'_, Result<Duration, PollError>> {
        self.keeper.due_in().boxed()
    }

    fn poll_once(&self) -> BoxFuture<'_, Result<PollOutcome, PollFailure>> {
        self.poll().boxed()
    }
}
