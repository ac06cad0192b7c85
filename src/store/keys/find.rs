//! Look-ups of keys by the digests of their values, under every pepper.

use std::collections::HashMap;

use uuid::Uuid;

use super::super::db::retry::retried;
use super::super::db::sql::{Arg, LIST_MAX, args, pad, statements};
use super::super::{Read, Store, StoreError, Tx};
use super::key::Key;
use super::{key, key_columns};
use crate::keyformat::{Peppers, Sha256Digest, StoredDigest};

statements! {
    BY_DIGESTS = concat!(
        "SELECT k.digest, ", key_columns!(), " FROM keys k WHERE k.digest IN ({list:1})"
    );
    /// Skipped if another row of the project has the new form already: two programs with different peppers may have
    /// imported the same key.
    REWRITE = "UPDATE keys SET digest = $1 WHERE id = $2 AND digest = $3 AND NOT EXISTS
        (SELECT 1 FROM keys other WHERE other.digest = $1 AND other.project = keys.project)";
}

/// A key that was found under an outdated form of its digest.
struct Stale {
    id: Uuid,
    found: StoredDigest,
    current: StoredDigest,
}

/// Keys by the digest of their value. Every project that holds a value has a key of its own.
pub type KeysByDigest = HashMap<Sha256Digest, Vec<Key>>;

/// A key and the form of its digest under which it was found. Rank 0 is the current form.
struct Found {
    rank: usize,
    form: StoredDigest,
    key: Key,
}

/// Looks up digests in their current form and in every older one.
async fn find(
    read: &mut impl Read,
    peppers: &Peppers,
    digests: &[Sha256Digest],
) -> Result<(KeysByDigest, Vec<Stale>), StoreError> {
    let mut forms = HashMap::with_capacity(digests.len());
    for digest in digests {
        for (rank, form) in peppers.lookups(digest).into_iter().enumerate() {
            forms.insert(form, (rank, *digest));
        }
    }
    let all: Vec<StoredDigest> = forms.keys().copied().collect();
    let mut found: HashMap<Sha256Digest, Vec<Found>> = HashMap::new();
    for chunk in all.chunks(LIST_MAX) {
        let mut args: Vec<Arg> = chunk.iter().copied().map(Arg::from).collect();
        let n = pad(&mut args, 0);
        let rows = read
            .fetch(BY_DIGESTS.of(n), args, |row| {
                Ok((StoredDigest(row.digest("digest")?), key(row)?))
            })
            .await?;
        for (form, key) in rows {
            if let Some(&(rank, digest)) = forms.get(&form) {
                add(found.entry(digest).or_default(), Found { rank, form, key });
            }
        }
    }
    let mut stale = Vec::new();
    for (digest, found) in &found {
        let old = found.iter().filter(|found| found.rank > 0);
        stale.extend(old.map(|found| Stale {
            id: found.key.id,
            found: found.form,
            current: peppers.stored(digest),
        }));
    }
    let keys = found.into_iter().map(|(digest, mut found)| {
        found.sort_by(|a, b| a.key.project.cmp(&b.key.project));
        (digest, found.into_iter().map(|found| found.key).collect())
    });
    Ok((keys.collect(), stale))
}

/// Adds a key, keeping for each project only the one under the newest form: programs with different peppers may have
/// imported the same value.
fn add(all: &mut Vec<Found>, new: Found) {
    let of_project = |found: &&mut Found| found.key.project == new.key.project;
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
    /// to the current one.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read. A rewrite that fails is left to the next look-up.
    pub async fn find_keys(&self, digests: &[Sha256Digest]) -> Result<KeysByDigest, StoreError> {
        let mut read = self;
        let (keys, stale) = find(&mut read, &self.0.peppers, digests).await?;
        if !stale.is_empty()
            && let Err(error) = self.in_passing(self.rewrite(&stale)).await
        {
            tracing::warn!(%error, keys = stale.len(), "keys stay under a retired pepper");
        }
        Ok(keys)
    }

    async fn rewrite(&self, stale: &[Stale]) -> Result<(), StoreError> {
        retried(|| async {
            let mut tx = self.begin().await?;
            tx.rewrite(stale).await?;
            tx.commit().await
        })
        .await
    }
}

impl Tx {
    /// Like [`Store::find_keys`], but locks the keys until the transaction ends. Keys under a retired pepper are found
    /// but not rewritten: rewriting has transactions of its own, so that it holds up nothing else.
    pub(crate) async fn find_and_lock_keys(
        &mut self,
        digests: &[Sha256Digest],
    ) -> Result<KeysByDigest, StoreError> {
        let peppers = self.store.0.peppers.clone();
        let (mut found, _) = find(self, &peppers, digests).await?;
        let ids: Vec<Uuid> = found.values().flatten().map(|key| key.id).collect();
        let locked = self.lock_keys(&ids).await?;
        let locked: HashMap<Uuid, Key> = locked.into_iter().map(|key| (key.id, key)).collect();
        for keys in found.values_mut() {
            for key in keys {
                // Keys are never deleted, so all of them exist.
                if let Some(now) = locked.get(&key.id) {
                    key.clone_from(now);
                }
            }
        }
        Ok(found)
    }

    async fn rewrite(&mut self, stale: &[Stale]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = stale.iter().map(|stale| stale.id).collect();
        self.lock_keys(&ids).await?;
        let mut stale: Vec<&Stale> = stale.iter().collect();
        // An import that adds the same values then waits at the first of them, not in the middle.
        stale.sort_by_key(|stale| stale.current);
        for Stale { id, found, current } in stale {
            self.execute(REWRITE, args![*current, *id, *found]).await?;
        }
        Ok(())
    }
}
