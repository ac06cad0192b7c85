//! Manual operations on keys: issuance, rotation, changes and revocation.

use std::borrow::Cow;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::clean::PIECE;
use super::redact::logged_form;
use super::{RespondError, Responder};
use crate::keyformat::{KeyFormat, KeyValue};
use crate::offload;
use crate::store::{
    Action, ImportOutcome, Key, KeyPatch, LogDraft, NewKey, Owner, Reason, StoreError, Tx, retried,
};

/// Parameters of a new key.
#[derive(Debug, Clone)]
pub struct IssueRequest {
    /// Project that the key belongs to.
    pub project: String,
    /// Owner of the key.
    pub owner: Owner,
    /// Description given by the owner.
    pub description: String,
    /// Expiry. `None` if the key never expires.
    pub expires_at: Option<Timestamp>,
    /// Set if the key is meant for client-side code.
    pub is_public: bool,
    /// Policy for a leak, if the key has its own.
    pub policy: Option<String>,
    /// Addresses that are notified of a leak, in addition to the operators.
    pub notify_emails: Vec<String>,
}

/// Result of a rotation.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// The old key, which expires at the end of the overlap.
    pub old: Key,
    /// The new key.
    pub new: Key,
    /// Value of the new key, to be shown once.
    pub value: KeyValue,
}

impl Responder {
    /// Mints a key and stores it. Its value is returned and not kept anywhere else.
    ///
    /// # Errors
    /// Returns [`RespondError::Mint`], [`RespondError::NoFormat`], or any [`StoreError`].
    pub async fn issue(&self, request: IssueRequest) -> Result<(Key, KeyValue), RespondError> {
        let format = self.minting_format(request.is_public)?;
        let value = format.mint()?;
        let mut new = self.new_key(format, &value, request);
        self.without_keys(std::slice::from_mut(&mut new)).await;
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

    /// Replaces a key with a new one for the same owner. The old key expires after `overlap`, or at its own expiry
    /// if that is earlier. The new key has the lifetime that the old one was given at creation.
    ///
    /// # Errors
    /// Returns [`RespondError::NotFound`], [`RespondError::Invalid`], [`RespondError::Replaced`],
    /// [`RespondError::Mint`], [`RespondError::NoFormat`], or any [`StoreError`].
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
        // The texts of the old key contain no keys.
        let new = self.new_key(format, &value, successor(&old, now));
        let new = tx.insert_key(new).await?;
        let end = later(now, overlap);
        let end = old.expires_at.map_or(end, |own| own.min(end));
        tx.replace_key(id, end, new.id).await?;
        old.expires_at = Some(end);
        old.replaced_by = Some(new.id);
        let draft = by_hand(&old, now, Action::Rotated, Reason::Rotated, actor);
        tx.append_log(&[draft]).await?;
        tx.commit().await?;
        Ok(Rotation { old, new, value })
    }

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
        tell_revoked(&revoked, actor);
        Ok(keys)
    }

    /// Revokes the locked keys that are not revoked yet, and logs it. Returns their identifiers.
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
            let mut draft = by_hand(key, now, Action::Revoked, Reason::Manual, actor);
            draft.incident_id = tx.incident_id_of(key.id).await?;
            drafts.push(draft);
        }
        tx.revoke_keys(&revoked, now).await?;
        tx.append_log(&drafts).await?;
        Ok(revoked)
    }

    /// Changes a key's description or expiry. Returns its current state, or `None` if there is no key with this
    /// identifier.
    ///
    /// # Errors
    /// Returns the errors of [`change`](Self::change).
    pub async fn update(&self, id: Uuid, patch: KeyPatch) -> Result<Option<Key>, StoreError> {
        self.change(id, patch, None).await
    }

    /// Changes a key's description or expiry, and revokes it if `revoked_by` names an actor, in one transaction.
    /// Returns its current state, or `None` if there is no key with this identifier.
    ///
    /// # Errors
    /// Returns [`StoreError::Refused`] if an expired key that leaked would become valid again, or a rotated key
    /// would live longer, or any other [`StoreError`]. In either case, nothing has changed.
    pub async fn change(
        &self,
        id: Uuid,
        mut patch: KeyPatch,
        revoked_by: Option<&str>,
    ) -> Result<Option<Key>, StoreError> {
        if let Some(description) = &mut patch.description {
            let redacted =
                offload::in_turn(description.len(), || self.redactor.redact(description));
            if let Cow::Owned(redacted) = redacted.await {
                *description = redacted;
            }
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

    /// Stores a provider's existing keys by their digests, in one transaction. Returns the outcomes in the order of
    /// the rows. Batches of several thousand rows work best.
    ///
    /// # Errors
    /// Returns any [`StoreError`], in which case no row has been stored.
    pub async fn import(&self, mut keys: Vec<NewKey>) -> Result<Vec<ImportOutcome>, StoreError> {
        self.without_keys(&mut keys).await;
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
        NewKey {
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
        }
    }

    /// Redacts keys in the texts supplied by a caller, in turn with what others wrote. Texts are stored without keys, so
    /// that nothing has to be searched for them in a transaction.
    async fn without_keys(&self, keys: &mut [NewKey]) {
        let mut rest = keys;
        while !rest.is_empty() {
            let (mut count, mut bytes) = (0, 0);
            while count < rest.len() && bytes < PIECE {
                bytes += texts_of(&mut rest[count])
                    .map(|text| text.len())
                    .sum::<usize>();
                count += 1;
            }
            let (piece, others) = rest.split_at_mut(count);
            rest = others;
            offload::in_turn(bytes, || {
                for text in piece.iter_mut().flat_map(texts_of) {
                    if let Cow::Owned(redacted) = self.redactor.redact(text) {
                        *text = redacted;
                    }
                }
            })
            .await;
        }
    }
}

/// Returns the texts that a caller supplies for a key.
fn texts_of(key: &mut NewKey) -> impl Iterator<Item = &mut String> {
    let texts = [&mut key.description, &mut key.owner.id];
    texts.into_iter().chain(&mut key.notify_emails)
}

/// Returns the log entry of an operation that a person requested.
fn by_hand(key: &Key, at: Timestamp, action: Action, reason: Reason, actor: &str) -> LogDraft {
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

fn tell_revoked(keys: &[Uuid], actor: &str) {
    for key in keys {
        tracing::info!(%key, actor, "a key was revoked by hand");
    }
}

/// Returns the parameters of a key's successor, which has the same lifetime.
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
