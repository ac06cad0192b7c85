//! Peppers that digests in the database stand under. A key whose pepper is not configured is found by nobody, so that
//! its leak would be a false positive: this is noticed before anything is looked up, and told with the remedy.
//!
//! A pepper is registered in the transaction that writes a digest under it, and stays registered. Whether anything still
//! stands under it is asked of the rows themselves.

use std::collections::BTreeMap;

use super::db::sql::{Row, Sql, args, one, statements};
use super::{Read as _, Store, StoreError, Tx};
use crate::keyformat::{PepperCheck, PepperId};

/// Maximum number of rows that are counted to say how many are not found.
const COUNTED_MAX: u64 = 10_000;

statements! {
    REGISTER = "INSERT INTO peppers (id, check_value, since) VALUES ($1, $2, {now}) ON CONFLICT (id) DO NOTHING";
    REGISTERED = "SELECT id, check_value FROM peppers ORDER BY since, id";
    /// One probe of the index if there are none, and at most so many rows of it if there are.
    SOME_KEYS = "SELECT COUNT(*) FROM (SELECT 1 FROM keys WHERE pepper = $1 LIMIT $2) AS found";
    SOME_TOKENS = "SELECT COUNT(*) FROM (SELECT 1 FROM tokens WHERE pepper = $1 LIMIT $2) AS found";
    /// Reads the whole index, but nothing else.
    KEYS = "SELECT pepper, COUNT(*) AS number FROM keys GROUP BY pepper";
    TOKENS = "SELECT pepper, COUNT(*) AS number FROM tokens GROUP BY pepper";
}

/// The pepper that the digest of a key or an access token stands under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The current pepper.
    Current(PepperId),
    /// A retired pepper, and its number in the configuration from 1.
    Retired(usize, PepperId),
    /// No pepper.
    Plain,
    /// A pepper that is not configured.
    Unconfigured(PepperId),
    /// Not known: the row is older than the records of peppers, and was not looked up since.
    Unknown,
}

/// Number of keys and access tokens with one [`Standing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PepperUse {
    /// The pepper that they stand under.
    pub standing: Standing,
    /// Number of keys, valid or not.
    pub keys: u64,
    /// Number of access tokens, valid or not.
    pub tokens: u64,
}

fn registered(row: &Row<'_>) -> Result<(PepperId, PepperCheck), StoreError> {
    Ok((
        PepperId(row.get("id")?),
        PepperCheck(row.digest("check_value")?),
    ))
}

impl Store {
    /// Checks that every pepper is configured that a key or an access token stands under. Cheap, however many there are.
    ///
    /// # Errors
    /// Returns [`StoreError::UnknownPepper`], or any [`StoreError`] of a read.
    pub async fn check_peppers(&self) -> Result<(), StoreError> {
        let mut read = self;
        let mut lacking = Vec::new();
        for (id, check) in read.fetch(REGISTERED, args![], registered).await? {
            if self.0.peppers.checks().any(|known| known == check) {
                continue;
            }
            let keys = self.count_some(SOME_KEYS, id).await?;
            let tokens = self.count_some(SOME_TOKENS, id).await?;
            let counted = [counted(keys, "key"), counted(tokens, "access token")];
            let counted: Vec<String> = counted.into_iter().flatten().collect();
            if !counted.is_empty() {
                lacking.push(format!("pepper {id} with {}", counted.join(" and ")));
            }
        }
        if lacking.is_empty() {
            return Ok(());
        }
        Err(StoreError::UnknownPepper {
            database: self.0.name.clone(),
            peppers: lacking.join(", "),
        })
    }

    async fn count_some(&self, statement: Sql, id: PepperId) -> Result<u64, StoreError> {
        let mut read = self;
        let args = args![id, COUNTED_MAX];
        let count = read.fetch_first(statement, args, one::count).await?;
        Ok(count.unwrap_or(0))
    }

    /// Returns how many keys and access tokens stand under what: each configured pepper in its order, no pepper, and
    /// whatever else there is. All of them are counted, which takes a while with millions.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn pepper_uses(&self) -> Result<Vec<PepperUse>, StoreError> {
        let mut keys = self.count_by_pepper(KEYS).await?;
        let mut tokens = self.count_by_pepper(TOKENS).await?;
        let mut uses = Vec::new();
        let mut take = |standing, pepper: Option<PepperId>| {
            uses.push(PepperUse {
                standing,
                keys: keys.remove(&pepper).unwrap_or(0),
                tokens: tokens.remove(&pepper).unwrap_or(0),
            });
        };
        for (rank, check) in self.0.peppers.checks().enumerate() {
            let id = check.id();
            let standing = match rank {
                0 => Standing::Current(id),
                number => Standing::Retired(number, id),
            };
            take(standing, Some(id));
        }
        take(Standing::Plain, Some(PepperId::NONE));
        take(Standing::Unknown, None);
        let others: Vec<PepperId> = keys
            .keys()
            .chain(tokens.keys())
            .copied()
            .flatten()
            .collect();
        for id in others {
            let of = |counts: &mut BTreeMap<_, _>| counts.remove(&Some(id)).unwrap_or(0);
            let found = PepperUse {
                standing: Standing::Unconfigured(id),
                keys: of(&mut keys),
                tokens: of(&mut tokens),
            };
            if found.keys + found.tokens > 0 {
                uses.push(found);
            }
        }
        Ok(uses)
    }

    async fn count_by_pepper(
        &self,
        statement: Sql,
    ) -> Result<BTreeMap<Option<PepperId>, u64>, StoreError> {
        let mut read = self;
        let counts = read.fetch(statement, args![], |row| {
            let pepper: Option<i64> = row.get("pepper")?;
            Ok((pepper.map(PepperId), row.count("number")?))
        });
        Ok(counts.await?.into_iter().collect())
    }
}

/// Returns a count of rows for people, or `None` if there are none.
fn counted(count: u64, what: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        COUNTED_MAX.. => Some(format!("{COUNTED_MAX} or more {what}s")),
        _ => Some(format!("{count} {what}s")),
    }
}

impl Tx {
    /// Registers the current pepper, if there is one, before a digest is written under it. Every transaction that does so
    /// calls this: a statement that changes nothing is cheaper than to know what other processes have done.
    pub(in crate::store) async fn register_pepper(&mut self) -> Result<(), StoreError> {
        let Some(check) = self.store.0.peppers.checks().next() else {
            return Ok(());
        };
        self.only_adds();
        self.execute(REGISTER, args![check.id(), check.0])
            .await
            .map(drop)
    }
}
