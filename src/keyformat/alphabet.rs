//! Alphabets of key bodies.

/// Alphabet of a key's body. Every character is ASCII, so one character is one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alphabet {
    /// `0-9A-Za-z`, in GitHub's order.
    Base62,
    /// Bitcoin's base58: `1-9A-Za-z` without `I`, `O` and `l`, which are easily misread.
    Base58,
    /// Crockford's base32 in lower case, as Stack Auth writes it: `0-9a-z` without `i`, `l`, `o` and `u`.
    Base32Crockford,
    /// `0-9a-f`, lower case only.
    Hex,
    /// RFC 4648 section 5, without padding: `A-Za-z0-9-_`.
    Base64url,
}

/// Membership table of an alphabet, indexed by byte.
pub(super) type ByteTable = [bool; 256];

const TABLES: [ByteTable; 5] = [
    table(Alphabet::Base62.chars()),
    table(Alphabet::Base58.chars()),
    table(Alphabet::Base32Crockford.chars()),
    table(Alphabet::Hex.chars()),
    table(Alphabet::Base64url.chars()),
];
static STATIC_TABLES: [ByteTable; 5] = TABLES;

const fn table(chars: &[u8]) -> ByteTable {
    let mut table = [false; 256];
    let mut at = 0;
    while at < chars.len() {
        table[chars[at] as usize] = true;
        at += 1;
    }
    table
}

impl Alphabet {
    /// All alphabets, in the order in which error messages name them.
    pub const ALL: [Self; 5] = [
        Self::Base62,
        Self::Base58,
        Self::Base32Crockford,
        Self::Hex,
        Self::Base64url,
    ];

    /// Returns the characters in the order of their digit values.
    pub const fn chars(self) -> &'static [u8] {
        match self {
            Self::Base62 => b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
            Self::Base58 => b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz",
            Self::Base32Crockford => b"0123456789abcdefghjkmnpqrstvwxyz",
            Self::Hex => b"0123456789abcdef",
            Self::Base64url => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
        }
    }

    /// Returns the name used in pattern files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base62 => "base62",
            Self::Base58 => "base58",
            Self::Base32Crockford => "base32_crockford",
            Self::Hex => "hex",
            Self::Base64url => "base64url",
        }
    }

    /// Returns the alphabet with the given name, or `None` if there is none.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|alphabet| alphabet.name() == name)
    }

    /// Returns `true` if `byte` is one of the alphabet's characters.
    pub fn contains(self, byte: u8) -> bool {
        self.table()[usize::from(byte)]
    }

    /// Returns the entropy of `length` characters drawn uniformly from the alphabet, in bits.
    pub fn entropy_bits(self, length: usize) -> f64 {
        let characters = u32::try_from(self.chars().len()).unwrap_or(u32::MAX);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        f64::from(length) * f64::from(characters).log2()
    }

    /// Returns the membership table of the alphabet, for the scanner.
    pub(super) fn table(self) -> &'static ByteTable {
        &STATIC_TABLES[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphabets_have_their_size_and_no_character_twice() {
        for (alphabet, size) in Alphabet::ALL.into_iter().zip([62, 58, 32, 16, 64]) {
            let mut chars = alphabet.chars().to_vec();
            chars.sort_unstable();
            chars.dedup();
            assert_eq!(chars.len(), size, "{}", alphabet.name());
            for byte in 0..=255 {
                assert_eq!(alphabet.contains(byte), chars.contains(&byte));
            }
            assert_eq!(Alphabet::from_name(alphabet.name()), Some(alphabet));
        }
        assert_eq!(Alphabet::from_name("base32"), None);
    }

    #[test]
    fn entropy_is_that_of_independent_characters() {
        assert!((Alphabet::Hex.entropy_bits(32) - 128.0).abs() < 1e-9);
        assert!(Alphabet::Base62.entropy_bits(21) < 128.0);
        assert!(Alphabet::Base62.entropy_bits(22) > 128.0);
    }
}
