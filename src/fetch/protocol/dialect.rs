//! Versions of the protocol, and what a server says of itself before anything is asked for.
//!
//! Source: `Documentation/gitprotocol-pack.adoc`, `gitprotocol-capabilities.adoc` and `gitprotocol-http.adoc` of git.

use gix_hash::{Kind as HashKind, ObjectId};

use super::{Line, Lines};
use crate::fetch::FetchError;

/// Capabilities of version 0 that make a difference. Others are not named to a server.
const CAPABILITIES: [&str; 12] = [
    "multi_ack_detailed",
    "multi_ack",
    "no-done",
    "side-band-64k",
    "side-band",
    "ofs-delta",
    "no-progress",
    "shallow",
    "filter",
    "allow-tip-sha1-in-want",
    "allow-reachable-sha1-in-want",
    "object-format=sha256",
];

/// Capabilities that a server of version 0 or 1 offers, as a set of places in [`CAPABILITIES`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::fetch) struct Offers(u16);

impl Offers {
    fn of<'w>(words: impl Iterator<Item = &'w [u8]>) -> Self {
        Self(words.fold(0, |offers, word| offers | bit(word)))
    }

    /// Returns whether the server has the capability, which is one of those that make a difference.
    pub(in crate::fetch) fn has(self, capability: &str) -> bool {
        self.0 & bit(capability.as_bytes()) != 0
    }
}

fn bit(word: &[u8]) -> u16 {
    let at = CAPABILITIES.iter().position(|name| name.as_bytes() == word);
    at.map_or(0, |at| 1 << at)
}

/// Version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fetch) enum Version {
    /// Version 2, which a server speaks if it is asked to in a header.
    Two,
    /// Version 0 or 1, which differ in nothing but a line that names the latter.
    Old(Offers),
}

/// Manner in which a repository's server wants to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fetch) struct Dialect {
    pub(in crate::fetch) version: Version,
    /// Hash function of the names of its objects.
    pub(in crate::fetch) hash: HashKind,
}

impl Dialect {
    /// The manner of most servers.
    pub(in crate::fetch) const USUAL: Self = Self {
        version: Version::Two,
        hash: HashKind::Sha1,
    };

    /// Returns the dialect by the beginning of what a server says of itself, or `None` if that is not git's protocol.
    pub(in crate::fetch) fn of(told: &[u8]) -> Option<Self> {
        let (mut is_two, mut found) = (false, None);
        let mut hash = HashKind::Sha1;
        // What follows the lines that matter may be cut off, or be anything.
        let _ = Lines::default().feed(told, |line| {
            let Line::Data(line) = line else {
                return Ok(());
            };
            let line = line.trim_ascii_end();
            if found.is_some() || line.starts_with(b"# service=") || line == b"version 1" {
            } else if line == b"version 2" {
                is_two = true;
            } else if is_two {
                if line == b"object-format=sha256" {
                    hash = HashKind::Sha256;
                }
            } else {
                found = Some(Self::of_first(line).ok_or(FetchError::CommitGone)?);
            }
            Ok(())
        });
        found.or(is_two.then_some(Self {
            version: Version::Two,
            hash,
        }))
    }

    /// Returns the dialect by the first reference of version 0, after which the capabilities stand.
    fn of_first(line: &[u8]) -> Option<Self> {
        let at = memchr::memchr(0, line)?;
        let (reference, capabilities) = (&line[..at], &line[at + 1..]);
        let digits = memchr::memchr(b' ', reference)?;
        let offers = Offers::of(capabilities.split(u8::is_ascii_whitespace));
        Some(Self {
            version: Version::Old(offers),
            hash: ObjectId::from_hex(&reference[..digits]).ok()?.kind(),
        })
    }

    /// Returns whether the server of version 0 or 1 gives nothing but what it lists.
    pub(in crate::fetch) fn gives_listed_only(self) -> bool {
        match self.version {
            Version::Two => false,
            Version::Old(offers) => !offers.has("allow-reachable-sha1-in-want"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, id};
    use super::*;

    #[test]
    fn a_server_says_which_dialect_it_speaks() {
        let service: &[u8] = b"# service=git-upload-pack\n";
        let first = format!("{} HEAD\0multi_ack no-done shallow agent=x\n", id('a'));
        let none = format!(
            "{} capabilities^{{}}\0object-format=sha256\n",
            "0".repeat(64)
        );
        let old = |told: &[&[u8]]| match Dialect::of(&answer(told))?.version {
            Version::Old(offers) => Some(offers),
            Version::Two => None,
        };
        for told in [
            vec![service, b"0000", first.as_bytes(), b"0000"],
            vec![b"version 1\n", first.as_bytes()],
            vec![first.as_bytes()],
        ] {
            let offers = old(&told).unwrap();
            let has = [
                "multi_ack",
                "no-done",
                "shallow",
                "filter",
                "multi_ack_detailed",
            ];
            let has = has.map(|capability| offers.has(capability));
            assert_eq!(has, [true, true, true, false, false]);
        }
        let empty = Dialect::of(&answer(&[service, b"0000", none.as_bytes()])).unwrap();
        assert_eq!(empty.hash, HashKind::Sha256);

        let two = answer(&[
            b"version 2\n",
            b"agent=x\n",
            b"object-format=sha1\n",
            b"0000",
        ]);
        assert_eq!(Dialect::of(&two), Some(Dialect::USUAL));
        let long = [
            service,
            b"0000",
            b"version 2\n",
            b"object-format=sha256\n",
            b"0000",
        ];
        assert_eq!(Dialect::of(&answer(&long)).unwrap().hash, HashKind::Sha256);
        for nothing in [&b""[..], b"<html>", b"0000", b"0009hello", b"0008a b\0"] {
            assert_eq!(Dialect::of(nothing), None);
        }
    }
}
