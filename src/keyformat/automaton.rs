//! A regular expression over whole keys, compiled to a table of states.
//!
//! The table gives exact answers that a regex engine's search interface cannot give: the possible offsets
//! of the literal inside a key, the bytes that occur in keys, and whether two formats have a key in
//! common. The scanner also runs it around a literal: it needs no scratch memory and stops at the first
//! byte that does not fit.

mod build;

use std::fmt;

use super::alphabet::ByteTable;
use super::byte_set::ByteSet;

/// The state from which no match can be reached.
const DEAD: u32 = 0;
const START: u32 = 1;

/// A deterministic finite automaton over bytes, with numbered states.
#[derive(Clone)]
pub(super) struct Automaton {
    /// The column of each byte in `next`. Bytes that are equivalent in every state share a column.
    columns: [u8; 256],
    width: usize,
    /// The successor of each state under each column, row by row.
    next: Vec<u32>,
    /// `true` for each state in which a key ends.
    accepts: Vec<bool>,
}

/// Offsets of the literal inside a key.
pub(super) enum Places {
    /// The literal is in every key, at this distance from the start.
    Fixed(usize),
    /// The literal is in a key at one or more of these distances from the start, if at all. Ascending.
    Possible(Vec<usize>),
}

impl Automaton {
    fn row(&self, state: usize) -> &[u32] {
        &self.next[state * self.width..(state + 1) * self.width]
    }

    #[inline]
    fn step(&self, state: u32, byte: u8) -> u32 {
        let column = usize::from(self.columns[usize::from(byte)]);
        self.next[state as usize * self.width + column]
    }

    /// Returns `true` if the whole of `text` is a match.
    pub(super) fn accepts_whole(&self, text: &[u8]) -> bool {
        let mut state = START;
        for &byte in text {
            state = self.step(state, byte);
            if state == DEAD {
                return false;
            }
        }
        self.accepts[state as usize]
    }

    /// Returns the length of the longest match at the start of `text` whose length passes `check`.
    ///
    /// No match is shorter than `min_len` bytes, so the search for its end begins there.
    pub(super) fn longest(
        &self,
        text: &[u8],
        min_len: usize,
        check: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let (inner, rest) = text.split_at_checked(min_len.saturating_sub(1))?;
        let mut state = START;
        for &byte in inner {
            state = self.step(state, byte);
            if state == DEAD {
                return None;
            }
        }
        let mut longest = None;
        for (len, &byte) in (inner.len() + 1..).zip(rest) {
            state = self.step(state, byte);
            if state == DEAD {
                break;
            }
            if self.accepts[state as usize] && check(len) {
                longest = Some(len);
            }
        }
        longest
    }

    /// Returns the number of leading bytes of `text` that could be the start of a match.
    pub(super) fn fitting_prefix(&self, text: &[u8]) -> usize {
        let mut state = START;
        text.iter()
            .take_while(|byte| {
                state = self.step(state, **byte);
                state != DEAD
            })
            .count()
    }

    /// Returns the table of bytes that occur in matches.
    pub(super) fn alphabet(&self) -> ByteTable {
        let mut used = vec![false; self.width];
        for (at, next) in self.next.iter().enumerate() {
            used[at % self.width] |= *next != DEAD;
        }
        self.columns.map(|column| used[usize::from(column)])
    }

    /// Returns the bytes that can stand at each of the first `count` places of a match.
    pub(super) fn bytes_by_place(&self, count: usize) -> Vec<ByteSet> {
        let mut layer = vec![START];
        let mut places = Vec::with_capacity(count);
        for _ in 0..count {
            let mut used = vec![false; self.width];
            for &state in &layer {
                for (used, next) in used.iter_mut().zip(self.row(state as usize)) {
                    *used |= *next != DEAD;
                }
            }
            let mut bytes = ByteSet::default();
            (0..=u8::MAX)
                .filter(|byte| used[usize::from(self.columns[usize::from(*byte)])])
                .for_each(|byte| bytes.insert(byte));
            places.push(bytes);
            layer = self.successors(&layer);
        }
        places
    }

