//! Processing of sightings: occurrences, incidents and revocations.

mod pieces;
mod tokens;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::answer::{Answer, Outcome, Reported, SeenKey};
use super::clean::{CleanSighting, CleanSightings};
use super::known::{Known, distinct};
use super::redact::logged_form;
use super::sighting::Sighting;
use super::turns::Turn;
use super::{POLICY_REVOKE, Responder};
use crate::keyformat::{KeyValue, Sha256Digest};
use crate::store::{
    Action, Key, LockedKeys, LogDraft, NewSighting, Place, Reason, Store, StoreError, Tx, retried,
};
pub use pieces::divided;
use pieces::{only, pieces};
use tokens::Tokens;

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
    sighting: &'a CleanSighting,
    digest: Sha256Digest,
    report: &'a Report<'a>,
}

/// Sightings of one key within a batch.
struct Hit<'a> {
    key: Key,
    sightings: Vec<&'a CleanSighting>,
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

impl Responder {
    /// Responds to sightings, and returns the answers in their order. All sightings of a key are in one transaction;
    /// those of very many keys are in several. A message with many of them waits for those with few, and takes turns
    /// with others that have many.
    ///
    /// # Errors
    /// Returns any [`StoreError`]. Keys whose transaction was committed before stay revoked; the whole batch can be
    /// reported again.
    pub async fn report(
        &self,
        sightings: Vec<Sighting>,
        reason: Reason,
        actor: &str,
    ) -> Result<Vec<Answer>, StoreError> {
        self.report_from_outside(sightings, |_| {}, reason, actor)
            .await
    }

    /// Responds to sightings of what is ours, in the form in which they are stored, as [`report`](Self::report) does.
    ///
    /// # Errors
    /// Returns the errors of [`report`](Self::report).
    pub async fn report_clean(
        &self,
        sightings: CleanSightings,
        reason: Reason,
        actor: &str,
    ) -> Result<Vec<Answer>, StoreError> {
        self.report_piece(sightings, reason, actor, &mut Turn::default())
            .await
    }

    /// As [`report_clean`](Self::report_clean), for a piece of a message. All its pieces share a turn.
    pub(super) async fn report_piece(
        &self,
        sightings: CleanSightings,
        reason: Reason,
        actor: &str,
        turn: &mut Turn,
    ) -> Result<Vec<Answer>, StoreError> {
        let digests: Vec<_> = sightings.iter().map(CleanSighting::digest).collect();
        let rows = (0..digests.len()).collect();
        self.respond(rows, sightings, &digests, reason, actor, turn)
            .await
    }

    /// Responds to the sightings of a partner or a stranger, as [`report`](Self::report) does. `complete` adds to the
    /// places of what is ours what their clean texts tell.
    ///
    /// # Errors
    /// Returns the errors of [`report`](Self::report).
    pub async fn report_from_outside(
        &self,
        sightings: Vec<Sighting>,
        complete: fn(&mut Place),
        reason: Reason,
        actor: &str,
    ) -> Result<Vec<Answer>, StoreError> {
        let known = Known::of(&self.store, digests_of(&sightings)).await?;
        let turn = &mut Turn::default();
        self.report_known(sightings, &known, complete, reason, actor, turn)
            .await
    }

    /// As [`report_from_outside`](Self::report_from_outside), for those who looked up what is ours themselves. The
    /// pieces of one message share a turn.
    ///
    /// # Errors
    /// Returns the errors of [`report`](Self::report).
    pub async fn report_known(
        &self,
        sightings: Vec<Sighting>,
        known: &Known,
        complete: fn(&mut Place),
        reason: Reason,
        actor: &str,
        turn: &mut Turn,
    ) -> Result<Vec<Answer>, StoreError> {
        let digests = digests_of(&sightings);
        let is_ours = |row: &usize| known.contains(&digests[*row]);
        let rows: Vec<usize> = (0..digests.len()).filter(is_ours).collect();
        let ours = only(sightings, &rows);
        let ours = self.clean_and_complete(ours, complete).await.0;
        let ours = ours.into_iter().map(|sighting| sighting.of(known));
        self.respond(rows, ours.collect(), &digests, reason, actor, turn)
            .await
    }

    /// Responds to those sightings, of all that have these digests, that are ours: `rows` says which.
    async fn respond(
        &self,
        rows: Vec<usize>,
        ours: CleanSightings,
        digests: &[Sha256Digest],
        reason: Reason,
        actor: &str,
        turn: &mut Turn,
    ) -> Result<Vec<Answer>, StoreError> {
        let mut answers = vec![Answer::default(); digests.len()];
        // Most values are nobody's. They do not take the write lock.
        if rows.is_empty() {
            return Ok(answers);
        }
        for (rows, sightings) in pieces(&rows, ours, digests) {
            let report = Report {
                sightings: &sightings,
                reason,
                actor,
            };
            // Else whoever repeats a report of much would have all others wait until each of its copies is written
            // down.
            let store = self.store_in_turn(turn, actor, &sightings).await?;
            let found = retried(|| self.respond_once(&store, report)).await?;
            found.announce();
            for (row, answer) in rows.into_iter().zip(found.into_answers()) {
                answers[row] = answer;
            }
        }
        Ok(answers)
    }

