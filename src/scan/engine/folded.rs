//! Search for base64 literals that a line break divides.
//!
//! Encoders wrap base64 into lines of 64 (PEM) or 76 characters (MIME), and a line break falls into the literal of
//! about every eighth key. If the searcher for undivided literals does not find these too, [`Folded`] does. A
//! divided literal lies around the end of a long line of base64. Such lines are rare, so it is enough to test every
//! other block of 16 bytes for whether all of them can be base64.

use std::collections::BTreeSet;

use super::literal::Hit;
use super::literal::{Form, Literal, base64_value};
use super::margin::{self, Margin};

/// Minimum number of base64 characters on the line before the break. Blocks in shorter lines could be missed, and
/// the result must not depend on the kind of search.
pub(in crate::scan) const LONG_LINE: usize = 48;

/// Length of a tested block, and distance to the next one. Any [`LONG_LINE`] characters contain a whole block.
const BLOCK: usize = 16;
const STEP: usize = 32;

/// Bytes between two lines, from `end` up to `next`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fold {
    end: usize,
    next: usize,
}

impl Fold {
    /// Returns what may be a line break after the bytes of `literal` that stand at `from`, beginning with its `first`, and
    /// the number of these.
    pub(super) fn after<'t>(
        literal: &Literal,
        first: usize,
        text: &'t [u8],
        from: usize,
    ) -> impl Iterator<Item = (Self, usize)> + use<'t> {
        let known = first..literal.bytes.len();
        let there = text.get(from..).unwrap_or_default();
        let away = known.clone().zip(there);
        let away = away
            .take_while(|(at, byte)| literal.can_be(*at, **byte))
            .count();
        let end = from + away;
        let is_divided = away < known.len() && margin::may_begin(text, end);
        let margins = if is_divided { &Margin::ALL[..] } else { &[] };
        margins.iter().filter_map(move |margin| {
            let length = margin.fold(&text[end..]);
            let next = end + length;
            (length > 0).then_some((Self { end, next }, away))
        })
    }

    /// Returns what may be a line break before the bytes of `literal` that stand before `to`, up to its `last`, which is
    /// not included, and the number of these.
    pub(super) fn before<'t>(
        literal: &'t Literal,
        last: usize,
        text: &'t [u8],
        to: usize,
    ) -> impl Iterator<Item = (Self, usize)> {
        // Whatever the margin.
        let may_be = Self::walk(literal, last, text, to, |next| {
            usize::from(margin::may_end(text, next))
        });
        let margins = if may_be.is_some() {
            &Margin::ALL[..]
        } else {
            &[]
        };
        margins.iter().filter_map(move |margin| {
            Self::walk(literal, last, text, to, |next| {
                margin.fold_before(text, next)
            })
        })
    }

    /// Goes back along the bytes of `literal` to where `fold` tells the length of what stands between two lines.
    fn walk(
        literal: &Literal,
        last: usize,
        text: &[u8],
        to: usize,
        fold: impl Fn(usize) -> usize,
    ) -> Option<(Self, usize)> {
        for away in 0..last {
            let next = to.checked_sub(away)?;
            // What may be a mark of the line may be a character of the literal as well.
            let length = fold(next);
            if length > 0 {
                let end = next - length;
                return Some((Self { end, next }, away));
            }
            let byte = text[..next].last()?;
            if !literal.can_be(last - away - 1, *byte) {
                return None;
            }
        }
        None
    }

    /// Returns the place of the hit (see [`Literal::lead`]) if this line break divides the literal after its first
    /// `split` bytes.
    pub(super) fn divides(
        self,
        literal: &Literal,
        split: usize,
        text: &[u8],
        reach: usize,
    ) -> Option<usize> {
        let Self { end, next } = self;
        let head = literal.stretch_stands_at(text, end.checked_sub(split)?, 0..split);
        if !head || !literal.stretch_stands_at(text, next, split..literal.bytes.len()) {
            return None;
        }
        let at = match literal.lead.checked_sub(split) {
            Some(behind) => next + behind,
            None => end - split + literal.lead,
        };
        // Otherwise, the result would depend on the places at which a text is cut into pieces.
        let is_in_reach = at + LONG_LINE <= end + reach;
        (is_in_reach && self.ends_long_line(text)).then_some(at)
    }

    fn ends_long_line(self, text: &[u8]) -> bool {
        let start = self.end.checked_sub(LONG_LINE);
        start.is_some_and(|start| leading(&text[start..self.end]) == LONG_LINE)
    }
}

/// Base64 literals, prepared for a search at the ends of lines.
#[derive(Debug)]
pub(super) struct Folded {
    literals: Vec<Literal>,
    /// For the values of the last character of a line and of the first of the next one, which literals can be divided
    /// between them, and after how many bytes.
    divided: Vec<Vec<(usize, usize)>>,
    /// Maximum distance from a hit at which the text is examined, in bytes.
    reach: usize,
}

impl Folded {
    /// Prepares the base64 literals among `literals`. Returns `None` if there are none.
    pub(super) fn new(literals: &[Literal], reach: usize) -> Option<Self> {
        let is_base64 = |literal: &&Literal| matches!(literal.form, Form::Base64(_));
        let literals: Vec<_> = literals.iter().filter(is_base64).cloned().collect();
        let mut divided = vec![Vec::new(); 64 * 64];
        for (index, literal) in literals.iter().enumerate() {
            for (at, pair) in literal.bytes.windows(2).enumerate() {
                let values: [BTreeSet<u8>; 2] = [0, 1].map(|side| values(&pair[side]));
                for last in &values[0] {
                    let lists = values[1].iter().map(|first| pair_index(*last, *first));
                    lists.for_each(|list| divided[list].push((index, at + 1)));
                }
            }
        }
        (!literals.is_empty()).then_some(Self {
            literals,
            divided,
            reach,
        })
    }

