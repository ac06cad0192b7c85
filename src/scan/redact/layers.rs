//! What a text stands for when it is encoded once more, and where in the text that stands.

use std::ops::Range;

/// What stands at a place in a text: how many bytes, and the byte that they stand for, if for any.
pub(super) type Step = fn(&[u8], usize) -> Option<(usize, Option<u8>)>;

/// A percent sign and two digits stand for a byte.
pub(super) fn percent_decode(text: &[u8], at: usize) -> Option<(usize, Option<u8>)> {
    let [b'%', high, low, ..] = &text[at..] else {
        return None;
    };
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
    Some((3, Some(byte)))
}

/// A line break within base64, with the indentation behind it, stands for nothing. The engine reads over
/// those within a key, but not over one in the middle of what it knows a key by.
pub(super) fn unfold(text: &[u8], at: usize) -> Option<(usize, Option<u8>)> {
    let start = match &text[at..] {
        [b'\n', ..] => 1,
        [b'\r', b'\n', ..] => 2,
        _ => return None,
    };
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
    let blanks = text[at + start..].iter();
    let blanks = blanks
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count();
    let is_within = text[..at].last().is_some_and(is_base64)
        && text.get(at + start + blanks).is_some_and(is_base64);
    is_within.then_some((start + blanks, None))
}

/// `text` with every step taken, if there is any. A step has `sign` in its first two bytes.
pub(super) fn rewritten(text: &[u8], sign: u8, step: Step) -> Option<Vec<u8>> {
    let mut rewritten = Vec::new();
    let mut done = 0;
    for sign in memchr::memchr_iter(sign, text) {
        for at in [sign.saturating_sub(1), sign] {
            // The end of one step is no start of another.
            if at >= done
                && let Some((length, byte)) = step(text, at)
            {
                rewritten.extend_from_slice(&text[done..at]);
                rewritten.extend(byte);
                done = at + length;
            }
        }
    }
    if done == 0 {
        return None;
    }
    rewritten.extend_from_slice(&text[done..]);
    Some(rewritten)
}

/// Turns places in what [`rewritten`] made of `text` into places in `text`.
pub(super) fn move_back<'p>(
    text: &[u8],
    step: Step,
    places: impl Iterator<Item = &'p mut Range<usize>>,
) {
    let mut ends: Vec<(&mut usize, bool)> = places
        .flat_map(|place| [(&mut place.end, false), (&mut place.start, true)])
        .collect();
    ends.sort_unstable();
    let (mut at, mut read) = (0, 0);
    let step = |at| step(text, at).unwrap_or((1, Some(0)));
    for (end, is_start) in ends {
        while read < *end && at < text.len() {
            let (length, byte) = step(at);
            at += length;
            read += usize::from(byte.is_some());
        }
        // What stands for nothing belongs to nothing.
        while is_start && let (length, None) = step(at) {
            at += length;
        }
        *end = at;
    }
}
