//! Parsing of a page of entries without trusting it.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::source::PollError;

/// Maximum number of entries of a page; the API sends 100.
const MAX_ENTRIES: usize = 1000;

/// Splits a page into its entries, each still as JSON.
///
/// # Errors
/// Returns [`PollError::NotAList`] if the page is not a JSON array, and [`PollError::TooMuch`] if it has more than
/// [`MAX_ENTRIES`] entries.
pub(super) fn entries(text: &str) -> Result<Vec<&RawValue>, PollError> {
    let wrong = |error: &serde_json::Error| match error {
        error if error.to_string().contains(TOO_MANY) => PollError::TooMuch(TOO_MANY),
        error if error.is_data() => PollError::NotAList("it is JSON, but no array"),
        _ => PollError::NotAList("it is no JSON, or cut off"),
    };
    let mut reader = serde_json::Deserializer::from_str(text);
    let entries = reader.deserialize_seq(Entries).map_err(|e| wrong(&e))?;
    reader.end().map_err(|e| wrong(&e))?;
    Ok(entries)
}

/// Returns a page that is a single entry.
///
/// # Errors
/// Returns [`PollError::NotAList`] if the page is no JSON.
pub(super) fn entry(text: &str) -> Result<Vec<&RawValue>, PollError> {
    let entry = serde_json::from_str(text);
    let entry = entry.map_err(|_| PollError::NotAList("it is no JSON, or cut off"))?;
    Ok(vec![entry])
}

/// Returns the places of the entries of a page in its text.
pub(super) fn places(text: &str, entries: &[&RawValue]) -> VecDeque<Range<usize>> {
    let place = |entry: &&RawValue| {
        let entry = entry.get();
        let begin = entry.as_ptr().addr() - text.as_ptr().addr();
        begin..begin + entry.len()
    };
    entries.iter().map(place).collect()
}

const TOO_MANY: &str = "more than 1,000 entries";

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = items.next_element()? {
            if entries.len() == MAX_ENTRIES {
                return Err(A::Error::custom(TOO_MANY));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_arrays_of_anything_and_nothing_else() {
        assert_eq!(entries("[1, {\"a\": [null]}, \"x\"]").unwrap().len(), 3);
        assert_eq!(entries(" [] ").unwrap().len(), 0);
        let text = "[ 1, {\"a\": [null]} ]";
        let places = places(text, &entries(text).unwrap());
        assert_eq!(places, [2..3, 5..18]);
        let many = format!("[{}0]", "0,".repeat(MAX_ENTRIES));
        for (text, word) in [
            ("", "no JSON"),
            ("<html>", "no JSON"),
            ("[1, ", "cut off"),
            ("[] []", "no JSON"),
            ("{\"message\": \"Not Found\"}", "no array"),
            ("null", "no array"),
            (&many, "1,000"),
        ] {
            let error = entries(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text:.20}: {error}");
        }
    }
}
