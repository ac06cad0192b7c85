//! Recovery of pushes that a feed did not show, from the activity of watched repositories.
//!
//! The activity of a repository is a complete list of the pushes to it, unlike the feed. After a gap, a restart, or a
//! long failure, it is read back to the last event that was seen. Pushes that the feed had shown are recognized by
//! their identity and not scanned again. Source:
//! <https://docs.github.com/en/rest/repos/repos#list-repository-activities>.

use jiff::{SignedDuration, Timestamp};
use reqwest::Url;
use serde::Deserialize;

use super::GitHubEvents;
use super::cursor::{Cursor, Pending, Repair};
use super::reading::PAGES;
use super::scalar::{id, text_or_nothing};
use crate::fetch::{Body, RepositoryName};
use crate::forge::{Gatherer, Push, Remote, is_reference, kept_id, no_commit, object_id};
use crate::github::GitHubError;
use crate::offload::apart;
use crate::respond::shorten;
use crate::scan::Redactor;
use crate::source::kept::Kept;
use crate::source::page::{entries, entry};
use crate::source::{PollError, Scope};
use crate::store::SourceState;

/// Maximum delay of an event: an event that is older than the newest one seen by less than this may still appear.
/// Source: <https://docs.github.com/en/rest/activity/events>.
pub(super) const LATE: SignedDuration = SignedDuration::from_hours(6);

/// Maximum number of repositories whose activity is read after one poll; the rest follows after the next.
const REPOSITORIES: usize = 100;

/// Maximum number of pages of the list of repositories.
const LIST_PAGES: usize = 10;

/// Maximum number of pages of activity per repository.
const ACTIVITY_PAGES: usize = 10;

/// Number of failed attempts after which a repair is abandoned.
const TRIES: u32 = 20;

/// Maximum length of the name of a repository that is listed as failed, in characters.
const NAME_MAX: usize = 140;

#[derive(Deserialize)]
struct ListedRepository {
    #[serde(default, deserialize_with = "id")]
    id: Option<String>,
    #[serde(default, deserialize_with = "text_or_nothing")]
    full_name: Option<String>,
    #[serde(default)]
    pushed_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Activity {
    #[serde(default, deserialize_with = "text_or_nothing")]
    before: Option<String>,
    after: String,
    #[serde(rename = "ref")]
    reference: String,
    timestamp: Timestamp,
}

/// Returns a name that is none of a repository in a form that is none either, but not long.
fn bounded(redactor: &Redactor, name: String) -> String {
    if RepositoryName::parse(&name).is_ok() || name.len() <= NAME_MAX {
        return name;
    }
    shorten(redactor, &name, NAME_MAX, false)
}

/// Outcome of comparing a repository with the feed.
enum Compared {
    Whole,
    /// There are more pushes than are read.
    TooMuch,
    /// Its name is not that of a repository.
    NotAName,
}

impl GitHubEvents {
    /// Continues the repair that the cursor requests. Returns the number of new pushes. Each repository is committed
    /// separately, so that nothing is done twice.
    pub(super) async fn repair(
        &self,
        state: &mut SourceState,
        cursor: &mut Kept<Cursor>,
    ) -> Result<u64, PollError> {
        let Some(mut repair) = cursor.repair.take() else {
            return Ok(0);
        };
        let before = state.repaired;
        let done = self.go_on(state, cursor, &mut repair).await;
        if let Err(error) = &done {
            repair.tries += 1;
            let is_final = matches!(error, PollError::Api(GitHubError::Refused { .. }))
                || repair.tries >= TRIES;
            if is_final {
                repair.fail(self.frame.words(error));
                repair.pending = Some(Vec::new());
            }
        }
        let is_over = repair.pending.as_ref().is_some_and(Vec::is_empty);
        if is_over {
            cursor.repair = None;
            let words = [state.unseen.take(), repair.outcome()];
            let words: Vec<String> = words.into_iter().flatten().collect();
            state.unseen = (!words.is_empty()).then(|| words.join("; "));
            let source = &self.frame.name;
            let (found, since) = (state.repaired - before, repair.since);
            tracing::info!(%source, found, %since, "the activity of repositories was compared with the feed");
        } else {
            cursor.repair = Some(repair);
        }
        self.save(state, cursor).await?;
        match done {
            Err(error) if !is_over => Err(error),
            _ => Ok(state.repaired - before),
        }
    }

    async fn go_on(
        &self,
        state: &mut SourceState,
        cursor: &mut Kept<Cursor>,
        repair: &mut Repair,
    ) -> Result<(), PollError> {
        if repair.pending.is_none() {
            // A list that breaks off is read again from its beginning.
            let mut listed = repair.clone();
            listed.pending = Some(self.pushed_since(&mut listed).await?);
            let malformed = listed.unreadable - repair.unreadable;
            *repair = listed;
            if malformed > 0 {
                let source = &self.frame.name;
                tracing::warn!(%source, malformed, "entries in the list of repositories cannot be read");
                state.malformed += malformed;
            }
        }
        for _ in 0..REPOSITORIES {
            let Some(next) = repair.pending.as_ref().and_then(|all| all.last()).cloned() else {
                break;
            };
            // Leaves enough of the rate limit for the next poll.
            let wanted = u64::from(PAGES) + 1;
            if !self.api.tokens.wait(wanted, self.frame.now()).is_zero() {
                break;
            }
            let mut gatherer = self.frame.gatherer();
            match self
                .activity(&next, repair.since, &mut gatherer, state)
                .await
            {
                Ok(Compared::Whole) => {}
                Ok(Compared::TooMuch) => repair.fail(self.named(&next.name, "too much since then")),
                Ok(Compared::NotAName) => {
                    state.malformed += 1;
                    repair.fail(self.named(&next.name, "no name of a repository"));
                }
                Err(PollError::Api(GitHubError::Refused { status })) => {
                    repair.fail(self.named(&next.name, &format!("HTTP {status}")));
                }
                Err(PollError::NotAList(_) | PollError::TooMuch(_)) => {
                    repair.fail(self.named(&next.name, "no list came"));
                }
                Err(error) => return Err(error),
            }
            repair.pending.as_mut().map(Vec::pop);
            cursor.repair = Some(repair.clone());
            state.cursor = cursor.to_json();
            state.repaired += self.frame.commit(state, gatherer.gathered).await?;
        }
        Ok(())
    }

