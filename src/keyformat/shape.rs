//! Shapes of keys: a literal with a body of fixed length, or a regular expression.

use std::fmt;

use regex_syntax::hir::Hir;

use super::alphabet::{Alphabet, ByteTable};
use super::around::Around;
use super::automaton::{Automaton, Places};
use super::problem::Fault;

/// Length of the longest key that a format may describe, in bytes. It bounds the overlap of the scanner's
/// chunks.
pub(super) const MAX_KEY_LEN: usize = 1024;

const MAX_REGEX_LEN: usize = 4096;
const MAX_NESTING: u32 = 32;

/// Position of the literal and what surrounds it.
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

/// A compiled regular expression over whole keys.
#[derive(Clone)]
pub(super) struct RegexShape {
    /// Regular expression as written in the pattern file.
    pub(super) source: String,
    automaton: Automaton,
    /// Possible distances of the literal from the start of a key, ascending. Every key has it at one of
    /// them.
    literal_offsets: Vec<usize>,
    around: Around,
    /// Table of the bytes that occur in keys.
    alphabet: ByteTable,
    pub(super) min_len: usize,
    pub(super) max_len: usize,
}

impl RegexShape {
    /// Compiles `source`. Its keys are found by the `literal` that they contain.
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
        let literal_offsets = match automaton.places_of(literal.as_bytes(), max_len) {
            Places::Fixed(offset) => vec![offset],
            Places::Possible(offsets) => {
                check_that_keys_contain(literal, &automaton, &offsets)?;
                offsets
            }
        };
        Ok(Self {
            source: source.to_owned(),
            around: Around::new(&automaton, literal.len(), &literal_offsets, min_len),
            automaton,
            literal_offsets,
            alphabet,
            min_len,
            max_len,
        })
    }

    /// Returns `true` if the whole of `key` has the shape.
    pub(super) fn fits(&self, key: &[u8]) -> bool {
        self.automaton.accepts_whole(key)
    }

    /// Returns the leftmost, longest stretch of `text` that has the shape, passes `check`, and contains
    /// the literal at `literal_at`.
    pub(super) fn around(
        &self,
        text: &[u8],
        literal_at: usize,
        literal_len: usize,
        check: impl Fn(usize, usize) -> bool,
    ) -> Option<(usize, usize)> {
        self.literal_offsets.iter().rev().find_map(|&before| {
            let start = literal_at.checked_sub(before)?;
            let end = self
                .automaton
                .longest(&text[start..], self.min_len, |len| {
                    len >= before + literal_len && check(start, start + len)
                })?;
            Some((start, start + end))
        })
    }

    /// Returns the smallest and the largest distance of the literal from the start of a key.
    pub(super) fn offsets(&self) -> (usize, usize) {
        let offsets = &self.literal_offsets;
        let ends = offsets.first().zip(offsets.last());
        ends.map_or((0, 0), |(first, last)| (*first, *last))
    }

    /// Returns the bytes that can stand around the literal.
    pub(super) fn bytes_around(&self) -> &Around {
        &self.around
    }

    /// Returns the number of leading bytes of `key` that could be the start of a key.
    pub(super) fn fitting_prefix(&self, key: &[u8]) -> usize {
        self.automaton.fitting_prefix(key)
    }

    /// Returns `true` if `byte` can occur in a key.
    pub(super) fn contains(&self, byte: u8) -> bool {
        self.alphabet[usize::from(byte)]
    }

    /// Returns the common prefix of all keys, of at most `max_len` characters.
    pub(super) fn common_start(&self, max_len: usize) -> String {
        self.automaton.common_start(max_len)
    }

    /// Returns the compiled automaton.
    pub(super) fn automaton(&self) -> &Automaton {
        &self.automaton
    }
}

impl fmt::Debug for RegexShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegexShape({:?})", self.source)
    }
}

/// Compiles a regular expression that the program itself built.
pub(super) fn compile(source: &str) -> Result<Automaton, Fault> {
    Automaton::new(&parse(source)?)
}

fn check_that_keys_contain(
    literal: &str,
    keys: &Automaton,
    offsets: &[usize],
) -> Result<(), Fault> {
    let letter_by_letter =
        "write the anchor into `regex` letter by letter, where it stands in a key";
    if offsets.is_empty() {
        return Err(Fault::new(
            format!("`regex` matches no string that contains the anchor `{literal}`"),
            letter_by_letter,
        ));
    }
    let with_literal = compile(&format!("(?s:.)*{}(?s:.)*", regex_syntax::escape(literal)))?;
    if keys.leaves_out(&with_literal) {
        return Err(Fault::new(
            format!(
                "`regex` also matches strings without the anchor `{literal}`, which would never be found"
            ),
            letter_by_letter,
        ));
    }
    Ok(())
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
