//! Parsing of a page of entries without trusting it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::source::PollError;

/// Maximum number of entries of a page; the API sends 100.
const MAX_ENTRIES: usize = 1000;

/// Size of a page, in bytes, above which pages are read one at a time, across all sources.
const LARGE: usize = 2 << 20;
/// Permit to read a page larger than [`LARGE`].
static LARGE_PAGES: Semaphore = Semaphore::const_new(1);

/// Waits until a page of `bytes` bytes may be read. The permit must be held until it has been.
pub(super) async fn turn(bytes: usize) -> Option<SemaphorePermit<'static>> {
    if bytes <= LARGE {
        return None;
    }
    // The semaphore is never closed.
    LARGE_PAGES.acquire().await.ok()
}

/// Returns the text of a page. Each byte that is not valid UTF-8 becomes a `?`, so that the text is no longer than the
/// page: such bytes would otherwise cost the whole page, while keys are ASCII.
pub(super) fn text(body: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(body) {
        return text.into();
    }
    let mut text = String::with_capacity(body.len());
    for chunk in body.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '?'));
    }
    text.into()
}

/// Splits a page into its entries, each still as JSON.
///
/// # Errors
/// Returns [`PollError::NotAList`] if the page is not a JSON array, or has more than [`MAX_ENTRIES`] entries.
pub(super) fn entries(text: &str) -> Result<Vec<&RawValue>, PollError> {
    let wrong = |error: &serde_json::Error| match error {
        error if error.to_string().contains(TOO_MANY) => PollError::NotAList(TOO_MANY),
        error if error.is_data() => PollError::NotAList("it is JSON, but no array"),
        _ => PollError::NotAList("it is no JSON, or cut off"),
    };
    let mut reader = serde_json::Deserializer::from_str(text);
    let entries = reader.deserialize_seq(Entries).map_err(|e| wrong(&e))?;
    reader.end().map_err(|e| wrong(&e))?;
    Ok(entries)
}

const TOO_MANY: &str = "it has more than 1,000 entries";

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

    #[test]
    fn bytes_that_are_no_text_make_a_page_no_longer() {
        for (page, expected) in [
            (b"[\"\xff\"]".as_slice(), "[\"?\"]"),
            (b"[\"a\xe2\x82b\"]", "[\"a??b\"]"),
            ("[\"ä\"]".as_bytes(), "[\"ä\"]"),
        ] {
            assert_eq!(text(page), expected);
            assert_eq!(text(page).len(), page.len());
            assert_eq!(entries(&text(page)).unwrap().len(), 1);
        }
    }
}
