//! The checksum at the end of a key, which lets a scanner tell a key from any other string of its shape
//! without asking the issuer.
//!
//! The scheme is GitHub's: CRC-32 (IEEE) of the random part, in base62. See
//! <https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/>.

use super::Alphabet;

/// Algorithm, encoding and coverage of a key's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum {
    /// Algorithm that computes the 32 bits.
    pub algorithm: ChecksumAlgorithm,
    /// Encoding of the 32 bits.
    pub encoding: ChecksumEncoding,
    /// Part of the key that the checksum covers.
    pub over: Coverage,
}

named! {
    /// Algorithm of a checksum of 32 bits. The name is that in pattern files.
    pub enum ChecksumAlgorithm {
        /// CRC-32 (IEEE).
        Crc32 = "crc32",
    }
}

impl ChecksumAlgorithm {
    fn sum(self, text: &[u8]) -> u32 {
        match self {
            Self::Crc32 => crc32fast::hash(text),
        }
    }
}

/// Encoding of the 32 bits of a checksum. It determines the length: fewer characters would lose bits, and
/// more are never needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumEncoding {
    /// Six digits of `0-9A-Za-z`, the most significant first, left-padded with `0`.
    Base62,
    /// Eight lower-case hexadecimal digits, the most significant first.
    Hex,
}

/// Part of a key that its checksum covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// The random part only, without the prefix.
    Body,
    /// Everything before the checksum, including the prefix.
    Preceding,
}

impl Coverage {
    /// Returns the name used in pattern files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Preceding => "preceding",
        }
    }
}

impl ChecksumEncoding {
    /// Returns the name used in pattern files.
    pub const fn name(self) -> &'static str {
        self.alphabet().name()
    }

    /// Returns the length of the encoded checksum in characters, which are bytes.
    pub const fn length(self) -> usize {
        match self {
            Self::Base62 => 6,
            Self::Hex => 8,
        }
    }

    /// Returns the alphabet of the encoding.
    pub const fn alphabet(self) -> Alphabet {
        match self {
            Self::Base62 => Alphabet::Base62,
            Self::Hex => Alphabet::Hex,
        }
    }

    /// Encodes a checksum.
    pub fn encode(self, sum: u32) -> String {
        let digits = self.alphabet().chars();
        let base = u32::try_from(digits.len()).unwrap_or(u32::MAX);
        let mut text = vec![digits[0]; self.length()];
        let mut rest = sum;
        for place in text.iter_mut().rev() {
            *place = digits[(rest % base) as usize];
            rest /= base;
        }
        text.into_iter().map(char::from).collect()
    }

    /// Decodes a checksum strictly: every number has exactly one spelling. Does not allocate.
    fn decode(self, text: &[u8]) -> Option<u32> {
        let (values, base) = match self {
            Self::Base62 => (&BASE62_VALUES, 62),
            Self::Hex => (&HEX_VALUES, 16),
        };
        let mut sum = 0u64;
        for &byte in text {
            let value = values[usize::from(byte)];
            if value == NOT_A_DIGIT {
                return None;
            }
            sum = sum * base + u64::from(value);
        }
        u32::try_from(sum).ok()
    }
}

const NOT_A_DIGIT: u8 = u8::MAX;
static BASE62_VALUES: [u8; 256] = values(Alphabet::Base62);
static HEX_VALUES: [u8; 256] = values(Alphabet::Hex);

const fn values(alphabet: Alphabet) -> [u8; 256] {
    let mut values = [NOT_A_DIGIT; 256];
    let chars = alphabet.chars();
    let mut value = 0u8;
    while (value as usize) < chars.len() {
        values[chars[value as usize] as usize] = value;
        value += 1;
    }
    values
}

impl Checksum {
    /// Computes the checksum that follows `preceding`, which is everything in the key before the
    /// checksum. The key's body starts at `body_at`.
    pub(super) fn compute(self, preceding: &[u8], body_at: usize) -> u32 {
        self.algorithm.sum(match self.over {
            Coverage::Body => preceding.get(body_at..).unwrap_or_default(),
            Coverage::Preceding => preceding,
        })
    }

    /// Returns `true` if `key` ends in the checksum of what precedes it. Does not allocate.
    pub(super) fn holds(self, key: &[u8], body_at: usize) -> bool {
        let Some(at) = key.len().checked_sub(self.encoding.length()) else {
            return false;
        };
        let (preceding, found) = key.split_at(at);
        // Decoding first is the cheap test: most strings of the right shape fail it or the comparison.
        self.encoding
            .decode(found)
            .is_some_and(|found| found == self.compute(preceding, body_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_reads_both_encodings() {
        for (encoding, sum, text) in [
            (ChecksumEncoding::Base62, 0, "000000"),
            (ChecksumEncoding::Base62, 61, "00000z"),
            (ChecksumEncoding::Base62, 62, "000010"),
            // 4,294,967,295 in base62, computed by repeated division.
            (ChecksumEncoding::Base62, u32::MAX, "4gfFC3"),
            (ChecksumEncoding::Hex, 0, "00000000"),
            (ChecksumEncoding::Hex, 0xDEAD_BEEF, "deadbeef"),
        ] {
            assert_eq!(encoding.encode(sum), text);
            assert_eq!(encoding.decode(text.as_bytes()), Some(sum));
        }
    }

    #[test]
    fn refuses_other_spellings() {
        // One more than 32 bits hold; characters that are no digits; upper-case hexadecimal digits.
        assert_eq!(ChecksumEncoding::Base62.decode(b"4gfFC4"), None);
        assert_eq!(ChecksumEncoding::Base62.decode(b"zzzzzz"), None);
        assert_eq!(ChecksumEncoding::Base62.decode(b"0000-0"), None);
        assert_eq!(ChecksumEncoding::Hex.decode(b"DEADBEEF"), None);
    }

    #[test]
    fn covers_the_body_or_everything() {
        // CRC-32 of "123456789" is the check value in the CRC catalog.
        let body = Checksum {
            algorithm: ChecksumAlgorithm::Crc32,
            encoding: ChecksumEncoding::Hex,
            over: Coverage::Body,
        };
        assert!(body.holds(b"abc_123456789cbf43926", 4));
        assert!(!body.holds(b"abc_123456789cbf43927", 4));
        let all = Checksum {
            over: Coverage::Preceding,
            ..body
        };
        assert!(all.holds(b"123456789cbf43926", 4));
        assert!(!all.holds(b"abc_123456789cbf43926", 4));
        assert!(!all.holds(b"short", 0));
    }
}
