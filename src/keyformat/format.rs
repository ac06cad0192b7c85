//! One key format: what its keys look like, and the questions that are asked about that.

use std::ops::Range;

use super::checksum::Checksum;
use super::mint::{self, MintError};
use super::shape::RegexShape;
use super::{Alphabet, KeyValue};

/// Who may hold a key of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// Only the key's owner: the scanner looks for it and a leak revokes it.
    Secret,
    /// Everybody, such as the visitors of a web site: minted and checked, never scanned for.
    Public,
}

impl Visibility {
    /// The word that pattern files use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Public => "public",
        }
    }
}

/// What a format says about a whole string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not a key of this format: literal, length or characters differ.
    WrongShape,
    /// It looks like one, but ends in another checksum than its own.
    WrongChecksum,
    /// A key of this format.
    Match {
        /// How sure that is.
        checksum: ChecksumState,
    },
}

/// Whether a string of the right shape is also vouched for by a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumState {
    /// The checksum is right.
    Valid,
    /// The format has none.
    None,
}

/// One loaded and checked key format.
#[derive(Debug, Clone)]
pub struct KeyFormat {
    pub(super) id: String,
    pub(super) description: String,
    pub(super) visibility: Visibility,
    pub(super) literal: String,
    pub(super) display_prefix: String,
    pub(super) shape: Shape,
    pub(super) checksum: Option<Checksum>,
}

/// Where the literal stands and what surrounds it.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// The literal, then a body of one alphabet and fixed length, then the checksum.
    Prefix(Body),
    /// A regular expression over the whole key, literal and checksum included.
    Regex(Box<RegexShape>),
}

/// The random part of a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body {
    pub(super) alphabet: Alphabet,
    pub(super) length: usize,
}

impl KeyFormat {
    /// The identifier by which configuration, key store and reports name the format.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What its keys are, for people.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Who may hold its keys.
    pub fn visibility(&self) -> Visibility {
        self.visibility
    }

    /// The fixed characters by which its keys are found: the prefix, or the anchor inside.
    pub fn literal(&self) -> &str {
        &self.literal
    }

    /// Whether the literal is what keys start with.
    pub fn literal_is_prefix(&self) -> bool {
        matches!(self.shape, Shape::Prefix(_))
    }

    /// The bytes that can follow a prefix, which is where the body starts. Nothing is known of what
    /// follows an anchor.
    pub fn byte_after_prefix(&self) -> Option<&'static [u8]> {
        match &self.shape {
            Shape::Prefix(body) => Some(body.alphabet.chars()),
            Shape::Regex(_) => None,
        }
    }

    /// What of a key is shown before the ellipsis when it is redacted: the prefix, or what all keys of
    /// an anchored format start with (which may be nothing).
    pub fn display_prefix(&self) -> &str {
        &self.display_prefix
    }

    /// The checksum its keys end in, if any.
    pub fn checksum(&self) -> Option<Checksum> {
        self.checksum
    }

    /// The length of its shortest key, in bytes.
    pub fn min_len(&self) -> usize {
        match &self.shape {
            Shape::Prefix(body) => self.prefix_key_len(*body),
            Shape::Regex(regex) => regex.min_len,
        }
    }

    /// The length of its longest key, in bytes.
    pub fn max_len(&self) -> usize {
        match &self.shape {
            Shape::Prefix(body) => self.prefix_key_len(*body),
            Shape::Regex(regex) => regex.max_len,
        }
    }

    /// The entropy of a minted key in bits; absent for formats that do not mint.
    pub fn entropy_bits(&self) -> Option<f64> {
        match &self.shape {
            Shape::Prefix(body) => Some(body.alphabet.entropy_bits(body.length)),
            Shape::Regex(_) => None,
        }
    }

    /// Whether keys can be minted in it: a regular expression does not say how.
    pub fn can_mint(&self) -> bool {
        matches!(self.shape, Shape::Prefix(_))
    }

    /// A new key, from the operating system's randomness.
    pub fn mint(&self) -> Result<KeyValue, MintError> {
        match &self.shape {
            Shape::Prefix(body) => {
                mint::mint(&self.literal, *body, self.checksum, mint::system_randomness)
            }
            Shape::Regex(_) => Err(MintError::NotMintable {
                format: self.id.clone(),
            }),
        }
    }

    /// What the format says about the whole of `candidate`.
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

    /// Where in `text` a key of this format stands around its literal, which stands at `literal_at`.
    ///
    /// Shape and checksum decide. A key without checksum must not be preceded or followed by a
    /// character of its alphabet either, or every longer run of characters would contain one. With a
    /// checksum neighbours do not matter: the checksum speaks.
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

    /// Whether the checksum of the string of the right shape at `start..end` is right or, for want of
    /// one, the string stands alone.
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

    /// The rest of the check of a string that has the length of a key.
    #[inline]
    fn has_prefix_shape(&self, key: &[u8], body: Body) -> bool {
        let Some(rest) = key.strip_prefix(self.literal.as_bytes()) else {
            return false;
        };
        // The checksum's own characters are left to the checksum.
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

    /// Where the body starts that a checksum `over = "body"` covers.
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
    fn mints_what_it_recognises() {
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
        // Cut short, elsewhere, beyond the end: no key and no panic.
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
            // Capitals are not of the alphabet.
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
