//! Body of a partner report: a JSON array of independent rows.
//!
//! Source of the shape: GitHub, "Secret scanning partner program": rows of `token`, `type`, `url` and
//! `source`, answered by rows of `token_raw` or `token_hash`, `token_type` and `label`.

mod fields;
mod measure;
mod pieces;
mod text;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::place::MAX_SOURCE;
use crate::keyformat::{KeyValue, Sha256Digest};
use crate::respond::URL_MAX;
use fields::Fields;
pub use measure::count_rows;
pub(super) use measure::{Measured, loose_in, measure};
pub(super) use pieces::{Piece, Pieces};
use text::Beginning;

/// Maximum number of rows in one report. GitHub's batches are far smaller; the bound keeps a body of 25
/// MiB from causing an answer of gigabytes.
pub const MAX_ROWS: usize = 100_000;

/// Type in the answer to a row that does not name one.
pub const UNKNOWN_TYPE: &str = "unknown";

/// Maximum length of a row's type that is sent back, in bytes.
const MAX_TYPE: usize = 256;

/// Maximum length of a token that is looked up, in bytes. The keys of a format have 1 KiB at most, and where the API takes
/// a key it takes no larger body.
const MAX_TOKEN: usize = 64 << 10;

/// Error returned for a body that is not a report at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The body is not JSON, or not an array.
    #[error("the body is not a JSON array")]
    NotAnArray,
    /// The array has more than [`MAX_ROWS`] rows.
    #[error("the report has more than {MAX_ROWS} rows; send them in several reports")]
    TooManyRows,
}

/// One row of a report, with the fields that could be read.
#[derive(Debug, Default, utoipa::ToSchema)]
#[schema(as = ReportRow)]
pub struct Row {
    /// The leaked token. Absent if the row is malformed: not an object, no `token`, not a string, or longer than 64 KiB.
    #[schema(value_type = String, example = "the whole key")]
    pub token: Option<KeyValue>,
    /// The `type` as sent, or `unknown`. It has no effect on the response.
    #[schema(rename = "type", value_type = String, required = false, example = "acme_api_key")]
    pub token_type: Cow<'static, str>,
    /// The `url` (`location` in GitLab's token revocation API) at which the token was found, if it is a usable string
    /// of at most 2048 bytes.
    #[schema(example = "https://example.com/a")]
    pub url: Option<String>,
    /// The beginning of the `source`, if it is a usable string.
    #[schema(example = "content")]
    pub source: Option<String>,
    /// Digest of a token that is too long for a key.
    #[schema(ignore)]
    pub(super) long: Option<Box<Sha256Digest>>,
    /// `true` if the name `token` stands in the row several times.
    #[schema(ignore)]
    pub(super) has_more_tokens: bool,
}

impl Row {
    /// Returns the SHA-256 digest of the token as sent, however long it is, or of the empty string if there is no usable
    /// token.
    pub fn token_hash(&self) -> Sha256Digest {
        let (token, long) = (self.token.as_ref(), self.long.as_deref());
        let long = || long.copied().unwrap_or_else(|| Sha256Digest::of(b""));
        token.map_or_else(long, KeyValue::sha256)
    }

    /// Returns whether the row says anything of what rows say.
    fn is_told(&self) -> bool {
        let has_token = self.token.is_some() || self.long.is_some();
        has_token || self.url.is_some() || self.token_type != UNKNOWN_TYPE
    }

    /// Reads one element of the array. This cannot fail: an unreadable element is a malformed row, and an
    /// unreadable field does not affect the others.
    fn read(json: &str) -> Self {
        let fields = Fields::of(json);
        let (token, long) = fields.token.map(token).unwrap_or_default();
        let url = fields.url.and_then(url);
        // GitLab's token revocation API calls it `location`.
        let url = url.or_else(|| fields.location.and_then(self::url));
        Self {
            token,
            long,
            has_more_tokens: fields.has_more_tokens,
            token_type: fields
                .kind
                .and_then(|kind| Beginning::of(kind, MAX_TYPE)?.valid())
                .map_or(Cow::Borrowed(UNKNOWN_TYPE), Cow::Owned),
            url,
            source: fields
                .source
                .and_then(|source| Beginning::of(source, MAX_SOURCE)?.valid()),
        }
    }
}

