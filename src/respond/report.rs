//! Processing of sightings: occurrences, incidents and revocations.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use uuid::Uuid;

use super::answer::{Answer, Outcome, announce};
use super::redact::{clean_key, clean_place};
use super::{POLICY_REVOKE, Responder};
use crate::keyformat::{KeyValue, Sha256Digest};
use crate::store::{
    Action, Key, KeysByDigest, LogDraft, NewSighting, Place, Reason, StoreError, Token, Tx, retried,
};

/// Value of a possible key, seen in public.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// String that was seen. [`Responder::report`] determines whether it is a known key.
    pub value: KeyValue,
    /// Place where it was seen.
    pub place: Place,
    /// Time of the detection.
    pub detected_at: Timestamp,
}

/// Sightings whose places are in the form in which they are stored: without keys and with bounded length. Searching
/// texts written by others for keys takes time, and is done before anything is locked.
#[derive(Debug, Clone, Default)]
pub struct CleanSightings(Vec<Sighting>);

impl CleanSightings {
    /// Returns the number of sightings.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no sightings.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Sightings of one actor. Those of several actors are reported together if they belong in one transaction.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// Sightings to report.
    pub sightings: &'a CleanSightings,
    /// Reason for the revocations.
    pub reason: Reason,
    /// Actor named in the revocation log.
    pub actor: &'a str,
}

/// Sighting within a batch.
#[derive(Clone, Copy)]
struct Row<'a> {
    sighting: &'a Sighting,
    digest: Sha256Digest,
    report: &'a Report<'a>,
}

/// Sightings of one key within a batch.
struct Hit<'a> {
    key: Key,
    sightings: Vec<&'a Sighting>,
    first_at: usize,
    /// Report that saw the key first.
    report: &'a Report<'a>,
    incident: Option<Uuid>,
    revoked: bool,
}

impl Hit<'_> {
    fn first_seen(&self) -> Timestamp {
        let times = self.sightings.iter().map(|sighting| sighting.detected_at);
        times.min().unwrap_or(self.key.created_at)
    }
}

/// Access tokens by the digests of their values, and the identifiers of those that were revoked.
type Tokens = (HashMap<Sha256Digest, Token>, Vec<Uuid>);

impl Responder {
    /// Redacts keys in the places of `sightings`, and truncates texts that are too long.
    pub fn clean(&self, mut sightings: Vec<Sighting>) -> CleanSightings {
        for sighting in &mut sightings {
            sighting.place = clean_place(&self.redactor, &sighting.place);
        }
        CleanSightings(sightings)
    }

    /// Responds to sightings in one transaction. Returns the answers in the order of the sightings.
    ///
    /// # Errors
    /// Returns any [`StoreError`], in which case nothing has changed and the whole batch can be reported again.
    pub async fn report(
        &self,
        sightings: Vec<Sighting>,
        reason: Reason,
        actor: &str,
    ) -> Result<Vec<Answer>, StoreError> {
        let digests = digests_of(&sightings);
        self.respond(sightings, &digests, &HashMap::new(), reason, actor)
            .await
    }

    /// Responds to the sightings of a partner or a stranger, as [`report`](Self::report) does, and revokes access
    /// tokens of Rescind itself in the same transaction. The revocation log covers keys only; a revoked token is
    /// mentioned in the operator's log.
    ///
    /// # Errors
    /// Returns any [`StoreError`], in which case nothing has changed and the whole batch can be reported again.
    pub async fn report_from_outside(
        &self,
        sightings: Vec<Sighting>,
        reason: Reason,
        actor: &str,
    ) -> Result<Vec<Answer>, StoreError> {
        let digests = digests_of(&sightings);
        let tokens = self.store.find_tokens(&distinct(&digests)).await?;
        self.respond(sightings, &digests, &tokens, reason, actor)
            .await
    }

    async fn respond(
        &self,
        sightings: Vec<Sighting>,
        digests: &[Sha256Digest],
        tokens: &HashMap<Sha256Digest, Token>,
        reason: Reason,
        actor: &str,
    ) -> Result<Vec<Answer>, StoreError> {
        let mut answers = vec![Answer::default(); sightings.len()];
        // Most candidates are unknown. They are filtered out without taking the write lock.
        let known = self.store.find_keys(&distinct(digests)).await?;
        if known.is_empty() && tokens.is_empty() {
            return Ok(answers);
        }
        let (rows, ours): (Vec<usize>, Vec<Sighting>) = sightings
            .into_iter()
            .enumerate()
            .filter(|(row, _)| known.contains_key(&digests[*row]))
            .unzip();
        let ours = self.clean(ours);
        let report = Report {
            sightings: &ours,
            reason,
            actor,
        };
        let (found, tokens) = retried(|| self.respond_once(report, tokens)).await?;
        announce(&found, actor);
        announce_tokens(&tokens, actor);
        for (row, answer) in rows.into_iter().zip(found) {
            answers[row] = answer;
        }
        for (answer, digest) in answers.iter_mut().zip(digests) {
            let token = tokens.0.get(digest).cloned();
            answer.outcomes.extend(token.map(Outcome::AccessToken));
        }
        Ok(answers)
    }

    async fn respond_once(
        &self,
        report: Report<'_>,
        tokens: &HashMap<Sha256Digest, Token>,
    ) -> Result<(Vec<Answer>, Tokens), StoreError> {
        let mut tokens = tokens.clone();
        let mut tx = self.store.begin().await?;
        let revoked = revoke_tokens(&mut tx, &mut tokens, self.clock.now()).await?;
        let found = self.report_in(&mut tx, &[report]).await?.pop();
        tx.commit().await?;
        Ok((found.unwrap_or_default(), (tokens, revoked)))
    }

