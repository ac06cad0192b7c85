//! Splitting of a stream into JSON objects, whatever is between them.
//!
//! Archives hold one object per line. Old hours have several objects on the same line, up to the whole hour without a
//! line break. No object contains a line break, so parsing resynchronizes at the next line after anything broken.

use memchr::{memchr2, memchr3};

/// Maximum size of an event, in bytes of JSON: many times that of GitHub's events. Larger ones are skipped and
/// counted.
pub(super) const MAX_EVENT: usize = 4 << 20;

/// A piece of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// An object, from brace to brace. It is not checked to be valid JSON, and may be mended.
    Object(&'a mut [u8]),
    /// Something that is not an object, with the reason.
    Junk(&'static str),
}

/// Position of the next byte relative to the structure of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// Between objects.
    Between,
    /// In something that is not an object.
    InJunk,
    /// In an object, at this depth of brackets.
    Inside(u32),
    /// In a string of an object, at this depth of brackets.
    InString(u32),
    /// After a backslash in a string, at this depth of brackets.
    Escaped(u32),
}

/// Splits a stream that arrives in chunks. Buffers at most one object.
#[derive(Debug)]
pub(super) struct Splitter {
    max: usize,
    position: Position,
    object: Vec<u8>,
    is_too_large: bool,
}

