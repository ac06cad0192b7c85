//! Compares what is hunted with what was issued: valid keys of which no loaded format has the prefix, or claims what it was
//! minted by, and processes on the same database that hunt by other rules.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::db::order::Locks;
use super::db::retry::retried;
use super::db::sql::{Row, args, statements};
use super::{Read as _, Store, StoreError, Urgency};
use crate::keyformat::{Definition, FormatSet};

/// Maximum number of groups of keys that are compared with the formats.
const GROUPS_MAX: u32 = 1_000;

/// Maximum number of other processes that are named.
const OTHERS_MAX: u32 = 20;

/// Time after which a process that was not seen counts as gone. It notes once a minute that it is there.
const GONE: Duration = Duration::from_mins(3);

statements! {
    KEYS = "SELECT format, prefix, definition, COUNT(*) AS number FROM keys
        WHERE is_public = $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1)
        GROUP BY format, prefix, definition ORDER BY COUNT(*) DESC, format, prefix, definition LIMIT $3";
    TOKENS = "SELECT '' AS format, prefix, definition, COUNT(*) AS number FROM tokens
        WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1)
        GROUP BY prefix, definition ORDER BY COUNT(*) DESC, prefix, definition LIMIT $2";
    SEEN = "INSERT INTO hunters (process, ruleset, seen_at) VALUES ($1, $2, {now})
        ON CONFLICT (process) DO UPDATE SET ruleset = excluded.ruleset, seen_at = excluded.seen_at";
    LEAVE = "DELETE FROM hunters WHERE process = $1 OR seen_at < {now} - $2";
    OTHERS = "SELECT process FROM hunters WHERE seen_at >= {now} - $1 AND ruleset <> $2 AND process <> $3
        ORDER BY process LIMIT $4";
}

/// Valid secret keys, or access tokens, that nothing looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unhunted {
    /// Identifier of the key format. `None` for access tokens.
    pub format: Option<String>,
    /// Prefix of their values. Empty if it is not known.
    pub prefix: String,
    /// Number of them.
    pub number: u64,
    /// Former definition of the format, if it is known.
    pub former: Option<Former>,
}

/// Definition by which keys were minted, and which is in force no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    /// The definition.
    pub definition: Definition,
    /// Pattern file of one line that has the keys hunted again. If there can be none beside the loaded formats, the
    /// identifier of the one that could claim the same string.
    pub retired: Result<String, String>,
}

impl Unhunted {
    /// Returns a message that names the keys and the remedy.
    pub fn told(&self) -> String {
        format!("not hunted: {self}; {}", self.remedy())
    }

    /// Returns the remedy, for messages.
    pub fn remedy(&self) -> String {
        let found_by =
            "a leak of them is found by no scan and no source, only by whoever reports it";
        match self.former.as_ref().map(|former| &former.retired) {
            None => format!(
                "{found_by}: add a format with that prefix and `retired = true` to the pattern files (docs/key-formats.md), or rotate them"
            ),
            Some(Ok(line)) => {
                format!("{found_by}: add a pattern file with this line, or rotate them: {line}")
            }
            Some(Err(other)) => format!(
                "{found_by}: its former definition cannot stand beside `{other}`, which could claim the same string: put it back, and mint \
                 new keys in a format with another prefix, or rotate them"
            ),
        }
    }
}

impl fmt::Display for Unhunted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            format,
            prefix,
            number,
            former,
        } = self;
        let plural = if *number == 1 { "" } else { "s" };
        match format {
            Some(format) => write!(f, "{number} valid key{plural} of the format `{format}`")?,
            None => write!(f, "{number} valid access token{plural}")?,
        }
        if !prefix.is_empty() {
            write!(f, " with the prefix `{prefix}`")?;
        }
        match former {
            Some(former) => write!(
                f,
                ", minted by a former definition ({})",
                former.definition.toml()
            ),
            None => Ok(()),
        }
    }
}

struct Group {
    format: String,
    prefix: String,
    /// Identity of the definition by which they were minted. Those of before the 18th schema, and imported ones, do not
    /// say it.
    definition: Option<String>,
    number: u64,
}

fn group(row: &Row<'_>) -> Result<Group, StoreError> {
    Ok(Group {
        format: row.get("format")?,
        prefix: row.get("prefix")?,
        definition: row.get("definition")?,
        number: row.count("number")?,
    })
}

