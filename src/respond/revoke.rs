//! Revocation by hand.

use jiff::Timestamp;
use uuid::Uuid;

use super::Responder;
use super::redact::logged_form;
use crate::store::{Action, Key, LogDraft, Reason, StoreError, Tx, retried};

impl Responder {
    /// Revokes a key at the request of `actor`. Returns its current state, or `None` if there is no key with this
    /// identifier. Repeating the call has no effect: the time of the first revocation is kept.
    ///
    /// # Errors
    /// Returns any [`StoreError`], in which case nothing has changed.
    pub async fn revoke(&self, id: Uuid, actor: &str) -> Result<Option<Key>, StoreError> {
        Ok(self.revoke_all(&[id], actor).await?.pop())
    }

    /// Revokes several keys in one transaction, as [`revoke`](Self::revoke) does, such as those of all projects
    /// that hold one value. Returns the keys that exist.
    ///
    /// # Errors
    /// Returns any [`StoreError`], in which case nothing has changed.
    pub async fn revoke_all(&self, ids: &[Uuid], actor: &str) -> Result<Vec<Key>, StoreError> {
        let (keys, revoked) = retried(|| async {
            let now = self.clock.now();
            let mut tx = self.store.begin().await?;
            let mut keys = tx.lock_keys(ids).await?;
            let revoked = self.revoke_locked(&mut tx, &mut keys, now, actor).await?;
            tx.commit().await?;
            Ok::<_, StoreError>((keys, revoked))
        })
        .await?;
        tell_revoked(&revoked);
        Ok(keys)
    }

    /// Revokes the locked keys that are not revoked yet, and logs it. Returns their entries of the log.
    pub(crate) async fn revoke_locked(
        &self,
        tx: &mut Tx,
        keys: &mut [Key],
        now: Timestamp,
        actor: &str,
    ) -> Result<Vec<LogDraft>, StoreError> {
        let mut revoked = Vec::new();
        let mut drafts = Vec::new();
        for key in keys.iter_mut().filter(|key| key.revoked_at.is_none()) {
            key.revoked_at = Some(now);
            revoked.push(key.id);
            let mut draft = by_hand(key, now, Action::Revoked, Reason::Manual, actor);
            draft.incident_id = tx.incident_id_of(key.id).await?;
            drafts.push(draft);
        }
        tx.revoke_keys(&revoked, now).await?;
        tx.append_log(&drafts).await?;
        Ok(drafts)
    }
}

/// Returns the log entry of an operation on a key that a person requested.
pub(crate) fn by_hand(
    key: &Key,
    at: Timestamp,
    action: Action,
    reason: Reason,
    actor: &str,
) -> LogDraft {
    LogDraft {
        at,
        action,
        key: logged_form(key),
        reason,
        policy: None,
        actor: actor.to_owned(),
        incident_id: None,
        occurrence: None,
        detected_at: None,
    }
}

/// Logs that keys were revoked by hand.
pub(crate) fn tell_revoked(entries: &[LogDraft]) {
    for LogDraft {
        key,
        actor,
        incident_id,
        ..
    } in entries
    {
        let incident = incident_id.map(tracing::field::display);
        let owner_type = key.owner.kind.name();
        tracing::info!(
            key = %key.id, project = key.project, owner_type, owner = key.owner.id, incident, actor,
            "a key was revoked by hand"
        );
    }
}
