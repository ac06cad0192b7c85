//! What sightings amounted to.

use crate::store::{Key, Token};

/// What a sighting amounted to: an outcome for each project that holds the value, none when it is nobody's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// In the order of the projects; an access token comes last.
    pub outcomes: Vec<Outcome>,
}

/// What a sighting meant for one key or access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A public key of ours: recorded, and left alone.
    Public(Key),
    /// A secret key of ours that was valid until this sighting revoked it.
    Revoked(Key),
    /// A secret key of ours that was invalid before: revoked, be it by an earlier sighting of the same
    /// batch, or expired.
    AlreadyInvalid(Key),
    /// An access token of Rescind itself, as it is now: revoked, or expired before. Only
    /// [`Responder::report_from_outside`](super::Responder::report_from_outside) looks for these.
    AccessToken(Token),
}

impl Answer {
    /// Whether nobody holds the value.
    pub fn is_unknown(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// Whether the value is a secret of ours, in any project.
    pub fn is_secret(&self) -> bool {
        let mut outcomes = self.outcomes.iter();
        outcomes.any(|outcome| !matches!(outcome, Outcome::Public(_)))
    }

    /// The keys that have this value.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Public(key) | Outcome::Revoked(key) | Outcome::AlreadyInvalid(key) => {
                Some(key)
            }
            Outcome::AccessToken(_) => None,
        })
    }
}

/// Tells the operator's log what was done. For after the commit: before it, nothing has been.
pub fn announce(answers: &[Answer], actor: &str) {
    for outcome in answers.iter().flat_map(|answer| &answer.outcomes) {
        match outcome {
            Outcome::Revoked(key) => tracing::warn!(
                key = %key.id, format = key.format, project = key.project, actor,
                "a leaked key was revoked"
            ),
            Outcome::AlreadyInvalid(key) => tracing::info!(
                key = %key.id, actor, "a key that is invalid already was seen"
            ),
            Outcome::Public(key) => {
                tracing::info!(key = %key.id, actor, "a public key was reported");
            }
            Outcome::AccessToken(_) => {}
        }
    }
}