    /// Calls `found` for each literal in `text` that a line break divides.
    pub(super) fn search<'a>(&'a self, text: &[u8], found: &mut dyn FnMut(Hit<'a>)) {
        let mut at = 0;
        while let Some(block) = text.get(at..at + BLOCK) {
            at = if may_be_base64(block) {
                self.follow(text, at, found)
            } else {
                at + STEP
            };
        }
    }

    /// Examines the end of the line of base64 at `at`, if it is one. Returns the place at which to continue.
    #[cold]
    #[inline(never)]
    fn follow<'a>(&'a self, text: &[u8], at: usize, found: &mut dyn FnMut(Hit<'a>)) -> usize {
        let end = at + leading(&text[at..]);
        if end < at + BLOCK {
            return at + STEP;
        }
        let nexts = Margin::ALL.map(|margin| end + margin.fold(&text[end..]));
        for (index, next) in nexts.into_iter().enumerate() {
            if !nexts[..index].contains(&next) {
                self.look_at(text, Fold { end, next }, found);
            }
        }
        nexts[0].max(end + 1)
    }

    /// Looks for the literals that a line break divides.
    fn look_at<'a>(&'a self, text: &[u8], fold: Fold, found: &mut dyn FnMut(Hit<'a>)) {
        let Fold { end, next } = fold;
        let value = |at: usize| text.get(at).copied().and_then(base64_value);
        if let (Some(last), Some(first)) = (value(end - 1), value(next))
            && next > end
            && let divided = &self.divided[pair_index(last, first)]
            && !divided.is_empty()
            && fold.ends_long_line(text)
        {
            for (literal, split) in divided {
                let literal = &self.literals[*literal];
                if let Some(at) = fold.divides(literal, *split, text, self.reach) {
                    found(Hit { literal, at });
                }
            }
        }
    }
}

/// Returns the values of characters of either alphabet, each once.
fn values(characters: &[u8]) -> BTreeSet<u8> {
    characters
        .iter()
        .copied()
        .filter_map(base64_value)
        .collect()
}

/// Returns the index of a pair of values in a list of all pairs.
fn pair_index(last: u8, first: u8) -> usize {
    usize::from(last) * 64 + usize::from(first)
}

/// Returns whether no byte says that this is not base64: most of what stands between words is below `+`.
#[inline]
fn may_be_base64(block: &[u8]) -> bool {
    block.iter().fold(true, |all, byte| {
        all & (i8::from_ne_bytes([*byte]) >= b'+'.cast_signed())
    })
}

/// Returns the number of base64 characters at the start of `text`.
fn leading(text: &[u8]) -> usize {
    let is_base64 = |byte: &&u8| base64_value(**byte).is_some();
    text.iter().take_while(is_base64).count()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use crate::keyformat::FormatSet;
    use crate::scan::{Encodings, Engine};

    /// Covers every place of a line break, in the ways in which encoders break lines, and in texts that quote these.
    #[test]
    fn no_line_break_hides_a_key() {
        let formats = FormatSet::builtin();
        let engine = Engine::new(&formats, Encodings::ALL);
        for id in ["rescind_secret", "rescind_public"] {
            let key = formats.get(id).unwrap().mint().unwrap();
            let breaks = [
                (64, "\n"),
                (76, "\r\n"),
                (76, "\n    "),
                (48, "\r\n\t"),
                (64, "\n+"),
                (76, "\n+"),
                (76, "\r\n-"),
                (64, "\n "),
                (76, "\n+    "),
                (64, "\n> "),
                (76, "\n> > "),
                (76, "\r\n>>\t"),
                // Of merges, comments, literals of programs, and texts in JSON.
                (64, "\n++"),
                (76, "\n# "),
                (64, "\n+  // "),
                (76, "\n//"),
                (64, "\n+//"),
                (76, "\n+--"),
                (64, "\n///"),
                (64, "\r\n * "),
                (76, "\"\n    \""),
                (64, "' +\r\n  '"),
                (76, "\",\n\""),
                (64, " \n"),
                (76, " \\\n"),
                (64, "\\n\" \\\n\""),
                (76, "\n\n"),
                (64, "\r"),
                (76, "\\n"),
                (64, "\\r\\n"),
                (76, "\\\\n\\t"),
            ];
            for (width, line_break) in breaks {
                for before in 0..width {
                    let text = format!("{}{}. And so on.", "x".repeat(before), key.expose());
                    let encoded = STANDARD.encode(text);
                    let lines = encoded
                        .as_bytes()
                        .chunks(width)
                        .map(String::from_utf8_lossy);
                    let lines = lines.collect::<Vec<_>>().join(line_break);
                    let text = format!("data:{line_break}{lines}\n");
                    let found = engine.scan(text.as_bytes());
                    assert_eq!(
                        found.len(),
                        usize::from(id == "rescind_secret"),
                        "{before} {text}"
                    );
                    assert!(
                        found
                            .iter()
                            .all(|found| found.value.expose() == key.expose())
                    );
                }
            }
        }
    }
}