    async fn respond_once(
        &self,
        store: &Store,
        report: Report<'_>,
    ) -> Result<Reported, StoreError> {
        let mut tx = store.begin().await?;
        let found = self.report_in(&mut tx, &[report]).await?;
        tx.commit().await?;
        Ok(found)
    }

    /// Responds to sightings within the caller's transaction. The caller commits it, together with everything else
    /// that belongs to it, and then calls [`Reported::announce`]. Reports without sightings cost nothing.
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
    ) -> Result<Reported, StoreError> {
        let rows = rows_of(reports);
        if rows.is_empty() {
            return Ok(Reported::default());
        }
        let digests: Vec<Sha256Digest> = rows.iter().map(|row| row.digest).collect();
        let seen = reports.iter().flat_map(|report| report.sightings);
        let mut tokens = Tokens::revoke(tx, seen, self.clock.now()).await?;
        let values = distinct(digests.iter().copied());
        let LockedKeys { ids, keys } = tx.find_and_lock_keys(&values).await?;
        let mut hits = gather(&rows, &ids, keys);
        let now = self.clock.now();
        revoke(tx, &mut hits, now).await?;
        record(tx, &mut hits).await?;
        let drafts: Vec<LogDraft> = hits
            .values()
            .filter(|hit| hit.revoked)
            .map(|hit| draft(hit, now))
            .collect();
        tx.append_log(&drafts).await?;
        let mut answers = answers(&digests, &ids, &hits).zip(&digests);
        let mut next = || {
            let (mut answer, digest) = answers.next()?;
            answer.outcomes.extend(tokens.outcome(digest));
            Some(answer)
        };
        let answered = reports.iter().map(|report| {
            let sightings = report.sightings.iter();
            let answers = sightings.map_while(|_| next()).collect();
            (report.actor.to_owned(), answers)
        });
        Ok(Reported {
            answers: answered.collect(),
            revoked: drafts,
        })
    }
}

fn draft(hit: &Hit<'_>, now: Timestamp) -> LogDraft {
    let first = hit.sightings.first();
    LogDraft {
        at: now,
        action: Action::Revoked,
        key: logged_form(&hit.key),
        reason: hit.report.reason,
        policy: Some(POLICY_REVOKE.to_owned()),
        actor: hit.report.actor.to_owned(),
        incident_id: hit.incident,
        occurrence: first.map(|sighting| Place::clone(&sighting.place)),
        detected_at: first.map(|sighting| sighting.detected_at),
    }
}

/// Records the occurrences, and opens or extends the incidents.
async fn record(tx: &mut Tx, hits: &mut BTreeMap<Uuid, Hit<'_>>) -> Result<(), StoreError> {
    let mut sightings = Vec::new();
    for hit in hits.values() {
        for sighting in &hit.sightings {
            sightings.push(NewSighting {
                key: &hit.key,
                place: Arc::clone(&sighting.place),
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

fn digests_of(sightings: &[Sighting]) -> Vec<Sha256Digest> {
    let values = sightings.iter().map(|sighting| &sighting.value);
    values.map(KeyValue::sha256).collect()
}

fn rows_of<'a>(reports: &'a [Report<'a>]) -> Vec<Row<'a>> {
    let rows = reports.iter().flat_map(|report| {
        report.sightings.iter().map(move |sighting| Row {
            sighting,
            digest: sighting.digest(),
            report,
        })
    });
    rows.collect()
}

/// Groups the sightings by key, in the order of the keys' identifiers, in which keys are locked.
fn gather<'a>(
    rows: &[Row<'a>],
    ids: &HashMap<Sha256Digest, Vec<Uuid>>,
    mut keys: BTreeMap<Uuid, Key>,
) -> BTreeMap<Uuid, Hit<'a>> {
    let mut hits: BTreeMap<Uuid, Hit<'a>> = BTreeMap::new();
    for (first_at, row) in rows.iter().enumerate() {
        for id in ids.get(&row.digest).into_iter().flatten() {
            // The first sighting takes the key out.
            if let Some(key) = keys.remove(id) {
                let hit = Hit {
                    key,
                    sightings: Vec::new(),
                    first_at,
                    report: row.report,
                    incident: None,
                    revoked: false,
                };
                hits.insert(*id, hit);
            }
            if let Some(hit) = hits.get_mut(id) {
                hit.sightings.push(row.sighting);
            }
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
        if hit.key.revoked_at.is_none() && !hit.key.is_expired(now) {
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
    ids: &'a HashMap<Sha256Digest, Vec<Uuid>>,
    hits: &'a BTreeMap<Uuid, Hit<'_>>,
) -> impl Iterator<Item = Answer> + 'a {
    let shared = hits
        .iter()
        .map(|(id, hit)| (*id, Arc::new(SeenKey::of(&hit.key))));
    let shared: BTreeMap<Uuid, Arc<SeenKey>> = shared.collect();
    digests.iter().enumerate().map(move |(row, digest)| {
        let ids = ids.get(digest).into_iter().flatten();
        let hits = ids.filter_map(|id| Some((hits.get(id)?, shared.get(id)?)));
        let outcomes = hits.map(|(hit, key)| {
            let key = Arc::clone(key);
            if hit.key.is_public {
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