    /// Returns the offsets of `literal` in matches of at most `max_len` bytes.
    pub(super) fn places_of(&self, literal: &[u8], max_len: usize) -> Places {
        let mut possible = Vec::new();
        let mut layer = vec![START];
        for offset in 0..=max_len.saturating_sub(literal.len()) {
            let stands_here = layer.iter().any(|&state| {
                literal
                    .iter()
                    .fold(state, |state, byte| self.step(state, *byte))
                    != DEAD
            });
            if stands_here {
                if self.allow_nothing_but(literal, &layer) {
                    return Places::Fixed(offset);
                }
                possible.push(offset);
            }
            layer = self.successors(&layer);
        }
        Places::Possible(possible)
    }

    /// Returns `true` if every match that passes through one of `states` continues with `literal`.
    fn allow_nothing_but(&self, literal: &[u8], states: &[u32]) -> bool {
        let mut layer = states.to_vec();
        for &byte in literal {
            let column = usize::from(self.columns[usize::from(byte)]);
            // The byte must also be the only one in its column.
            let alone = self
                .columns
                .iter()
                .filter(|other| usize::from(**other) == column)
                .count()
                == 1;
            let only_this = layer.iter().all(|&state| {
                let mut row = self.row(state as usize).iter().enumerate();
                !self.accepts[state as usize]
                    && row.all(|(other, next)| other == column || *next == DEAD)
            });
            if !alone || !only_this {
                return false;
            }
            layer = self.successors(&layer);
        }
        true
    }

    fn successors(&self, states: &[u32]) -> Vec<u32> {
        let rows = states.iter().flat_map(|state| self.row(*state as usize));
        let mut successors: Vec<u32> = rows.copied().filter(|state| *state != DEAD).collect();
        successors.sort_unstable();
        successors.dedup();
        successors
    }

    /// Returns the longest common prefix of all matches, cut at `max_len` characters.
    pub(super) fn common_start(&self, max_len: usize) -> String {
        let mut text = String::new();
        let mut state = START;
        while !self.accepts[state as usize] && text.len() < max_len {
            let mut ways = (0..=u8::MAX).filter(|byte| self.step(state, *byte) != DEAD);
            let (Some(byte), None) = (ways.next(), ways.next()) else {
                break;
            };
            text.push(char::from(byte));
            state = self.step(state, byte);
        }
        text
    }

    /// Returns `true` if some string is accepted by both automata.
    pub(super) fn intersects(&self, other: &Self) -> bool {
        self.some_string(other, |mine, theirs| mine && theirs)
    }

    /// Returns `true` if some string is accepted by `self` but not by `other`.
    pub(super) fn leaves_out(&self, other: &Self) -> bool {
        self.some_string(other, |mine, theirs| mine && !theirs)
    }

    /// Returns `true` if some string satisfies `wanted`, which is given whether each of the two automata
    /// accepts the string.
    ///
    /// Searches the pairs of states that a string can lead to, which are bounded by the product of the
    /// two sizes. Strings that `self` can no longer accept are not followed.
    fn some_string(&self, other: &Self, wanted: impl Fn(bool, bool) -> bool) -> bool {
        // One byte for each pair of columns that occurs is enough.
        let mut pairs: Vec<(u8, u8)> = self
            .columns
            .iter()
            .copied()
            .zip(other.columns.iter().copied())
            .collect();
        pairs.sort_unstable();
        pairs.dedup();
        let mut seen = vec![false; self.accepts.len() * other.accepts.len()];
        let mut waiting = vec![(START, START)];
        while let Some((mine, theirs)) = waiting.pop() {
            if wanted(self.accepts[mine as usize], other.accepts[theirs as usize]) {
                return true;
            }
            let (my_row, their_row) = (self.row(mine as usize), other.row(theirs as usize));
            for &(my_column, their_column) in &pairs {
                let pair = (
                    my_row[usize::from(my_column)],
                    their_row[usize::from(their_column)],
                );
                let place = pair.0 as usize * other.accepts.len() + pair.1 as usize;
                if pair.0 != DEAD && !seen[place] {
                    seen[place] = true;
                    waiting.push(pair);
                }
            }
        }
        false
    }
}

impl fmt::Debug for Automaton {
    /// Shows the size only: the tables mean nothing to a reader.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Automaton({} states)", self.accepts.len())
    }
}
