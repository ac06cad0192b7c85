//! Bulk import of a provider's existing keys, by their digests.

use std::collections::{BTreeSet, HashSet};

use uuid::Uuid;

use super::super::db::order::Locks;
use super::super::db::sql::{Arg, LIST_MAX, args, one, pad, runs, statements};
use super::super::{Read, StoreError, Tx};
use super::key::NewKey;
use crate::keyformat::{Definition, PepperId, StoredDigest};

/// Maximum number of rows per statement. SQLite accepts 32,766 values in one, PostgreSQL 65,535.
const ROWS_MAX: usize = 256;

/// Outcome for a row of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportOutcome {
    /// The key has been stored.
    Imported,
    /// The project has a key with this digest already, possibly under another pepper or from an earlier row. That key
    /// is unchanged. Keys of other projects make no difference.
    Duplicate,
}

statements! {
    PROJECT = "INSERT INTO projects (id, created_at) VALUES ($1, {now}) ON CONFLICT (id) DO NOTHING";
    INSERT = "INSERT INTO keys (id, project, digest, format, owner_type, owner_id, description,
            is_public, prefix, last_four, policy, notify_emails, created_at, expires_at, pepper, definition)
        VALUES {rows:16} ON CONFLICT (digest, project) DO NOTHING";
    STORED = "SELECT digest, project FROM keys WHERE digest IN ({list:1})";
    ARRIVED = "SELECT id FROM keys WHERE id IN ({list:1})";
}

impl Tx {
    /// Stores keys. Returns the outcomes in the order of the rows. Transactions of some thousand rows are best: they
    /// use one statement for several hundred rows at a time, and one sync per commit.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn import_keys(&mut self, new: &[NewKey]) -> Result<Vec<ImportOutcome>, StoreError> {
        for project in new.iter().map(|key| &key.project).collect::<BTreeSet<_>>() {
            self.ensure_project(project).await?;
        }
        let definitions = new.iter().filter_map(|key| key.definition.as_ref());
        self.keep_definitions(definitions).await?;
        self.register_pepper().await?;
        self.locks(Locks::Keys);
        let peppers = self.store.0.peppers.clone();
        let pepper = peppers.current();
        let digests: Vec<StoredDigest> =
            new.iter().map(|key| peppers.stored(&key.digest)).collect();
        let older = self.stored_under_older_forms(new).await?;
        let mut outcomes = vec![ImportOutcome::Duplicate; new.len()];
        let mut seen = HashSet::with_capacity(new.len());
        let mut rows: Vec<usize> = (0..new.len())
            .filter(|&row| !older.contains(&row) && seen.insert((digests[row], &new[row].project)))
            .collect();
        // Sorted in the same order in all transactions, so that no two imports wait for each other.
        rows.sort_by_key(|&row| (digests[row], &new[row].project));
        for run in runs(rows.len(), ROWS_MAX) {
            let rows = &rows[run];
            let mut values = Vec::with_capacity(rows.len() * 16);
            for &row in rows {
                values.extend(columns(&new[row], digests[row], pepper)?);
            }
            let inserted = self.execute(INSERT.of(rows.len()), values).await?;
            if inserted == rows.len() as u64 {
                for &row in rows {
                    outcomes[row] = ImportOutcome::Imported;
                }
            } else if inserted > 0 {
                self.mark_arrived(new, rows, &mut outcomes).await?;
            }
        }
        Ok(outcomes)
    }

    /// Creates a project unless it exists.
    pub(in crate::store) async fn ensure_project(
        &mut self,
        project: &str,
    ) -> Result<(), StoreError> {
        self.only_adds();
        self.execute(PROJECT, args![project]).await.map(drop)
    }

    /// Returns the rows that are stored under a retired pepper, or under none. The current form need not be looked up,
    /// since the insertion detects it.
    async fn stored_under_older_forms(
        &mut self,
        new: &[NewKey],
    ) -> Result<HashSet<usize>, StoreError> {
        let peppers = self.store.0.peppers.clone();
        let mut forms = std::collections::HashMap::new();
        for (row, key) in new.iter().enumerate() {
            for form in peppers.lookups(&key.digest).into_iter().skip(1) {
                forms.entry(form).or_insert_with(Vec::new).push(row);
            }
        }
        let all: Vec<StoredDigest> = forms.keys().copied().collect();
        let mut rows = HashSet::new();
        for chunk in all.chunks(LIST_MAX) {
            let mut args: Vec<Arg> = chunk.iter().copied().map(Arg::from).collect();
            let n = pad(&mut args, 0);
            let found = self
                .fetch(STORED.of(n), args, |row| {
                    Ok((
                        StoredDigest(row.digest("digest")?),
                        row.get::<String>("project")?,
                    ))
                })
                .await?;
            for (form, project) in found {
                let same = forms.get(&form).into_iter().flatten();
                rows.extend(same.filter(|&&row: &&usize| new[row].project == project));
            }
        }
        Ok(rows)
    }

    /// Determines which rows of a statement were inserted, if not all were.
    async fn mark_arrived(
        &mut self,
        new: &[NewKey],
        rows: &[usize],
        outcomes: &mut [ImportOutcome],
    ) -> Result<(), StoreError> {
        let mut args: Vec<Arg> = rows.iter().map(|&row| Arg::from(new[row].id)).collect();
        let n = pad(&mut args, 0);
        let ids = self.fetch(ARRIVED.of(n), args, one::uuid).await?;
        let ids: HashSet<Uuid> = ids.into_iter().collect();
        for &row in rows {
            if ids.contains(&new[row].id) {
                outcomes[row] = ImportOutcome::Imported;
            }
        }
        Ok(())
    }
}

fn columns(key: &NewKey, digest: StoredDigest, pepper: PepperId) -> Result<Vec<Arg>, StoreError> {
    let emails = serde_json::to_string(&key.notify_emails)
        .map_err(|error| StoreError::row(error.to_string()))?;
    Ok(args![
        key.id,
        &key.project,
        digest,
        &key.format,
        key.owner.kind.name(),
        &key.owner.id,
        &key.description,
        key.is_public,
        &key.prefix,
        &key.last_four,
        key.policy.clone(),
        emails,
        key.created_at,
        key.expires_at,
        pepper,
        key.definition.as_ref().map(Definition::id),
    ])
}