    /// Returns the repositories of the scope that were pushed to since the repair's start time, most recently pushed
    /// first.
    async fn pushed_since(&self, repair: &mut Repair) -> Result<Vec<Pending>, PollError> {
        let scope = &self.options.scope;
        let query: &[(&str, &str)] = match scope {
            Scope::Public => return Ok(Vec::new()),
            Scope::Repository { .. } => &[],
            Scope::Organization(_) => {
                &[("type", "public"), ("sort", "pushed"), ("per_page", "100")]
            }
            Scope::User(_) => &[("type", "owner"), ("sort", "pushed"), ("per_page", "100")],
        };
        let is_one = query.is_empty();
        let path = scope.path();
        let path = if is_one {
            path
        } else {
            [&path[..], &["repos"]].concat()
        };
        let mut next = Some(self.api.url(&path, query));
        let mut found = Vec::new();
        for _ in 0..LIST_PAGES {
            let Some(url) = next.take() else {
                return Ok(found);
            };
            let mut answer = self.api.get(&url, None, |_| None).await?;
            let following = answer.next(&url);
            let text = answer.body.as_mut().map_or("", Body::json);
            let read = if is_one { entry } else { entries };
            for listed in apart(text.len(), || read(text))? {
                let Ok(listed) = serde_json::from_str::<ListedRepository>(listed.get()) else {
                    repair.unreadable += 1;
                    continue;
                };
                if listed.pushed_at.is_some_and(|at| at < repair.since) {
                    return Ok(found);
                }
                let redactor = self.frame.parts.responder.redactor();
                match (listed.id, listed.full_name) {
                    (_, Some(name)) if redactor.holds_key(&name) => {
                        repair.fail(self.named(&name, "with a key in its name"));
                    }
                    (Some(id), Some(name)) => found.push(Pending {
                        id: kept_id(redactor, &id),
                        name: bounded(redactor, name),
                    }),
                    (None, Some(name)) => {
                        repair.unreadable += 1;
                        repair.fail(self.named(&name, "without an identifier"));
                    }
                    (_, None) => repair.unreadable += 1,
                }
            }
            next = following;
        }
        if next.is_some() {
            repair.fail("repositories beyond the first 1,000".to_owned());
        }
        Ok(found)
    }

    /// Returns the name of a repository with what is wrong, for an operator.
    fn named(&self, name: &str, wrong: &str) -> String {
        let name = self.frame.words(&name);
        let name: String = name.chars().take(NAME_MAX).collect();
        format!("{name} ({wrong})")
    }

    /// Reads the pushes to a repository since `since`, up to [`ACTIVITY_PAGES`] pages. Those of the last page are left to
    /// be committed.
    async fn activity(
        &self,
        of: &Pending,
        since: Timestamp,
        gatherer: &mut Gatherer<'_>,
        state: &mut SourceState,
    ) -> Result<Compared, PollError> {
        let Ok(repository) = RepositoryName::parse(&of.name) else {
            return Ok(Compared::NotAName);
        };
        let remote = Remote {
            host: self.options.host.clone(),
            repository_id: of.id.clone(),
            clone_url: None,
            repository,
        };
        let path = [
            "repos",
            remote.repository.owner(),
            remote.repository.name(),
            "activity",
        ];
        let mut next: Option<Url> = Some(self.api.url(&path, &[("per_page", "100")]));
        for _ in 0..ACTIVITY_PAGES {
            let Some(url) = next.take() else {
                return Ok(Compared::Whole);
            };
            let mut answer = self.api.get(&url, None, |_| None).await?;
            let following = answer.next(&url);
            let text = answer.body.as_mut().map_or("", Body::json);
            for entry in apart(text.len(), || entries(text))? {
                let Some((push, at)) = push(entry.get(), &remote) else {
                    gatherer.gathered.malformed += 1;
                    continue;
                };
                if at < since {
                    return Ok(Compared::Whole);
                }
                gatherer.push(&push, self.options.scope.priority(), at);
            }
            next = following;
            if next.is_some() {
                // It may be slow to come.
                let added = self.frame.commit_early(&mut gatherer.gathered).await?;
                state.items += added;
                state.repaired += added;
            }
        }
        Ok(match next {
            None => Compared::Whole,
            Some(_) => Compared::TooMuch,
        })
    }
}

fn push(json: &str, remote: &Remote) -> Option<(Push, Timestamp)> {
    let activity: Activity = serde_json::from_str(json).ok()?;
    let reference = activity.reference;
    if !is_reference(&reference) {
        return None;
    }
    let push = Push {
        remote: remote.clone().into(),
        reference,
        before: match activity.before.as_deref() {
            None | Some("") => no_commit(),
            Some(before) => object_id(before).ok()?,
        },
        after: object_id(&activity.after).ok()?,
    };
    Some((push, activity.timestamp))
}
