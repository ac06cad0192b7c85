//! Splitting of a stream into JSON objects, whatever is between them.
//!
//! Archives hold one object per line. Old hours have several objects on the same line, up to the whole hour without a
//! line break. No object contains a line break, so parsing resynchronizes at the next line after anything broken.

use memchr::{memchr2, memchr3};

/// Maximum size of an event, in bytes of JSON: many times that of GitHub's events. Larger ones are counted, and told in
/// pieces.
pub(super) const MAX_EVENT: usize = 4 << 20;

/// Number of bytes at the end of a piece with which the next one begins: no key is longer, however it is encoded.
const OVERLAP: usize = 16 << 10;

/// A piece of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// An object, from brace to brace. It is not checked to be valid JSON, and may be mended.
    Object(&'a mut [u8]),
    /// Something that is not an object, with the reason, and its text or the beginning of that.
    Junk(&'static str, &'a [u8]),
    /// More of the text of what is not an object, or is too large.
    More(&'a [u8]),
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
    /// `true` if the beginning of the piece was told.
    is_told: bool,
}

impl Splitter {
    /// Creates a splitter for the start of a stream, which tells objects of more than `max` bytes as junk.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            position: Position::Between,
            object: Vec::new(),
            is_told: false,
        }
    }

    /// Processes the next bytes of the stream, calling `each` for every complete piece.
    pub(super) fn feed(&mut self, mut bytes: &[u8], each: &mut impl FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            let taken = match self.position {
                Position::Between => self.between(bytes, each),
                Position::InJunk => self.in_junk(bytes, each),
                Position::Inside(depth) => self.inside(bytes, depth, each),
                Position::InString(depth) => self.in_string(bytes, depth, each),
                Position::Escaped(depth) => self.escaped(bytes, depth, each),
            };
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// Ends the stream. An object that is incomplete is reported as junk.
    pub(super) fn finish(mut self, each: &mut impl FnMut(Piece<'_>)) {
        match self.position {
            Position::Between => {}
            Position::InJunk => self.junk(NO_OBJECT, each),
            _ => self.junk("it is cut off", each),
        }
    }

    fn between(&mut self, bytes: &[u8], each: &mut impl FnMut(Piece<'_>)) -> usize {
        let is_blank = |byte: u8| byte.is_ascii_whitespace() || byte == b',';
        let Some(at) = bytes.iter().position(|byte| !is_blank(*byte)) else {
            return bytes.len();
        };
        self.object.clear();
        self.is_told = false;
        self.keep(&bytes[at..=at], each);
        self.position = if bytes[at] == b'{' {
            Position::Inside(1)
        } else {
            Position::InJunk
        };
        at + 1
    }

    /// Passes junk, which extends to the end of the line, or to a possible object on the same line. Returns its length.
    fn in_junk(&mut self, bytes: &[u8], each: &mut impl FnMut(Piece<'_>)) -> usize {
        let end = memchr2(b'\n', b'{', bytes);
        let length = end.unwrap_or(bytes.len());
        self.keep(&bytes[..length], each);
        if end.is_some() {
            self.junk(NO_OBJECT, each);
        }
        length
    }

    fn inside(&mut self, bytes: &[u8], depth: u32, each: &mut impl FnMut(Piece<'_>)) -> usize {
        let is_mark = |byte: &u8| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']' | b'\n');
        let Some(at) = bytes.iter().position(is_mark) else {
            self.keep(bytes, each);
            return bytes.len();
        };
        self.keep(&bytes[..=at], each);
        self.position = match bytes[at] {
            b'"' => Position::InString(depth),
            b'{' | b'[' => Position::Inside(depth.saturating_add(1)),
            b'\n' => self.broken(each),
            _ if depth > 1 => Position::Inside(depth - 1),
            _ => self.complete(each),
        };
        at + 1
    }

    fn in_string(&mut self, bytes: &[u8], depth: u32, each: &mut impl FnMut(Piece<'_>)) -> usize {
        let Some(at) = memchr3(b'"', b'\\', b'\n', bytes) else {
            self.keep(bytes, each);
            return bytes.len();
        };
        self.keep(&bytes[..=at], each);
        self.position = match bytes[at] {
            b'"' => Position::Inside(depth),
            b'\\' => Position::Escaped(depth),
            _ => self.broken(each),
        };
        at + 1
    }

    fn escaped(&mut self, bytes: &[u8], depth: u32, each: &mut impl FnMut(Piece<'_>)) -> usize {
        self.keep(&bytes[..1], each);
        self.position = match bytes[0] {
            b'\n' => self.broken(each),
            _ => Position::InString(depth),
        };
        1
    }

    /// Keeps bytes of the present piece. If there are too many, tells those that came before.
    fn keep(&mut self, mut bytes: &[u8], each: &mut impl FnMut(Piece<'_>)) {
        while self.object.len() + bytes.len() > self.max {
            let (fits, rest) = bytes.split_at(self.max - self.object.len());
            self.object.extend_from_slice(fits);
            self.tell(TOO_LARGE, each);
            let told = self.object.len().saturating_sub(OVERLAP.min(self.max / 2));
            self.object.drain(..told);
            bytes = rest;
        }
        self.object.extend_from_slice(bytes);
    }

    /// Tells the text of a piece that is no object.
    fn tell(&mut self, wrong: &'static str, each: &mut impl FnMut(Piece<'_>)) {
        each(if std::mem::replace(&mut self.is_told, true) {
            Piece::More(&self.object)
        } else {
            Piece::Junk(wrong, &self.object)
        });
    }

    fn complete(&mut self, each: &mut impl FnMut(Piece<'_>)) -> Position {
        if self.is_told {
            self.tell(TOO_LARGE, each);
        } else {
            each(Piece::Object(&mut self.object));
        }
        Position::Between
    }

    fn junk(&mut self, wrong: &'static str, each: &mut impl FnMut(Piece<'_>)) {
        self.tell(wrong, each);
        self.position = Position::Between;
    }

    fn broken(&mut self, each: &mut impl FnMut(Piece<'_>)) -> Position {
        self.junk("it ends with its line, not with its brackets", each);
        self.position
    }
}

const NO_OBJECT: &str = "it is no JSON object";
const TOO_LARGE: &str = "it is too large";

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
        let (objects, junk) = pieces(stream, size);
        (objects, junk.len())
    }

    /// Returns the objects of a stream, and the texts of what is junk.
    fn pieces(stream: &str, size: usize) -> (Vec<String>, Vec<String>) {
        let (mut objects, mut junk) = (Vec::new(), Vec::<String>::new());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut each = |piece: Piece<'_>| match piece {
            Piece::Object(object) => objects.push(text(object)),
            Piece::Junk(_, bytes) => junk.push(text(bytes)),
            Piece::More(bytes) => {
                let last = junk.last_mut().unwrap();
                let more = text(bytes);
                // Each piece begins with the end of the one before.
                let common = (0..=more.len().min(last.len())).rev();
                let common = common.filter(|n| last.ends_with(&more[..*n])).max();
                last.push_str(&more[common.unwrap()..]);
            }
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
    fn the_text_of_junk_is_told() {
        let numbers: Vec<_> = (0..60).map(|n| n.to_string()).collect();
        let numbers = numbers.join(",");
        let large = format!("{{\"a\":[{numbers}]}}");
        for (stream, junk) in [
            ("junk\n{}\n[1]\n{}", vec!["junk", "[1]"]),
            ("{\"a\":\"\n{}", vec!["{\"a\":\"\n"]),
            ("{\"a\":\"x{\"b\":1}\n{}", vec!["{\"a\":\"x{\"b\":1}\n"]),
            ("{}\n{\"a\":[", vec!["{\"a\":["]),
            ("\0\0\0\0{}", vec!["\0\0\0\0"]),
            ("{}\nthe end", vec!["the end"]),
            (&large, vec![&large]),
            (&numbers[..160], vec![&numbers[..160]]),
        ] {
            for size in [1, 7, stream.len()] {
                assert_eq!(pieces(stream, size).1, junk, "{stream:?} by {size}");
            }
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
