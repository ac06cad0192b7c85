//! Search for any number of literals.
//!
//! Literals are long enough that not every byte must be examined. If the shortest has `n` bytes, then of the
//! sequences of `g` bytes ("grams") that start in any `n - g + 1` neighboring places, one lies entirely in it. It
//! is therefore enough to examine every `n - g + 1`th place, the *stride*: the gram there is hashed and looked up
//! in a table that has a gram of every literal for each of its alignments with the stride. That takes three machine
//! instructions per place and no branch. On a match, the whole literal is compared.
//!
//! Grams have three bytes, which permits the longest stride, or four, which are rarer in a text and therefore
//! better with many literals.

use super::frequency;
use super::literal::Hit;
use super::literal::{Literal, every_sequence};

/// Maximum stride. Beyond it there is nothing to gain, since memory is the bottleneck.
const MAX_STRIDE: usize = 8;
/// Number of places that are looked up before a single branch on all of them.
const GROUP: usize = 8;
/// Odd number without a pattern in its bits.
const MULTIPLIER: u32 = 0x9e37_79b1;
/// Table sizes as powers of two: one that leaves room in the first-level cache, one for a thousand literals, and one
/// for many thousands.
const SMALL: u32 = 14;
const LARGE: u32 = 17;
const HUGE: u32 = 20;

/// Measured on a current server: machine cycles for examining one place, with each table, and for inspecting a
/// false positive.
const PROBE_CYCLES: [(u32, f64); 3] = [(SMALL, 1.4), (LARGE, 2.2), (HUGE, 4.0)];
const ALARM_CYCLES: f64 = 30.0;
/// Factor by which a sequence of letters is more frequent in a text than the frequencies of its letters suggest.
const CORRELATION: f64 = 4.0;
/// A gram with more forms than this would fill the table.
const MAX_FORMS: usize = 512;

/// Set of literals, prepared for a search.
#[derive(Debug)]
pub(super) struct Sieve {
    literals: Vec<Literal>,
    layout: Layout,
    /// Indexed by hash: zero if no gram has it, or else a bit for each remainder of a gram with this hash.
    table: Vec<u8>,
    /// Grams, in ascending order of their values.
    grams: Vec<Gram>,
}

/// Parameters of a search.
#[derive(Debug, Clone, Copy)]
struct Layout {
    stride: usize,
    /// Length of a gram in bytes.
    gram: usize,
    table_bits: u32,
    probe_cycles: f64,
}

/// Gram, as a number, that occurs `at` bytes after the start of a literal.
#[derive(Debug, Clone, Copy)]
struct Gram {
    value: u32,
    literal: usize,
    at: usize,
}

impl Sieve {
    pub(super) fn new(literals: Vec<Literal>) -> Self {
        Self::of_tables(literals, &PROBE_CYCLES)
    }

    /// Returns a sieve for each size of table.
    #[cfg(test)]
    pub(super) fn every(literals: &[Literal]) -> impl Iterator<Item = Self> {
        let tables = PROBE_CYCLES.iter().map(std::slice::from_ref);
        tables.map(|table| Self::of_tables(literals.to_vec(), table))
    }

    fn of_tables(literals: Vec<Literal>, tables: &[(u32, f64)]) -> Self {
        let plan = Layout::all(tables)
            .filter_map(|layout| Plan::new(&literals, layout))
            .min_by(|a, b| a.cycles_per_byte.total_cmp(&b.cycles_per_byte))
            .expect("every literal has three bytes or more, so that a stride of 1 is possible");
        let layout = plan.layout;
        let mut table = vec![0; 1 << layout.table_bits];
        let mut grams = plan.grams(&literals);
        grams.sort_unstable_by_key(|gram| gram.value);
        for gram in &grams {
            let (slot, bit) = slot(gram.value, layout.gram, 32 - layout.table_bits);
            table[slot] |= bit;
        }
        Self {
            literals,
            layout,
            table,
            grams,
        }
    }

    /// Calls `found` once for each occurrence of a literal in `text`, in no particular order.
    pub(super) fn search<'a>(&'a self, text: &[u8], found: &mut dyn FnMut(Hit<'a>)) {
        // The layout is constant within the loop, so that the compiler can unroll it without arithmetic and prove
        // the lookups to be in bounds.
        macro_rules! sweep {
            ($($stride:literal)*) => {
                match (self.layout.stride, self.layout.gram, self.layout.table_bits) {
                    $(($stride, 3, SMALL) => self.sweep::<$stride, 3, { 32 - SMALL }>(text, found),
                      ($stride, 3, LARGE) => self.sweep::<$stride, 3, { 32 - LARGE }>(text, found),
                      ($stride, 3, _) => self.sweep::<$stride, 3, { 32 - HUGE }>(text, found),
                      ($stride, _, SMALL) => self.sweep::<$stride, 4, { 32 - SMALL }>(text, found),
                      ($stride, _, LARGE) => self.sweep::<$stride, 4, { 32 - LARGE }>(text, found),
                      ($stride, ..) => self.sweep::<$stride, 4, { 32 - HUGE }>(text, found),)*
                    _ => unreachable!("strides are from 1 to {MAX_STRIDE}"),
                }
            };
        }
        sweep!(1 2 3 4 5 6 7 8);
    }

