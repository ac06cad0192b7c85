//! Digests of keys, with or without a pepper. They are stored in place of the keys.

use std::collections::HashMap;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// Plain SHA-256 digest of a key. It is not a secret by itself (a key has at least 128 bits of entropy),
/// but when peppers are in use it is not what the database stores: see [`Peppers`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256Digest(pub [u8; 32]);

impl Sha256Digest {
    /// Computes the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Parses 64 hexadecimal digits of either case. Returns `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// Returns the digest as 64 lower-case hexadecimal digits, the form that partners ask for.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.to_hex())
    }
}

/// Digest under which the key store holds a key: `SHA-256(key)`, or
/// `HMAC-SHA-256(pepper, SHA-256(key))` with a pepper. Either can be derived from an imported plain
/// SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoredDigest(pub [u8; 32]);

impl fmt::Debug for StoredDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stored:{}", hex::encode(self.0))
    }
}

/// Text whose digest under a pepper is the pepper's [`PepperCheck`]. A plain digest has 32 bytes and this text has not,
/// so that no check value is also the stored digest of a key.
const CHECKED: &[u8] = b"rescind pepper check v1";

/// Identifier of a pepper: the first 8 bytes of its [`PepperCheck`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PepperId(pub i64);

impl PepperId {
    /// Stands for digests without a pepper.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for PepperId {
    /// Writes 16 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0.to_be_bytes()))
    }
}

/// Value by which a pepper is recognized where it is not known: HMAC-SHA-256 of a fixed text under it.
///
/// Whoever sees it can test guesses of the pepper. So can whoever sees the stored digest of a key that they hold, which
/// is what peppers have to withstand anyway: they are random, and long enough not to be guessed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PepperCheck(pub [u8; 32]);

impl fmt::Debug for PepperCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pepper:{}", self.id())
    }
}

impl PepperCheck {
    /// Returns the identifier of the pepper.
    pub fn id(&self) -> PepperId {
        let mut id = [0; 8];
        id.copy_from_slice(&self.0[..8]);
        PepperId(i64::from_be_bytes(id))
    }
}

/// Secrets that are mixed into stored digests. The current pepper comes first, then the retired ones,
/// under which keys are still found until their digests are rewritten.
#[derive(Clone, Default)]
pub struct Peppers(Vec<SecretString>);

impl Peppers {
    /// Creates a set of peppers in the order of the configuration, the current one first.
    pub fn new(peppers: Vec<SecretString>) -> Self {
        Self(peppers)
    }

    /// Returns the identifier of the pepper under which keys are stored now.
    pub fn current(&self) -> PepperId {
        let first = self.checks().next();
        first.map_or(PepperId::NONE, |check| check.id())
    }

    /// Returns the check value of each pepper, that of the current one first.
    pub fn checks(&self) -> impl Iterator<Item = PepperCheck> {
        let checks = self.0.iter().map(|pepper| mac(pepper, CHECKED));
        checks.map(PepperCheck)
    }

    /// Returns the digest under which a key is stored now.
    pub fn stored(&self, digest: &Sha256Digest) -> StoredDigest {
        match self.0.first() {
            Some(pepper) => peppered(pepper, digest),
            None => StoredDigest(digest.0),
        }
    }

    /// Returns every digest under which a key may be stored, the current one first. The unpeppered digest
    /// comes last, since peppers may have been introduced after keys were.
    pub fn lookups(&self, digest: &Sha256Digest) -> Vec<StoredDigest> {
        self.0
            .iter()
            .map(|pepper| peppered(pepper, digest))
            .chain([StoredDigest(digest.0)])
            .collect()
    }

    /// Returns every digest under which these keys may be stored, each with its rank in [`lookups`](Self::lookups) and
    /// the digest that it is a form of, for several queries of at most `most` digests. All forms of a digest are in one
    /// query: between two, a key could be rewritten from a form that is yet to be looked up to one that was.
    pub fn lookups_of(
        &self,
        digests: &[Sha256Digest],
        most: usize,
    ) -> impl Iterator<Item = HashMap<StoredDigest, (usize, Sha256Digest)>> {
        let at_once = (most / (self.0.len() + 1)).max(1);
        digests.chunks(at_once).map(|digests| {
            let forms = digests.iter().flat_map(|digest| {
                let forms = self.lookups(digest).into_iter().enumerate();
                forms.map(|(rank, form)| (form, (rank, *digest)))
            });
            forms.collect()
        })
    }
}

impl fmt::Debug for Peppers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peppers({} …)", self.0.len())
    }
}

fn peppered(pepper: &SecretString, digest: &Sha256Digest) -> StoredDigest {
    StoredDigest(mac(pepper, &digest.0))
}

fn mac(pepper: &SecretString, message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(pepper.expose_secret().as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_up_current_retired_and_plain_forms() {
        let digest = Sha256Digest::of(b"key");
        assert_eq!(Peppers::default().stored(&digest).0, digest.0);
        let old = Peppers::new(vec!["old".into()]);
        let new = Peppers::new(vec!["new".into(), "old".into()]);
        assert_ne!(new.stored(&digest), old.stored(&digest));
        assert_eq!(
            new.lookups(&digest),
            [
                new.stored(&digest),
                old.stored(&digest),
                StoredDigest(digest.0)
            ]
        );
        assert!(!format!("{new:?}").contains("old"));
    }

    /// Else a key that is rewritten between two queries is in neither.
    #[test]
    fn all_forms_of_a_digest_are_looked_up_at_once() {
        let peppers = Peppers::new(vec!["new".into(), "old".into()]);
        let digests: Vec<_> = (0_u32..1_000)
            .map(|n| Sha256Digest::of(&n.to_be_bytes()))
            .collect();
        let queries: Vec<_> = peppers.lookups_of(&digests, 100).collect();
        assert!(queries.iter().all(|forms| forms.len() <= 100));
        for digest in &digests {
            let of_it = |forms: &&HashMap<StoredDigest, (usize, Sha256Digest)>| {
                forms.values().any(|(_, of)| of == digest)
            };
            let forms: Vec<_> = queries.iter().filter(of_it).collect();
            assert_eq!(forms.len(), 1);
            for (rank, form) in peppers.lookups(digest).into_iter().enumerate() {
                assert_eq!(forms[0][&form], (rank, *digest));
            }
        }
    }

    #[test]
    fn a_pepper_is_recognized_by_a_digest_of_a_fixed_text() {
        // Computed independently: printf "rescind pepper check v1" | openssl dgst -sha256 -hmac pepper
        let peppers = Peppers::new(vec!["pepper".into(), "other".into()]);
        let checks: Vec<PepperCheck> = peppers.checks().collect();
        assert_eq!(
            hex::encode(checks[0].0),
            "78a3740c3da5c3633ded76f93b3d87cc947ef6a207a7eeff8bb4b091ecbb447f"
        );
        assert_eq!(checks[0].id().to_string(), "78a3740c3da5c363");
        assert_eq!(peppers.current(), checks[0].id());
        assert_ne!(checks[0], checks[1]);
        assert_eq!(Peppers::default().current(), PepperId::NONE);
        assert_ne!(CHECKED.len(), 32);
    }

    #[test]
    fn pepper_is_hmac_sha256_of_the_plain_digest() {
        // Computed independently: printf key | openssl dgst -sha256 -binary | openssl dgst -sha256 -hmac pepper
        let stored = Peppers::new(vec!["pepper".into()]).stored(&Sha256Digest::of(b"key"));
        assert_eq!(
            hex::encode(stored.0),
            "16b578f3eb2545a0602655f78929c1d4c419bd132ca9a29f24323a108ee8461e"
        );
    }
}
