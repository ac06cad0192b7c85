//! Reading of a report: its rows, and the keys in what is no row.

use std::sync::Arc;

use crate::fetch::unescape;
use crate::intake::rows::Row;
use crate::intake::token::within;
use crate::keyformat::{KeyValue, Sha256Digest};
use crate::respond::{PlacesPerValue, URL_MAX};
use crate::scan::{Candidate, Engine, Scanner};

/// Maximum distance at which the link of a key in a text is looked for, in bytes to either side.
const LINK_WITHIN: usize = 2 * URL_MAX;

/// Number of keys, and of bytes of their texts and links, with which a piece is passed on.
const KEYS_AT_ONCE: usize = 256;
pub(super) const BYTES_AT_ONCE: usize = 64 << 10;

/// Maximum number of keys that are held: those of the pieces that are being gathered, that wait, and that are being
/// looked up.
pub(super) const MAX_HELD: usize = 3 * KEYS_AT_ONCE;

/// Number of different keys after which those that were passed on are forgotten: as many as fit into a table of 40 kB.
const MAX_SEEN: usize = 896;

/// Key that was found.
pub(super) struct Found {
    pub(super) value: KeyValue,
    pub(super) standing: Standing,
}

/// Position of a key in a report.
pub(super) enum Standing {
    /// It is the token of a row, but for what surrounds it there.
    Token {
        row: usize,
        /// Digest of the token as it was sent.
        sent: Sha256Digest,
    },
    /// It stands in what is no row, or beside something else in a token, with this link.
    Beside(Option<Arc<str>>),
}

/// Contents of a report.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Rows, in their order.
    pub(super) rows: Vec<Row>,
    /// Number of keys that stood in what is no row, or beside something else in a token. One that is named far apart may
    /// be counted again.
    pub(super) found: usize,
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
    seen: PlacesPerValue,
    piece: Vec<Found>,
    /// Size of the texts of the piece, in bytes.
    bytes: usize,
    /// Link of the last key of the piece that has one. Very many keys may have the same long one.
    link: Option<Arc<str>>,
    pass_on: &'e mut dyn FnMut(Vec<Found>),
}

impl<'e> Reading<'e> {
    /// Begins to read a report of so many rows. `pass_on` is given the keys that are not simply tokens of rows, in pieces:
    /// up to `most`, and those that rows are but for what surrounds them.
    pub(super) fn new(
        engine: &'e Engine,
        rows: usize,
        most: usize,
        pass_on: &'e mut dyn FnMut(Vec<Found>),
    ) -> Self {
        Self {
            engine,
            contents: Contents {
                rows: Vec::with_capacity(rows),
                ..Contents::default()
            },
            most,
            seen: PlacesPerValue::new(1, MAX_SEEN),
            piece: Vec::new(),
            bytes: 0,
            link: None,
            pass_on,
        }
    }

    /// Passes the last keys on, and returns what was read.
    pub(super) fn finish(mut self) -> Contents {
        self.flush();
        self.contents
    }

    /// Adds a row, of which this is the JSON.
    pub(super) fn row(&mut self, row: Row, json: &str) {
        match &row.token {
            None => self.text(json, row.url.as_deref()),
            Some(token) => {
                let link = row.url.as_deref();
                let whole = within(self.engine, token.expose(), &mut |key| self.add(key, link));
                if let Some(key) = whole {
                    let standing = Standing::Token {
                        row: self.contents.rows.len(),
                        sent: token.sha256(),
                    };
                    self.push(key, standing);
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
            if url.is_some() {
                self.add(value, url);
            } else {
                let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                self.add(value, link_beside(&text, offset).as_deref());
            }
        });
    }

    /// Adds a key beside something else, unless it was found before.
    fn add(&mut self, key: KeyValue, link: Option<&str>) {
        if self.contents.found >= self.most {
            self.contents.left_out += 1;
        } else if self.seen.admits(key.sha256()) {
            self.contents.found += 1;
            let link = link.map(|link| self.shared(link));
            self.push(key, Standing::Beside(link));
        }
    }

    fn shared(&mut self, link: &str) -> Arc<str> {
        if let Some(last) = &self.link
            && **last == *link
        {
            return Arc::clone(last);
        }
        let link: Arc<str> = link.into();
        self.bytes += link.len();
        self.link = Some(Arc::clone(&link));
        link
    }

    fn push(&mut self, value: KeyValue, standing: Standing) {
        self.bytes += value.expose().len();
        self.piece.push(Found { value, standing });
        if self.piece.len() >= KEYS_AT_ONCE || self.bytes >= BYTES_AT_ONCE {
            self.flush();
        }
    }

    fn flush(&mut self) {
        (self.bytes, self.link) = (0, None);
        let piece = std::mem::take(&mut self.piece);
        if !piece.is_empty() {
            (self.pass_on)(piece);
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
    use std::collections::HashSet;

    use super::*;
    use crate::keyformat::FormatSet;
    use crate::scan::Encodings;

    /// Else a report of 4 MiB takes 200 MiB for copies of a link.
    #[test]
    fn what_is_held_at_a_time_is_bounded_and_links_are_shared() {
        let formats = FormatSet::builtin();
        let engine = Engine::new(&formats, Encodings::ALL);
        let format = formats.get("rescind_secret").unwrap();
        let keys: Vec<String> = (0..3_000)
            .map(|_| format.mint().unwrap().expose().to_owned())
            .collect();
        let url = "https://e.example/".to_owned() + &"a".repeat(URL_MAX - 18);
        let texts = keys.join(" ");
        let row = |token: Option<&str>| Row {
            token: token.map(KeyValue::new),
            url: Some(url.clone()),
            ..Row::default()
        };
        let objects: Vec<String> = keys
            .chunks(40)
            .map(|keys| format!(r#"{{"url":"{url}","x":"{}""#, keys.join(" ")))
            .collect();
        let objects = objects.join(",");
        let fill: [&dyn Fn(&mut Reading<'_>); 3] = [
            &|reading| reading.row(row(None), &texts),
            &|reading| reading.row(row(Some(&texts)), ""),
            &|reading| reading.unreadable(&objects),
        ];
        for fill in fill {
            let mut found = HashSet::new();
            let mut check = |piece: Vec<Found>| {
                assert!(piece.len() <= KEYS_AT_ONCE);
                let mut links = HashSet::new();
                let mut bytes = 0;
                for Found { value, standing } in &piece {
                    bytes += value.expose().len();
                    found.insert(value.expose().to_owned());
                    let Standing::Beside(Some(link)) = standing else {
                        panic!("each has a link");
                    };
                    if links.insert(Arc::as_ptr(link)) {
                        bytes += link.len();
                    }
                }
                assert!(bytes <= BYTES_AT_ONCE + URL_MAX + 64, "{bytes}");
            };
            let mut reading = Reading::new(&engine, 1, keys.len(), &mut check);
            fill(&mut reading);
            let contents = reading.finish();
            assert_eq!((contents.found, contents.left_out), (keys.len(), 0));
            assert_eq!(found, keys.iter().cloned().collect());
        }
    }

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
