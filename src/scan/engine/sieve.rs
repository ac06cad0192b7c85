//! Finds literals in a text at a few gigabytes a second.
//!
//! Literals are long enough that not every byte has to be looked at. If the shortest has `n` bytes, then
//! of the three-byte sequences ("grams") that start in any `n - 2` neighbouring places, one lies wholly in
//! it. So it is enough to look at every `n - 2`th place, the *stride*: each gram there is hashed and
//! looked up in a table that knows some gram of every literal for each way in which it can lie across
//! the stride. That is three machine instructions per place and no branch. Where the table says yes, the
//! whole literal is compared.
//!
//! Vector searchers (Teddy) look at every byte and pay per literal in false alarms; with all encodings
//! there are five literals to a format. `benches/scan_engine.rs` has the comparison.

use super::literal::Literal;

/// The stride beyond which there is nothing left to gain: memory is the limit.
const MAX_STRIDE: usize = 8;
/// Places that are looked up before the one branch on whether any of them needs attention.
const GROUP: usize = 8;
/// An odd number with no pattern to its bits, shifted so that the product's top bits depend on the low
/// three bytes of the other factor only.
const MULTIPLIER: u32 = 0x9e37_79b1 << 8;
/// Table sizes as powers of two: one that leaves room in the first-level cache, one for many literals.
const SMALL: u32 = 14;
const LARGE: u32 = 17;

/// Measured on a current server: machine cycles for looking at one place, with either table, and for
/// one that has to be inspected in vain.
const SMALL_PROBE_CYCLES: f64 = 1.4;
const LARGE_PROBE_CYCLES: f64 = 2.2;
const ALARM_CYCLES: f64 = 30.0;
/// A gram with more forms than this would fill the table.
const MAX_FORMS: usize = 512;

/// A set of literals, prepared for being searched for.
#[derive(Debug)]
pub(super) struct Sieve {
    literals: Vec<Literal>,
    stride: usize,
    table_bits: u32,
    /// By hash: zero if no gram has it, else a bit for each remainder that a gram with this hash has.
    table: Vec<u8>,
    /// By gram, ascending.
    grams: Vec<Gram>,
}

/// Three bytes, as a number, that stand `at` bytes after the start of a literal.
#[derive(Debug, Clone, Copy)]
struct Gram {
    value: u32,
    literal: usize,
    at: usize,
}

/// A literal in a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit<'a> {
    pub(super) literal: &'a Literal,
    /// The place by which the hit is known: see [`Literal::lead`].
    pub(super) at: usize,
}

impl Sieve {
    pub(super) fn new(literals: Vec<Literal>) -> Self {
        let plan = (1..=MAX_STRIDE)
            .flat_map(|stride| [SMALL, LARGE].map(|bits| (stride, bits)))
            .filter_map(|(stride, bits)| Plan::new(&literals, stride, bits))
            .min_by(|a, b| a.cycles_per_byte.total_cmp(&b.cycles_per_byte))
            .expect("every literal has three bytes or more, so that a stride of 1 is possible");
        let mut table = vec![0; 1 << plan.table_bits];
        let mut grams = plan.grams(&literals);
        grams.sort_unstable_by_key(|gram| gram.value);
        for gram in &grams {
            let (slot, bit) = slot(gram.value, 32 - plan.table_bits);
            table[slot] |= bit;
        }
        Self {
            literals,
            stride: plan.stride,
            table_bits: plan.table_bits,
            table,
            grams,
        }
    }

    /// Calls `found` for each literal in `text`, once for each place where it stands, in no order.
    pub(super) fn search<'a>(&'a self, text: &[u8], found: &mut dyn FnMut(Hit<'a>)) {
        // The stride and the table's size are constants in the loop, so that the compiler can lay out
        // its places without arithmetic and prove the look-ups to be in bounds.
        macro_rules! sweep {
            ($($stride:literal)*) => {
                match (self.stride, self.table_bits) {
                    $(($stride, SMALL) => self.sweep::<$stride, { 32 - SMALL }>(text, found),
                      ($stride, _) => self.sweep::<$stride, { 32 - LARGE }>(text, found),)*
                    _ => unreachable!("strides are from 1 to {MAX_STRIDE}"),
                }
            };
        }
        sweep!(1 2 3 4 5 6 7 8);
    }

    fn sweep<'a, const STRIDE: usize, const SHIFT: u32>(
        &'a self,
        text: &[u8],
        found: &mut dyn FnMut(Hit<'a>),
    ) {
        let table = &self.table[..1 << (32 - SHIFT)];
        let mut at = 0;
        while let Some(group) = text.get(at..at + GROUP * STRIDE + 4) {
            let mut any = 0;
            for place in 0..GROUP {
                any |= table[slot(four_bytes(group, place * STRIDE), SHIFT).0];
            }
            if any != 0 {
                self.inspect(text, at, at + GROUP * STRIDE, found);
            }
            at += GROUP * STRIDE;
        }
        self.inspect(text, at, text.len(), found);
    }

