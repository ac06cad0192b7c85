//! Keys in the database: listing, locking and changing them.

pub(super) mod find;
pub(super) mod import;
pub(super) mod key;
pub(super) mod lookup;
pub(super) mod uses;

use jiff::Timestamp;
use uuid::Uuid;

use super::db::order::Locks;
use super::db::page::{Conditions, Page, PageRequest, position};
use super::db::sql::{Arg, LIST_MAX, Row, Sql, args, one, pad, statements};
use super::{Read, Store, StoreError, Tx};
use key::{Key, NewKey, Owner, OwnerType};

/// Filter of a list of keys.
#[derive(Debug, Clone, Default)]
pub struct KeyFilter {
    /// Project of the keys.
    pub project: Option<String>,
    /// Owner of the keys.
    pub owner: Option<Owner>,
    /// Owner type of the keys.
    pub owner_type: Option<OwnerType>,
    /// Key format of the keys.
    pub format: Option<String>,
}

/// Columns that [`key`] reads.
macro_rules! key_columns {
    () => {
        key_columns!("k.notify_emails")
    };
    ($emails:literal) => {
        concat!(
            "k.id, k.project, k.format, k.owner_type, k.owner_id, k.description, k.is_public, k.prefix, \
             k.last_four, k.policy, k.created_at, k.expires_at, k.revoked_at, k.exposed_at, \
             k.replaced_by, ",
            $emails
        )
    };
}
pub(super) use key_columns;

statements! {
    BY_ID = concat!("SELECT ", key_columns!(), " FROM keys k WHERE k.id = $1");
    LOCK = concat!(
        "SELECT ", key_columns!(), " FROM keys k WHERE k.id IN ({list:1}) ORDER BY k.id {for no key update}"
    );
    /// Nobody is notified by whoever locks keys since they were seen. The addresses may be longer than all the rest.
    LOCK_SEEN = concat!(
        "SELECT ", key_columns!("'[]' AS notify_emails"),
        " FROM keys k WHERE k.id IN ({list:1}) ORDER BY k.id {for no key update}"
    );
    UPDATE = "UPDATE keys SET description = $1, expires_at = $2 WHERE id = $3";
    REVOKE = "UPDATE keys SET revoked_at = $1 WHERE revoked_at IS NULL AND id IN ({list:2})";
    /// The first sighting is kept.
    EXPOSE = "UPDATE keys SET exposed_at = $1 WHERE exposed_at IS NULL AND id IN ({list:2})";
    REPLACE = "UPDATE keys SET expires_at = $1, replaced_by = $2
        WHERE id = $3 AND revoked_at IS NULL AND replaced_by IS NULL";
    COUNT = "SELECT COUNT(*) FROM keys";
}

pub(super) fn key(row: &Row<'_>) -> Result<Key, StoreError> {
    Ok(Key {
        id: row.uuid("id")?,
        project: row.get("project")?,
        format: row.get("format")?,
        owner: Owner {
            kind: row.word("owner_type", OwnerType::by_name)?,
            id: row.get("owner_id")?,
        },
        description: row.get("description")?,
        is_public: row.get("is_public")?,
        prefix: row.get("prefix")?,
        last_four: row.get("last_four")?,
        policy: row.get("policy")?,
        notify_emails: emails(row.get("notify_emails")?)?,
        created_at: row.time("created_at")?,
        expires_at: row.optional_time("expires_at")?,
        revoked_at: row.optional_time("revoked_at")?,
        exposed_at: row.optional_time("exposed_at")?,
        replaced_by: row.optional_uuid("replaced_by")?,
    })
}

/// Parses the list, which is stored as JSON. Most keys have an empty one, for which the parser is skipped.
fn emails(json: &str) -> Result<Vec<String>, StoreError> {
    if json == "[]" {
        return Ok(Vec::new());
    }
    serde_json::from_str(json).map_err(|error| StoreError::row(error.to_string()))
}

fn list(filter: &KeyFilter, request: &PageRequest) -> Result<(Sql, Vec<Arg>), StoreError> {
    let mut conditions = Conditions::new();
    if let Some(project) = &filter.project {
        conditions.and("k.project = ?", args![project]);
    }
    if let Some(owner) = &filter.owner {
        let kind = owner.kind.name();
        conditions.and(
            "k.owner_id = ? AND k.owner_type = ?",
            args![&owner.id, kind],
        );
    }
    if let Some(kind) = filter.owner_type {
        conditions.and("k.owner_type = ?", args![kind.name()]);
    }
    if let Some(format) = &filter.format {
        conditions.and("k.format = ?", args![format]);
    }
    if let Some((at, id)) = request.after()? {
        conditions.and("(k.created_at, k.id) < (?, ?)", args![at, id]);
    }
    Ok(conditions.finish(
        concat!("SELECT ", key_columns!(), " FROM keys k"),
        "ORDER BY k.created_at DESC, k.id DESC",
        request.fetch(),
    ))
}

