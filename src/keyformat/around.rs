//! Bytes that can stand before and after the literal of a regular expression.

use super::automaton::Automaton;
use super::byte_set::ByteSet;

/// Bytes that can stand around the literal of a regular expression, as far as some byte always does.
#[derive(Debug, Clone)]
pub(super) struct Around {
    /// Beginning with the byte next to the literal.
    before: Vec<ByteSet>,
    after: Vec<ByteSet>,
}

impl Around {
    /// Determines the bytes around a literal of `literal_len` bytes that starts at one of `offsets`, which are
    /// ascending, in keys of at least `min_len` bytes.
    pub(super) fn new(
        automaton: &Automaton,
        literal_len: usize,
        offsets: &[usize],
        min_len: usize,
    ) -> Self {
        let (Some(&first), Some(&last)) = (offsets.first(), offsets.last()) else {
            return Self {
                before: Vec::new(),
                after: Vec::new(),
            };
        };
        let always_after = min_len.saturating_sub(last + literal_len);
        let places = automaton.bytes_by_place(last + literal_len + always_after);
        let at_one_of = |place: &dyn Fn(usize) -> usize| {
            let mut all = ByteSet::default();
            for offset in offsets {
                if let Some(bytes) = places.get(place(*offset)) {
                    all.join(bytes);
                }
            }
            all
        };
        Self {
            before: (1..=first)
                .map(|away| at_one_of(&|offset| offset - away))
                .collect(),
            after: (0..always_after)
                .map(|away| at_one_of(&|offset| offset + literal_len + away))
                .collect(),
        }
    }

    /// Returns whether the literal may have the bytes `before` before it, beginning with the nearest one, and `after`
    /// after it.
    #[inline]
    pub(super) fn allows(
        &self,
        before: impl IntoIterator<Item = u8>,
        after: impl IntoIterator<Item = u8>,
    ) -> bool {
        are_in(&self.before, before) && are_in(&self.after, after)
    }
}

/// Returns whether there is a byte for each of `known`, and is in it.
#[inline]
fn are_in(known: &[ByteSet], bytes: impl IntoIterator<Item = u8>) -> bool {
    let mut bytes = bytes.into_iter();
    let mut known = known.iter();
    known.all(|known| bytes.next().is_some_and(|byte| known.contains(byte)))
}
