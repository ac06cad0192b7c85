//! Keys made, replaced, changed and revoked by hand.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::redact::clean_key;
use super::{RespondError, Responder};
use crate::keyformat::{KeyFormat, KeyValue};
use crate::store::{
    Action, ImportOutcome, Key, KeyPatch, LogDraft, NewKey, Owner, Reason, StoreError, Tx, retried,
};

/// What a new key is to be.
#[derive(Debug, Clone)]
pub struct IssueRequest {
    /// The project it belongs to.
    pub project: String,
    /// Whom it belongs to.
    pub owner: Owner,
    /// What its owner calls it.
    pub description: String,
    /// When it ends; never, if absent.
    pub expires_at: Option<Timestamp>,
    /// Meant for client-side code.
    pub is_public: bool,
    /// What happens on a leak, where the key is to have a policy of its own.
    pub policy: Option<String>,
    /// Who is told of a leak besides the operators.
    pub notify_emails: Vec<String>,
}

/// A key and the one that took its place.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// The old key; it ends with the overlap.
    pub old: Key,
    /// The new key.
    pub new: Key,
    /// The new key's value, to be shown once.
    pub value: KeyValue,
}

impl Responder {
    /// Mints a key and stores it. The value is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`RespondError::Mint`], [`RespondError::NoFormat`], and any [`StoreError`].
    pub async fn issue(&self, request: IssueRequest) -> Result<(Key, KeyValue), RespondError> {
        let format = self.minting_format(request.is_public)?;
        let value = format.mint()?;
        let new = self.new_key(format, &value, request);
        let key = retried(|| async {
            let mut tx = self.store.begin().await?;
            let key = tx.insert_key(new.clone()).await?;
            tx.commit().await?;
            Ok::<_, StoreError>(key)
        });
        let key = key.await?;
        tracing::info!(key = %key.id, format = key.format, project = key.project, "a key was issued");
        Ok((key, value))
    }

    /// Replaces a key: a new one for the same owner, and the old one ends when the overlap does, or at
    /// its own end if that is earlier. The new one lives as long as the old one was meant to.
    ///
    /// # Errors
    /// [`RespondError::NotFound`], [`RespondError::Invalid`], [`RespondError::Replaced`],
    /// [`RespondError::Mint`], [`RespondError::NoFormat`], and any [`StoreError`].
    pub async fn rotate(
        &self,
        id: Uuid,
        overlap: Duration,
        actor: &str,
    ) -> Result<Rotation, RespondError> {
        let rotation = retried(|| self.rotate_once(id, overlap, actor)).await?;
        let (old, new) = (rotation.old.id, rotation.new.id);
        tracing::info!(key = %old, successor = %new, actor, "a key was rotated");
        Ok(rotation)
    }

    async fn rotate_once(
        &self,
        id: Uuid,
        overlap: Duration,
        actor: &str,
    ) -> Result<Rotation, RespondError> {
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        let Some(mut old) = tx.lock_keys(&[id]).await?.pop() else {
            return Err(RespondError::NotFound);
        };
        if let Some(successor) = old.replaced_by {
            return Err(RespondError::Replaced(successor));
        }
        if let Some(why) = old.why_invalid(now) {
            return Err(RespondError::Invalid(why));
        }
        let format = match self.formats.get(&old.format) {
            Some(format) if format.can_mint() => format,
            _ => self.minting_format(old.is_public)?,
        };
        let value = format.mint()?;
        let new = self.new_key(format, &value, successor(&old, now));
        let new = tx.insert_key(new).await?;
        let end = later(now, overlap);
        let end = old.expires_at.map_or(end, |own| own.min(end));
        tx.replace_key(id, end, new.id).await?;
        old.expires_at = Some(end);
        old.replaced_by = Some(new.id);
        let draft = self.by_hand(&old, now, Action::Rotated, Reason::Rotated, actor);
        tx.append_log(&[draft]).await?;
        tx.commit().await?;
        Ok(Rotation { old, new, value })
    }

    /// Revokes a key because somebody asked for it; gives it as it is now, or `None` when there is
    /// none with this identifier. Revoking again changes nothing: the first time stays.
    ///
    /// # Errors
    /// Any [`StoreError`]; nothing has happened then.
    pub async fn revoke(&self, id: Uuid, actor: &str) -> Result<Option<Key>, StoreError> {
        Ok(self.revoke_all(&[id], actor).await?.pop())
    }

