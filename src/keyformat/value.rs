//! Secret type that holds the full text of a key.

use std::fmt;

use zeroize::Zeroizing;

use super::Sha256Digest;

/// The full text of a key. It is hidden from `Debug` output, is compared only in constant time (through
/// its digest), and is wiped from memory when dropped.
#[derive(Clone)]
pub struct KeyValue(Zeroizing<String>);

impl KeyValue {
    /// Wraps a key that was just minted, read or found.
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// Exposes the full text of the key. Every call site is a place where a key could escape: keep them
    /// few.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Computes the SHA-256 digest of the key, the only form in which a key is looked up or reported.
    pub fn sha256(&self) -> Sha256Digest {
        Sha256Digest::of(self.0.as_bytes())
    }

    /// Returns the last four characters, by which owners recognize their key.
    pub fn last_four(&self) -> &str {
        let start = self.0.char_indices().rev().nth(3).map_or(0, |(at, _)| at);
        &self.0[start..]
    }

    /// Returns the key in the form that people may see, such as `rsc_sk_…wxyz`.
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
