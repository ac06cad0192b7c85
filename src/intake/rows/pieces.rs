//! Rows of a body that is no array of rows, cut out one by one; and all that is left of it.

use memchr::{memchr, memchr_iter};
use serde_json::value::RawValue;

use super::Row;

/// Piece of a body, in its order.
pub(in crate::intake) enum Piece<'b> {
    /// An object that is a row, as it stands there.
    Row(Row, &'b str),
    /// Anything else, but for what only separates rows.
    Text(&'b str),
}

/// Pieces of a body.
///
/// Whatever is wrong with a body, such as a comma too many, two arrays in a row, or its end missing, the objects in it
/// that are whole are rows: an object of which nothing is known but that it holds others, too, since somebody may have
/// put the rows into one. Reading goes on where an object turned out to be none, so that each byte is read a bounded
/// number of times.
pub(in crate::intake) struct Pieces<'b> {
    body: &'b str,
    /// Start of what was not returned yet.
    start: usize,
    /// End of the object that holds others in which reading goes on.
    inside: usize,
    /// Row that was found behind a text that was returned.
    next: Option<(Row, &'b str)>,
}

impl<'b> Pieces<'b> {
    /// Creates the pieces of a body in which odd characters were mended.
    pub(in crate::intake) fn of(body: &'b str) -> Self {
        Self {
            body,
            start: 0,
            inside: 0,
            next: None,
        }
    }

    /// Returns the next row, with its place.
    fn next_row(&mut self) -> Option<(Row, usize, &'b str)> {
        let mut from = self.start;
        loop {
            let open = from + memchr(b'{', self.body.get(from..)?.as_bytes())?;
            let rest = &self.body[open..];
            let mut values = serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>();
            match values.next()? {
                Ok(object) => {
                    let row = Row::read(object.get());
                    if row.is_told() {
                        return Some((row, open, object.get()));
                    }
                    let end = open + object.get().len();
                    if open >= self.inside {
                        self.inside = end;
                        from = open + 1;
                    } else {
                        from = end;
                    }
                }
                Err(error) => from = open + where_it_ends(rest, &error),
            }
        }
    }
}

impl<'b> Iterator for Pieces<'b> {
    type Item = Piece<'b>;

    fn next(&mut self) -> Option<Piece<'b>> {
        loop {
            if let Some((row, object)) = self.next.take() {
                return Some(Piece::Row(row, object));
            }
            if self.start >= self.body.len() {
                return None;
            }
            let found = self.next_row();
            let end = found.as_ref().map_or(self.body.len(), |(_, open, _)| *open);
            let text = &self.body[self.start..end];
            self.start = found
                .as_ref()
                .map_or(end, |(_, open, object)| open + object.len());
            self.next = found.map(|(row, _, object)| (row, object));
            let separates = |byte: u8| byte.is_ascii_whitespace() || b"[],;".contains(&byte);
            if !text.bytes().all(separates) {
                return Some(Piece::Text(text));
            }
        }
    }
}

/// Returns the offset at which the parser met what it could not read, at least 1.
fn where_it_ends(json: &str, error: &serde_json::Error) -> usize {
    let lines = memchr_iter(b'\n', json.as_bytes());
    let line = match error.line() {
        0 | 1 => 0,
        line => lines.take(line - 1).last().map_or(0, |at| at + 1),
    };
    let at = (line + error.column()).saturating_sub(1);
    json.floor_char_boundary(at.clamp(1, json.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::as_text;
    use crate::fuzzing::fuzz;

    /// Returns the tokens of the rows, `-` for a row without one, and the texts between in parentheses.
    fn told(body: &str) -> Vec<String> {
        let pieces = Pieces::of(body).map(|piece| match piece {
            Piece::Row(row, _) => row
                .token
                .map_or("-".to_owned(), |token| token.expose().to_owned()),
            Piece::Text(text) => format!("({text})"),
        });
        pieces.collect()
    }

    #[test]
    fn what_is_whole_is_a_row_whatever_surrounds_it() {
        let (a, b) = (r#"{"token":"a"}"#, r#"{"type":"t","token":"b","x":[{}]}"#);
        for body in [
            format!("[{a},{b},]"),
            format!("[{a}][{b}]"),
            format!("{a}\n{b}\n"),
            format!("[{a} {b}"),
            format!(";{a},,{b}]]"),
        ] {
            assert_eq!(told(&body), ["a", "b"], "{body}");
        }
        assert_eq!(told(a), ["a"]);
        for (body, expected) in [
            (
                format!("[{a},{{\"token\":\"c"),
                vec!["a", "(,{\"token\":\"c)"],
            ),
            (
                format!("[{{\"token\":\"c,\"x\":1}},\n{a}]"),
                vec!["([{\"token\":\"c,\"x\":1},\n)", "a"],
            ),
            (format!("{{{{{a}}}"), vec!["({{)", "a", "(})"]),
            (
                format!("{{\"rows\":[{a},{b}]}}"),
                vec!["({\"rows\":[)", "a", "b", "(]})"],
            ),
            (
                format!("{{\"x\":{{\"y\":{a}}}}}"),
                vec!["({\"x\":{\"y\":{\"token\":\"a\"}}})"],
            ),
            (format!("[{{\"type\":\"t\"}},{a},]"), vec!["-", "a"]),
            ("{}".to_owned(), vec!["({})"]),
            ("null".to_owned(), vec!["(null)"]),
            (String::new(), vec![]),
            (" [ ,".to_owned(), vec![]),
        ] {
            assert_eq!(told(&body), expected, "{body}");
        }
    }

    /// Quadratic work would take hours.
    #[test]
    fn each_byte_is_read_a_bounded_number_of_times() {
        for unit in [
            "{",
            "{\"a\":",
            "{\"a\":[{},",
            "{\"a\":\"{\n",
            "{\"",
            "{}",
            "{\"a\":{}}",
        ] {
            let body = unit.repeat((4 << 20) / unit.len());
            assert!(told(&body).len() <= 1);
        }
        let depth = 1 << 19;
        let body = "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
        assert_eq!(told(&body).len(), 1);
    }

    #[test]
    fn fuzz_pieces() {
        let words: &[&[u8]] = &[
            b"{\"token\":\"x\"}",
            b"\"url\":",
            b"[",
            b"{",
            b"}",
            b",",
            b"\n",
        ];
        fuzz("partner_rows", words, |body| {
            let mut body = body.to_vec();
            let body = as_text(&mut body);
            let pieces = Pieces::of(body).map(|piece| match piece {
                Piece::Row(_, text) | Piece::Text(text) => text.len(),
            });
            assert!(pieces.sum::<usize>() <= body.len());
        });
    }
}