/// Returns the list with every condition, for [`Store::check_statements`].
pub(super) fn every_filter() -> (&'static str, Sql) {
    let filter = KeyFilter {
        project: Some(String::new()),
        owner: Some(Owner::user("")),
        owner_type: Some(OwnerType::User),
        format: Some(String::new()),
    };
    let (sql, _) = list(&filter, &PageRequest::sample()).unwrap_or((COUNT, Vec::new()));
    ("LIST_KEYS", sql)
}

impl Store {
    /// Returns the key with this identifier.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn key(&self, id: Uuid) -> Result<Option<Key>, StoreError> {
        let mut read = self;
        read.fetch_first(BY_ID, args![id], key).await
    }

    /// Returns the keys that match a filter, newest first.
    ///
    /// # Errors
    /// Returns [`StoreError::Cursor`], or any [`StoreError`] of a read.
    pub async fn list_keys(
        &self,
        filter: &KeyFilter,
        request: &PageRequest,
    ) -> Result<Page<Key>, StoreError> {
        let (sql, args) = list(filter, request)?;
        let mut read = self;
        let keys = read.fetch(sql, args, key).await?;
        Ok(request.page(keys, |key| position(key.created_at, key.id)))
    }

    /// Returns the number of keys, valid or not.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn count_keys(&self) -> Result<u64, StoreError> {
        let mut read = self;
        let count = read.fetch_first(COUNT, args![], one::count).await?;
        Ok(count.unwrap_or(0))
    }
}

impl Tx {
    /// Stores a new key.
    ///
    /// # Errors
    /// Returns [`StoreError::Exists`] if the project has the same value already, under any pepper, or any
    /// [`StoreError`] of a change.
    pub async fn insert_key(&mut self, new: NewKey) -> Result<Key, StoreError> {
        let outcomes = self.import_keys(std::slice::from_ref(&new)).await?;
        if outcomes.contains(&super::ImportOutcome::Imported) {
            Ok(new.stored())
        } else {
            Err(StoreError::Exists("a key with this value"))
        }
    }

    /// Stores the description and the expiry of a key that is locked.
    pub(crate) async fn change_key(&mut self, key: &Key) -> Result<(), StoreError> {
        let args = args![&key.description, key.expires_at, key.id];
        self.execute(UPDATE, args).await.map(drop)
    }

    /// Returns the keys with these identifiers, locked until the transaction ends and sorted by identifier. The order
    /// is the same in every transaction, so that no two wait for each other. Call this once per transaction.
    pub(crate) async fn lock_keys(&mut self, ids: &[Uuid]) -> Result<Vec<Key>, StoreError> {
        self.lock_keys_by(LOCK, ids).await
    }

    /// Returns keys that were seen, as [`lock_keys`](Self::lock_keys) does, without the addresses to notify.
    async fn lock_seen_keys(&mut self, ids: &[Uuid]) -> Result<Vec<Key>, StoreError> {
        self.lock_keys_by(LOCK_SEEN, ids).await
    }

    async fn lock_keys_by(&mut self, statement: Sql, ids: &[Uuid]) -> Result<Vec<Key>, StoreError> {
        self.locks_once(Locks::Keys);
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let mut keys = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(LIST_MAX) {
            let mut args: Vec<Arg> = chunk.iter().copied().map(Arg::from).collect();
            let n = pad(&mut args, 0);
            keys.extend(self.fetch(statement.clone().of(n), args, key).await?);
        }
        Ok(keys)
    }

    /// Revokes those of the keys that are not revoked yet, and returns their number. The caller appends to the
    /// revocation log in the same transaction.
    pub(crate) async fn revoke_keys(
        &mut self,
        ids: &[Uuid],
        at: Timestamp,
    ) -> Result<u64, StoreError> {
        let mut revoked = 0;
        for chunk in ids.chunks(LIST_MAX) {
            let mut args = args![at];
            args.extend(chunk.iter().copied().map(Arg::from));
            let n = pad(&mut args, 1);
            revoked += self.execute(REVOKE.of(n), args).await?;
        }
        Ok(revoked)
    }

    /// Records the time at which keys were first seen in public.
    pub(crate) async fn expose_keys(
        &mut self,
        ids: &[Uuid],
        at: Timestamp,
    ) -> Result<(), StoreError> {
        for chunk in ids.chunks(LIST_MAX) {
            let mut args = args![at];
            args.extend(chunk.iter().copied().map(Arg::from));
            let n = pad(&mut args, 1);
            self.execute(EXPOSE.of(n), args).await?;
        }
        Ok(())
    }

    /// Sets the expiry of a key that is replaced by another. Returns `false` if it has been revoked or replaced
    /// meanwhile.
    pub(crate) async fn replace_key(
        &mut self,
        id: Uuid,
        expires_at: Timestamp,
        by: Uuid,
    ) -> Result<bool, StoreError> {
        let changed = self.execute(REPLACE, args![expires_at, by, id]).await?;
        Ok(changed == 1)
    }
}
