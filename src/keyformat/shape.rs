//! The shape of a format that a regular expression describes, as a table-driven automaton.
//!
//! The table answers three questions exactly, which a regex engine's search interface cannot: where the
//! literal can stand inside a key, which bytes keys are made of, and whether two formats have a key in
//! common. It is also what the scanner runs around a literal: it needs no scratch memory and stops at
//! the first byte that does not fit.

use std::collections::{HashMap, HashSet, VecDeque};

use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::Hir;

use super::alphabet::ByteTable;
use super::problem::Fault;

/// The longest key that a format may describe, in bytes: it bounds how far apart the scanner's chunks
/// have to overlap.
pub(super) const MAX_KEY_LEN: usize = 1024;

const MAX_REGEX_LEN: usize = 4096;
const MAX_NESTING: u32 = 32;
/// Some thousands of states: far more than any real key needs, and few enough to compare two formats fast.
const MAX_AUTOMATON_BYTES: usize = 512 << 10;
const MAX_COMPILER_BYTES: usize = 2 << 20;

/// No key starts with what was read so far.
const DEAD: u32 = 0;
const START: u32 = 1;

/// A regular expression over whole keys, compiled.
#[derive(Debug, Clone)]
pub(super) struct RegexShape {
    /// As written in the pattern file.
    pub(super) source: String,
    automaton: Automaton,
    /// Every distance from a key's start at which its literal can stand, ascending.
    literal_offsets: Vec<usize>,
    /// The bytes that occur in keys.
    alphabet: ByteTable,
    pub(super) min_len: usize,
    pub(super) max_len: usize,
}

impl RegexShape {
    /// Compiles `source`, whose keys are to be found by the `literal` that stands in them.
    pub(super) fn new(source: &str, literal: &str) -> Result<Self, Fault> {
        let hir = parse(source)?;
        let (min_len, max_len) = lengths(&hir)?;
        let automaton = Automaton::new(&hir)?;
        let alphabet = automaton.alphabet();
        if let Some(byte) =
            (0..=u8::MAX).find(|byte| alphabet[usize::from(*byte)] && !byte.is_ascii_graphic())
        {
            return Err(Fault::new(
                format!("`regex` lets a key contain {}", byte_name(byte)),
                "list the characters that occur, such as [0-9A-Za-z_-], instead of `.`, `\\s` or a negated class",
            ));
        }
        let literal_offsets = automaton.offsets_of(literal.as_bytes(), max_len);
        if literal_offsets.is_empty() {
            return Err(Fault::new(
                format!("`regex` matches no string that contains the anchor `{literal}`"),
                "write the anchor into `regex` letter by letter, at the place where it stands in a key",
            ));
        }
        Ok(Self {
            source: source.to_owned(),
            automaton,
            literal_offsets,
            alphabet,
            min_len,
            max_len,
        })
    }

    /// Whether all of `key` has the shape and contains `literal`.
    pub(super) fn fits(&self, key: &[u8], literal: &[u8]) -> bool {
        self.automaton.accepts_whole(key)
            && self
                .literal_offsets
                .iter()
                .any(|&at| key.get(at..).is_some_and(|rest| rest.starts_with(literal)))
    }

    /// The longest, leftmost stretch of `text` that has the shape, passes `check`, and contains the
    /// literal that stands at `literal_at`.
    pub(super) fn around(
        &self,
        text: &[u8],
        literal_at: usize,
        literal_len: usize,
        check: impl Fn(usize, usize) -> bool,
    ) -> Option<(usize, usize)> {
        self.literal_offsets.iter().rev().find_map(|&before| {
            let start = literal_at.checked_sub(before)?;
            let end = self.automaton.longest(&text[start..], |len| {
                len >= before + literal_len && check(start, start + len)
            })?;
            Some((start, start + end))
        })
    }

    /// How many bytes of `key` from its start could be the start of a key.
    pub(super) fn fitting_prefix(&self, key: &[u8]) -> usize {
        self.automaton.fitting_prefix(key)
    }

    /// Whether keys can contain `byte`.
    pub(super) fn contains(&self, byte: u8) -> bool {
        self.alphabet[usize::from(byte)]
    }

    /// The characters that every key starts with.
    pub(super) fn common_start(&self) -> String {
        self.automaton.common_start()
    }

    /// Whether some key of this shape is also described by `other`.
    pub(super) fn intersects(&self, other: &Automaton) -> bool {
        self.automaton.intersects(other)
    }

    /// The compiled form.
    pub(super) fn automaton(&self) -> &Automaton {
        &self.automaton
    }
}

fn byte_name(byte: u8) -> String {
    match byte {
        b'\n' => "a line break".to_owned(),
        b' ' => "a space".to_owned(),
        0x80.. => "characters outside ASCII".to_owned(),
        _ => format!("the control character {byte:#04x}"),
    }
}

