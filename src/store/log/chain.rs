//! Hash chain over the entries of the revocation log. There is no I/O in it: the same code verifies the database and an
//! exported file.
//!
//! Each entry's `hash` is the lower-case hexadecimal SHA-256 of the 64 hexadecimal characters of
//! `prev_hash` followed by the RFC 8785 canonical JSON of the entry without `prev_hash` and `hash`.
//! The first `prev_hash` is 64 zeros; `seq` starts at 1 and has no gaps.

use std::fmt;
use std::io::BufRead;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::super::LogEntry;
use super::canonical::canonical_json;

/// `prev_hash` of the first entry.
pub(in crate::store) const GENESIS: &str =
    "0000000000000000000000000000000000000000000000000000000000000000";

/// Maximum length of a line that is read from a file, in bytes. The texts of an entry are limited to far less.
const LINE_MAX: u64 = 1024 * 1024;

/// Returns the hash of the entry with this canonical JSON.
pub(in crate::store) fn entry_hash(prev_hash: &str, canonical: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(prev_hash);
    hash.update(canonical);
    hex::encode(hash.finalize())
}

/// Summary of a chain that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Number of entries, which is also the `seq` of the last one.
    pub entries: u64,
    /// Hash of the last entry, or 64 zeros if there is none. Entries that were cut off the end of a file can only be
    /// noticed by comparing this with the head in the database.
    pub head: String,
}

/// Error returned when a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Position of the bad entry, from 1: the line in a file, or the row in the order of `seq`.
    pub position: u64,
    /// The `seq` that the entry claims, if that can be read.
    pub seq: Option<u64>,
    /// Problem of the entry.
    pub problem: Problem,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {}", self.position)?;
        if let Some(seq) = self.seq {
            write!(f, " (seq {seq})")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for Broken {}

/// Problem of an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text is not JSON, or not an entry: a field is unknown, missing, repeated, or of the wrong type.
    #[error("it is not an entry of a revocation log: {0}")]
    NotAnEntry(String),
    /// The number does not follow that of the previous entry.
    #[error("its seq should be {expected}: an entry is missing, repeated or out of order")]
    Seq {
        /// Number that was expected.
        expected: u64,
    },
    /// The entry was not written after the one that precedes it.
    #[error("its prev_hash is not the hash {expected} of the entry before")]
    Link {
        /// Hash of the previous entry.
        expected: String,
    },
    /// The contents are not those that were hashed.
    #[error(
        "its contents hash to {computed}, not to its hash: it was changed after it was written"
    )]
    Hash {
        /// Hash of the present contents.
        computed: String,
    },
    /// A column of the database row differs from the entry in it.
    #[error("the database column {0} differs from the entry")]
    Column(&'static str),
    /// A column that determines the visibility of the entry, or the state of its key, has changed since the entry was
    /// written.
    #[error("the database column {column} differs from {from}")]
    Differs {
        /// Name of a column, with its table.
        column: &'static str,
        /// Other column that it differs from, or "the entry".
        from: &'static str,
    },
    /// The head that the database recorded differs from the last row.
    #[error(
        "the log ends here, but the database noted an end at seq {seq} with hash {hash}: entries at the end were removed or added"
    )]
    Head {
        /// Recorded number of the last entry.
        seq: u64,
        /// Recorded hash of the last entry.
        hash: String,
    },
}

/// A chain that is being verified, entry by entry from the first.
#[derive(Debug, Clone)]
pub struct Chain {
    entries: u64,
    head: String,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            entries: 0,
            head: GENESIS.to_owned(),
        }
    }
}

impl Chain {
    /// Creates a chain without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the summary of the entries so far.
    pub fn verified(&self) -> Verified {
        Verified {
            entries: self.entries,
            head: self.head.clone(),
        }
    }

    /// Verifies the next entry, given as JSON text on one line without a line ending. The JSON value of the text is
    /// hashed, so the order of members and the white space between them do not matter.
    ///
    /// # Errors
    /// Returns [`Broken`] if it is not the entry that belongs there.
    pub fn push(&mut self, line: &str) -> Result<LogEntry, Broken> {
        let position = self.entries + 1;
        let broken = |seq, problem| Broken {
            position,
            seq,
            problem,
        };
        let bad = |message: String| broken(None, Problem::NotAnEntry(message));
        if line.trim() != line {
            return Err(bad("white space around it".to_owned()));
        }
        // An export has one entry per line: what is one here has to be one there.
        if line.contains('\n') {
            return Err(bad("a line break in it".to_owned()));
        }
        // Parsed twice: strictly, which refuses unknown, missing and repeated members, and as a plain value, which is
        // what is hashed.
        let entry: LogEntry = serde_json::from_str(line).map_err(|error| bad(unread(&error)))?;
        let mut raw: Value = serde_json::from_str(line).map_err(|error| bad(unread(&error)))?;
        if let Value::Object(members) = &mut raw {
            members.remove("prev_hash");
            members.remove("hash");
        }
        let canonical = canonical_json(&raw);
        self.link(&entry, &canonical)
            .map_err(|problem| broken(Some(entry.seq), problem))?;
        Ok(entry)
    }

