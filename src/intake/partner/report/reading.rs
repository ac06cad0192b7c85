//! Reading of a report: its rows, and the keys in what is no row.

use std::borrow::Cow;
use std::io::{self, Read};
use std::sync::Arc;

use memchr::memchr;

use super::links::Links;
use crate::fetch::unescape;
use crate::intake::rows::{Row, each_token};
use crate::intake::token::{Told, key_within, told};
use crate::keyformat::{KeyValue, Sha256Digest};
use crate::respond::PlacesPerValue;
use crate::scan::{Candidate, Encoding, Engine, Scanner};

/// Number of keys, and of bytes of their texts and links, with which a piece is passed on.
const KEYS_AT_ONCE: usize = 256;
pub(super) const BYTES_AT_ONCE: usize = 64 << 10;

/// Maximum number of keys that are held: those of the pieces that are being gathered, that wait, and that are being
/// looked up.
pub(super) const MAX_HELD: usize = 3 * KEYS_AT_ONCE;

/// Number of different keys after which those that were passed on are forgotten: as many as fit into a table of 40 kB.
const MAX_SEEN: usize = 896;

/// Maximum number of tokens that are looked up as they are of rows that have several. What is the key of a format is found
/// in the text of such a row, however many there are.
const MAX_OTHER_TOKENS: usize = 10_000;

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
    /// Number of keys, and of further tokens of rows, that were too many to be looked up.
    pub(super) left_out: usize,
}

/// Report that is being read.
pub(super) struct Reading<'e> {
    engine: &'e Engine,
    contents: Contents,
    most: usize,
    /// Number of further tokens of rows that were looked up.
    other_tokens: usize,
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
            other_tokens: 0,
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

    /// Adds a row, of which this is the JSON. Unless its only token is a key, it is read like one without any: what stands
    /// beside that must not be hidden by it.
    pub(super) fn row(&mut self, row: Row, json: &str) {
        let mut link = RowLink::of(&row);
        let is_key = row.token.as_ref().is_some_and(|token| self.token(token));
        if row.has_more_tokens {
            self.other_tokens(&row, json, &mut link);
        }
        if !is_key || row.has_more_tokens {
            self.text(json, link);
        }
        self.contents.rows.push(row);
    }

    /// Adds the key that the token of the next row is but for what surrounds it. Returns whether the token is the key of a
    /// format.
    fn token(&mut self, token: &KeyValue) -> bool {
        let (key, is_key) = match told(self.engine, token.expose()) {
            Told::Candidate => (None, true),
            Told::Surrounded(key) => (Some(key), true),
            Told::Other(key) => (key, false),
        };
        if let Some(key) = key {
            let standing = Standing::Token {
                row: self.contents.rows.len(),
                sent: token.sha256(),
            };
            self.push(key, standing);
        }
        is_key
    }

    /// Adds the tokens of a row that has several, but for the one that is answered.
    fn other_tokens(&mut self, row: &Row, json: &str, link: &mut RowLink<'_>) {
        let answered = row.token_hash();
        each_token(json, &mut |token| {
            if self.other_tokens >= MAX_OTHER_TOKENS {
                self.contents.left_out += 1;
                return;
            }
            if token.sha256() == answered {
                return;
            }
            // They are no keys for sure, and do not count as such: others must have room.
            if let Some(key) = key_within(self.engine, token.expose()) {
                self.add_new(key, || link.get());
            }
            self.other_tokens += usize::from(self.add_new(token, || link.get()));
        });
    }

    /// Adds what is no row.
    pub(super) fn unreadable(&mut self, text: &str) {
        self.contents.unread_bytes += text.len();
        self.text(text, RowLink::default());
        // A backslash need not be an escape in what is no JSON, as in `C:\rsc_sk_…`.
        if memchr(b'\\', text.as_bytes()).is_some() {
            self.scan(text.as_bytes(), RowLink::default());
        }
    }

    /// Adds the keys in a text, each with the link that goes with it: that of the row, or the one that stands beside it.
    fn text(&mut self, text: &str, of_row: RowLink<'_>) {
        let mut text = Cow::Borrowed(text.as_bytes());
        // What has no escapes, as most rows, is not copied.
        if memchr(b'\\', &text).is_some() {
            unescape(text.to_mut());
        }
        self.scan(&text, of_row);
    }

    fn scan(&mut self, text: &[u8], mut of_row: RowLink<'_>) {
        let mut links = None;
        let mut scanner = Scanner::new(self.engine);
        scanner.scan_text(text, &mut |candidate| {
            let offset = place(&candidate);
            self.add(candidate.value, || {
                let beside = || links.get_or_insert_with(|| Links::of(text)).beside(offset);
                of_row.get().or_else(beside)
            });
        });
    }

    /// Adds the keys that stand in UTF-16 in a body in which each NUL became a blank.
    pub(super) fn wide(&mut self, body: &str) {
        let mut links = None;
        let mut scanner = Scanner::new(self.engine);
        let mut found = |candidate: Candidate| {
            let offset = place(&candidate);
            if matches!(candidate.encoding, Encoding::Utf16Le | Encoding::Utf16Be) {
                self.add(candidate.value, || {
                    let links = links.get_or_insert_with(|| Links::of(body.as_bytes()));
                    links.beside(offset)
                });
            }
        };
        // Reading from memory does not fail.
        let _ = scanner.scan(&mut NulsForBlanks(body.as_bytes()), &mut found);
    }

    /// Adds a key beside something else, unless it was found before. Its link is looked for only if it is added.
    fn add(&mut self, key: KeyValue, link: impl FnOnce() -> Option<Arc<str>>) {
        if self.contents.found >= self.most {
            self.contents.left_out += 1;
        } else if self.add_new(key, link) {
            self.contents.found += 1;
        }
    }

    /// Adds a key unless it was found before, in which case it returns `false`.
    fn add_new(&mut self, key: KeyValue, link: impl FnOnce() -> Option<Arc<str>>) -> bool {
        let is_new = self.seen.admits(key.sha256());
        if is_new {
            let link = link();
            if let Some(link) = &link {
                self.count(link);
            }
            self.push(key, Standing::Beside(link));
        }
        is_new
    }

    /// Counts the bytes of a link, unless the last key of the piece that has one shares it.
    fn count(&mut self, link: &Arc<str>) {
        let last = self.link.as_ref();
        if last.is_none_or(|last| !Arc::ptr_eq(last, link)) {
            self.bytes += link.len();
            self.link = Some(Arc::clone(link));
        }
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

fn place(candidate: &Candidate) -> usize {
    usize::try_from(candidate.offset).unwrap_or(usize::MAX)
}

/// Text with a NUL in the place of each blank. Which blanks were NULs is not known any more, and does not matter: neither
/// is part of a key.
struct NulsForBlanks<'t>(&'t [u8]);

