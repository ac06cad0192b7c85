//! The body of a partner report: a JSON array in which every row stands for itself.
//!
//! Source of the shape: GitHub, "Secret scanning partner program": rows of `token`, `type`, `url` and
//! `source`, answered by rows of `token_raw` or `token_hash`, `token_type` and `label`.

use std::fmt;

use serde::de::{Deserializer as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::keyformat::{KeyValue, Sha256Digest};

/// The most rows read from one report. GitHub's batches are far smaller; the bound keeps a body of
/// 25 MiB from becoming an answer of gigabytes.
pub const MAX_ROWS: usize = 100_000;

/// The type answered for a row that names none.
pub const UNKNOWN_TYPE: &str = "unknown";

/// How much of the type a row names is sent back, in bytes.
const MAX_TYPE: usize = 256;

/// Why a body is not a report at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Not JSON, or not an array.
    #[error("the body is not a JSON array")]
    NotAnArray,
    /// More rows than [`MAX_ROWS`].
    #[error("the report has more than {MAX_ROWS} rows; send them in several reports")]
    TooManyRows,
}

/// One row of a report, read as far as it makes sense.
#[derive(Debug)]
pub struct Row {
    /// What leaked. `None` when the row is malformed: no object, no `token`, or not a string.
    pub token: Option<KeyValue>,
    /// The `type` as sent, or [`UNKNOWN_TYPE`]. It never decides anything.
    pub token_type: String,
    /// The `url` where it was found, if it is a usable string.
    pub url: Option<String>,
    /// The `source`, if it is a usable string.
    pub source: Option<String>,
}

impl Row {
    /// SHA-256 of the token as sent; of the empty string when there is no usable token.
    pub fn token_hash(&self) -> Sha256Digest {
        self.token
            .as_ref()
            .map_or_else(|| Sha256Digest::of(b""), KeyValue::sha256)
    }

    fn malformed() -> Self {
        Self {
            token: None,
            token_type: UNKNOWN_TYPE.to_owned(),
            url: None,
            source: None,
        }
    }

    /// Reads one element of the array. It cannot fail: what cannot be read is a malformed row.
    fn read(json: &str) -> Self {
        // Not an object, nesting deeper than serde_json follows, a lone surrogate, a number out of range.
        let Ok(mut fields) = serde_json::from_str::<Map<String, Value>>(json) else {
            return Self {
                token_type: type_alone(json).unwrap_or_else(|| UNKNOWN_TYPE.to_owned()),
                ..Self::malformed()
            };
        };
        let mut text = |name: &str| match fields.get_mut(name).map(Value::take) {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        Self {
            token: text("token").map(KeyValue::new),
            token_type: text("type")
                .map_or_else(|| UNKNOWN_TYPE.to_owned(), |kind| bounded(kind, MAX_TYPE)),
            // The token revocation API of GitLab calls it `location`.
            url: text("url").or_else(|| text("location")),
            source: text("source"),
        }
    }
}

/// The `type` of a row whose other fields cannot be read, so that the answer names it all the same.
fn type_alone(json: &str) -> Option<String> {
    let fields: Fields<'_> = serde_json::from_str(json).ok()?;
    let kind: String = serde_json::from_str(fields.kind?.get()).ok()?;
    Some(bounded(kind, MAX_TYPE)).filter(|kind| !kind.is_empty())
}

/// The fields of a row, none of them read further than to its end.
#[derive(serde::Deserialize)]
struct Fields<'j> {
    #[serde(rename = "type", borrow)]
    kind: Option<&'j RawValue>,
}

/// Reads a whole report. Rows are cut out of the array first and parsed each on its own afterwards, so
/// that nothing inside one row can spoil another.
pub fn parse_report(body: &[u8]) -> Result<Vec<Row>, ReportError> {
    // Bytes that are not UTF-8 inside one row must not cost the other rows either.
    let text = String::from_utf8_lossy(body);
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let rows = deserializer
        .deserialize_seq(Rows)
        .and_then(|rows| deserializer.end().map(|()| rows))
        .map_err(|_| ReportError::NotAnArray)?;
    rows.ok_or(ReportError::TooManyRows)
}

/// Collects rows; `None` when there are too many.
struct Rows;

impl<'de> Visitor<'de> for Rows {
    type Value = Option<Vec<Row>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut rows = Vec::new();
        while let Some(raw) = array.next_element::<&RawValue>()? {
            if rows.len() == MAX_ROWS {
                // The rest is still read through, to tell a long report from a broken one.
                while array.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(None);
            }
            rows.push(Row::read(raw.get()));
        }
        Ok(Some(rows))
    }
}

/// At most `bytes` bytes of `text`, cut between characters.
fn bounded(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(body: &[u8]) -> Vec<Option<String>> {
        parse_report(body)
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
            &format!(r#"{{"token":"x","url":{deep}}}"#),
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
            (r#"{"type":"named","url":1e999,"token":"x"}"#, "named"),
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
    fn odd_fields_do_not_cost_the_token() {
        let rows =
            parse_report(br#"[{"token":"x","type":7,"url":null,"source":"Commit","extra":[1]}]"#)
                .unwrap();
        let row = &rows[0];
        assert_eq!(row.token.as_ref().unwrap().expose(), "x");
        assert_eq!(
            (row.token_type.as_str(), row.url.as_deref()),
            (UNKNOWN_TYPE, None)
        );
        assert_eq!(row.source.as_deref(), Some("Commit"));
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
}