/// Returns a token, or only the digest of one that is longer than [`MAX_TOKEN`]. One with halves of surrogate pairs, which
/// no text in UTF-8 can have, has U+FFFD in their place, as most parsers put it there, unless it has nothing else.
fn token(json: &RawValue) -> (Option<KeyValue>, Option<Box<Sha256Digest>>) {
    let Some(read) = Beginning::of(json, MAX_TOKEN) else {
        return (None, None);
    };
    if !read.is_whole {
        return (None, text::digest(json).map(Box::new));
    }
    let is_other = |c| c != char::REPLACEMENT_CHARACTER;
    let is_usable = !read.has_halves || read.text.contains(is_other);
    (is_usable.then(|| KeyValue::new(read.text)), None)
}

/// Returns a link, unless it is longer than any that is kept.
fn url(json: &RawValue) -> Option<String> {
    let url = Beginning::of(json, URL_MAX)?;
    url.is_whole.then(|| url.valid())?
}

/// Passes each token of a row on, however often it has the name.
pub(super) fn each_token(json: &str, each: &mut dyn FnMut(KeyValue)) {
    Fields::each_token(json, &mut |json| {
        if let (Some(token), _) = token(json) {
            each(token);
        }
    });
}

/// Parses a whole report. Rows are first cut out of the array and then parsed independently, so that
/// nothing in one row can affect another.
///
/// # Errors
/// Returns a [`ReportError`] if the body is not an array or has too many rows.
pub fn parse_report(body: &[u8]) -> Result<Vec<Row>, ReportError> {
    let mut rows = Vec::new();
    read_array(body, &mut |row, _| rows.push(row))?;
    Ok(rows)
}

/// Passes the rows of a report to `each`, with their JSON.
///
/// # Errors
/// Returns a [`ReportError`] if the body is not an array or has too many rows, of which some may have been passed.
pub(super) fn read_array(body: &[u8], each: &mut dyn FnMut(Row, &str)) -> Result<(), ReportError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let is_whole = deserializer
        .deserialize_seq(Rows(each))
        .and_then(|is_whole| deserializer.end().map(|()| is_whole))
        .map_err(|_| ReportError::NotAnArray)?;
    if is_whole {
        Ok(())
    } else {
        Err(ReportError::TooManyRows)
    }
}

/// Visitor that passes the rows on. Its value is `false` if there are too many.
struct Rows<'e>(&'e mut dyn FnMut(Row, &str));