    /// Looks at the places from `from` to before `to`, in a group of which there may be a literal.
    #[cold]
    #[inline(never)]
    fn inspect<'a>(&'a self, text: &[u8], from: usize, to: usize, found: &mut dyn FnMut(Hit<'a>)) {
        let to = to.min(text.len().saturating_sub(2));
        for place in (from..to).step_by(self.stride) {
            let gram = u32::from_le_bytes([text[place], text[place + 1], text[place + 2], 0]);
            let (slot, bit) = slot(gram, 32 - self.table_bits);
            if self.table[slot] & bit != 0 {
                self.compare(text, place, gram, found);
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
            let Some(start) = place.checked_sub(known.at) else {
                continue;
            };
            let stands = text
                .get(start..start + literal.bytes.len())
                .is_some_and(|text| {
                    text.iter()
                        .zip(&literal.bytes)
                        .all(|(byte, known)| known.contains(byte))
                });
            if stands {
                found(Hit {
                    literal,
                    at: start + literal.lead,
                });
            }
        }
    }
}

/// A stride and a table, what they cost, and the grams that go with them.
struct Plan {
    stride: usize,
    table_bits: u32,
    /// For each literal, the places of its chosen grams.
    chosen: Vec<Vec<usize>>,
    cycles_per_byte: f64,
}

impl Plan {
    /// `None` if some literal is too short for the stride.
    fn new(literals: &[Literal], stride: usize, table_bits: u32) -> Option<Self> {
        let mut alarms = 0.0;
        let mut chosen = Vec::with_capacity(literals.len());
        for literal in literals {
            let mut places = Vec::with_capacity(stride);
            // A literal lies across the stride in as many ways as the stride is long, and exactly one of
            // its chosen grams is looked at in each: so it is found, and found once.
            for remainder in 0..stride {
                let (place, rate) = (remainder..literal.bytes.len().saturating_sub(2))
                    .step_by(stride)
                    .filter_map(|at| {
                        Some((at, alarm_rate(&literal.bytes[at..at + 3], table_bits)?))
                    })
                    .min_by(|(_, a), (_, b)| a.total_cmp(b))?;
                places.push(place);
                alarms += rate;
            }
            chosen.push(places);
        }
        let probe = if table_bits == SMALL {
            SMALL_PROBE_CYCLES
        } else {
            LARGE_PROBE_CYCLES
        };
        let stride_bytes = f64::from(u32::try_from(stride).ok()?);
        Some(Self {
            stride,
            table_bits,
            chosen,
            cycles_per_byte: (probe + alarms * ALARM_CYCLES) / stride_bytes,
        })
    }

    fn grams(&self, literals: &[Literal]) -> Vec<Gram> {
        let mut grams = Vec::new();
        for ((index, literal), places) in literals.iter().enumerate().zip(&self.chosen) {
            for &at in places {
                for &first in &literal.bytes[at] {
                    for &second in &literal.bytes[at + 1] {
                        grams.extend(literal.bytes[at + 2].iter().map(|&third| Gram {
                            value: u32::from_le_bytes([first, second, third, 0]),
                            literal: index,
                            at,
                        }));
                    }
                }
            }
        }
        grams
    }
}

/// How often the table says yes because of a gram, per place that is looked at: when the text really has
/// it, and when something else in the text has its hash. `None` if it has too many forms.
fn alarm_rate(gram: &[Vec<u8>], table_bits: u32) -> Option<f64> {
    let forms: usize = gram.iter().map(Vec::len).product();
    if forms > MAX_FORMS {
        return None;
    }
    let real: f64 = gram
        .iter()
        .map(|known| known.iter().copied().map(frequency).sum::<f64>())
        .product();
    let slots = f64::from(1u32 << table_bits);
    Some(real + f64::from(u32::try_from(forms).ok()?) / slots)
}

/// Roughly how often a byte occurs in what is scanned: source code, mostly, and some binary data.
fn frequency(byte: u8) -> f64 {
    match byte {
        b' ' => 0.12,
        b'e' | b't' => 0.06,
        b'a' | b'i' | b'n' | b'o' | b'r' | b's' => 0.04,
        0 | b'c' | b'd' | b'l' | b'm' | b'p' | b'u' | b'_' => 0.02,
        b'\n' | b'b' | b'f' | b'g' | b'h' | b'v' | b'x' | b'y' | b'0' | b'(' | b')' | b','
        | b'.' | b'/' | b':' | b';' | b'"' | b'-' | b'=' => 0.01,
        b'j' | b'k' | b'q' | b'w' | b'z' | b'1'..=b'9' | b'A'..=b'Z' => 0.004,
        _ => 0.001,
    }
}

#[inline]
fn four_bytes(group: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([group[at], group[at + 1], group[at + 2], group[at + 3]])
}

/// Where in the table the low three bytes of `word` are found, and the bit of the entry that is theirs.
#[inline]
fn slot(word: u32, shift: u32) -> (usize, u8) {
    let hash = word.wrapping_mul(MULTIPLIER);
    ((hash >> shift) as usize, 1 << (hash >> (shift - 3) & 7))
}
