//! Search for long stretches of things that are alike.

use std::ops::Range;

/// Passes the longest stretches of at least `least` things for which `is_good` holds to `found`.
///
/// Most things in between are passed over: where one of `least` things in a row is not good, no stretch covers them.
pub(super) fn stretches(
    count: usize,
    least: usize,
    is_good: impl Fn(usize) -> bool,
    found: &mut dyn FnMut(Range<usize>),
) {
    let least = least.max(1);
    let mut start = 0;
    // What was seen to be good, from `start` on.
    let mut seen = start;
    while start + least <= count {
        let final_one = start + least - 1;
        if let Some(bad) = (seen..=final_one).rev().find(|at| !is_good(*at)) {
            (start, seen) = (bad + 1, final_one + 1);
            seen = seen.max(start);
            continue;
        }
        let end = (final_one + 1..count)
            .find(|at| !is_good(*at))
            .unwrap_or(count);
        found(start..end);
        (start, seen) = (end + 1, end + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "the stretches are ranges")]
    fn long_stretches_are_found_without_looking_at_all() {
        for (text, expected) in [
            ("aaabaaaa", vec![4..8]),
            ("aaaaaaaaab", vec![0..9]),
            ("baaaabbaaaaa", vec![1..5, 7..12]),
            ("aaa", vec![]),
            ("aabaaabaaabaaaa", vec![11..15]),
        ] {
            let mut all = Vec::new();
            stretches(
                text.len(),
                4,
                |at| text.as_bytes()[at] == b'a',
                &mut |found| {
                    all.push(found);
                },
            );
            assert_eq!(all, expected, "{text}");
        }
        let looked_at = std::cell::Cell::new(0);
        let is_good = |_| {
            looked_at.set(looked_at.get() + 1);
            false
        };
        stretches(1_000, 50, is_good, &mut |_| ());
        assert_eq!(looked_at.get(), 20);
    }
}