fn parse(source: &str) -> Result<Hir, Fault> {
    if source.len() > MAX_REGEX_LEN {
        return Err(Fault::new(
            format!("`regex` is {} characters long", source.len()),
            format!("at most {MAX_REGEX_LEN} are allowed"),
        ));
    }
    regex_syntax::ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .nest_limit(MAX_NESTING)
        .build()
        .parse(source)
        .map_err(|error| {
            let (what, at) = match &error {
                regex_syntax::Error::Parse(error) => {
                    (error.kind().to_string(), error.span().start.column)
                }
                regex_syntax::Error::Translate(error) => {
                    (error.kind().to_string(), error.span().start.column)
                }
                _ => (error.to_string(), 1),
            };
            Fault::new(
                format!("`regex` is not a regular expression: {what} (at its character {at})"),
                "the syntax is that of Rust's regex crate; quote it with '…' so that TOML leaves backslashes alone",
            )
        })
}

fn lengths(hir: &Hir) -> Result<(usize, usize), Fault> {
    if !hir.properties().look_set().is_empty() {
        return Err(Fault::new(
            "`regex` contains an assertion (`^`, `$`, `\\b` …)",
            "leave it out: the regex describes the whole key and nothing around it",
        ));
    }
    // Neither bound exists for a regex that can match nothing at all, such as [a&&b].
    let Some(min) = hir.properties().minimum_len() else {
        return Err(Fault::new(
            "`regex` matches no string at all",
            "mend the empty class in it",
        ));
    };
    match hir.properties().maximum_len() {
        None => Err(Fault::new(
            "`regex` is unbounded: it matches strings of any length",
            format!(
                "replace `*`, `+` and `{{n,}}` by a bounded repetition such as {{20,40}}; a key has at most {MAX_KEY_LEN} characters"
            ),
        )),
        Some(max) if max > MAX_KEY_LEN => Err(Fault::new(
            format!("`regex` matches strings of up to {max} characters"),
            format!("lower its repetitions: a key has at most {MAX_KEY_LEN} characters"),
        )),
        Some(max) => Ok((min, max)),
    }
}

/// A deterministic automaton over bytes. States are numbered; [`DEAD`] is left out of every search.
#[derive(Debug, Clone)]
pub(super) struct Automaton {
    /// The column of each byte in `next`: bytes that are treated alike everywhere share one.
    columns: [u8; 256],
    width: usize,
    /// The successor of each state under each column.
    next: Vec<u32>,
    /// Whether a key ends in this state.
    accepts: Vec<bool>,
}

impl Automaton {
    /// Compiles a regular expression of our own making.
    pub(super) fn from_regex(source: &str) -> Result<Self, Fault> {
        Self::new(&parse(source)?)
    }

    fn new(hir: &Hir) -> Result<Self, Fault> {
        let too_complex = || {
            Fault::new(
                "`regex` is too complex to be compiled",
                "use fewer alternatives and repetitions, or split it into several formats",
            )
        };
        let nfa = thompson::Compiler::new()
            .configure(
                thompson::Config::new()
                    .utf8(false)
                    .nfa_size_limit(Some(MAX_COMPILER_BYTES)),
            )
            .build_from_hir(hir)
            .map_err(|_| too_complex())?;
        let dfa = dense::Builder::new()
            .configure(
                dense::Config::new()
                    .match_kind(MatchKind::All)
                    .start_kind(StartKind::Anchored)
                    .accelerate(false)
                    .dfa_size_limit(Some(MAX_AUTOMATON_BYTES))
                    .determinize_size_limit(Some(MAX_COMPILER_BYTES)),
            )
            .build_from_nfa(&nfa)
            .map_err(|_| too_complex())?;
        Self::from_dfa(&dfa).ok_or_else(too_complex)
    }

