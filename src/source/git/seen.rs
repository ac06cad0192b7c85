//! References of a repository as they were at the last poll.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use gix_hash::Kind as HashKind;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

use crate::fetch::ObjectId;

/// Beginning of the text of ids of 32 bytes. No base64 has a colon.
const WIDE: &str = "sha256:";

/// First half of the SHA-256 digest of a reference's name. A name may be long, and may hold a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NameDigest([u8; 16]);

impl NameDigest {
    /// Returns the digest of the `number`th reference of this name, counted from 1: several may come out alike.
    pub(super) fn of(name: &str, number: u32) -> Self {
        let mut digest = Sha256::new_with_prefix(name);
        if number > 1 {
            // No name has a space in it.
            digest.update(format!(" {number}"));
        }
        let mut half = [0; 16];
        half.copy_from_slice(&digest.finalize()[..16]);
        Self(half)
    }

    pub(super) fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    pub(super) fn from_hex(hex: &str) -> Option<Self> {
        let mut half = [0; 16];
        hex::decode_to_slice(hex, &mut half).ok()?;
        Some(Self(half))
    }
}

/// Commits of references, by name. There may be 50,000 of them, so they are stored as one text: the digests and ids,
/// one after the other, in base64. All ids of a repository have the same length.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen(pub(super) BTreeMap<NameDigest, ObjectId>);

impl Serialize for Seen {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let hash = self
            .0
            .values()
            .next()
            .map_or(HashKind::Sha1, ObjectId::kind);
        let each = size_of::<NameDigest>() + hash.len_in_bytes();
        let mut bytes = Vec::with_capacity(self.0.len() * each);
        for (name, id) in self.0.iter().filter(|(_, id)| id.kind() == hash) {
            bytes.extend_from_slice(&name.0);
            bytes.extend_from_slice(id.as_slice());
        }
        let mut text = match hash {
            HashKind::Sha256 => WIDE.to_owned(),
            _ => String::new(),
        };
        BASE64.encode_string(bytes, &mut text);
        to.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(from)?;
        let (hash, text) = match text.strip_prefix(WIDE) {
            Some(text) => (HashKind::Sha256, text),
            None => (HashKind::Sha1, &*text),
        };
        let bytes = BASE64.decode(text).map_err(de::Error::custom)?;
        let each = bytes.chunks_exact(size_of::<NameDigest>() + hash.len_in_bytes());
        if !each.remainder().is_empty() {
            return Err(de::Error::custom("it is cut off"));
        }
        let seen = each.filter_map(|both| {
            let (name, id) = both.split_first_chunk()?;
            Some((NameDigest(*name), ObjectId::try_from(id).ok()?))
        });
        Ok(Self(seen.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_stored_in_few_bytes_and_read_again() {
        for (length, written) in [(20, 2 + 200 * 48), (32, 2 + WIDE.len() + 200 * 64)] {
            let id = |n: u8| ObjectId::try_from(&vec![n; length][..]).unwrap();
            let names = (0..200).map(|n| (NameDigest::of(&format!("refs/heads/{n}"), 1), id(n)));
            let seen = Seen(names.collect());
            let json = serde_json::to_string(&seen).unwrap();
            assert_eq!(json.len(), written);
            assert_eq!(serde_json::from_str::<Seen>(&json).unwrap(), seen);
            assert!(serde_json::from_str::<Seen>(&json[..json.len() - 5]).is_err());
        }
        assert!(serde_json::from_str::<Seen>("\"AAAA\"").is_err());
        assert_eq!(
            serde_json::from_str::<Seen>("\"\"").unwrap(),
            Seen::default()
        );
        assert_ne!(
            NameDigest::of("refs/heads/a", 1),
            NameDigest::of("refs/heads/a", 2)
        );
    }
}