impl Store {
    /// Returns the valid secret keys and access tokens that a scan for `formats` does not find, most numerous first: those
    /// that were minted by a definition of which not all keys are found and, where that is not known, those with another
    /// prefix. Of a key that was imported without its format nothing is known, and nothing said. All keys are counted, which takes a
    /// while with millions.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn unhunted(
        &self,
        formats: &FormatSet,
        now: Timestamp,
    ) -> Result<Vec<Unhunted>, StoreError> {
        let patient = self.with_urgency(Urgency::Housekeeping);
        let mut read = &patient;
        let keys = args![now, false, GROUPS_MAX];
        let keys = read.fetch(KEYS, keys, group).await?;
        let tokens = read.fetch(TOKENS, args![now, GROUPS_MAX], group).await?;
        let tokens = tokens.into_iter().map(|group| (group, true));
        let groups = keys.into_iter().map(|group| (group, false)).chain(tokens);
        let mut definitions = self.definitions().await?;
        definitions.retain(|_, definition| !definition.is_hunted_by(formats));
        // One for each definition, whatever the keys' formats are named: a second one would claim the same strings.
        let mut formers: HashMap<String, Former> = HashMap::new();
        let unhunted = groups.filter_map(|(group, is_token)| {
            let id = group.definition.as_ref();
            let former = id.and_then(|id| Some((id, definitions.get(id)?)));
            if former.is_none() && is_hunted(&group, formats) {
                return None;
            }
            let named = if is_token { "token" } else { &group.format };
            let former = former.map(|(id, definition)| {
                let of = |definition: &Definition| Former {
                    definition: definition.clone(),
                    retired: definition.retired(named, formats),
                };
                let entry = formers.entry(id.clone());
                entry.or_insert_with(|| of(definition)).clone()
            });
            Some(Unhunted {
                format: (!is_token).then_some(group.format),
                prefix: group.prefix,
                number: group.number,
                former,
            })
        });
        Ok(unhunted.collect())
    }

    /// Notes that the daemon named `process` hunts by this version of the rules, and returns the names of others on the
    /// same database that hunt by another one.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn hunts(&self, process: &str, ruleset: &str) -> Result<Vec<String>, StoreError> {
        let store = self.with_urgency(Urgency::Housekeeping);
        retried(|| async {
            let mut tx = store.begin().await?;
            tx.locks(Locks::Hunters);
            tx.execute(SEEN, args![process, ruleset]).await?;
            tx.commit().await
        })
        .await?;
        self.other_hunters(process, ruleset).await
    }

    /// Returns the names of daemons on this database, other than `process`, that hunt by other rules.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a read.
    pub async fn other_hunters(
        &self,
        process: &str,
        ruleset: &str,
    ) -> Result<Vec<String>, StoreError> {
        let mut read = self;
        let args = args![micros(GONE), ruleset, process, OTHERS_MAX];
        read.fetch(OTHERS, args, |row| row.get("process")).await
    }

    /// Notes that the daemon named `process` hunts no more, and forgets those that are gone.
    ///
    /// # Errors
    /// Returns any [`StoreError`] of a change.
    pub async fn hunts_no_more(&self, process: &str) -> Result<(), StoreError> {
        retried(|| async {
            let mut tx = self.begin().await?;
            tx.locks(Locks::Hunters);
            tx.execute(LEAVE, args![process, micros(GONE)]).await?;
            tx.commit().await
        })
        .await
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Returns whether a scan finds the keys of a group. A key is found by its prefix, whatever its format is named now. Of
/// one without a prefix, as all that the keys of its format have in common may be in their middle, the format decides.
fn is_hunted(group: &Group, formats: &FormatSet) -> bool {
    let is_known = |prefix: &str| {
        let mut hunted = formats.secret().map(|(_, format)| format);
        hunted.any(|format| format.display_prefix() == prefix)
    };
    if !group.prefix.is_empty() {
        return is_known(&group.prefix);
    }
    let mut hunted = formats.secret().map(|(_, format)| format);
    group.format.is_empty()
        || group.format == UNNAMED_FORMAT
        || hunted.any(|format| format.id() == group.format)
}

/// Format of an imported key whose row does not name one.
pub const UNNAMED_FORMAT: &str = "imported";
