//! Keys: issuance, rotation, changes and imports.

use std::borrow::Cow;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::Issuer;
use super::request::{IssueError, IssueRequest, Once, RotateRequest, done_before};
use crate::keyformat::{KeyFormat, KeyValue};
use crate::offload::{self, PIECE};
use crate::respond::{by_hand, tell_revoked};
use crate::store::{
    Action, ImportOutcome, Key, KeyPatch, LogDraft, NamedRequest, NewKey, Reason, Store,
    StoreError, Urgency, WhyInvalid, micros, retried,
};

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

impl Issuer {
    /// Mints a key and stores it. Its value is returned and not kept anywhere else.
    ///
    /// # Errors
    /// Returns [`IssueError::Mint`], [`IssueError::NoFormat`], or any [`StoreError`].
    pub async fn issue(&self, request: IssueRequest) -> Result<(Key, KeyValue), IssueError> {
        match self.issue_named(request, None).await? {
            Once::Done(issued) => Ok(issued),
            Once::Before(_) => Err(IssueError::Renamed),
        }
    }

    /// Like [`issue`](Self::issue), unless a request of this name was done before.
    ///
    /// # Errors
    /// Returns the errors of [`issue`](Self::issue), or [`IssueError::Renamed`].
    pub async fn issue_named(
        &self,
        request: IssueRequest,
        named: Option<NamedRequest>,
    ) -> Result<Once<(Key, KeyValue)>, IssueError> {
        let format = self.minting_format(request.is_public)?;
        let value = format.mint()?;
        let mut new = self.new_key(format, &value, request);
        self.without_keys(std::slice::from_mut(&mut new)).await;
        let key = retried(|| async {
            let mut tx = self.writes().begin().await?;
            if let Some(before) = done_before(&mut tx, named, new.id).await? {
                return Ok(Once::Before(before));
            }
            let key = tx.insert_key(new.clone()).await?;
            tx.commit().await?;
            Ok::<_, IssueError>(Once::Done(key))
        });
        Ok(match key.await? {
            Once::Before(before) => Once::Before(before),
            Once::Done(key) => {
                tracing::info!(key = %key.id, format = key.format, project = key.project, "a key was issued");
                Once::Done((key, value))
            }
        })
    }

    /// Replaces a key with a new one for the same owner. The old key expires after the overlap, or at its own expiry
    /// if that is earlier. The new key has the lifetime that the old one was given at creation, and does not
    /// end before the old one would have.
    ///
    /// # Errors
    /// Returns [`IssueError::NotFound`], [`IssueError::Invalid`], [`IssueError::Replaced`],
    /// [`IssueError::Mint`], [`IssueError::NoFormat`], or any [`StoreError`].
    pub async fn rotate(&self, request: RotateRequest<'_>) -> Result<Rotation, IssueError> {
        match self.rotate_named(request, None).await? {
            Once::Done(rotation) => Ok(rotation),
            Once::Before(_) => Err(IssueError::Renamed),
        }
    }

    /// Like [`rotate`](Self::rotate), unless a request of this name was done before.
    ///
    /// # Errors
    /// Returns the errors of [`rotate`](Self::rotate), or [`IssueError::Renamed`].
    pub async fn rotate_named(
        &self,
        request: RotateRequest<'_>,
        named: Option<NamedRequest>,
    ) -> Result<Once<Rotation>, IssueError> {
        let rotated = retried(|| self.rotate_once(request, named)).await?;
        let actor = request.actor;
        if let Once::Done(rotation) = &rotated {
            let (old, new) = (rotation.old.id, rotation.new.id);
            tracing::info!(key = %old, successor = %new, actor, "a key was rotated");
        }
        Ok(rotated)
    }

    async fn rotate_once(
        &self,
        RotateRequest { id, overlap, actor }: RotateRequest<'_>,
        named: Option<NamedRequest>,
    ) -> Result<Once<Rotation>, IssueError> {
        let now = self.clock().now();
        let new_id = Uuid::now_v7();
        let mut tx = self.writes().begin().await?;
        if let Some(before) = done_before(&mut tx, named, new_id).await? {
            return Ok(Once::Before(before));
        }
        let Some(mut old) = tx.lock_keys(&[id]).await?.pop() else {
            return Err(IssueError::NotFound);
        };
        if let Some(successor) = old.replaced_by {
            return Err(IssueError::Replaced(successor));
        }
        if let Some(why) = old.why_invalid(now) {
            return Err(IssueError::Invalid(why));
        }
        let format = match self.formats().get(&old.format) {
            Some(format) if format.can_mint() => format,
            _ => self.minting_format(old.is_public)?,
        };
        let value = format.mint()?;
        // The texts of the old key contain no keys.
        let new = NewKey {
            id: new_id,
            ..self.new_key(format, &value, successor(&old, now))
        };
        let new = tx.insert_key(new).await?;
        let end = later(now, overlap);
        let end = old.expires_at.map_or(end, |own| own.min(end));
        tx.replace_key(id, end, new.id).await?;
        old.expires_at = Some(end);
        old.replaced_by = Some(new.id);
        let draft = by_hand(&old, now, Action::Rotated, Reason::Rotated, actor);
        tx.append_log(&[draft]).await?;
        tx.commit().await?;
        Ok(Once::Done(Rotation { old, new, value }))
    }

