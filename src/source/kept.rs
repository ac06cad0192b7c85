//! Positions in sources, as they are stored.

use std::ops::{Deref, DerefMut};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Position in a source, stored as JSON beside the URL that it belongs to. Another URL under the same source name
/// starts over.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Kept<C> {
    #[serde(default, alias = "url")]
    address: String,
    #[serde(flatten)]
    cursor: C,
}

impl<C: Default + Serialize + DeserializeOwned> Kept<C> {
    /// Returns the position that was stored for `address`, or the initial one if it belongs to another address or
    /// cannot be read.
    pub(super) fn load(json: &str, address: &str) -> Self {
        let kept = serde_json::from_str::<Self>(json).unwrap_or_default();
        if kept.address == address {
            return kept;
        }
        Self {
            address: address.to_owned(),
            cursor: C::default(),
        }
    }

    /// Returns the position as it is stored.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl<C> Deref for Kept<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.cursor
    }
}

impl<C> DerefMut for Kept<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.cursor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Serialize, Deserialize)]
    struct Page {
        #[serde(default)]
        number: u64,
    }

    #[test]
    fn another_address_or_a_damaged_position_starts_anew() {
        let mut page = Kept::<Page>::load("", "here");
        page.number = u64::MAX;
        let json = page.to_json();
        assert_eq!(Kept::<Page>::load(&json, "here").number, u64::MAX);
        assert_eq!(Kept::<Page>::load(&json, "there").number, 0);
        for damaged in [
            r#"{"address":7,"number":1}"#,
            r#"{"address":"here","number":"1"}"#,
            "{",
        ] {
            assert_eq!(Kept::<Page>::load(damaged, "here").number, 0, "{damaged}");
        }
    }
}
