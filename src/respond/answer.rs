//! Results of reported sightings.

use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use crate::store::{Key, LogDraft, Place, Token};

/// Result of a sighting: one outcome for each project that holds the value, none if the value is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Outcomes in the order of the projects. That of an access token comes last.
    pub outcomes: Vec<Outcome>,
}

/// Key that was seen, as it is afterward. It is kept as long as the answers are, which may be those to thousands of
/// sightings, so that it is without the texts of its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenKey {
    /// Version 7 UUID.
    pub id: Uuid,
    /// Project that the key belongs to.
    pub project: String,
    /// Identifier of the key format.
    pub format: String,
    /// Time of expiry. `None` if the key never expires.
    pub expires_at: Option<Timestamp>,
    /// Time of the revocation. `None` if the key has not been revoked.
    pub revoked_at: Option<Timestamp>,
}

impl SeenKey {
    /// Returns what answers tell of a key.
    pub fn of(key: &Key) -> Self {
        Self {
            id: key.id,
            project: key.project.clone(),
            format: key.format.clone(),
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
        }
    }
}

/// Effect of a sighting on one key or access token. All sightings of a key share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A public key: recorded, and left alone.
    Public(Arc<SeenKey>),
    /// A secret key that was valid until this sighting revoked it.
    Revoked(Arc<SeenKey>),
    /// A secret key that was invalid before: revoked, possibly by an earlier sighting of the same batch, or
    /// expired.
    AlreadyInvalid(Arc<SeenKey>),
    /// An access token of Rescind itself that was valid until this sighting revoked it. The revocation log covers keys
    /// only, so that the place where it was seen is in the daemon's log alone.
    RevokedToken(Arc<Token>, Arc<Place>),
    /// An access token of Rescind itself that was invalid before.
    InvalidToken(Arc<Token>),
}

impl Answer {
    /// Returns whether the value is neither a key nor an access token.
    pub fn is_unknown(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// Returns whether the value is a secret key or an access token, in any project.
    pub fn is_secret(&self) -> bool {
        let mut outcomes = self.outcomes.iter();
        outcomes.any(|outcome| !matches!(outcome, Outcome::Public(_)))
    }

    /// Returns the keys with this value.
    pub fn keys(&self) -> impl Iterator<Item = &SeenKey> {
        self.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Public(key) | Outcome::Revoked(key) | Outcome::AlreadyInvalid(key) => {
                Some(&**key)
            }
            Outcome::RevokedToken(..) | Outcome::InvalidToken(_) => None,
        })
    }
}

/// Answers to the reports of a transaction, with whose they are.
#[derive(Debug, Default)]
#[must_use = "what was done is announced after the commit"]
pub struct Reported {
    pub(super) answers: Vec<(String, Vec<Answer>)>,
    /// Entries of the revocation log about the keys that were revoked.
    pub(super) revoked: Vec<LogDraft>,
}

impl Reported {
    /// Logs the outcomes for the operator. To be called after the commit, since nothing has happened before it.
    pub fn announce(&self) {
        for draft in &self.revoked {
            announce_revoked(draft);
        }
        for (actor, answers) in &self.answers {
            for outcome in answers.iter().flat_map(|answer| &answer.outcomes) {
                outcome.announce(actor);
            }
        }
    }

    /// Returns the answers to the sightings, in the order of the reports and of their sightings.
    pub fn into_answers(self) -> impl Iterator<Item = Answer> {
        self.answers.into_iter().flat_map(|(_, answers)| answers)
    }
}

/// Logs that a key was revoked because it was seen. The texts of the place contain no keys since they were cleaned.
fn announce_revoked(draft: &LogDraft) {
    let LogDraft { key, actor, .. } = draft;
    let place = draft.occurrence.as_ref();
    let repository = place.and_then(|place| place.repository.as_deref());
    let url = place.and_then(|place| place.url.as_deref());
    let incident = draft.incident_id.map(tracing::field::display);
    let owner_type = key.owner.kind.name();
    tracing::warn!(
        key = %key.id, format = key.format, project = key.project, owner_type, owner = key.owner.id, incident,
        repository, url, actor, "a leaked key was revoked"
    );
}

impl Outcome {
    fn announce(&self, actor: &str) {
        match self {
            // With what the entry of the revocation log tells.
            Self::Revoked(_) => {}
            Self::AlreadyInvalid(key) => tracing::info!(
                key = %key.id, actor, "a key that is invalid already was seen"
            ),
            Self::Public(key) => {
                tracing::info!(key = %key.id, actor, "a public key was reported");
            }
            Self::RevokedToken(token, place) => {
                let (repository, url) = (place.repository.as_deref(), place.url.as_deref());
                tracing::warn!(
                    token = %token.id, role = token.role.name(), project = token.project, repository, url, actor,
                    "a leaked access token of Rescind itself was revoked"
                );
            }
            Self::InvalidToken(token) => tracing::info!(
                token = %token.id, actor, "an access token that is invalid already was reported"
            ),
        }
    }
}