    fn sweep<'a, const STRIDE: usize, const GRAM: usize, const SHIFT: u32>(
        &'a self,
        text: &[u8],
        found: &mut dyn FnMut(Hit<'a>),
    ) {
        let table = &self.table[..1 << (32 - SHIFT)];
        let mut at = 0;
        while let Some(group) = text.get(at..at + GROUP * STRIDE + 4) {
            let mut any = 0;
            for place in 0..GROUP {
                any |= table[slot(four_bytes(group, place * STRIDE), GRAM, SHIFT).0];
            }
            if any != 0 {
                self.inspect::<STRIDE, GRAM>(text, at, at + GROUP * STRIDE, found);
            }
            at += GROUP * STRIDE;
        }
        self.inspect::<STRIDE, GRAM>(text, at, text.len(), found);
    }

    /// Inspects the places from `from` up to `to`, a group that may contain a literal.
    #[cold]
    #[inline(never)]
    fn inspect<'a, const STRIDE: usize, const GRAM: usize>(
        &'a self,
        text: &[u8],
        from: usize,
        to: usize,
        found: &mut dyn FnMut(Hit<'a>),
    ) {
        let shift = 32 - self.layout.table_bits;
        for place in (from..to).step_by(STRIDE) {
            let Some(gram) = text.get(place..place + GRAM) else {
                break;
            };
            let mut word = [0; 4];
            for (byte, value) in word.iter_mut().zip(gram) {
                *byte = *value;
            }
            let word = u32::from_le_bytes(word);
            let (slot, bit) = slot(word, GRAM, shift);
            if self.table[slot] & bit != 0 {
                self.compare(text, place, word, found);
            }
        }
    }

    fn compare<'a>(&'a self, text: &[u8], place: usize, gram: u32, found: &mut dyn FnMut(Hit<'a>)) {
        let first = self.grams.partition_point(|other| other.value < gram);
        let same = self.grams[first..]
            .iter()
            .take_while(|other| other.value == gram);
        for known in same {
            let literal = &self.literals[known.literal];
            let start = place.checked_sub(known.at);
            if let Some(start) = start.filter(|start| literal.stands_at(text, *start)) {
                let at = start + literal.lead;
                found(Hit { literal, at });
            }
        }
    }
}

impl Layout {
    fn all(tables: &[(u32, f64)]) -> impl Iterator<Item = Self> {
        (1..=MAX_STRIDE)
            .flat_map(|stride| [(stride, 3), (stride, 4)])
            .flat_map(|(stride, gram)| {
                tables.iter().map(move |&(table_bits, probe_cycles)| Self {
                    stride,
                    gram,
                    table_bits,
                    probe_cycles,
                })
            })
    }
}

/// Layout with its cost and grams.
struct Plan {
    layout: Layout,
    /// For each literal, the places of its chosen grams.
    chosen: Vec<Vec<usize>>,
    cycles_per_byte: f64,
}

impl Plan {
    /// Returns the plan for a layout, or `None` if some literal is too short for it.
    fn new(literals: &[Literal], layout: Layout) -> Option<Self> {
        let mut alarms = 0.0;
        let mut chosen = Vec::with_capacity(literals.len());
        for literal in literals {
            let mut places = Vec::with_capacity(layout.stride);
            // A literal has as many alignments with the stride as the stride is long, and exactly one of its chosen
            // grams is examined in each. It is therefore found, and found only once.
            for remainder in 0..layout.stride {
                let (place, rate) = literal
                    .bytes
                    .windows(layout.gram)
                    .enumerate()
                    .skip(remainder)
                    .step_by(layout.stride)
                    .filter_map(|(at, gram)| Some((at, alarm_rate(gram, layout.table_bits)?)))
                    .min_by(|(_, a), (_, b)| a.total_cmp(b))?;
                places.push(place);
                alarms += rate;
            }
            chosen.push(places);
        }
        let stride_bytes = f64::from(u32::try_from(layout.stride).ok()?);
        Some(Self {
            layout,
            chosen,
            cycles_per_byte: (layout.probe_cycles + alarms * ALARM_CYCLES) / stride_bytes,
        })
    }

    fn grams(&self, literals: &[Literal]) -> Vec<Gram> {
        let mut grams = Vec::new();
        for ((index, literal), places) in literals.iter().enumerate().zip(&self.chosen) {
            for &at in places {
                let known = &literal.bytes[at..at + self.layout.gram];
                grams.extend(every_sequence(known).into_iter().map(|bytes| {
                    let mut word = [0; 4];
                    word[..bytes.len()].copy_from_slice(&bytes);
                    Gram {
                        value: u32::from_le_bytes(word),
                        literal: index,
                        at,
                    }
                }));
            }
        }
        grams
    }
}

/// Returns the rate of table matches caused by a gram, per examined place: those where the text really contains it,
/// and those where other bytes have the same hash. Returns `None` if the gram has too many forms.
fn alarm_rate(gram: &[Vec<u8>], table_bits: u32) -> Option<f64> {
    let forms = frequency::forms(gram);
    if forms > MAX_FORMS {
        return None;
    }
    let slots = f64::from(1u32 << table_bits);
    let real = frequency::of_sequence(gram) * CORRELATION;
    Some(real + f64::from(u32::try_from(forms).ok()?) / slots)
}

#[inline]
fn four_bytes(group: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([group[at], group[at + 1], group[at + 2], group[at + 3]])
}

/// Returns the table index of the first `gram` bytes of `word`, and their bit within the entry. The bytes after
/// them are shifted out of the product.
#[inline]
fn slot(word: u32, gram: usize, shift: u32) -> (usize, u8) {
    let multiplier = MULTIPLIER << (32 - 8 * gram);
    let hash = word.wrapping_mul(multiplier);
    ((hash >> shift) as usize, 1 << (hash >> (shift - 3) & 7))
}
