//! Sightings in, revocations out.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use uuid::Uuid;

use super::redact::{clean_key, clean_place};
use super::{POLICY_REVOKE, Responder};
use crate::keyformat::{KeyValue, Sha256Digest};
use crate::store::{Action, Key, LogDraft, NewSighting, Place, Reason, StoreError, Token, Tx};

/// The value of a key, seen somewhere in public.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// What was seen. Whether it is a key of ours is for [`Responder::report`] to say.
    pub value: KeyValue,
    /// Where it was seen.
    pub place: Place,
    /// When it was seen.
    pub detected_at: Timestamp,
}

/// What a sighting amounted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// No key of ours.
    Unknown,
    /// A public key of ours: recorded, and left alone.
    Public(Key),
    /// A secret key of ours that was valid until this sighting revoked it.
    Revoked(Key),
    /// A secret key of ours that was invalid before: revoked, be it by an earlier sighting of the same
    /// batch, or expired.
    AlreadyInvalid(Key),
    /// An access token of Rescind itself, as it is now: revoked, or expired before. Only
    /// [`Responder::report_from_outside`] looks for these.
    AccessToken(Token),
}

impl Answer {
    /// The key, if it is one of ours.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Unknown | Self::AccessToken(_) => None,
            Self::Public(key) | Self::Revoked(key) | Self::AlreadyInvalid(key) => Some(key),
        }
    }
}

/// The sightings of one key within a batch.
struct Hit<'a> {
    key: Key,
    sightings: Vec<&'a Sighting>,
    first_at: usize,
    incident: Option<Uuid>,
    revoked: bool,
}

impl Hit<'_> {
    fn first_seen(&self) -> Timestamp {
        let times = self.sightings.iter().map(|sighting| sighting.detected_at);
        times.min().unwrap_or(self.key.created_at)
    }
}

impl Responder {
    /// Responds to what was seen, in one transaction. The answers stand in the order of the sightings.
    ///
    /// # Errors
    /// Any [`StoreError`]; nothing has happened then, and the whole batch can be reported again.
    pub async fn report(
        &self,
        sightings: Vec<Sighting>,
        reason: Reason,
        actor: &str,
    ) -> Result<Vec<Answer>, StoreError> {
        let digests = digests_of(&sightings);
        self.respond(sightings, &digests, HashMap::new(), reason, actor)
            .await
    }

    /// Responds to what a partner or a stranger presents: as [`report`](Self::report), and access tokens of
    /// Rescind itself are revoked in the same transaction. The log of revocations is about keys; of a token
    /// the operator's log tells.
    ///
    /// # Errors
    /// Any [`StoreError`]; nothing has happened then, and the whole batch can be reported again.
    pub async fn report_from_outside(
        &self,
        sightings: Vec<Sighting>,
        reason: Reason,
        actor: &str,
    ) -> Result<Vec<Answer>, StoreError> {
        let digests = digests_of(&sightings);
        let tokens = self.store.find_tokens(&distinct(&digests)).await?;
        self.respond(sightings, &digests, tokens, reason, actor)
            .await
    }

    async fn respond(
        &self,
        sightings: Vec<Sighting>,
        digests: &[Sha256Digest],
        mut tokens: HashMap<Sha256Digest, Token>,
        reason: Reason,
        actor: &str,
    ) -> Result<Vec<Answer>, StoreError> {
        // Most candidates are nobody's. They are sorted out without the write lock.
        let known = self.store.find_keys(&distinct(digests)).await?;
        if known.is_empty() && tokens.is_empty() {
            return Ok(vec![Answer::Unknown; sightings.len()]);
        }
        let (rows, ours): (Vec<usize>, Vec<Sighting>) = sightings
            .into_iter()
            .enumerate()
            .filter(|(row, _)| known.contains_key(&digests[*row]))
            .unzip();
        let mut tx = self.store.begin().await?;
        let found = self.report_in(&mut tx, &ours, reason, actor).await?;
        let revoked = revoke_tokens(&mut tx, &mut tokens, self.clock.now()).await?;
        tx.commit().await?;
        announce(&found, actor);
        announce_tokens(&tokens, &revoked, actor);
        let answer = |digest| match tokens.get(digest) {
            Some(token) => Answer::AccessToken(token.clone()),
            None => Answer::Unknown,
        };
        let mut answers: Vec<Answer> = digests.iter().map(answer).collect();
        for (row, answer) in rows.into_iter().zip(found) {
            answers[row] = answer;
        }
        Ok(answers)
    }

    /// Responds to what was seen within a transaction of the caller's, who commits it together with
    /// what else belongs to it and then calls [`announce`].
    ///
    /// # Errors
    /// Any [`StoreError`]; the transaction is to be dropped then.
    pub async fn report_in(
        &self,
        tx: &mut Tx,
        sightings: &[Sighting],
        reason: Reason,
        actor: &str,
    ) -> Result<Vec<Answer>, StoreError> {
        let digests = digests_of(sightings);
        let keys = tx.find_and_lock_keys(&distinct(&digests)).await?;
        let mut hits = gather(sightings, &digests, &keys);
        let now = self.clock.now();
        self.record(tx, &mut hits).await?;
        revoke(tx, &mut hits, now).await?;
        let drafts: Vec<LogDraft> = hits
            .values()
            .filter(|hit| hit.revoked)
            .map(|hit| self.draft(hit, now, reason, actor))
            .collect();
        tx.append_log(&drafts).await?;
        Ok(answers(&digests, &keys, &hits))
    }

