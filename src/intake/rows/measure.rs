//! Size of a report, told before any of it is kept.

use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::Fields;
use super::{MAX_ROWS, ReportError};

/// Maximum length of a token of letters, digits, `_`, `-` and `.` that is taken for a key and nothing else where memory is
/// weighed, in bytes. What else may be in one takes no more than its row does.
const MAX_PLAIN: usize = 96;

/// Returns the number of rows in a report without keeping any of them, so that the memory they take is
/// known before they are read.
///
/// # Errors
/// Returns a [`ReportError`] if the body is not an array or has too many rows. A body that passes may
/// still turn out not to be a report when it is parsed.
pub fn count_rows(body: &[u8]) -> Result<usize, ReportError> {
    measure(body).map(|measured| measured.rows)
}

/// Size of a report.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::intake) struct Measured {
    pub(in crate::intake) rows: usize,
    /// Size of what may hold keys that are no tokens of rows, in bytes.
    pub(in crate::intake) loose: usize,
}

/// Returns the size of a report without keeping any of it.
///
/// # Errors
/// Returns the errors of [`count_rows`].
pub(in crate::intake) fn measure(body: &[u8]) -> Result<Measured, ReportError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let measured = deserializer
        .deserialize_seq(Measure)
        .and_then(|measured| deserializer.end().map(|()| measured))
        .map_err(|_| ReportError::NotAnArray)?;
    if measured.rows > MAX_ROWS {
        return Err(ReportError::TooManyRows);
    }
    Ok(measured)
}

/// Returns how much of a row may hold keys that are not its token, in bytes: of one with a plain token what no field of it
/// is, all of any other.
pub(in crate::intake) fn loose_in(json: &str) -> usize {
    let fields = Fields::of(json);
    let token = fields.token.map_or("", RawValue::get).as_bytes();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    match token {
        [b'"', token @ .., b'"']
            if (1..=MAX_PLAIN).contains(&token.len()) && token.iter().all(is_plain) =>
        {
            fields.others
        }
        _ => json.len(),
    }
}

struct Measure;

impl<'de> Visitor<'de> for Measure {
    type Value = Measured;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Measured, A::Error> {
        let mut measured = Measured::default();
        while let Some(row) = array.next_element::<&RawValue>()? {
            measured.rows += 1;
            if measured.rows <= MAX_ROWS {
                measured.loose += loose_in(row.get());
            }
        }
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_hold_other_keys_is_told_from_plain_tokens() {
        let long = "k".repeat(MAX_PLAIN + 1);
        for (row, expected) in [
            (r#"{"token":"rsc_sk_0-1.2","url":"https://a/b c"}"#, 0),
            (r#"{"token":"k","x":["k"],"type":"t","type":"tt"}"#, 9),
            (r#"{"token":"","token":"k","token":7}"#, 3),
            (r#"{"token":"A=k"}"#, 15),
            (r#"{"token":"\ud800"}"#, 18),
            (r#"{"token":"k","token":"\n"}"#, 26),
            (r#"{"token":""}"#, 12),
            (r#"{"token":["k"]}"#, 15),
            (r#"{"tokens":["k"]}"#, 16),
            (r#"["k"]"#, 5),
            (&format!(r#"{{"token":"{long}"}}"#), 109),
        ] {
            assert_eq!(loose_in(row), expected, "{row}");
            let body = format!(r#"[{row},{{"token":"k"}},{row}]"#);
            let measured = measure(body.as_bytes()).unwrap();
            assert_eq!((measured.rows, measured.loose), (3, 2 * expected), "{row}");
        }
    }
}
