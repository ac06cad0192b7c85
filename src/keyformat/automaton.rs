//! A regular expression over whole keys, compiled to a table of states.
//!
//! The table gives exact answers that a regex engine's search interface cannot give: the possible offsets
//! of the literal inside a key, the bytes that occur in keys, and whether two formats have a key in
//! common. The scanner also runs it around a literal: it needs no scratch memory and stops at the first
//! byte that does not fit.

use std::collections::HashMap;
use std::fmt;

use regex_automata::nfa::thompson::{self, NFA, WhichCaptures};
use regex_automata::util::primitives::StateID;
use regex_syntax::hir::Hir;

use super::alphabet::ByteTable;
use super::byte_set::ByteSet;
use super::problem::Fault;

/// Far more states than any real key needs, and few enough to compare two formats quickly.
const MAX_STATES: usize = 4096;
const MAX_COMPILER_BYTES: usize = 2 << 20;
/// Limit on the work of the subset construction, in states of the compiler's graph.
const MAX_EFFORT: usize = 1 << 18;

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
    /// Compiles a regular expression without assertions.
    pub(super) fn new(hir: &Hir) -> Result<Self, Fault> {
        let config = thompson::Config::new()
            .utf8(false)
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(Some(MAX_COMPILER_BYTES));
        let graph = thompson::Compiler::new()
            .configure(config)
            .build_from_hir(hir);
        graph
            .ok()
            .and_then(|graph| Self::from_graph(&graph))
            .ok_or_else(|| {
                Fault::new(
                    "`regex` is too complex to be compiled",
                    "use fewer alternatives and repetitions, or split it into several formats",
                )
            })
    }

    /// Builds the automaton by subset construction: one state for every reachable set of the graph's
    /// states. Returns `None` if a limit is exceeded.
    fn from_graph(graph: &NFA) -> Option<Self> {
        let classes = graph.byte_classes();
        let mut columns = [0; 256];
        for byte in 0..=u8::MAX {
            columns[usize::from(byte)] = classes.get(byte);
        }
        let representatives = representatives(&columns);
        let width = representatives.len();
        let first = closure(graph, &[graph.start_anchored()]);
        let mut effort = 0;
        let mut numbers = HashMap::from([(Vec::new(), DEAD), (first.clone(), START)]);
        let mut sets = vec![Vec::new(), first];
        let mut next = vec![DEAD; width];
        let mut number = START as usize;
        while number < sets.len() {
            // Most columns of a state lead nowhere or to the same state as another column.
            let mut row: Vec<(Vec<StateID>, u32)> = vec![(Vec::new(), DEAD)];
            for &byte in &representatives {
                let ways = sets[number]
                    .iter()
                    .filter_map(|state| after(graph, *state, byte));
                let targets: Vec<StateID> = ways.collect();
                if let Some((_, known)) = row.iter().find(|(other, _)| *other == targets) {
                    next.push(*known);
                    continue;
                }
                let set = closure(graph, &targets);
                effort += set.len();
                let new = u32::try_from(sets.len()).ok()?;
                let successor = *numbers.entry(set).or_insert_with_key(|set| {
                    sets.push(set.clone());
                    new
                });
                if sets.len() > MAX_STATES || effort > MAX_EFFORT {
                    return None;
                }
                next.push(successor);
                row.push((targets, successor));
            }
            number += 1;
        }
        let is_match =
            |state: &StateID| matches!(graph.state(*state), thompson::State::Match { .. });
        let accepts = sets.iter().map(|set| set.iter().any(is_match)).collect();
        let mut automaton = Self {
            columns,
            width,
            next,
            accepts,
        };
        automaton.cut_dead_ends();
        Some(automaton)
    }

    /// Removes the transitions into states from which no match can be reached.
    fn cut_dead_ends(&mut self) {
        let mut live = self.accepts.clone();
        loop {
            let mut changed = false;
            for state in (0..live.len()).rev() {
                if !live[state] && self.row(state).iter().any(|next| live[*next as usize]) {
                    live[state] = true;
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        for next in &mut self.next {
            if !live[*next as usize] {
                *next = DEAD;
            }
        }
    }

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

/// Returns one byte of each column, in column order: classes are numbered in the order of their first
/// bytes.
fn representatives(columns: &[u8; 256]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (byte, column) in (0..=u8::MAX).zip(columns) {
        if usize::from(*column) == bytes.len() {
            bytes.push(byte);
        }
    }
    bytes
}

/// Returns the successor of a state of the graph under `byte`.
fn after(graph: &NFA, state: StateID, byte: u8) -> Option<StateID> {
    match graph.state(state) {
        thompson::State::ByteRange { trans } => trans.matches_byte(byte).then_some(trans.next),
        thompson::State::Sparse(ways) => ways.matches_byte(byte),
        thompson::State::Dense(ways) => ways.matches_byte(byte),
        _ => None,
    }
}

/// Returns the states that are reachable from `states` without consuming input and that either consume
/// input or end a match, sorted.
fn closure(graph: &NFA, states: &[StateID]) -> Vec<StateID> {
    let mut waiting = states.to_vec();
    let mut seen = vec![false; graph.states().len()];
    let mut reached = Vec::new();
    while let Some(state) = waiting.pop() {
        let ways: &[StateID] = match graph.state(state) {
            thompson::State::Union { alternates } => alternates,
            thompson::State::BinaryUnion { alt1, alt2 } => &[*alt1, *alt2],
            thompson::State::Look { next, .. } | thompson::State::Capture { next, .. } => &[*next],
            thompson::State::Fail => &[],
            _ => {
                reached.push(state);
                &[]
            }
        };
        for way in ways {
            if !std::mem::replace(&mut seen[way.as_usize()], true) {
                waiting.push(*way);
            }
        }
    }
    reached.sort_unstable();
    reached.dedup();
    reached
}
