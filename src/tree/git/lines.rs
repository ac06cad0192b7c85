//! Lists that git prints, one entry after the other, each of which may have as many bytes as whoever made the repository
//! likes.

use std::io::{self, BufRead, Read as _};

/// Reads the next entry of a list, which ends with the byte `end`, without that byte, and at most `max` bytes of it.
/// Returns whether that is all of it, or `None` at the end of the list.
pub(super) fn next(
    list: &mut impl BufRead,
    end: u8,
    max: usize,
    entry: &mut Vec<u8>,
) -> io::Result<Option<bool>> {
    entry.clear();
    let most = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    if list.by_ref().take(most).read_until(end, entry)? == 0 {
        return Ok(None);
    }
    let is_ended = entry.pop_if(|byte| *byte == end).is_some();
    let is_whole = is_ended || entry.len() <= max;
    if !is_whole {
        entry.truncate(max);
        list.skip_until(end)?;
    }
    Ok(Some(is_whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_up_to_a_number_of_bytes() {
        let mut list = &b"abc\n\nabcd\nabcdefgh\nab"[..];
        let mut entries = Vec::new();
        let mut entry = Vec::new();
        while let Some(is_whole) = next(&mut list, b'\n', 4, &mut entry).expect("a list") {
            entries.push((String::from_utf8(entry.clone()).expect("a text"), is_whole));
        }
        let expected = [
            ("abc", true),
            ("", true),
            ("abcd", true),
            ("abcd", false),
            ("ab", true),
        ];
        assert_eq!(
            entries,
            expected.map(|(text, whole)| (text.to_owned(), whole))
        );
    }
}
