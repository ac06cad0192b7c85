//! Bytes that can stand before and after the literal in a key: most literals are dropped after one or two of them.

use super::KeyFormat;
use super::alphabet::ByteTable;
use super::shape::Shape;

impl KeyFormat {
    /// Returns the maximum number of bytes of a key before its literal, and after it.
    pub fn most_around_literal(&self) -> (usize, usize) {
        let literal = self.literal.len();
        match &self.shape {
            Shape::Prefix(_) => (0, self.max_len() - literal),
            Shape::Regex(regex) => {
                let (first, last) = regex.offsets();
                (last, regex.max_len.saturating_sub(first + literal))
            }
        }
    }

    /// Returns whether `byte` can occur in a key.
    pub fn can_contain(&self, byte: u8) -> bool {
        match &self.shape {
            Shape::Prefix(body) => {
                self.literal.as_bytes().contains(&byte)
                    || body.alphabet.contains(byte)
                    || self
                        .checksum
                        .is_some_and(|checksum| checksum.encoding.alphabet().contains(byte))
            }
            Shape::Regex(regex) => regex.contains(byte),
        }
    }

    /// Returns whether a key may have the bytes `before` before its literal, beginning with the nearest one, and
    /// `after` after it. Takes no more bytes than it needs to tell.
    ///
    /// Of a key the answer is always `true`. If it is, [`Self::match_at`] decides.
    #[inline]
    pub fn may_stand_between(
        &self,
        before: impl IntoIterator<Item = u8>,
        after: impl IntoIterator<Item = u8>,
    ) -> bool {
        match &self.shape {
            Shape::Prefix(body) => {
                let mut after = after.into_iter();
                let mut are_of = |table: &ByteTable, count| {
                    (0..count).all(|_| after.next().is_some_and(|byte| table[usize::from(byte)]))
                };
                let sum = self.checksum.map(|checksum| checksum.encoding);
                are_of(body.alphabet.table(), body.length)
                    && sum.is_none_or(|sum| are_of(sum.alphabet().table(), sum.length()))
            }
            Shape::Regex(regex) => regex.bytes_around().allows(before, after),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::keyformat::FormatSet;

    fn stands_in(format: &KeyFormat, key: &[u8], literal_at: usize) -> (bool, usize) {
        let taken = Cell::new(0);
        let count = |byte: &u8| {
            taken.set(taken.get() + 1);
            *byte
        };
        let after = &key[literal_at + format.literal().len()..];
        let before = key[..literal_at].iter().rev();
        let may = format.may_stand_between(before.map(count), after.iter().map(count));
        (may, taken.get())
    }

    #[test]
    fn every_key_may_stand_and_what_cannot_is_dropped_at_the_first_byte() {
        let formats = FormatSet::builtin();
        let format = formats.get("rescind_secret").unwrap();
        let key = format.mint().unwrap();
        let key = key.expose().as_bytes();
        assert_eq!(stands_in(format, key, 0), (true, 36));
        assert!(!stands_in(format, &key[..42], 0).0);
        for at in 7..43 {
            let mut other = key.to_vec();
            other[at] = b'_';
            assert_eq!(stands_in(format, &other, 0), (false, at - 6));
        }
        assert_eq!(format.most_around_literal(), (0, 36));

        let format = formats.get("stack_auth_secret").unwrap();
        let hex = "0123456789abcdef";
        let key = format!(
            "sk_{}{hex}{hex}team0574ck4u7h{}",
            &hex.repeat(3)[3..],
            &hex[8..]
        );
        assert_eq!(stands_in(format, key.as_bytes(), 85), (true, 93));
        assert_eq!(
            stands_in(format, format!("x{key}").as_bytes(), 86),
            (true, 93)
        );
        for (at, taken) in [(84, 1), (80, 5), (0, 85), (94, 86)] {
            let mut other = key.clone().into_bytes();
            other[at] = b'-';
            assert_eq!(stands_in(format, &other, 85), (false, taken));
        }
        assert_eq!(format.most_around_literal(), (85, 8));
    }

    #[test]
    fn a_literal_at_several_places_is_looked_at_as_far_as_all_have_in_common() {
        let text = "[[format]]\nid = \"a\"\nvisibility = \"secret\"\nanchor = \"mid\"\n\
                    regex = 'k[0-9a-f]{4,8}mid[0-9a-z]{3}'\n";
        let formats = FormatSet::parse(&[("f.toml", text)]).unwrap();
        let format = formats.get("a").unwrap();
        // The literal may be followed by itself.
        assert_eq!(format.most_around_literal(), (12, 7));
        for key in ["k0123midxyz", "k01234567mid0az", "k012345midmid"] {
            let at = key.find("mid").unwrap();
            assert!(stands_in(format, key.as_bytes(), at).0, "{key}");
        }
        for other in ["k01-3midxyz", "0123midxyz", "-123midxyz"] {
            let at = other.find("mid").unwrap();
            assert!(!stands_in(format, other.as_bytes(), at).0, "{other}");
        }
    }
}