    /// As [`revoke`](Self::revoke), several keys in one transaction: such as those of all projects that hold
    /// one value. Gives those that there are.
    ///
    /// # Errors
    /// Any [`StoreError`]; nothing has happened then.
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
        tell_revoked(&revoked, actor);
        Ok(keys)
    }

    /// Revokes those of the locked keys that are not revoked yet, and logs it; gives their identifiers.
    async fn revoke_locked(
        &self,
        tx: &mut Tx,
        keys: &mut [Key],
        now: Timestamp,
        actor: &str,
    ) -> Result<Vec<Uuid>, StoreError> {
        let mut revoked = Vec::new();
        let mut drafts = Vec::new();
        for key in keys.iter_mut().filter(|key| key.revoked_at.is_none()) {
            key.revoked_at = Some(now);
            revoked.push(key.id);
            let mut draft = self.by_hand(key, now, Action::Revoked, Reason::Manual, actor);
            draft.incident_id = tx.incident_id_of(key.id).await?;
            drafts.push(draft);
        }
        tx.revoke_keys(&revoked, now).await?;
        tx.append_log(&drafts).await?;
        Ok(revoked)
    }

    /// Changes a key's description or end; gives it as it is now, or `None` when there is none with
    /// this identifier.
    ///
    /// # Errors
    /// As [`change`](Self::change).
    pub async fn update(&self, id: Uuid, patch: KeyPatch) -> Result<Option<Key>, StoreError> {
        self.change(id, patch, None).await
    }

    /// Changes a key's description or end, and revokes it if an actor is named who wants that: all of it in
    /// one transaction. Gives the key as it is now, or `None` when there is none with this identifier.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when an expired key that leaked would become valid again, or one that was
    /// rotated would live longer, and any other [`StoreError`]; nothing has happened then.
    pub async fn change(
        &self,
        id: Uuid,
        mut patch: KeyPatch,
        revoked_by: Option<&str>,
    ) -> Result<Option<Key>, StoreError> {
        if let Some(description) = &mut patch.description {
            *description = self.redactor.redact(description).into_owned();
        }
        let (key, revoked) = retried(|| self.change_once(id, &patch, revoked_by)).await?;
        tell_revoked(&revoked, revoked_by.unwrap_or_default());
        Ok(key)
    }

    async fn change_once(
        &self,
        id: Uuid,
        patch: &KeyPatch,
        revoked_by: Option<&str>,
    ) -> Result<(Option<Key>, Vec<Uuid>), StoreError> {
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        let Some(mut key) = tx.lock_keys(&[id]).await?.pop() else {
            return Ok((None, Vec::new()));
        };
        if patch.changes() {
            tx.change_key(&mut key, patch.clone(), now).await?;
        }
        let mut revoked = Vec::new();
        if let Some(actor) = revoked_by {
            let keys = std::slice::from_mut(&mut key);
            revoked = self.revoke_locked(&mut tx, keys, now, actor).await?;
        }
        tx.commit().await?;
        Ok((Some(key), revoked))
    }

    /// Stores a provider's existing keys by their digests, in one transaction; the outcomes stand in
    /// the order of the rows. Some thousand rows at a time are the best measure.
    ///
    /// # Errors
    /// Any [`StoreError`]; no row has been stored then.
    pub async fn import(&self, mut keys: Vec<NewKey>) -> Result<Vec<ImportOutcome>, StoreError> {
        for key in &mut keys {
            self.without_keys(key);
        }
        retried(|| async {
            let mut tx = self.store.begin().await?;
            let outcomes = tx.import_keys(&keys).await?;
            tx.commit().await?;
            Ok(outcomes)
        })
        .await
    }

    fn minting_format(&self, is_public: bool) -> Result<&KeyFormat, RespondError> {
        let id = if is_public {
            &self.issuer.public
        } else {
            &self.issuer.secret
        };
        let format = self.formats.get(id);
        format.ok_or_else(|| RespondError::NoFormat(id.clone()))
    }

    fn new_key(&self, format: &KeyFormat, value: &KeyValue, request: IssueRequest) -> NewKey {
        let mut key = NewKey {
            id: Uuid::now_v7(),
            project: request.project,
            digest: value.sha256(),
            format: format.id().to_owned(),
            owner: request.owner,
            description: request.description,
            is_public: request.is_public,
            prefix: format.display_prefix().to_owned(),
            last_four: value.last_four().to_owned(),
            policy: request.policy,
            notify_emails: request.notify_emails,
            created_at: self.clock.now(),
            expires_at: request.expires_at,
        };
        self.without_keys(&mut key);
        key
    }

    /// What the log is told of something a person asked for.
    fn by_hand(
        &self,
        key: &Key,
        at: Timestamp,
        action: Action,
        reason: Reason,
        actor: &str,
    ) -> LogDraft {
        LogDraft {
            at,
            action,
            key: clean_key(&self.redactor, key),
            reason,
            policy: None,
            actor: actor.to_owned(),
            incident_id: None,
            occurrence: None,
            detected_at: None,
        }
    }

    /// Takes keys out of the texts that a caller chose.
    fn without_keys(&self, key: &mut NewKey) {
        for text in [&mut key.description, &mut key.owner.id]
            .into_iter()
            .chain(&mut key.notify_emails)
        {
            if let std::borrow::Cow::Owned(redacted) = self.redactor.redact(text) {
                *text = redacted;
            }
        }
    }
}

fn tell_revoked(keys: &[Uuid], actor: &str) {
    for key in keys {
        tracing::info!(%key, actor, "a key was revoked by hand");
    }
}

/// The successor of a key, with as long a life before it.
fn successor(old: &Key, now: Timestamp) -> IssueRequest {
    let life = old.expires_at.map(|end| end.duration_since(old.created_at));
    IssueRequest {
        project: old.project.clone(),
        owner: old.owner.clone(),
        description: old.description.clone(),
        expires_at: life.map(|life| now.checked_add(life).unwrap_or(Timestamp::MAX)),
        is_public: old.is_public,
        policy: old.policy.clone(),
        notify_emails: old.notify_emails.clone(),
    }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| now.checked_add(by).ok())
        .unwrap_or(Timestamp::MAX)
}
