//! Processing of sightings: occurrences, incidents and revocations.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use uuid::Uuid;

use super::answer::{Answer, Outcome, announce};
use super::clean::CleanSightings;
use super::redact::logged_form;
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

/// Maximum number of keys whose sightings are reported in one transaction: whoever owns very many keys, or knows them,
/// must not keep others from the log for long.
const KEYS_AT_ONCE: usize = 500;

/// Sightings that may still have to be cleaned. What completes their places follows.
enum Seen {
    Raw(Vec<Sighting>, fn(&mut Place)),
    Clean(CleanSightings),
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
    /// Responds to sightings, and returns the answers in their order. All sightings of a key are in one transaction; those
    /// of very many keys are in several.
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
        let digests = digests_of(&sightings);
        let seen = Seen::Raw(sightings, |_| {});
        self.respond(seen, &digests, &HashMap::new(), reason, actor)
            .await
    }

    /// Responds to sightings whose places are clean, as [`report`](Self::report) does.
    ///
    /// # Errors
    /// Returns the errors of [`report`](Self::report).
    pub async fn report_clean(
        &self,
        sightings: CleanSightings,
        reason: Reason,
        actor: &str,
    ) -> Result<Vec<Answer>, StoreError> {
        let digests = digests_of(sightings.iter().map(|sighting| &**sighting));
        let seen = Seen::Clean(sightings);
        self.respond(seen, &digests, &HashMap::new(), reason, actor)
            .await
    }

    /// Responds to the sightings of a partner or a stranger, as [`report`](Self::report) does, and revokes access
    /// tokens of Rescind itself, all in one transaction. The revocation log covers keys only; a revoked token is
    /// mentioned in the operator's log. `complete` adds to the places of keys of ours what their clean texts tell.
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
        let digests = digests_of(&sightings);
        let tokens = self.store.find_tokens(&distinct(&digests)).await?;
        let seen = Seen::Raw(sightings, complete);
        self.respond(seen, &digests, &tokens, reason, actor).await
    }

    async fn respond(
        &self,
        seen: Seen,
        digests: &[Sha256Digest],
        tokens: &HashMap<Sha256Digest, Token>,
        reason: Reason,
        actor: &str,
    ) -> Result<Vec<Answer>, StoreError> {
        let mut answers = vec![Answer::default(); digests.len()];
        // Most candidates are unknown. They are filtered out without taking the write lock.
        let known: HashSet<Sha256Digest> = {
            let known = self.store.find_keys(&distinct(digests)).await?;
            known.into_keys().collect()
        };
        if known.is_empty() && tokens.is_empty() {
            return Ok(answers);
        }
        let is_ours = |row: &usize| known.contains(&digests[*row]);
        let rows: Vec<usize> = (0..digests.len()).filter(is_ours).collect();
        let ours = match seen {
            Seen::Raw(sightings, complete) => {
                let ours = only(sightings, &rows);
                self.clean_and_complete(ours, complete).await
            }
            Seen::Clean(CleanSightings(sightings)) => CleanSightings(only(sightings, &rows)),
        };
        let mut tokens = Some(tokens);
        for (rows, sightings) in pieces(rows, ours, digests) {
            let report = Report {
                sightings: &sightings,
                reason,
                actor,
            };
            // Tokens are few, and go with the first piece.
            let tokens = tokens.take();
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
        }
        Ok(answers)
    }

    async fn respond_once(
        &self,
        report: Report<'_>,
        tokens: Option<&HashMap<Sha256Digest, Token>>,
    ) -> Result<(Vec<Answer>, Tokens), StoreError> {
        let mut tokens = tokens.cloned().unwrap_or_default();
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
            .map(|hit| draft(hit, now))
            .collect();
        tx.append_log(&drafts).await?;
        let mut answers = answers(&digests, &keys, &hits);
        Ok(reports
            .iter()
            .map(|report| answers.by_ref().take(report.sightings.len()).collect())
            .collect())
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
        occurrence: first.map(|sighting| sighting.place.clone()),
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

fn digests_of<'s>(sightings: impl IntoIterator<Item = &'s Sighting>) -> Vec<Sha256Digest> {
    let values = sightings.into_iter().map(|sighting| &sighting.value);
    values.map(KeyValue::sha256).collect()
}

/// Returns the elements in these rows, which are in ascending order.
fn only<T>(all: Vec<T>, rows: &[usize]) -> Vec<T> {
    let mut rows = rows.iter().copied().peekable();
    let all = all.into_iter().enumerate();
    all.filter_map(|(at, one)| rows.next_if_eq(&at).map(|_| one))
        .collect()
}

/// Rows, and their sightings.
type Piece = (Vec<usize>, CleanSightings);

/// Divides sightings, and their rows, into those of one transaction each. All sightings of a key are in the same piece.
/// There is always a first piece.
fn pieces(rows: Vec<usize>, sightings: CleanSightings, digests: &[Sha256Digest]) -> Vec<Piece> {
    let mut seen: HashMap<Sha256Digest, usize> = HashMap::new();
    let mut pieces = vec![Piece::default()];
    for (row, sighting) in rows.into_iter().zip(sightings.0) {
        let next = seen.len();
        let at = *seen.entry(digests[row]).or_insert(next) / KEYS_AT_ONCE;
        if at == pieces.len() {
            pieces.push(Piece::default());
        }
        pieces[at].0.push(row);
        pieces[at].1.push(sighting);
    }
    pieces
}

fn distinct(digests: &[Sha256Digest]) -> Vec<Sha256Digest> {
    let mut seen = HashSet::with_capacity(digests.len());
    let digests = digests.iter().copied();
    digests.filter(|digest| seen.insert(*digest)).collect()
}

fn rows_of<'a>(reports: &'a [Report<'a>]) -> Vec<Row<'a>> {
    let rows = reports.iter().flat_map(|report| {
        report.sightings.iter().map(move |sighting| Row {
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

    use super::super::clean::CleanSighting;
    use super::*;
    use crate::store::{NewToken, Role, Store, StoreOptions};

    #[test]
    fn sightings_of_many_keys_are_divided_and_those_of_one_key_are_not() {
        let digests: Vec<Sha256Digest> = (0..2 * KEYS_AT_ONCE + 2)
            .map(|number| Sha256Digest::of(format!("{}", number / 2).as_bytes()))
            .collect();
        // The other row of each key comes after the first rows of all of them.
        let mut rows: Vec<usize> = (0..digests.len()).step_by(2).collect();
        rows.extend((0..digests.len()).skip(1).step_by(2));
        let sighting = |row: &usize| {
            CleanSighting(Sighting {
                value: KeyValue::new(row.to_string()),
                place: Place {
                    source: "test".to_owned(),
                    url: None,
                    repository: None,
                    commit: None,
                    path: None,
                    line: None,
                },
                detected_at: Timestamp::UNIX_EPOCH,
            })
        };
        let sightings = rows.iter().map(sighting).collect();
        let pieces = pieces(rows, sightings, &digests);
        let sizes: Vec<_> = pieces.iter().map(|(rows, _)| rows.len()).collect();
        assert_eq!(sizes, [2 * KEYS_AT_ONCE, 2]);
        for (rows, sightings) in &pieces {
            for (row, sighting) in rows.iter().zip(sightings) {
                assert_eq!(sighting.value.expose(), row.to_string());
            }
        }
        assert_eq!(
            super::pieces(Vec::new(), CleanSightings::default(), &[]).len(),
            1
        );
    }

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