impl Read for NulsForBlanks<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(into)?;
        for byte in &mut into[..read] {
            if *byte == b' ' {
                *byte = 0;
            }
        }
        Ok(read)
    }
}

/// Link of a row, of which there is one copy for all its keys, and none if it has no keys.
#[derive(Default)]
struct RowLink<'r> {
    url: Option<&'r str>,
    shared: Option<Arc<str>>,
}

impl<'r> RowLink<'r> {
    fn of(row: &'r Row) -> Self {
        let url = row.url.as_deref();
        Self { url, shared: None }
    }

    fn get(&mut self) -> Option<Arc<str>> {
        let url = self.url?;
        Some(Arc::clone(self.shared.get_or_insert_with(|| url.into())))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::links::LOOKED_AT;
    use super::*;
    use crate::keyformat::FormatSet;
    use crate::respond::URL_MAX;
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
            &|reading| reading.row(row(Some(&texts)), &texts),
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

    /// Else a report of 25 MiB full of nobody's keys takes 20 s.
    #[test]
    fn each_byte_is_read_a_bounded_number_of_times_for_links() {
        let formats = FormatSet::builtin();
        let engine = Engine::new(&formats, Encodings::ALL);
        let format = formats.get("rescind_secret").unwrap();
        let keys: Vec<String> = (0..2_000)
            .map(|_| format.mint().unwrap().expose().to_owned())
            .collect();
        for between in [
            " ",
            "\"",
            "\"url",
            "\"url\"   ",
            "\"url\":   ",
            "\"url\":\"",
            "\"url\":\"a\"",
            "{",
            "{\"url\":\"a\",",
        ] {
            let text = keys.join(between);
            let mut pass_on = |_| ();
            let mut reading = Reading::new(&engine, 0, usize::MAX, &mut pass_on);
            LOOKED_AT.set(0);
            reading.unreadable(&text);
            reading.unreadable(&format!("{} ", keys[0]).repeat(2_000));
            assert!(reading.finish().found >= keys.len());
            let read = LOOKED_AT.get();
            assert!(read <= 4 * text.len(), "{between}: {read}");
        }
    }
}
