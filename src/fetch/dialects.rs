//! Dialects that servers were found to speak, for as long as the process runs.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use reqwest::Url;
use sha2::{Digest as _, Sha256};

use super::names::host_of;
use super::protocol::{Dialect, Version};

/// Maximum number of repositories, and of hosts, that are remembered. When there are more, all are forgotten: each then
/// costs two requests again.
const KNOWN_MAX: usize = 4_096;

/// Digest of an address or a host, which may be long.
type Key = [u8; 16];

/// Dialects of repositories that do not speak the usual one, and versions of hosts.
#[derive(Debug, Default)]
pub(super) struct Dialects {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    repositories: HashMap<Key, Dialect>,
    /// Version that was last understood by a repository of the host.
    hosts: HashMap<Key, Version>,
}

fn key(text: &str) -> Key {
    let mut key = [0; 16];
    key.copy_from_slice(&Sha256::digest(text)[..16]);
    key
}

impl Dialects {
    /// Returns the dialect in which a repository is to be asked: its own, or else the usual one in the version of its
    /// host.
    pub(super) fn of(&self, clone_url: &Url) -> Dialect {
        let known = self.lock();
        let of_host = || {
            let version = known.hosts.get(&key(&host_of(clone_url))).copied();
            Dialect {
                version: version.unwrap_or(Version::Two),
                ..Dialect::USUAL
            }
        };
        let own = known.repositories.get(&key(clone_url.as_str()));
        own.copied().unwrap_or_else(of_host)
    }

    /// Returns whether a repository of the host was understood in version 2, and the last one that was understood.
    pub(super) fn speaks_version_2(&self, clone_url: &Url) -> bool {
        let version = self.lock().hosts.get(&key(&host_of(clone_url))).copied();
        version == Some(Version::Two)
    }

    /// Records what a server says of itself.
    pub(super) fn note(&self, clone_url: &Url, dialect: Dialect) {
        let mut known = self.lock();
        insert(&mut known.repositories, key(clone_url.as_str()), dialect);
    }

    /// Records that a repository was understood.
    pub(super) fn understood(&self, clone_url: &Url, version: Version) {
        insert(&mut self.lock().hosts, key(&host_of(clone_url)), version);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn insert<T>(known: &mut HashMap<Key, T>, key: Key, value: T) {
    if known.len() >= KNOWN_MAX && !known.contains_key(&key) {
        known.clear();
    }
    known.insert(key, value);
}

#[cfg(test)]
mod tests {
    use gix_hash::Kind as HashKind;

    use super::*;
    use crate::fetch::protocol::Offers;

    #[test]
    fn a_repository_has_a_dialect_of_its_own_or_the_version_of_its_host() {
        let url = |text: &str| Url::parse(text).unwrap();
        let (one, two) = (
            url("https://git.example/a/b"),
            url("https://git.example/a/c"),
        );
        let dialects = Dialects::default();
        assert_eq!(dialects.of(&one), Dialect::USUAL);
        let old = Dialect {
            version: Version::Old(Offers::default()),
            hash: HashKind::Sha256,
        };
        dialects.note(&one, old);
        assert_eq!(
            (dialects.of(&one), dialects.of(&two)),
            (old, Dialect::USUAL)
        );
        dialects.understood(&one, old.version);
        assert_eq!(dialects.of(&two).version, old.version);
        assert_eq!(dialects.of(&two).hash, HashKind::Sha1);
        assert!(!dialects.speaks_version_2(&two));
        assert_eq!(
            dialects.of(&url("https://other.example/a/c")),
            Dialect::USUAL
        );
        for n in 0..KNOWN_MAX {
            dialects.note(&url(&format!("https://git.example/{n}")), old);
        }
        assert_eq!(dialects.of(&one).hash, HashKind::Sha1, "it was forgotten");
        assert!(dialects.lock().repositories.len() <= KNOWN_MAX);
    }
}