    /// Occurrences and incidents.
    async fn record(
        &self,
        tx: &mut Tx,
        hits: &mut BTreeMap<Uuid, Hit<'_>>,
    ) -> Result<(), StoreError> {
        let mut sightings = Vec::new();
        for hit in hits.values() {
            for sighting in &hit.sightings {
                sightings.push(NewSighting {
                    key: &hit.key,
                    place: clean_place(&self.formats, &sighting.place),
                    detected_at: sighting.detected_at,
                });
            }
        }
        let incidents = tx.add_sightings(&sightings).await?;
        for hit in hits.values_mut() {
            hit.incident = incidents.get(&hit.key.id).copied();
        }
        Ok(())
    }

    fn draft(&self, hit: &Hit<'_>, now: Timestamp, reason: Reason, actor: &str) -> LogDraft {
        let first = hit.sightings.first();
        LogDraft {
            at: now,
            action: Action::Revoked,
            key: clean_key(&self.formats, &hit.key),
            reason,
            policy: Some(POLICY_REVOKE.to_owned()),
            actor: actor.to_owned(),
            incident_id: hit.incident,
            occurrence: first.map(|sighting| clean_place(&self.formats, &sighting.place)),
            detected_at: first.map(|sighting| sighting.detected_at),
        }
    }
}

/// Tells the operator's log what was done. For after the commit: before it, nothing has been.
pub fn announce(answers: &[Answer], actor: &str) {
    for answer in answers {
        match answer {
            Answer::Revoked(key) => tracing::warn!(
                key = %key.id, format = key.format, project = key.project, actor,
                "a leaked key was revoked"
            ),
            Answer::AlreadyInvalid(key) => tracing::info!(
                key = %key.id, actor, "a key that is invalid already was seen"
            ),
            Answer::Public(key) => {
                tracing::info!(key = %key.id, actor, "a public key was reported");
            }
            Answer::Unknown | Answer::AccessToken(_) => {}
        }
    }
}

/// Revokes those of the tokens that are valid; gives their identifiers.
async fn revoke_tokens(
    tx: &mut Tx,
    tokens: &mut HashMap<Sha256Digest, Token>,
    now: Timestamp,
) -> Result<Vec<Uuid>, StoreError> {
    let mut valid: Vec<&mut Token> = tokens
        .values_mut()
        .filter(|token| token.is_valid(now))
        .collect();
    // Reports that name the same tokens wait for each other instead of locking each other out.
    valid.sort_by_key(|token| token.id);
    let mut revoked = Vec::new();
    for token in valid {
        if tx.revoke_leaked_token(token.id, now).await? {
            revoked.push(token.id);
        }
        token.revoked_at = Some(now);
    }
    Ok(revoked)
}

fn announce_tokens(tokens: &HashMap<Sha256Digest, Token>, revoked: &[Uuid], actor: &str) {
    for token in tokens.values() {
        if revoked.contains(&token.id) {
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

fn digests_of(sightings: &[Sighting]) -> Vec<Sha256Digest> {
    let values = sightings.iter().map(|sighting| &sighting.value);
    values.map(KeyValue::sha256).collect()
}

fn distinct(digests: &[Sha256Digest]) -> Vec<Sha256Digest> {
    let mut seen = HashSet::with_capacity(digests.len());
    let digests = digests.iter().copied();
    digests.filter(|digest| seen.insert(*digest)).collect()
}

/// The sightings by key, in the order of the keys' identifiers: the one in which they are locked.
fn gather<'a>(
    sightings: &'a [Sighting],
    digests: &[Sha256Digest],
    keys: &HashMap<Sha256Digest, Key>,
) -> BTreeMap<Uuid, Hit<'a>> {
    let mut hits: BTreeMap<Uuid, Hit<'a>> = BTreeMap::new();
    for (row, (sighting, digest)) in sightings.iter().zip(digests).enumerate() {
        let Some(key) = keys.get(digest) else {
            continue;
        };
        let hit = hits.entry(key.id).or_insert_with(|| Hit {
            key: key.clone(),
            sightings: Vec::new(),
            first_at: row,
            incident: None,
            revoked: false,
        });
        hit.sightings.push(sighting);
    }
    hits
}

/// Marks the secret keys as exposed and revokes those that are still valid.
async fn revoke(
    tx: &mut Tx,
    hits: &mut BTreeMap<Uuid, Hit<'_>>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut exposed: BTreeMap<Timestamp, Vec<Uuid>> = BTreeMap::new();
    let mut revoked = Vec::new();
    for hit in hits.values_mut().filter(|hit| !hit.key.is_public) {
        if hit.key.exposed_at.is_none() {
            let seen = hit.first_seen();
            hit.key.exposed_at = Some(seen);
            exposed.entry(seen).or_default().push(hit.key.id);
        }
        if hit.key.why_invalid(now).is_none() {
            hit.key.revoked_at = Some(now);
            hit.revoked = true;
            revoked.push(hit.key.id);
        }
    }
    for (seen, ids) in exposed {
        tx.expose_keys(&ids, seen).await?;
    }
    // The keys are locked, so all of them are still as they were read.
    let count = tx.revoke_keys(&revoked, now).await?;
    debug_assert_eq!(count, revoked.len() as u64);
    Ok(())
}

fn answers(
    digests: &[Sha256Digest],
    keys: &HashMap<Sha256Digest, Key>,
    hits: &BTreeMap<Uuid, Hit<'_>>,
) -> Vec<Answer> {
    let answer = |(row, digest): (usize, &Sha256Digest)| {
        let Some(hit) = keys.get(digest).and_then(|key| hits.get(&key.id)) else {
            return Answer::Unknown;
        };
        let key = hit.key.clone();
        if key.is_public {
            Answer::Public(key)
        } else if hit.revoked && hit.first_at == row {
            Answer::Revoked(key)
        } else {
            Answer::AlreadyInvalid(key)
        }
    };
    digests.iter().enumerate().map(answer).collect()
}
