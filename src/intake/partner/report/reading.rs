//! Reading of a report: its rows, and the keys in what is no row.

use std::collections::HashSet;

use crate::fetch::unescape;
use crate::intake::rows::Row;
use crate::intake::token::{Within, within};
use crate::keyformat::{KeyValue, Sha256Digest};
use crate::respond::URL_MAX;
use crate::scan::{Candidate, Engine, Scanner};

/// Maximum distance at which the link of a key in a text is looked for, in bytes to either side.
const LINK_WITHIN: usize = 2 * URL_MAX;

/// Contents of a report.
#[derive(Default)]
pub(super) struct Contents {
    /// Rows, in their order.
    pub(super) rows: Vec<Row>,
    /// Keys that the tokens of rows are, but for what surrounds them, by the index of the row.
    pub(super) whole: Vec<(usize, KeyValue)>,
    /// Different keys that stand in what is no row, or beside something else in a token, as rows.
    pub(super) found: Vec<Row>,
    /// Size of what was no row, in bytes.
    pub(super) unread_bytes: usize,
    /// Number of keys that were too many to be looked up.
    pub(super) left_out: usize,
}

/// Report that is being read.
pub(super) struct Reading<'e> {
    engine: &'e Engine,
    contents: Contents,
    most: usize,
    seen: HashSet<Sha256Digest>,
}

impl<'e> Reading<'e> {
    /// Begins to read a report of so many rows. Of malformed ones a key each is kept, and `most` others.
    pub(super) fn new(engine: &'e Engine, rows: usize, most: usize) -> Self {
        Self {
            engine,
            contents: Contents {
                rows: Vec::with_capacity(rows),
                ..Contents::default()
            },
            most,
            seen: HashSet::new(),
        }
    }

    /// Returns what was read.
    pub(super) fn finish(self) -> Contents {
        self.contents
    }

    /// Adds a row, of which this is the JSON.
    pub(super) fn row(&mut self, row: Row, json: &str) {
        match &row.token {
            None => {
                self.most += 1;
                self.text(json, row.url.as_deref());
            }
            Some(token) => {
                let Within { whole, parts } = within(self.engine, token.expose(), self.most);
                let at = self.contents.rows.len();
                self.contents.whole.extend(whole.map(|key| (at, key)));
                for key in parts {
                    self.add(key, || row.url.clone());
                }
            }
        }
        self.contents.rows.push(row);
    }

    /// Adds what is no row.
    pub(super) fn unreadable(&mut self, text: &str) {
        self.contents.unread_bytes += text.len();
        self.text(text, None);
    }

    /// Adds the keys in a text, each with the link that goes with it: `url`, or the one that stands beside it.
    fn text(&mut self, text: &str, url: Option<&str>) {
        let mut text = text.as_bytes().to_vec();
        unescape(&mut text);
        let mut scanner = Scanner::new(self.engine);
        scanner.scan_text(&text, &mut |candidate| {
            let Candidate { value, offset, .. } = candidate;
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            self.add(value, || match url {
                Some(url) => Some(url.to_owned()),
                None => link_beside(&text, offset),
            });
        });
    }

    /// Adds a key, unless it was found before.
    fn add(&mut self, key: KeyValue, url: impl FnOnce() -> Option<String>) {
        let contents = &mut self.contents;
        if contents.found.len() >= self.most {
            contents.left_out += 1;
        } else if self.seen.insert(key.sha256()) {
            contents.found.push(Row {
                url: url(),
                token: Some(key),
                ..Row::default()
            });
        }
    }
}

/// Returns the `url` or `location` that stands in the same object as the key at `at`, as far as that can be told of a
/// text which is no JSON.
fn link_beside(text: &[u8], at: usize) -> Option<String> {
    let before = text.get(at.saturating_sub(LINK_WITHIN)..at)?;
    let behind = text.get(at..text.len().min(at.saturating_add(LINK_WITHIN)))?;
    let start = before
        .iter()
        .rposition(|byte| *byte == b'{')
        .map_or(0, |at| at + 1);
    let end = behind
        .iter()
        .position(|byte| *byte == b'{')
        .unwrap_or(behind.len());
    let object = String::from_utf8_lossy(&text[at - (before.len() - start)..at + end]).into_owned();
    ["\"url\"", "\"location\""].iter().find_map(|name| {
        let (_, value) = object.split_once(name)?;
        let value = value.trim_start().strip_prefix(':')?;
        let value = value.trim_start().strip_prefix('"')?;
        let (link, _) = value.split_once('"')?;
        (!link.is_empty() && link.len() <= URL_MAX).then(|| link.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_of_a_key_stands_in_the_same_object() {
        let link = |text: &str| link_beside(text.as_bytes(), text.find('K').unwrap());
        for text in [
            r#"{"token":"K","url":"https://a""#,
            r#"{"url" : "https://a","token":"K"#,
            r#"{"url":"https://b"},{"location":"https://a","x":K"#,
            r#"{"token":"K","url":"https://a"},{"url":"https://b"}"#,
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
        let far = format!("\"url\":\"https://a\"{}K", " ".repeat(LINK_WITHIN));
        assert_eq!(link(&far), None);
    }
}
