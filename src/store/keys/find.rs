//! Look-ups of keys by the digests of their values, under every pepper.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::super::db::retry::retried;
use super::super::db::sql::{Arg, LIST_MAX, Row, Sql, args, pad, statements};
use super::super::{Read, Store, StoreError, Tx};
use super::key::Key;
use super::{key, key_columns};
use crate::keyformat::{Peppers, Sha256Digest, StoredDigest};

statements! {
    BY_DIGESTS = concat!(
        "SELECT k.digest, k.pepper, ", key_columns!(), " FROM keys k WHERE k.digest IN ({list:1})"
    );
    IDS_BY_DIGESTS = "SELECT k.digest, k.pepper, k.id, k.project, k.is_public, k.revoked_at
        FROM keys k WHERE k.digest IN ({list:1})";
    /// Skipped if another row of the project has the new form already: two programs with different peppers may have
    /// imported the same key.
    REWRITE = "UPDATE keys SET digest = $1, pepper = $4 WHERE id = $2 AND digest = $3 AND NOT EXISTS
        (SELECT 1 FROM keys other WHERE other.digest = $1 AND other.project = keys.project AND other.id <> $2)";
}

/// Maximum number of keys that are rewritten in one transaction.
const REWRITTEN_MAX: usize = 256;

/// A key that was found under an outdated form of its digest, or of which it was not known what that stands under.
struct Stale {
    id: Uuid,
    found: StoredDigest,
    current: StoredDigest,
}

/// Keys by the digest of their value. Every project that holds a value has a key of its own.
pub type KeysByDigest = HashMap<Sha256Digest, Vec<Key>>;

/// Keys that were looked up and locked.
#[derive(Debug, Default)]
pub(crate) struct LockedKeys {
    /// Identifiers of the keys with each value, in the order of their projects.
    pub(crate) ids: HashMap<Sha256Digest, Vec<Uuid>>,
    /// The keys, without the addresses to notify.
    pub(crate) keys: BTreeMap<Uuid, Key>,
}

/// Columns that a look-up reads of a key.
trait OfKey: Send {
    fn id(&self) -> Uuid;
    fn project(&self) -> &str;
}

impl OfKey for Key {
    fn id(&self) -> Uuid {
        self.id
    }

    fn project(&self) -> &str {
        &self.project
    }
}

/// A key of which nothing else is needed.
struct KeyId {
    id: Uuid,
    project: String,
    is_at_risk: bool,
}

impl OfKey for KeyId {
    fn id(&self) -> Uuid {
        self.id
    }

    fn project(&self) -> &str {
        &self.project
    }
}

fn key_id(row: &Row<'_>) -> Result<KeyId, StoreError> {
    Ok(KeyId {
        id: row.uuid("id")?,
        project: row.get("project")?,
        is_at_risk: !row.get::<bool>("is_public")? && row.optional_time("revoked_at")?.is_none(),
    })
}

/// A key and the form of its digest under which it was found. Rank 0 is the current form.
struct Found<K> {
    rank: usize,
    form: StoredDigest,
    /// `true` if the row does not say what its digest stands under.
    is_unknown: bool,
    key: K,
}