    /// Verifies an entry against the chain, given the text that was hashed.
    pub(in crate::store) fn link(
        &mut self,
        entry: &LogEntry,
        canonical: &str,
    ) -> Result<(), Problem> {
        let expected = self.entries + 1;
        if entry.seq != expected {
            return Err(Problem::Seq { expected });
        }
        let computed = entry_hash(&entry.prev_hash, canonical);
        if computed != entry.hash {
            return Err(Problem::Hash { computed });
        }
        if entry.prev_hash != self.head {
            return Err(Problem::Link {
                expected: self.head.clone(),
            });
        }
        self.entries = expected;
        self.head.clone_from(&entry.hash);
        Ok(())
    }
}

/// Describes why a text is not an entry, without quoting it: a file that was mistaken for a log may contain anything,
/// even keys.
pub(in crate::store) fn unread(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // These two messages name a field of ours. Others quote the input.
    if text.starts_with("missing field") || text.starts_with("duplicate field") {
        return text;
    }
    let what = if error.is_data() {
        "a field that is unknown or has a wrong value"
    } else {
        "not JSON"
    };
    format!("{what} at column {}", error.column())
}

/// Error returned when an exported log cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// An entry is not the one that belongs there.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The file cannot be read.
    #[error("the log cannot be read: {0}")]
    Read(#[from] std::io::Error),
}

/// Verifies an exported log: one entry per line, in the order of `seq` from the first.
///
/// # Errors
/// Returns [`VerifyError::Broken`] with the first bad entry, or [`VerifyError::Read`] if reading fails.
pub fn verify_lines(mut from: impl BufRead) -> Result<Verified, VerifyError> {
    let mut chain = Chain::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = std::io::Read::take(&mut from, LINE_MAX).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(chain.verified());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let bad = |message: &str| Broken {
            position: chain.entries + 1,
            seq: None,
            problem: Problem::NotAnEntry(message.to_owned()),
        };
        if line.len() as u64 >= LINE_MAX {
            return Err(bad("it is longer than a megabyte").into());
        }
        let text = str::from_utf8(&line).map_err(|_| bad("it is not UTF-8"))?;
        chain.push(text)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::fuzz;

    /// Generated by a program of some twenty lines that shares no code with this one (Python's `json` and `hashlib`):
    /// the chain is the same for everyone, and remains the same.
    #[test]
    fn a_chain_made_elsewhere_verifies() {
        let chain = concat!(
            r#"{"seq": 1, "key_id": "01a2055b-92a2-7171-a8b6-eaa58ea3bb2f", "format": "rescind_secret", "owner_type": "team", "owner_id": "\u00fcn\u00ef \"1\"", "last_four": "p50K", "at": "2026-11-22T20:46:15.000001Z", "action": "rotated", "description": "deploy", "reason": "rotated", "actor": "cli", "prev_hash": "0000000000000000000000000000000000000000000000000000000000000000", "hash": "4222edd4eecd7f24c42f08a64ac6c30b7e337d773e9c05a7e8d1e9e4d6b34fe3"}"#,
            "\n",
            r#"{"seq": 2, "key_id": "01a2055b-92a2-7171-a8b6-eaa58ea3bb2f", "format": "rescind_secret", "owner_type": "team", "owner_id": "\u00fcn\u00ef \"1\"", "last_four": "p50K", "at": "2026-11-22T20:46:16.100000Z", "action": "revoked", "description": "\u20ac \ud83d\ude00 \\", "reason": "leaked", "policy": "revoke", "actor": "source:github-public", "incident_id": "01a2055b-92cc-70c6-9258-16edb91a689c", "occurrence": {"source": "github-public", "path": "a/b", "line": 12}, "detected_at": "2026-11-22T20:46:16.000000Z", "prev_hash": "4222edd4eecd7f24c42f08a64ac6c30b7e337d773e9c05a7e8d1e9e4d6b34fe3", "hash": "d19dba56f791c6f61bc0161e400455a18b19415e790e3196cad9bb0ddc52e3dd"}"#,
            "\n"
        );
        let verified = verify_lines(chain.as_bytes()).unwrap();
        assert_eq!(verified.entries, 2);
        assert_eq!(
            verified.head,
            "d19dba56f791c6f61bc0161e400455a18b19415e790e3196cad9bb0ddc52e3dd"
        );
        let lines: Vec<&str> = chain.lines().collect();
        let mut again = Chain::new();
        for line in lines {
            let entry = again.push(line).unwrap();
            let hash = entry_hash(&entry.prev_hash, &entry.canonical());
            assert_eq!(hash, entry.hash);
            assert_eq!(
                serde_json::from_str::<LogEntry>(&entry.to_json_line()).unwrap(),
                entry
            );
        }
    }

    #[test]
    fn fuzz_log_lines() {
        let words: &[&[u8]] = &[b"\"seq\": 1", b"\"hash\": \"", b"null", b"\"policy\": "];
        fuzz("log_lines", words, |text| {
            // Whatever verifies as the first entry says what its hash says.
            let Ok(line) = str::from_utf8(text) else {
                let _ = verify_lines(text);
                return;
            };
            if let Ok(entry) = Chain::new().push(line) {
                assert_eq!(entry_hash(&entry.prev_hash, &entry.canonical()), entry.hash);
                assert!(verify_lines(text).is_ok());
            }
            if let Ok(value) = serde_json::from_str::<Value>(line) {
                let canonical = canonical_json(&value);
                let again: Value = serde_json::from_str(&canonical).unwrap();
                assert_eq!(canonical_json(&again), canonical);
            }
            let _ = verify_lines(text);
        });
    }
}