impl<'de> Visitor<'de> for Rows<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut rows = 0;
        while let Some(raw) = array.next_element::<&RawValue>()? {
            if rows == MAX_ROWS {
                // The rest is still read, to tell a long report from a broken one.
                while array.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(false);
            }
            rows += 1;
            (self.0)(Row::read(raw.get()), raw.get());
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::as_text;
    use crate::fuzzing::fuzz;

    fn tokens(body: &[u8]) -> Vec<Option<String>> {
        let mut body = body.to_vec();
        parse_report(as_text(&mut body).as_bytes())
            .unwrap()
            .into_iter()
            .map(|row| row.token.map(|token| token.expose().to_owned()))
            .collect()
    }

    #[test]
    fn a_bad_row_spoils_no_other() {
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        let bad = [
            "null",
            "7",
            "1e999",
            "\"token\"",
            "[]",
            "{}",
            r#"{"token":null}"#,
            r#"{"token":5}"#,
            r#"{"token":""}"#,
            r#"{"token":{"token":"x"}}"#,
            r#"{"token":"\ud800"}"#,
            &deep,
        ];
        for bad in bad {
            let body = format!(r#"[{{"token":"one"}},{bad},{{"token":"two"}}]"#);
            let expected = [Some("one".to_owned()), None, Some("two".to_owned())];
            assert_eq!(tokens(body.as_bytes()), expected, "{bad:.60}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_stay_in_their_row() {
        let body = b"[{\"token\":\"one\"},{\"token\":\"\xff\xfe\"},{\"token\":\"two\"}]";
        let rows = tokens(body);
        assert_eq!(
            (rows[0].as_deref(), rows[2].as_deref()),
            (Some("one"), Some("two"))
        );
    }

    #[test]
    fn what_is_not_an_array_is_no_report() {
        let cases: [&[u8]; 9] = [
            b"",
            b"{}",
            b"null",
            b"[",
            b"[{\"token\":\"x\"}",
            b"[{\"token\":\"x\"}] trailing",
            b"[{\"token\":\"x}]",
            b"\xff\xfe[\x00]\x00",
            b"[1,]",
        ];
        for body in cases {
            assert_eq!(
                parse_report(body).unwrap_err(),
                ReportError::NotAnArray,
                "{body:?}"
            );
        }
        assert!(parse_report(b" [ ] ").unwrap().is_empty());
    }

    #[test]
    fn the_type_is_kept_when_something_else_cannot_be_read() {
        for (row, expected) in [
            (r#"{"token":"\ud800","type":"named"}"#, "named"),
            (r#"{"token":"\ud800","type":"\ud800"}"#, UNKNOWN_TYPE),
            (r#"{"token":"\ud800","type":7}"#, UNKNOWN_TYPE),
            (r#"{"token":"\ud800"}"#, UNKNOWN_TYPE),
        ] {
            let rows = parse_report(format!("[{row}]").as_bytes()).unwrap();
            assert_eq!(rows[0].token_type, expected, "{row}");
            assert!(rows[0].token.is_none(), "{row}");
        }
    }

    #[test]
    fn the_number_of_rows_is_bounded() {
        let body = |rows: usize| format!("[{}]", vec!["0"; rows].join(","));
        assert_eq!(
            parse_report(body(MAX_ROWS).as_bytes()).unwrap().len(),
            MAX_ROWS
        );
        let long = body(MAX_ROWS + 2);
        assert_eq!(
            parse_report(long.as_bytes()).unwrap_err(),
            ReportError::TooManyRows
        );
        let broken = &long.as_bytes()[..long.len() - 1];
        assert_eq!(parse_report(broken).unwrap_err(), ReportError::NotAnArray);
    }

    #[test]
    fn half_a_surrogate_pair_costs_no_token() {
        for (token, expected) in [
            (r"K\ud83d", Some("K\u{fffd}")),
            (r"\udc00K\n", Some("\u{fffd}K\n")),
            (r"\ud83d\udd11", Some("\u{1f511}")),
            (r"\ud83d\ud83d", None),
        ] {
            let body = format!(r#"[{{"token":"{token}"}}]"#);
            assert_eq!(
                tokens(body.as_bytes()),
                [expected.map(str::to_owned)],
                "{token}"
            );
        }
    }

    #[test]
    fn odd_fields_do_not_cost_the_token() {
        let rows =
            parse_report(br#"[{"token":"x","type":7,"url":null,"source":"Commit","extra":[1]}]"#)
                .unwrap();
        let row = &rows[0];
        assert_eq!(row.token.as_ref().unwrap().expose(), "x");
        assert_eq!((&*row.token_type, row.url.as_deref()), (UNKNOWN_TYPE, None));
        assert_eq!(row.source.as_deref(), Some("Commit"));
    }

    #[test]
    fn fields_that_decide_nothing_cost_no_token() {
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        for odd in [
            r#""url":"\ud800""#,
            r#""url":"\u0000""#,
            r#""url":1e999"#,
            r#""source":"\ud800","type":"\ud800""#,
            r#""\ud800":"\ud800""#,
            r#""token":"y","url":{"token":"z"}"#,
            r#""token":null"#,
            &format!(r#""url":{deep}"#),
            &format!(r#""note":{deep}"#),
        ] {
            let body = format!(r#"[{{{odd},"token":"x"}}]"#);
            assert_eq!(tokens(body.as_bytes()), [Some("x".to_owned())], "{odd:.60}");
        }
        for odd in ["null", "\"\"", "7", "{\"token\":\"y\"}"] {
            let body = format!(r#"[{{"token":"x","token":{odd}}}]"#);
            assert_eq!(tokens(body.as_bytes()), [Some("x".to_owned())], "{odd}");
        }
        let marked = b"\xef\xbb\xbf[{\"token\":\"x\",\"url\":\"\xff\xfe\0\n\\q\"}]";
        assert_eq!(tokens(marked), [Some("x".to_owned())]);
    }

    #[test]
    fn a_row_keeps_no_more_than_is_used_of_it() {
        let long = "ä".repeat(1 << 20);
        let body = format!(r#"[{{"token":"x","type":"{long}","url":"{long}","source":"{long}"}}]"#);
        let rows = parse_report(body.as_bytes()).unwrap();
        let row = &rows[0];
        assert_eq!((row.token_type.len(), &row.url), (MAX_TYPE, &None));
        assert_eq!(row.source.as_ref().unwrap().capacity(), MAX_SOURCE);
    }

    /// Else a token of 25 MiB takes three times as much beside its body.
    #[test]
    fn no_more_of_a_field_is_unescaped_than_is_used() {
        let mut long = r"\u0061".repeat(MAX_TOKEN - 1) + r"\ud800";
        let read = |long: &str| {
            let row =
                format!(r#"{{"token":"{long}","type":"{long}","url":"{long}","source":"{long}"}}"#);
            Row::read(&row)
        };
        let said = |end: &str| Sha256Digest::of(("a".repeat(MAX_TOKEN - 1) + end).as_bytes());
        // What is too long for a key has its digest and nothing else.
        let row = read(&long);
        assert!(row.token.is_none());
        assert_eq!(row.token_hash(), said("\u{fffd}"));
        // Halves of surrogate pairs behind what is used are not read.
        let source = row.source.unwrap();
        assert_eq!(
            (row.token_type.len(), source.capacity()),
            (MAX_TYPE, MAX_SOURCE)
        );
        assert_eq!(row.url, None);
        long.truncate(6 * (MAX_TOKEN - 1));
        long.push('b');
        assert_eq!(read(&long).token.unwrap().sha256(), said("b"));
        let long = r"\n".repeat(MAX_TOKEN + 1);
        assert!(read(&long).token.is_none());
    }

    #[test]
    fn rows_are_counted_as_they_are_read() {
        for body in ["[]", " [ 1 ] ", r#"[{},[[]],"]",null]"#] {
            let rows = parse_report(body.as_bytes()).unwrap().len();
            assert_eq!(count_rows(body.as_bytes()), Ok(rows), "{body}");
        }
        for body in ["", "{}", "[", "[1,]", "[] x"] {
            assert_eq!(count_rows(body.as_bytes()), Err(ReportError::NotAnArray));
        }
        let many = format!("[{}]", vec!["0"; MAX_ROWS + 1].join(","));
        assert_eq!(count_rows(many.as_bytes()), Err(ReportError::TooManyRows));
    }

    #[test]
    fn no_token_hashes_as_the_empty_string() {
        let rows = parse_report(br#"[{"type":"T"},{"token":"some_token"}]"#).unwrap();
        assert_eq!(
            rows[0].token_hash().to_hex(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(rows[0].token_type, "T");
        assert_eq!(rows[1].token_hash(), Sha256Digest::of(b"some_token"));
    }

    #[test]
    fn types_are_cut_between_characters() {
        let body = format!(r#"[{{"type":"{}"}}]"#, "ä".repeat(200));
        let rows = parse_report(body.as_bytes()).unwrap();
        assert_eq!(rows[0].token_type, "ä".repeat(128));
    }

    #[test]
    fn fuzz_partner_rows() {
        let words: &[&[u8]] = &[b"{\"token\":\"x\"}", b"\"url\":", b"[[", b"]]"];
        fuzz("partner_rows", words, |body| {
            let counted = count_rows(body);
            if let Ok(rows) = parse_report(body) {
                assert_eq!(counted.unwrap(), rows.len());
            }
        });
    }
}