/// Looks up digests in their current form and in every older one. `statement` reads what `decode` needs, and the
/// digest.
async fn find<K: OfKey>(
    read: &mut impl Read,
    peppers: &Peppers,
    digests: &[Sha256Digest],
    statement: Sql,
    decode: fn(&Row<'_>) -> Result<K, StoreError>,
) -> Result<(HashMap<Sha256Digest, Vec<K>>, Vec<Stale>), StoreError> {
    let mut found: HashMap<Sha256Digest, Vec<Found<K>>> = HashMap::new();
    for forms in peppers.lookups_of(digests, LIST_MAX) {
        let mut args: Vec<Arg> = forms.keys().copied().map(Arg::from).collect();
        let n = pad(&mut args, 0);
        let rows = read
            .fetch(statement.clone().of(n), args, |row| {
                let is_unknown = row.get::<Option<i64>>("pepper")?.is_none();
                Ok((
                    StoredDigest(row.digest("digest")?),
                    is_unknown,
                    decode(row)?,
                ))
            })
            .await?;
        for (form, is_unknown, key) in rows {
            if let Some(&(rank, digest)) = forms.get(&form) {
                let new = Found {
                    rank,
                    form,
                    is_unknown,
                    key,
                };
                add(found.entry(digest).or_default(), new);
            }
        }
    }
    let mut stale = Vec::new();
    for (digest, found) in &found {
        let old = found
            .iter()
            .filter(|found| found.rank > 0 || found.is_unknown);
        stale.extend(old.map(|found| Stale {
            id: found.key.id(),
            found: found.form,
            current: peppers.stored(digest),
        }));
    }
    let keys = found.into_iter().map(|(digest, mut found)| {
        found.sort_by(|a, b| a.key.project().cmp(b.key.project()));
        (digest, found.into_iter().map(|found| found.key).collect())
    });
    Ok((keys.collect(), stale))
}

/// Adds a key, keeping for each project only the one under the newest form: programs with different peppers may have
/// imported the same value.
fn add<K: OfKey>(all: &mut Vec<Found<K>>, new: Found<K>) {
    let of_project = |found: &&mut Found<K>| found.key.project() == new.key.project();
    match all.iter_mut().find(of_project) {
        Some(old) if old.rank <= new.rank => {}
        Some(old) => *old = new,
        None => all.push(new),
    }
}

impl Store {
    /// Returns the key of the project whose value has this digest, whichever pepper it was stored under.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn find_key(
        &self,
        project: &str,
        digest: &Sha256Digest,
    ) -> Result<Option<Key>, StoreError> {
        let mut found = self.find_keys(std::slice::from_ref(digest)).await?;
        let keys = found.remove(digest).unwrap_or_default();
        Ok(keys.into_iter().find(|key| key.project == project))
    }

    /// Returns the keys whose values have these digests. For each value, these are the keys of all projects that hold
    /// it, sorted by project. A key that was stored under a retired pepper, or before there were peppers, is rewritten
    /// to the current one, as is one that does not say what it stands under.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read. A rewrite that fails is left to the next look-up.
    pub async fn find_keys(&self, digests: &[Sha256Digest]) -> Result<KeysByDigest, StoreError> {
        let mut read = self;
        let (keys, stale) = find(&mut read, &self.0.peppers, digests, BY_DIGESTS, key).await?;
        self.renew(&stale).await;
        Ok(keys)
    }

    /// Returns which of these digests are those of the values of keys, as [`find_keys`](Self::find_keys) finds them, and
    /// of each if a leak would do harm: one of the keys is secret, and not revoked yet. The texts of a key may be a
    /// hundred times as long as its digest, and are not read.
    ///
    /// # Errors
    /// Returns the errors of [`find_keys`](Self::find_keys).
    pub async fn known_keys(
        &self,
        digests: &[Sha256Digest],
    ) -> Result<HashMap<Sha256Digest, bool>, StoreError> {
        let mut read = self;
        let peppers = &self.0.peppers;
        let (keys, stale) = find(&mut read, peppers, digests, IDS_BY_DIGESTS, key_id).await?;
        self.renew(&stale).await;
        let keys = keys.into_iter();
        let keys = keys.map(|(digest, keys)| (digest, keys.iter().any(|key| key.is_at_risk)));
        Ok(keys.collect())
    }

    /// Rewrites keys to the current pepper, if they can be.
    async fn renew(&self, stale: &[Stale]) {
        if !stale.is_empty()
            && let Err(error) = self.in_passing(self.rewrite(stale)).await
        {
            tracing::warn!(%error, keys = stale.len(), "keys were not rewritten to the current pepper, will retry");
        }
    }

    /// Rewrites keys, so many at a time that what is committed when the time is over stays.
    async fn rewrite(&self, stale: &[Stale]) -> Result<(), StoreError> {
        for stale in stale.chunks(REWRITTEN_MAX) {
            retried(|| async {
                let mut tx = self.begin().await?;
                tx.rewrite(stale).await?;
                tx.commit().await
            })
            .await?;
        }
        Ok(())
    }
}

impl Tx {
    /// Looks keys up as [`Store::find_keys`] does, and locks them until the transaction ends. Keys under a retired pepper
    /// are found but not rewritten: rewriting has transactions of its own, so that it holds up nothing else.
    pub(crate) async fn find_and_lock_keys(
        &mut self,
        digests: &[Sha256Digest],
    ) -> Result<LockedKeys, StoreError> {
        let peppers = self.store.0.peppers.clone();
        let (found, _) = find(self, &peppers, digests, IDS_BY_DIGESTS, key_id).await?;
        let ids = found.into_iter().map(|(digest, keys)| {
            let ids = keys.into_iter().map(|key| key.id).collect();
            (digest, ids)
        });
        let ids: HashMap<Sha256Digest, Vec<Uuid>> = ids.collect();
        let all: Vec<Uuid> = ids.values().flatten().copied().collect();
        let keys = self.lock_seen_keys(&all).await?;
        let keys = keys.into_iter().map(|key| (key.id, key)).collect();
        Ok(LockedKeys { ids, keys })
    }

    async fn rewrite(&mut self, stale: &[Stale]) -> Result<(), StoreError> {
        self.register_pepper().await?;
        let pepper = self.store.0.peppers.current();
        let ids: Vec<Uuid> = stale.iter().map(|stale| stale.id).collect();
        self.lock_keys(&ids).await?;
        let mut stale: Vec<&Stale> = stale.iter().collect();
        // An import that adds the same values then waits at the first of them, not in the middle.
        stale.sort_by_key(|stale| stale.current);
        for Stale { id, found, current } in stale {
            self.execute(REWRITE, args![*current, *id, *found, pepper])
                .await?;
        }
        Ok(())
    }
}
