//! Links beside keys in a text.

use std::ops::Range;
use std::sync::Arc;

use memchr::{memchr, memchr2};

use crate::respond::URL_MAX;

/// Maximum distance of a link from its key, in bytes to either side.
const LINK_WITHIN: usize = 2 * URL_MAX;

#[cfg(test)]
thread_local! {
    /// Bytes that were read for links on this thread.
    pub(super) static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Links in a text that is no JSON, or of whose JSON only the text is known: what is called `url` or `location`, and the
/// objects in which it stands.
///
/// Whoever writes the text decides how many keys are in it. They are asked about in the order of their places, so that
/// each byte is read a bounded number of times however many there are.
pub(super) struct Links<'t> {
    text: &'t [u8],
    /// Place behind all that was read.
    read: usize,
    /// Last link before the last key that was asked about, in the same object.
    before: Option<Mark>,
    /// First mark that is not before that key.
    next: Option<Mark>,
    /// The link that was returned last.
    last: Option<(Range<usize>, Arc<str>)>,
}

/// Start of an object, or of a link's name.
struct Mark {
    at: usize,
    /// Place of the link itself. `None` where an object starts.
    link: Option<Range<usize>>,
}

impl<'t> Links<'t> {
    pub(super) fn of(text: &'t [u8]) -> Self {
        let mut links = Self {
            text,
            read: 0,
            before: None,
            next: None,
            last: None,
        };
        links.next = links.mark();
        links
    }

    /// Returns the link in the same object as the key at `at`, as far as that can be told: the last one before it, or the
    /// first one behind it. Of a key that is asked about after another one behind it, the link may be that of the other.
    pub(super) fn beside(&mut self, at: usize) -> Option<Arc<str>> {
        while let Some(mark) = self.next.take_if(|mark| mark.at < at) {
            self.before = Some(mark).filter(|mark| mark.link.is_some());
            self.next = self.mark();
        }
        let mut nearest = [&self.before, &self.next].into_iter().flatten();
        let link = nearest.find(|mark| mark.at.abs_diff(at) <= LINK_WITHIN)?;
        let place = link.link.clone()?;
        let last = self.last.take().filter(|(of, _)| *of == place);
        let (place, link) = last.unwrap_or_else(|| {
            let link = String::from_utf8_lossy(&self.text[place.clone()]);
            (place, link.into())
        });
        self.last = Some((place, Arc::clone(&link)));
        Some(link)
    }

    /// Reads on to the next mark.
    fn mark(&mut self) -> Option<Mark> {
        loop {
            let rest = &self.text[self.read..];
            let passed = looked(rest, memchr2(b'{', b'"', rest))?;
            let at = self.read + passed;
            self.read = at + 1;
            let link = link_at(self.text, at);
            if let Some(link) = &link {
                self.read = link.end + 1;
            }
            if link.is_some() || self.text[at] == b'{' {
                return Some(Mark { at, link });
            }
        }
    }
}

/// Returns the place of the link whose name begins at `at`. What is read here of what is none is read once more.
fn link_at(text: &[u8], at: usize) -> Option<Range<usize>> {
    let names: [&[u8]; 2] = [b"\"url\"", b"\"location\""];
    let rest = &text[at..];
    let rest = names.iter().find_map(|name| rest.strip_prefix(*name))?;
    let rest = behind_blanks(rest).strip_prefix(b":")?;
    let rest = behind_blanks(rest).strip_prefix(b"\"")?;
    let near = &rest[..rest.len().min(URL_MAX + 1)];
    let length = looked(near, memchr(b'"', near)).filter(|length| *length > 0)?;
    let start = text.len() - rest.len();
    Some(start..start + length)
}

fn behind_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().position(|byte| !byte.is_ascii_whitespace());
    &text[looked(text, blanks).unwrap_or(text.len())..]
}

/// Counts what was read of a text to find a place in it, in tests, and returns the place.
fn looked(text: &[u8], found: Option<usize>) -> Option<usize> {
    #[cfg(test)]
    LOOKED_AT.set(LOOKED_AT.get() + found.map_or(text.len(), |at| at + 1));
    #[cfg(not(test))]
    let _ = text;
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(text: &str) -> Option<String> {
        let at = text.find('K').unwrap();
        let link = Links::of(text.as_bytes()).beside(at);
        link.map(|link| link.to_string())
    }

    #[test]
    fn the_link_of_a_key_stands_in_the_same_object() {
        for text in [
            r#"{"token":"K","url":"https://a""#,
            r#"{"url" : "https://a","token":"K"#,
            r#"{"url":"https://b"},{"location":"https://a","x":K"#,
            r#"{"token":"K","url":"https://a"},{"url":"https://b"}"#,
            r#"{"url":"","location":"https://a","token":"K""#,
            r#"{"url":7,"x":"url","K":1,"location":"https://a""#,
        ] {
            assert_eq!(link(text).as_deref(), Some("https://a"), "{text}");
        }
        for text in [
            "K",
            r#"{"token":"K"},{"url":"https://b"}"#,
            r#"{"url":"https://b"},{"token":"K"}"#,
            r#"{"token":"K","url":"https://a"#,
            r#"{"token":"K","url":7}"#,
        ] {
            assert_eq!(link(text), None, "{text}");
        }
        let url = "a".repeat(URL_MAX);
        assert_eq!(link(&format!("\"url\":\"{url}\"K")), Some(url.clone()));
        assert_eq!(link(&format!("\"url\":\"{url}a\"K")), None);
        let blanks = " ".repeat(LINK_WITHIN);
        for far in [
            format!("\"url\":\"a\"{blanks}K"),
            format!("K{blanks}\"url\":\"a\""),
        ] {
            assert_eq!(link(&far), None);
        }
    }

    #[test]
    fn keys_in_their_order_have_each_the_link_beside_it() {
        let text = r#"{"x":"K"},{"url":"a","x":"K K"},{"x":"K K","url":"b"},{"x":"K"},"url":"c" K"#;
        let mut links = Links::of(text.as_bytes());
        let found = memchr::memchr_iter(b'K', text.as_bytes()).map(|at| links.beside(at));
        let found: Vec<_> = found.collect();
        let read: Vec<_> = found.iter().map(|link| link.as_deref()).collect();
        let (a, b, c) = (Some("a"), Some("b"), Some("c"));
        assert_eq!(read, [None, a, a, b, b, c, c]);
        // Keys beside one link share it.
        let [Some(first), Some(second)] = &found[1..3] else {
            panic!("both have one");
        };
        assert!(Arc::ptr_eq(first, second));
    }
}