    /// Copies the states that lie on the way to a match, numbered in the order of their discovery.
    fn from_dfa(dfa: &dense::DFA<Vec<u32>>) -> Option<Self> {
        let classes = dfa.byte_classes();
        let mut columns = [0; 256];
        let mut representatives = Vec::new();
        for byte in 0..=u8::MAX {
            let column = classes.get(byte);
            columns[usize::from(byte)] = column;
            if usize::from(column) == representatives.len() {
                representatives.push(byte);
            }
        }
        let width = representatives.len();
        let first = dfa
            .start_state(&start::Config::new().anchored(Anchored::Yes))
            .ok()?;
        let mut numbers = HashMap::from([(first, START)]);
        let mut waiting = VecDeque::from([first]);
        let mut next = vec![DEAD; 2 * width];
        let mut accepts = vec![false; 2];
        while let Some(state) = waiting.pop_front() {
            let number = numbers[&state] as usize;
            accepts[number] = dfa.is_match_state(dfa.next_eoi_state(state));
            for (column, &byte) in representatives.iter().enumerate() {
                let successor: StateID = dfa.next_state(state, byte);
                if dfa.is_dead_state(successor) {
                    continue;
                }
                let successor_number = if let Some(known) = numbers.get(&successor) {
                    *known
                } else {
                    let new = u32::try_from(accepts.len()).ok()?;
                    numbers.insert(successor, new);
                    waiting.push_back(successor);
                    next.extend(std::iter::repeat_n(DEAD, width));
                    accepts.push(false);
                    new
                };
                next[number * width + column] = successor_number;
            }
        }
        let mut automaton = Self {
            columns,
            width,
            next,
            accepts,
        };
        automaton.cut_dead_ends();
        Some(automaton)
    }

    /// Removes the ways into states from which no match can be reached any more.
    fn cut_dead_ends(&mut self) {
        let mut live = self.accepts.clone();
        loop {
            let mut changed = false;
            for state in (0..live.len())
                .rev()
                .filter(|state| *state != DEAD as usize)
            {
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

    fn accepts_whole(&self, text: &[u8]) -> bool {
        let mut state = START;
        for &byte in text {
            state = self.step(state, byte);
            if state == DEAD {
                return false;
            }
        }
        self.accepts[state as usize]
    }

    /// The length of the longest match at the start of `text` that `check`, given a length, lets pass.
    fn longest(&self, text: &[u8], check: impl Fn(usize) -> bool) -> Option<usize> {
        let mut state = START;
        let mut longest = None;
        for (at, &byte) in text.iter().enumerate() {
            state = self.step(state, byte);
            if state == DEAD {
                break;
            }
            if self.accepts[state as usize] && check(at + 1) {
                longest = Some(at + 1);
            }
        }
        longest
    }

    fn fitting_prefix(&self, text: &[u8]) -> usize {
        let mut state = START;
        text.iter()
            .take_while(|byte| {
                state = self.step(state, **byte);
                state != DEAD
            })
            .count()
    }

    fn alphabet(&self) -> ByteTable {
        let mut used = vec![false; self.width];
        for (at, next) in self.next.iter().enumerate() {
            used[at % self.width] |= *next != DEAD;
        }
        self.columns.map(|column| used[usize::from(column)])
    }

    /// At which distances from the start of a match, up to `max_len`, `literal` can stand.
    fn offsets_of(&self, literal: &[u8], max_len: usize) -> Vec<usize> {
        let mut offsets = Vec::new();
        let mut layer = HashSet::from([START]);
        for offset in 0..=max_len.saturating_sub(literal.len()) {
            let stands_here = layer.iter().any(|&state| {
                literal
                    .iter()
                    .fold(state, |state, byte| self.step(state, *byte))
                    != DEAD
            });
            if stands_here {
                offsets.push(offset);
            }
            layer = layer
                .into_iter()
                .flat_map(|state| self.row(state as usize))
                .copied()
                .filter(|state| *state != DEAD)
                .collect();
        }
        offsets
    }

    fn common_start(&self) -> String {
        let mut text = String::new();
        let mut state = START;
        while !self.accepts[state as usize] && text.len() < MAX_KEY_LEN {
            let mut ways = (0..=u8::MAX).filter(|byte| self.step(state, *byte) != DEAD);
            let (Some(byte), None) = (ways.next(), ways.next()) else {
                break;
            };
            text.push(char::from(byte));
            state = self.step(state, byte);
        }
        text
    }

    /// Whether some string is accepted by both: a search through the pairs of states that a common
    /// string can lead to. Exact, and bounded by the product of the two sizes.
    pub(super) fn intersects(&self, other: &Self) -> bool {
        // One byte for each pair of columns that occurs is enough.
        let bytes: HashMap<(u8, u8), u8> = (0..=u8::MAX)
            .map(|byte| {
                (
                    (
                        self.columns[usize::from(byte)],
                        other.columns[usize::from(byte)],
                    ),
                    byte,
                )
            })
            .collect();
        let mut seen = HashSet::from([(START, START)]);
        let mut waiting = vec![(START, START)];
        while let Some((mine, theirs)) = waiting.pop() {
            if self.accepts[mine as usize] && other.accepts[theirs as usize] {
                return true;
            }
            for &byte in bytes.values() {
                let pair = (self.step(mine, byte), other.step(theirs, byte));
                if pair.0 != DEAD && pair.1 != DEAD && seen.insert(pair) {
                    waiting.push(pair);
                }
            }
        }
        false
    }
}
