//! A single key format and the queries on it.

use std::ops::Range;

use serde::Serialize;
use utoipa::ToSchema;

use super::KeyValue;
use super::checksum::Checksum;
use super::mint::{self, MintError};
use super::shape::{Body, Shape};

/// Audience of a format's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Known to the key's owner only: the scanner looks for such keys, and a leak revokes them.
    Secret,
    /// Known to everybody, such as the visitors of a website: minted and checked, but never scanned for.
    Public,
}

impl Visibility {
    /// Returns the name used in pattern files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Public => "public",
        }
    }
}

/// Result of matching a whole string against a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not a key of this format: the literal, the length or a character differs.
    WrongShape,
    /// The string has the shape of a key but does not end in the correct checksum.
    WrongChecksum,
    /// A key of this format.
    Match {
        /// State of the checksum.
        checksum: ChecksumState,
    },
}

/// State of the checksum of a string that has the right shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumState {
    /// The checksum is correct.
    Valid,
    /// The format has no checksum.
    None,
}

/// A loaded and validated key format.
#[derive(Debug, Clone)]
pub struct KeyFormat {
    pub(super) id: String,
    pub(super) description: String,
    pub(super) visibility: Visibility,
    pub(super) literal: String,
    pub(super) display_prefix: String,
    pub(super) shape: Shape,
    pub(super) checksum: Option<Checksum>,
    pub(super) is_retired: bool,
}

impl KeyFormat {
    /// Returns the identifier that names the format in the configuration, the key store and reports.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns a human-readable description of the format's keys.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Returns the audience of the format's keys.
    pub fn visibility(&self) -> Visibility {
        self.visibility
    }

    /// Returns the fixed characters by which keys are found: the prefix, or the anchor inside.
    pub fn literal(&self) -> &str {
        &self.literal
    }

    /// Returns `true` if keys start with the literal.
    pub fn literal_is_prefix(&self) -> bool {
        matches!(self.shape, Shape::Prefix(_))
    }

