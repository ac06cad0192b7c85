//! Order of the sequences that the searcher is given.
//!
//! Teddy deals sequences out to 8 or 16 buckets in turn. It looks closer wherever each of four bytes can be one of the
//! same bucket, as far as its two halves of four bits tell, each by itself. So a bucket of similar sequences gives
//! fewer false alarms than one of different ones: with a hundred sequences, ten times fewer.

use std::collections::HashMap;

use super::super::frequency;
use super::parts::{Part, Sequences};

/// The number of sequences from which on there are 16 buckets, where the processor has the instructions.
const FAT: usize = 32;

/// Part of the bytes of a text that stand in a run of the same byte, such as the zeros of binary data.
const IN_RUNS: f64 = 0.1;

/// Arranges sequences so that the searcher looks at few places in vain.
pub(super) fn arrange(sequences: Sequences) -> Vec<(Vec<u8>, Vec<Part>)> {
    let buckets = if sequences.len() > FAT { 16 } else { 8 };
    let sorted: Vec<_> = sequences.into_iter().collect();
    let mut by_halves = sorted.clone();
    by_halves.sort_by_key(|(sequence, _)| {
        let halves = sequence.iter().map(|byte| byte >> 4);
        halves.collect::<Vec<_>>()
    });
    let orders = [
        dealt(sorted.clone(), buckets),
        dealt(by_halves, buckets),
        sorted,
    ];
    orders
        .into_iter()
        .min_by(|a, b| false_alarms(a, buckets).total_cmp(&false_alarms(b, buckets)))
        .unwrap_or_default()
}

/// Returns the sequences in the order in which neighbors come into the same bucket.
fn dealt<T>(sequences: Vec<T>, buckets: usize) -> Vec<T> {
    let (each, more) = (sequences.len() / buckets, sequences.len() % buckets);
    let places = (0..buckets).flat_map(|bucket| {
        let held = each + usize::from(bucket < more);
        (0..held).map(move |at| at * buckets + bucket)
    });
    let mut dealt: Vec<_> = places.zip(sequences).collect();
    dealt.sort_by_key(|(place, _)| *place);
    dealt.into_iter().map(|(_, sequence)| sequence).collect()
}

/// Estimates how often the searcher looks closer at a place of a text.
fn false_alarms<T>(sequences: &[(Vec<u8>, T)], buckets: usize) -> f64 {
    let mut held: Vec<Vec<&[u8]>> = vec![Vec::new(); buckets];
    let mut of_low_halves = HashMap::new();
    for (at, (sequence, _)) in sequences.iter().enumerate() {
        // Those that differ in the upper halves only share a bucket anyway.
        let low: Vec<u8> = sequence.iter().map(|byte| byte & 0xf).collect();
        let bucket = *of_low_halves.entry(low).or_insert(at % buckets);
        held[bucket].push(sequence);
    }
    held.iter().map(|bucket| chance(bucket)).sum()
}

/// Estimates how often every byte at a place could be one of a bucket's.
fn chance(bucket: &[&[u8]]) -> f64 {
    let width = bucket.first().map_or(0, |sequence| sequence.len());
    if width == 0 {
        return 0.0;
    }
    let halves = (0..width).map(|at| {
        let bytes = || bucket.iter().map(|sequence| sequence[at]);
        let low = bytes().fold(0_u16, |halves, byte| halves | 1 << (byte & 0xf));
        let high = bytes().fold(0_u16, |halves, byte| halves | 1 << (byte >> 4));
        (low, high)
    });
    let halves: Vec<_> = halves.collect();
    let can_be = |(low, high): &(u16, u16), byte: u8| {
        low >> (byte & 0xf) & 1 == 1 && high >> (byte >> 4) & 1 == 1
    };
    let of_place = |place: &(u16, u16)| {
        let possible = (0..=u8::MAX).filter(|byte| can_be(place, *byte));
        possible.map(frequency::of_byte).sum::<f64>()
    };
    let runs = (0..=u8::MAX).filter(|byte| halves.iter().all(|place| can_be(place, *byte)));
    let of_runs = runs.map(frequency::of_byte).sum::<f64>() * IN_RUNS;
    halves.iter().map(of_place).product::<f64>() + of_runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(count: u8) -> Sequences {
        let words = (0..count).map(|at| vec![b'a' + at % 26, b'A' + at / 8, b'0' + at % 7, b'_']);
        words.map(|word| (word, Vec::new())).collect()
    }

    #[test]
    fn neighbors_come_into_one_bucket() {
        let buckets = [[0, 1, 2].as_slice(), &[3, 4, 5], &[6, 7], &[8, 9]];
        for (at, number) in dealt((0..10).collect(), 4).iter().enumerate() {
            assert!(buckets[at % 4].contains(number));
        }
    }

    /// A bucket with UTF-16 that starts at a character and such that starts at a zero could be all zeros.
    #[test]
    fn zeros_raise_no_alarm() {
        let utf16: [&[u8]; 4] = [b"s\0k\0", b"r\0t\0", b"\0c\0k", b"\0s\0c"];
        let mixed = chance(&[utf16[0], utf16[2]]) + chance(&[utf16[1], utf16[3]]);
        let apart = chance(&utf16[..2]) + chance(&utf16[2..]);
        assert!(apart * 100.0 < mixed);
    }

    #[test]
    fn nothing_is_lost_and_the_best_order_taken() {
        for count in [0, 1, 8, 33, 120] {
            let sorted: Vec<_> = sequences(count).into_iter().collect();
            let arranged = arrange(sequences(count));
            let buckets = if count > 32 { 16 } else { 8 };
            assert!(false_alarms(&arranged, buckets) <= false_alarms(&sorted, buckets));
            assert_eq!(
                arranged
                    .into_iter()
                    .map(|(word, _)| word)
                    .collect::<std::collections::BTreeSet<_>>()
                    .len(),
                sorted.len()
            );
        }
    }
}
