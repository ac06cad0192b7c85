//! Holes in a statement, known when it is compiled.

/// Hole in a statement, where the two databases differ or the number of placeholders varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hole {
    /// The database's clock.
    Now,
    /// The lock of the rows that are read, in PostgreSQL's words.
    Lock(&'static str),
    /// The items of a list, the first of which is this placeholder.
    List(usize),
    /// Rows of this many placeholders.
    Rows(usize),
}

/// Names of the locks, and what PostgreSQL calls them.
const LOCKS: [(&[u8], &str); 3] = [
    (b"for update", "FOR UPDATE"),
    (b"for no key update", "FOR NO KEY UPDATE"),
    (b"for update skip locked", "FOR UPDATE SKIP LOCKED"),
];

impl Hole {
    /// Returns the hole of this name, or `None` if there is none.
    pub(super) const fn parse(name: &[u8]) -> Option<Self> {
        if equal(name, b"now") {
            return Some(Self::Now);
        }
        let mut at = 0;
        while at < LOCKS.len() {
            if equal(name, LOCKS[at].0) {
                return Some(Self::Lock(LOCKS[at].1));
            }
            at += 1;
        }
        match name {
            [b'l', b'i', b's', b't', b':', digits @ ..] => match number(digits) {
                Some(first) => Some(Self::List(first)),
                None => None,
            },
            [b'r', b'o', b'w', b's', b':', digits @ ..] => match number(digits) {
                Some(columns) => Some(Self::Rows(columns)),
                None => None,
            },
            _ => None,
        }
    }

    /// Returns whether every hole in the text of a statement is known.
    pub(super) const fn all_known(text: &[u8]) -> bool {
        let mut rest = text;
        while let [first, after @ ..] = rest {
            rest = after;
            if *first != b'{' {
                continue;
            }
            let mut end = 0;
            while end < after.len() && after[end] != b'}' {
                end += 1;
            }
            let (name, behind) = after.split_at(end);
            if behind.is_empty() || Self::parse(name).is_none() {
                return false;
            }
            rest = behind;
        }
        true
    }
}

const fn equal(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Returns a number of one or two digits that is not zero.
const fn number(digits: &[u8]) -> Option<usize> {
    let (tens, ones) = match digits {
        [ones] => (b'0', *ones),
        [tens, ones] => (*tens, *ones),
        _ => return None,
    };
    if !tens.is_ascii_digit() || !ones.is_ascii_digit() {
        return None;
    }
    match (tens - b'0') as usize * 10 + (ones - b'0') as usize {
        0 => None,
        number => Some(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_known_by_their_whole_name() {
        for (name, hole) in [
            ("now", Some(Hole::Now)),
            ("for update", Some(Hole::Lock("FOR UPDATE"))),
            ("list:3", Some(Hole::List(3))),
            ("rows:12", Some(Hole::Rows(12))),
            ("for updte", None),
            ("list", None),
            ("list:", None),
            ("list:0", None),
            ("rows:x", None),
            ("rows:123", None),
            ("", None),
        ] {
            assert_eq!(Hole::parse(name.as_bytes()), hole, "{name}");
        }
        assert!(Hole::all_known(b"SELECT {now} FROM t {for update}"));
        for text in [
            "SELECT {nw}",
            "SELECT {now",
            "SELECT {now} FROM t {for updte}",
        ] {
            assert!(!Hole::all_known(text.as_bytes()), "{text}");
        }
    }
}