    /// Changes a key's description or expiry. Returns the key as it is now.
    ///
    /// # Errors
    /// Returns the errors of [`change`](Self::change).
    pub async fn update(&self, id: Uuid, patch: KeyPatch) -> Result<Key, IssueError> {
        self.change(id, patch, None).await
    }

    /// Changes a key's description or expiry, and revokes it if `revoked_by` names an actor, in one transaction.
    /// Returns the key as it is now.
    ///
    /// # Errors
    /// Returns [`IssueError::Leaked`] if an expired key that leaked would become valid again,
    /// [`IssueError::Ending`] if a rotated key would live longer, [`IssueError::NotFound`], or any [`StoreError`]. In
    /// either case, nothing has changed.
    pub async fn change(
        &self,
        id: Uuid,
        mut patch: KeyPatch,
        revoked_by: Option<&str>,
    ) -> Result<Key, IssueError> {
        if let Some(description) = &mut patch.description {
            let redacted =
                offload::in_turn(description.len(), || self.redactor().redact(description));
            if let Cow::Owned(redacted) = redacted.await {
                *description = redacted;
            }
        }
        let (key, revoked) = retried(|| self.change_once(id, &patch, revoked_by)).await?;
        tell_revoked(&revoked);
        Ok(key)
    }

    async fn change_once(
        &self,
        id: Uuid,
        patch: &KeyPatch,
        revoked_by: Option<&str>,
    ) -> Result<(Key, Vec<LogDraft>), IssueError> {
        let now = self.clock().now();
        let mut tx = self.writes().begin().await?;
        let Some(mut key) = tx.lock_keys(&[id]).await?.pop() else {
            return Err(IssueError::NotFound);
        };
        if patch.changes() {
            key = changed(&key, patch, now)?;
            tx.change_key(&key).await?;
        }
        let mut revoked = Vec::new();
        if let Some(actor) = revoked_by {
            let keys = std::slice::from_mut(&mut key);
            let responder = &self.responder;
            revoked = responder.revoke_locked(&mut tx, keys, now, actor).await?;
        }
        tx.commit().await?;
        Ok((key, revoked))
    }

    /// Stores a provider's existing keys by their digests, in one transaction. Returns the outcomes in the order of
    /// the rows. Batches of several thousand rows work best.
    ///
    /// # Errors
    /// Returns [`StoreError::UnknownPepper`] if there are keys that would not be found, of which any row may be one, and
    /// any other [`StoreError`]. In both cases no row has been stored.
    pub async fn import(&self, mut keys: Vec<NewKey>) -> Result<Vec<ImportOutcome>, StoreError> {
        self.without_keys(&mut keys).await;
        let store = self.store().with_urgency_at_most(Urgency::Bulk);
        store.check_peppers().await?;
        retried(|| async {
            let mut tx = store.begin().await?;
            let outcomes = tx.import_keys(&keys).await?;
            tx.commit().await?;
            Ok(outcomes)
        })
        .await
    }

    /// Returns the store for what callers can ask for any number of times: a leak goes before it.
    fn writes(&self) -> Store {
        self.store().with_urgency_at_most(Urgency::Issuance)
    }

    fn minting_format(&self, is_public: bool) -> Result<&KeyFormat, IssueError> {
        let id = if is_public {
            &self.minting.public
        } else {
            &self.minting.secret
        };
        let format = self.formats().get(id);
        format.ok_or_else(|| IssueError::NoFormat(id.clone()))
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
            created_at: self.clock().now(),
            expires_at: request.expires_at,
            definition: format.definition(),
        }
    }

    /// Redacts keys in the texts supplied by a caller, in turn with what others wrote. Texts are stored without keys,
    /// so that nothing has to be searched for them in a transaction.
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
                    if let Cow::Owned(redacted) = self.redactor().redact(text) {
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

/// Returns the key as it is after a change.
///
/// # Errors
/// Returns [`IssueError::Ending`] or [`IssueError::Leaked`].
fn changed(old: &Key, patch: &KeyPatch, now: Timestamp) -> Result<Key, IssueError> {
    let mut key = old.clone();
    if let Some(description) = &patch.description {
        key.description.clone_from(description);
    }
    if let Some(expires_at) = patch.expires_at {
        key.expires_at = expires_at.map(micros);
    }
    let end = |key: &Key| key.expires_at.unwrap_or(Timestamp::MAX);
    if key.replaced_by.is_some() && end(&key) > end(old) {
        return Err(IssueError::Ending);
    }
    let is_over = old.why_invalid(now) == Some(WhyInvalid::Expired);
    if is_over && old.exposed_at.is_some() && !key.is_expired(now) && end(&key) > end(old) {
        return Err(IssueError::Leaked);
    }
    Ok(key)
}

/// Returns the parameters of a key's successor, which has the same lifetime, but does not end before the key itself
/// would have: a clock that was ahead, or an import, may have dated the key's creation into the future.
fn successor(old: &Key, now: Timestamp) -> IssueRequest {
    let expires_at = old.expires_at.map(|end| {
        let life = end.duration_since(old.created_at);
        now.checked_add(life).unwrap_or(Timestamp::MAX).max(end)
    });
    IssueRequest {
        project: old.project.clone(),
        owner: old.owner.clone(),
        description: old.description.clone(),
        expires_at,
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
