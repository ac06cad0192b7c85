//! Access tokens of Rescind itself that leaked.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::super::answer::Outcome;
use super::super::clean::CleanSighting;
use crate::keyformat::Sha256Digest;
use crate::store::{Place, StoreError, Token, Tx};

/// Access tokens that were reported.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// Tokens as they are stored, by the digests of their values.
    found: HashMap<Sha256Digest, Arc<Token>>,
    /// Places where they were seen first, by the same.
    places: HashMap<Sha256Digest, Arc<Place>>,
    /// Identifiers of those that were revoked by this report, and of which no outcome says so yet.
    revoked: HashSet<Uuid>,
}

impl Tokens {
    /// Revokes those of the tokens among the sightings that are not revoked.
    pub(super) async fn revoke<'s>(
        tx: &mut Tx,
        seen: impl IntoIterator<Item = &'s CleanSighting>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut places = HashMap::new();
        let tokens = seen.into_iter().filter_map(|sighting| {
            let token = Arc::clone(sighting.token()?);
            let place = places.entry(sighting.digest());
            place.or_insert_with(|| Arc::clone(&sighting.place));
            Some((sighting.digest(), token))
        });
        let mut found: HashMap<Sha256Digest, Arc<Token>> = tokens.collect();
        // Expired ones, too: the clock may be ahead.
        let mut left: Vec<&mut Arc<Token>> = found
            .values_mut()
            .filter(|token| token.revoked_at.is_none())
            .collect();
        // A consistent order makes reports of the same tokens wait for each other instead of deadlocking.
        left.sort_by_key(|token| token.id);
        let mut revoked = HashSet::new();
        for token in left {
            let was_valid = token.is_valid(now);
            let (is_revoked, stored) = tx.revoke_leaked_token(token.id, now).await?;
            if is_revoked && was_valid {
                revoked.insert(token.id);
            }
            // Somebody else may have revoked it since it was looked up, at another time.
            if let Some(stored) = stored {
                *token = Arc::new(stored);
            }
        }
        Ok(Self {
            found,
            places,
            revoked,
        })
    }

    /// Returns the outcome for a value, if it is a token. The first outcome is that it was revoked, if it was.
    pub(super) fn outcome(&mut self, digest: &Sha256Digest) -> Option<Outcome> {
        let token = Arc::clone(self.found.get(digest)?);
        if self.revoked.remove(&token.id) {
            let place = Arc::clone(self.places.get(digest)?);
            return Some(Outcome::RevokedToken(token, place));
        }
        Some(Outcome::InvalidToken(token))
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use secrecy::SecretString;

    use super::super::super::known::Known;
    use super::*;
    use crate::keyformat::KeyValue;
    use crate::store::{NewToken, Role, Store, StoreOptions};

    #[tokio::test]
    async fn a_token_that_somebody_else_revoked_meanwhile_keeps_that_time() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("keys.db").display());
        let options = StoreOptions {
            create: true,
            ..StoreOptions::new(SecretString::from(url))
        };
        let store = Store::open(options).await.unwrap();
        store.migrate().await.unwrap();
        let first: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let digest = Sha256Digest::of(b"a token");
        let mut tx = store.begin().await.unwrap();
        let token = tx
            .insert_token(NewToken {
                id: Uuid::from_u128(1),
                project: "default".to_owned(),
                digest,
                role: Role::Viewer,
                description: String::new(),
                prefix: String::new(),
                last_four: "oken".to_owned(),
                created_at: first,
                expires_at: None,
                definition: None,
            })
            .await
            .unwrap();
        tx.commit().await.unwrap();
        // Looked up while it was valid.
        let known = Known::of(&store, [digest]).await.unwrap();
        let place = Place::of_source("test").into();
        let seen = CleanSighting::new(KeyValue::new("a token"), place, first).of(&known);
        let mut tx = store.begin().await.unwrap();
        tx.revoke_token(token.id, first).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = store.begin().await.unwrap();
        let later = first + SignedDuration::from_secs(9);
        let tokens = Tokens::revoke(&mut tx, [&seen], later).await.unwrap();
        tx.commit().await.unwrap();
        assert!(tokens.revoked.is_empty());
        assert_eq!(tokens.found[&digest].revoked_at, Some(first));
        store.close().await;
    }
}
