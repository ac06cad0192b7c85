//! Definitions of the formats in which keys and access tokens were minted.

use std::collections::{BTreeSet, HashMap};

use super::db::sql::{args, statements};
use super::{Read as _, Store, StoreError, Tx};
use crate::keyformat::Definition;

/// Maximum number of definitions that are read. Each took an edit of the pattern files.
const DEFINITIONS_MAX: u32 = 1_000;

statements! {
    KEEP = "INSERT INTO definitions (id, toml, first_used) VALUES ($1, $2, {now}) ON CONFLICT (id) DO NOTHING";
    LIST = "SELECT id, toml FROM definitions ORDER BY first_used DESC, id LIMIT $1";
}

impl Tx {
    /// Keeps definitions of what is stored next.
    pub(in crate::store) async fn keep_definitions(
        &mut self,
        used: impl Iterator<Item = &Definition>,
    ) -> Result<(), StoreError> {
        // In one order, so that no two transactions wait for each other.
        for definition in used.collect::<BTreeSet<_>>() {
            self.only_adds();
            let args = args![definition.id(), definition.toml()];
            self.execute(KEEP, args).await?;
        }
        Ok(())
    }
}

impl Store {
    /// Returns the definitions that were used, by their identities.
    pub(in crate::store) async fn definitions(
        &self,
    ) -> Result<HashMap<String, Definition>, StoreError> {
        let mut read = self;
        let rows = read.fetch(LIST, args![DEFINITIONS_MAX], |row| {
            let toml: String = row.get("toml")?;
            Ok((row.get("id")?, Definition::kept(toml)))
        });
        Ok(rows.await?.into_iter().collect())
    }
}