    /// Responds to sightings within the caller's transaction. The caller commits it, together with everything else
    /// that belongs to it, and then calls [`announce`]. Returns the answers in the order of the reports and their
    /// sightings.
    ///
    /// This must be called only once per transaction, with all of its sightings, since successive calls would lock
    /// keys in no consistent order.
    ///
    /// # Errors
    /// Returns any [`StoreError`], after which the transaction must be dropped.
    pub async fn report_in(
        &self,
        tx: &mut Tx,
        reports: &[Report<'_>],
    ) -> Result<Vec<Vec<Answer>>, StoreError> {
        let rows = rows_of(reports);
        let digests: Vec<Sha256Digest> = rows.iter().map(|row| row.digest).collect();
        let keys = tx.find_and_lock_keys(&distinct(&digests)).await?;
        let mut hits = gather(&rows, &keys);
        let now = self.clock.now();
        revoke(tx, &mut hits, now).await?;
        record(tx, &mut hits).await?;
        let drafts: Vec<LogDraft> = hits
            .values()
            .filter(|hit| hit.revoked)
            .map(|hit| self.draft(hit, now))
            .collect();
        tx.append_log(&drafts).await?;
        let mut answers = answers(&digests, &keys, &hits);
        Ok(reports
            .iter()
            .map(|report| answers.by_ref().take(report.sightings.len()).collect())
            .collect())
    }

    fn draft(&self, hit: &Hit<'_>, now: Timestamp) -> LogDraft {
        let first = hit.sightings.first();
        LogDraft {
            at: now,
            action: Action::Revoked,
            key: clean_key(&self.redactor, &hit.key),
            reason: hit.report.reason,
            policy: Some(POLICY_REVOKE.to_owned()),
            actor: hit.report.actor.to_owned(),
            incident_id: hit.incident,
            occurrence: first.map(|sighting| sighting.place.clone()),
            detected_at: first.map(|sighting| sighting.detected_at),
        }
    }
}

/// Records the occurrences, and opens or extends the incidents.
async fn record(tx: &mut Tx, hits: &mut BTreeMap<Uuid, Hit<'_>>) -> Result<(), StoreError> {
    let mut sightings = Vec::new();
    for hit in hits.values() {
        for sighting in &hit.sightings {
            sightings.push(NewSighting {
                key: &hit.key,
                place: sighting.place.clone(),
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

/// Revokes the valid tokens, and returns their identifiers. The tokens are then as they are stored.
async fn revoke_tokens(
    tx: &mut Tx,
    tokens: &mut HashMap<Sha256Digest, Token>,
    now: Timestamp,
) -> Result<Vec<Uuid>, StoreError> {
    let mut valid: Vec<&mut Token> = tokens
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
    Ok(revoked)
}

fn announce_tokens((tokens, revoked): &Tokens, actor: &str) {
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

fn rows_of<'a>(reports: &'a [Report<'a>]) -> Vec<Row<'a>> {
    let rows = reports.iter().flat_map(|report| {
        report.sightings.0.iter().map(move |sighting| Row {
            sighting,
            digest: sighting.value.sha256(),
            report,
        })
    });
    rows.collect()
}

/// Groups the sightings by key, in the order of the keys' identifiers, in which keys are locked.
fn gather<'a>(rows: &[Row<'a>], keys: &KeysByDigest) -> BTreeMap<Uuid, Hit<'a>> {
    let mut hits: BTreeMap<Uuid, Hit<'a>> = BTreeMap::new();
    for (first_at, row) in rows.iter().enumerate() {
        for key in keys.get(&row.digest).into_iter().flatten() {
            let hit = hits.entry(key.id).or_insert_with(|| Hit {
                key: key.clone(),
                sightings: Vec::new(),
                first_at,
                report: row.report,
                incident: None,
                revoked: false,
            });
            hit.sightings.push(row.sighting);
        }
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
    // The keys are locked, so none has changed since it was read.
    let count = tx.revoke_keys(&revoked, now).await?;
    debug_assert_eq!(count, revoked.len() as u64);
    Ok(())
}

/// Returns one answer for each row, in the order of the rows.
fn answers<'a>(
    digests: &'a [Sha256Digest],
    keys: &'a KeysByDigest,
    hits: &'a BTreeMap<Uuid, Hit<'_>>,
) -> impl Iterator<Item = Answer> + 'a {
    digests.iter().enumerate().map(move |(row, digest)| {
        let keys = keys.get(digest).into_iter().flatten();
        let hits = keys.filter_map(|key| hits.get(&key.id));
        let outcomes = hits.map(|hit| {
            let key = hit.key.clone();
            if key.is_public {
                Outcome::Public(key)
            } else if hit.revoked && hit.first_at == row {
                Outcome::Revoked(key)
            } else {
                Outcome::AlreadyInvalid(key)
            }
        });
        Answer {
            outcomes: outcomes.collect(),
        }
    })
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
        let mut tokens = HashMap::from([(digest, token.clone())]);
        let mut tx = store.begin().await.unwrap();
        tx.revoke_token(token.id, first).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = store.begin().await.unwrap();
        let later = first + SignedDuration::from_secs(9);
        let revoked = revoke_tokens(&mut tx, &mut tokens, later).await.unwrap();
        tx.commit().await.unwrap();
        assert!(revoked.is_empty());
        assert_eq!(tokens[&digest].revoked_at, Some(first));
        store.close().await;
    }
}
