//! Alphabets of key bodies.

named! {
    /// Alphabet of a key's body. Every character is ASCII, so one character is one byte.
    pub enum Alphabet {
        /// `0-9A-Za-z`, in GitHub's order.
        Base62 = "base62",
        /// Bitcoin's base58: `1-9A-Za-z` without `I`, `O` and `l`, which are easily misread.
        Base58 = "base58",
        /// Crockford's base32 in lower case, as Stack Auth writes it: `0-9a-z` without `i`, `l`, `o` and `u`.
        Base32Crockford = "base32_crockford",
        /// `0-9a-f`, lower case only.
        Hex = "hex",
        /// RFC 4648 section 5, without padding: `A-Za-z0-9-_`.
        Base64url = "base64url",
    }
}

/// Membership table of an alphabet, indexed by byte.
pub(super) type ByteTable = [bool; 256];

/// Tables in the order of [`Alphabet::ALL`].
static TABLES: [ByteTable; Alphabet::ALL.len()] = tables();

const fn tables() -> [ByteTable; Alphabet::ALL.len()] {
    let mut tables = [[false; 256]; Alphabet::ALL.len()];
    let mut at = 0;
    while at < tables.len() {
        tables[at] = table(Alphabet::ALL[at].chars());
        at += 1;
    }
    tables
}

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
        &TABLES[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphabets_have_their_size_and_no_character_twice() {
        for alphabet in Alphabet::ALL {
            let mut chars = alphabet.chars().to_vec();
            chars.sort_unstable();
            chars.dedup();
            assert_eq!(chars.len(), alphabet.chars().len(), "{}", alphabet.name());
            for byte in 0..=255 {
                assert_eq!(alphabet.contains(byte), chars.contains(&byte));
            }
            assert_eq!(Alphabet::by_name(alphabet.name()), Some(alphabet));
        }
        assert_eq!(
            Alphabet::ALL.map(|alphabet| alphabet.chars().len()),
            [62, 58, 32, 16, 64]
        );
        assert_eq!(Alphabet::by_name("base63"), None);
    }

    #[test]
    fn entropy_is_that_of_independent_characters() {
        assert!((Alphabet::Hex.entropy_bits(32) - 128.0).abs() < 1e-9);
        assert!(Alphabet::Base62.entropy_bits(21) < 128.0);
        assert!(Alphabet::Base62.entropy_bits(22) > 128.0);
    }
}