    /// Returns the bytes that can follow the prefix, which are those of the body's alphabet. Returns
    /// `None` for an anchored format, since nothing is known about what follows an anchor.
    pub fn byte_after_prefix(&self) -> Option<&'static [u8]> {
        match &self.shape {
            Shape::Prefix(body) => Some(body.alphabet.chars()),
            Shape::Regex(_) => None,
        }
    }

    /// Returns the part of a key that is shown before the ellipsis when it is redacted: the prefix, or
    /// the common prefix of all keys of an anchored format, which may be empty.
    pub fn display_prefix(&self) -> &str {
        &self.display_prefix
    }

    /// Returns the checksum in which keys end, if the format has one.
    pub fn checksum(&self) -> Option<Checksum> {
        self.checksum
    }

    /// Returns the length of the shortest key, in bytes.
    pub fn min_len(&self) -> usize {
        match &self.shape {
            Shape::Prefix(body) => self.prefix_key_len(*body),
            Shape::Regex(regex) => regex.min_len,
        }
    }

    /// Returns the length of the longest key, in bytes.
    pub fn max_len(&self) -> usize {
        match &self.shape {
            Shape::Prefix(body) => self.prefix_key_len(*body),
            Shape::Regex(regex) => regex.max_len,
        }
    }

    /// Returns the entropy of a minted key in bits, or `None` if the format cannot mint.
    pub fn entropy_bits(&self) -> Option<f64> {
        match &self.shape {
            _ if self.is_retired => None,
            Shape::Prefix(body) => Some(body.alphabet.entropy_bits(body.length)),
            Shape::Regex(_) => None,
        }
    }

    /// Returns `true` if the format is one of former times: its keys are hunted and checked, and no new ones are
    /// minted.
    pub fn is_retired(&self) -> bool {
        self.is_retired
    }

    /// Returns `true` if keys can be minted in this format. Formats described by a regular expression, and retired
    /// ones, cannot mint.
    pub fn can_mint(&self) -> bool {
        matches!(self.shape, Shape::Prefix(_)) && !self.is_retired
    }

    /// Mints a new key from the operating system's randomness.
    ///
    /// # Errors
    /// Fails if the format cannot mint, or if the operating system provides no randomness.
    pub fn mint(&self) -> Result<KeyValue, MintError> {
        match &self.shape {
            _ if self.is_retired => Err(MintError::Retired {
                format: self.id.clone(),
            }),
            Shape::Prefix(body) => {
                mint::mint(&self.literal, *body, self.checksum, mint::system_randomness)
            }
            Shape::Regex(_) => Err(MintError::NotMintable {
                format: self.id.clone(),
            }),
        }
    }

    /// Matches the whole of `candidate` against the format.
    pub fn judge(&self, candidate: &[u8]) -> Verdict {
        if !self.has_shape(candidate) {
            return Verdict::WrongShape;
        }
        match self.checksum {
            None => Verdict::Match {
                checksum: ChecksumState::None,
            },
            Some(checksum) if checksum.holds(candidate, self.body_at()) => Verdict::Match {
                checksum: ChecksumState::Valid,
            },
            Some(_) => Verdict::WrongChecksum,
        }
    }

    /// Returns the range in `text` of a key of this format whose literal is at `literal_at`.
    ///
    /// Shape and checksum decide. A key without a checksum must also not be preceded or followed by a
    /// character of its alphabet, since every longer run of characters would contain a key otherwise.
    /// With a checksum the neighbors do not matter.
    pub fn match_at(&self, text: &[u8], literal_at: usize) -> Option<Range<usize>> {
        match &self.shape {
            Shape::Prefix(body) => {
                let end = literal_at.checked_add(self.prefix_key_len(*body))?;
                let key = text.get(literal_at..end)?;
                let fits = self.has_prefix_shape(key, *body)
                    && self.speaks_for(text, literal_at, end, |byte| body.alphabet.contains(byte));
                fits.then_some(literal_at..end)
            }
            Shape::Regex(regex) => {
                let literal = self.literal.as_bytes();
                if !text.get(literal_at..)?.starts_with(literal) {
                    return None;
                }
                regex
                    .around(text, literal_at, literal.len(), |start, end| {
                        self.speaks_for(text, start, end, |byte| regex.contains(byte))
                    })
                    .map(|(start, end)| start..end)
            }
        }
    }

    /// Returns `true` if the string of the right shape at `start..end` has a correct checksum or, if the
    /// format has none, is not adjacent to a character of its alphabet.
    #[inline]
    fn speaks_for(
        &self,
        text: &[u8],
        start: usize,
        end: usize,
        in_alphabet: impl Fn(u8) -> bool,
    ) -> bool {
        match self.checksum {
            Some(checksum) => checksum.holds(&text[start..end], self.body_at()),
            None => {
                !text[..start].last().is_some_and(|byte| in_alphabet(*byte))
                    && !text.get(end).is_some_and(|byte| in_alphabet(*byte))
            }
        }
    }

    fn has_shape(&self, candidate: &[u8]) -> bool {
        match &self.shape {
            Shape::Prefix(body) => {
                candidate.len() == self.prefix_key_len(*body)
                    && self.has_prefix_shape(candidate, *body)
            }
            Shape::Regex(regex) => regex.fits(candidate),
        }
    }

    /// Completes the check of a string that has the length of a key.
    #[inline]
    fn has_prefix_shape(&self, key: &[u8], body: Body) -> bool {
        let Some(rest) = key.strip_prefix(self.literal.as_bytes()) else {
            return false;
        };
        // The checksum's own characters are checked along with the checksum.
        let table = body.alphabet.table();
        rest.iter()
            .take(body.length)
            .all(|byte| table[usize::from(*byte)])
    }

    fn prefix_key_len(&self, body: Body) -> usize {
        self.literal.len()
            + body.length
            + self
                .checksum
                .map_or(0, |checksum| checksum.encoding.length())
    }

    /// Returns the offset at which the body covered by a checksum with `over = "body"` starts.
    pub(super) fn body_at(&self) -> usize {
        match self.shape {
            Shape::Prefix(_) => self.literal.len(),
            Shape::Regex(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyformat::FormatSet;

    const VALID: Verdict = Verdict::Match {
        checksum: ChecksumState::Valid,
    };

    fn builtin(id: &str) -> KeyFormat {
        FormatSet::builtin().get(id).unwrap().clone()
    }

    #[test]
    fn mints_what_it_recognizes() {
        let format = builtin("rescind_secret");
        assert_eq!((format.min_len(), format.max_len()), (43, 43));
        let key = format.mint().unwrap();
        assert!(key.expose().starts_with("rsc_sk_"));
        assert_eq!(format.judge(key.expose().as_bytes()), VALID);
        assert_ne!(key.expose(), format.mint().unwrap().expose());
        let formats = FormatSet::builtin();
        assert_eq!(
            formats.identify(key.expose()).unwrap().id(),
            "rescind_secret"
        );
        assert!(matches!(
            builtin("stack_auth_secret").mint(),
            Err(MintError::NotMintable { .. })
        ));
    }

    #[test]
    fn checksum_speaks_whatever_stands_around_the_key() {
        let format = builtin("rescind_secret");
        let key = format.mint().unwrap();
        let text = format!("x{}9", key.expose());
        assert_eq!(format.match_at(text.as_bytes(), 1), Some(1..44));
        // Truncated, misplaced, out of bounds: no key and no panic.
        assert_eq!(format.match_at(&text.as_bytes()[..43], 1), None);
        assert_eq!(format.match_at(text.as_bytes(), 0), None);
        assert_eq!(format.match_at(text.as_bytes(), usize::MAX), None);
    }

    #[test]
    fn without_checksum_a_key_has_to_stand_alone() {
        let text = "[[format]]\nid = \"bare\"\nvisibility = \"secret\"\nprefix = \"bare_\"\n\
                    body = { alphabet = \"hex\", length = 32 }\n";
        let formats = FormatSet::parse(&[("f.toml", text)]).unwrap();
        let format = formats.get("bare").unwrap();
        let key = format.mint().unwrap();
        let key = key.expose();
        let verdict = format.judge(key.as_bytes());
        assert_eq!(
            verdict,
            Verdict::Match {
                checksum: ChecksumState::None
            }
        );
        for (before, after, stands_alone) in [
            ("", "", true),
            ("\"", "\"", true),
            ("x_", "-x", true),
            // Upper-case letters are not in the alphabet.
            ("A", "A", true),
            ("a", "", false),
            ("", "0", false),
        ] {
            let text = format!("{before}{key}{after}");
            let at = before.len();
            let expected = stands_alone.then_some(at..at + key.len());
            assert_eq!(
                format.match_at(text.as_bytes(), at),
                expected,
                "{before:?} {after:?}"
            );
        }
    }
}
