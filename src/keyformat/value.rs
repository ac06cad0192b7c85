//! The secret type that every key value travels in.

use std::fmt;

use zeroize::Zeroizing;

use super::Sha256Digest;

/// The full text of a key. It shows itself in no `Debug` output, is compared in constant time
/// only (through its digest), and is wiped from memory when dropped.
#[derive(Clone)]
pub struct KeyValue(Zeroizing<String>);

impl KeyValue {
    /// Wraps a key that was just minted, read or found.
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// The key itself. Every call site is a place where a key could escape: keep them few.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the key's bytes, the only form in which a key is looked up or reported on.
    pub fn sha256(&self) -> Sha256Digest {
        Sha256Digest::of(self.0.as_bytes())
    }

    /// The last four characters, which owners know their key by.
    pub fn last_four(&self) -> &str {
        let start = self.0.char_indices().rev().nth(3).map_or(0, |(at, _)| at);
        &self.0[start..]
    }

    /// The key as people may see it: `rsc_sk_…wxyz`.
    pub fn redacted(&self, prefix: &str) -> String {
        format!("{prefix}…{}", self.last_four())
    }
}

impl fmt::Debug for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyValue(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_no_more_than_the_last_four() {
        let key = KeyValue::new("rsc_sk_0123456789wxyz");
        assert_eq!(key.redacted("rsc_sk_"), "rsc_sk_…wxyz");
        assert_eq!(format!("{key:?}"), "KeyValue(…)");
        assert_eq!(KeyValue::new("äöü").last_four(), "äöü");
    }
}
