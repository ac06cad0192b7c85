//! Access tokens of Rescind itself that leaked.

use std::collections::HashMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::super::answer::Outcome;
use crate::keyformat::Sha256Digest;
use crate::store::{StoreError, Token, Tx};

/// Access tokens that were reported.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// Tokens as they are stored, by the digests of their values.
    found: HashMap<Sha256Digest, Token>,
    /// Identifiers of those that were revoked by this report.
    revoked: Vec<Uuid>,
}

impl Tokens {
    /// Revokes those of the tokens that are valid.
    pub(super) async fn revoke(
        tx: &mut Tx,
        mut found: HashMap<Sha256Digest, Token>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut valid: Vec<&mut Token> = found
            .values_mut()
            .filter(|token| token.is_valid(now))
            .collect();
        // A consistent order makes reports of the same tokens wait for each other instead of deadlocking.
        valid.sort_by_key(|token| token.id);
        let mut revoked = Vec::new();
        for token in valid {
            let (was_valid, stored) = tx.revoke_leaked_token(token.id, now).await?;
            if was_valid {
                revoked.push(token.id);
            }
            // Somebody else may have revoked it since it was looked up, at another time.
            if let Some(stored) = stored {
                *token = stored;
            }
        }
        Ok(Self { found, revoked })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Returns the outcome for a value, if it is a token.
    pub(super) fn outcome(&self, digest: &Sha256Digest) -> Option<Outcome> {
        self.found.get(digest).cloned().map(Outcome::AccessToken)
    }

    /// Mentions each token in the operator's log.
    pub(super) fn announce(&self, actor: &str) {
        for token in self.found.values() {
            if self.revoked.contains(&token.id) {
                tracing::warn!(
                    token = %token.id, role = token.role.as_str(), project = token.project, actor,
                    "a leaked access token of Rescind itself was revoked"
                );
            } else {
                tracing::info!(
                    token = %token.id, actor, "an access token that is invalid already was reported"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use secrecy::SecretString;

    use super::*;
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
            })
            .await
            .unwrap();
        tx.commit().await.unwrap();
        // Looked up while it was valid.
        let tokens = HashMap::from([(digest, token.clone())]);
        let mut tx = store.begin().await.unwrap();
        tx.revoke_token(token.id, first).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = store.begin().await.unwrap();
        let later = first + SignedDuration::from_secs(9);
        let tokens = Tokens::revoke(&mut tx, tokens, later).await.unwrap();
        tx.commit().await.unwrap();
        assert!(tokens.revoked.is_empty());
        assert_eq!(tokens.found[&digest].revoked_at, Some(first));
        store.close().await;
    }
}