impl Splitter {
    /// Creates a splitter for the start of a stream, which skips objects of more than `max` bytes.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            position: Position::Between,
            object: Vec::new(),
            is_too_large: false,
        }
    }

    /// Processes the next bytes of the stream, calling `each` for every complete piece.
    pub(super) fn feed(&mut self, mut bytes: &[u8], each: &mut impl FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            let taken = match self.position {
                Position::Between => self.between(bytes, each),
                Position::InJunk => self.in_junk(bytes),
                Position::Inside(depth) => self.inside(bytes, depth, each),
                Position::InString(depth) => self.in_string(bytes, depth, each),
                Position::Escaped(depth) => self.escaped(bytes, depth, each),
            };
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// Ends the stream. An object that is incomplete is reported as junk.
    pub(super) fn finish(self, each: &mut impl FnMut(Piece<'_>)) {
        if !matches!(self.position, Position::Between | Position::InJunk) {
            each(Piece::Junk("it is cut off"));
        }
    }

    fn between(&mut self, bytes: &[u8], each: &mut impl FnMut(Piece<'_>)) -> usize {
        let is_blank = |byte: u8| byte.is_ascii_whitespace() || byte == b',';
        let Some(at) = bytes.iter().position(|byte| !is_blank(*byte)) else {
            return bytes.len();
        };
        if bytes[at] == b'{' {
            self.object.clear();
            self.object.push(b'{');
            self.is_too_large = false;
            self.position = Position::Inside(1);
        } else {
            self.position = Position::InJunk;
            each(Piece::Junk("it is no JSON object"));
        }
        at + 1
    }

    /// Skips junk, which extends to the end of the line, or to a possible object on the same line. Returns its length.
    fn in_junk(&mut self, bytes: &[u8]) -> usize {
        match memchr2(b'\n', b'{', bytes) {
            Some(at) => {
                self.position = Position::Between;
                at
            }
            None => bytes.len(),
        }
    }

    fn inside(&mut self, bytes: &[u8], depth: u32, each: &mut impl FnMut(Piece<'_>)) -> usize {
        let is_mark = |byte: &u8| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']' | b'\n');
        let Some(at) = bytes.iter().position(is_mark) else {
            self.keep(bytes);
            return bytes.len();
        };
        self.keep(&bytes[..=at]);
        self.position = match bytes[at] {
            b'"' => Position::InString(depth),
            b'{' | b'[' => Position::Inside(depth.saturating_add(1)),
            b'\n' => broken(each),
            _ if depth > 1 => Position::Inside(depth - 1),
            _ => self.complete(each),
        };
        at + 1
    }

    fn in_string(&mut self, bytes: &[u8], depth: u32, each: &mut impl FnMut(Piece<'_>)) -> usize {
        let Some(at) = memchr3(b'"', b'\\', b'\n', bytes) else {
            self.keep(bytes);
            return bytes.len();
        };
        self.keep(&bytes[..=at]);
        self.position = match bytes[at] {
            b'"' => Position::Inside(depth),
            b'\\' => Position::Escaped(depth),
            _ => broken(each),
        };
        at + 1
    }

    fn escaped(&mut self, bytes: &[u8], depth: u32, each: &mut impl FnMut(Piece<'_>)) -> usize {
        self.keep(&bytes[..1]);
        self.position = match bytes[0] {
            b'\n' => broken(each),
            _ => Position::InString(depth),
        };
        1
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.is_too_large {
            return;
        }
        if self.object.len() + bytes.len() > self.max {
            self.is_too_large = true;
            self.object = Vec::new();
        } else {
            self.object.extend_from_slice(bytes);
        }
    }

    fn complete(&mut self, each: &mut impl FnMut(Piece<'_>)) -> Position {
        if self.is_too_large {
            each(Piece::Junk("it is too large"));
        } else {
            each(Piece::Object(&mut self.object));
        }
        Position::Between
    }
}

fn broken(each: &mut impl FnMut(Piece<'_>)) -> Position {
    each(Piece::Junk("it ends with its line, not with its brackets"));
    Position::Between
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the objects of a stream and the number of pieces of junk, and checks that they do not depend on how the
    /// stream is split into chunks.
    fn split(stream: &str) -> (Vec<String>, usize) {
        let one = split_by(stream, stream.len().max(1));
        for size in [1, 2, 3, 7] {
            assert_eq!(split_by(stream, size), one, "{stream:?} by {size}");
        }
        one
    }

    fn split_by(stream: &str, size: usize) -> (Vec<String>, usize) {
        let (mut objects, mut junk) = (Vec::new(), 0);
        let mut each = |piece: Piece<'_>| match piece {
            Piece::Object(object) => objects.push(String::from_utf8(object.to_vec()).unwrap()),
            Piece::Junk(_) => junk += 1,
        };
        let mut splitter = Splitter::new(60);
        for chunk in stream.as_bytes().chunks(size) {
            splitter.feed(chunk, &mut each);
        }
        splitter.finish(&mut each);
        (objects, junk)
    }

    #[test]
    fn objects_are_found_with_and_without_line_breaks() {
        for (stream, objects, junk) in [
            ("", vec![], 0),
            ("{}\n{\"a\":1}\r\n", vec!["{}", "{\"a\":1}"], 0),
            ("{}{\"a\":[{}]} {}", vec!["{}", "{\"a\":[{}]}", "{}"], 0),
            (
                "{\"a\":\"}{\\\"\\\\\"}{}",
                vec!["{\"a\":\"}{\\\"\\\\\"}", "{}"],
                0,
            ),
            ("\u{feff}{}", vec!["{}"], 1),
            // Junk ends with its line, or where an object begins.
            ("junk\n{}\n[1]\n{}", vec!["{}", "{}"], 2),
            ("junk{}", vec!["{}"], 1),
            ("}{}", vec!["{}"], 1),
            // A truncated object does not swallow the next line.
            ("{\"a\":\n{}", vec!["{}"], 1),
            ("{\"a\":\"\n{}", vec!["{}"], 1),
            ("{\"a\":\"\\\n{}", vec!["{}"], 1),
            ("{}\n{\"a\":[", vec!["{}"], 1),
        ] {
            let expected = objects.into_iter().map(str::to_owned).collect();
            assert_eq!(split(stream), (expected, junk), "{stream:?}");
        }
    }

    #[test]
    fn what_is_too_large_is_skipped_on_the_same_line_and_across() {
        let large = format!("{{\"a\":\"{}\"}}", "x{\\\"".repeat(40));
        for stream in [
            format!("{{}}{large}{{\"b\":2}}"),
            format!("{{}}\n{large}\n{{\"b\":2}}\n"),
            format!("{{}}\n{}\n{{\"b\":2}}\n", &large[..large.len() - 1]),
        ] {
            let expected = vec!["{}".to_owned(), "{\"b\":2}".to_owned()];
            assert_eq!(split(&stream), (expected, 1), "{stream}");
        }
    }
}
