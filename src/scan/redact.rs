//! Redaction of keys in texts that are stored or shown. It holds the program's only definition of "contains a key".

mod blanks;
mod draft;
mod escapes;
mod lists;
mod loose;
mod packed;
mod readings;
mod stretches;
#[cfg(test)]
mod tests;
mod view;
mod wide;
mod widths;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use memchr::memmem;

use super::Engine;
use crate::keyformat::{FormatSet, KeyFormat, KeyValue};
use loose::Loose;
use readings::{Budget, Seen, Unread, read};
use view::{Looseness, View};

/// Maximum number of passes over a text. If keys remain after that, the text was made to outlast them.
const MAX_ROUNDS: usize = 5;

/// Minimum length in bytes of a value that is searched for in its encodings. A shorter one occurs in any text.
const MIN_ENCODED: usize = 8;

/// Replacement of a part that cannot be shown to be harmless.
const UNKNOWN: &str = "…";

/// Detector and redactor of keys in texts written by others. Cheap to clone.
///
/// A text contains a key if the scanning engine finds a key of any secret or public format in it, in any encoding
/// that the engine knows, regardless of the encodings enabled for contents; or if it does so after any of the
/// following was undone, however these are nested:
/// - escaped characters: percent-encoding (RFC 3986, section 2.1) and JavaScript's `%u0072`; the backslash escapes
///   of JSON and programming languages, `\u0072`, `\x72`, `\162`, `\n`; HTML's `&#114;`
/// - once, escapes that look like ordinary text: `\72` in octal or, as in CSS, hexadecimal digits, and two
///   hexadecimal digits after any punctuation mark, such as `=72` of quoted-printable
/// - base64 of either alphabet, base32, hexadecimal and binary digits, with or without padding, and lists of numbers
///   of bytes, characters or code units such as `114, 115` or `0x72 0xff32`
/// - UTF-16
/// - other forms of ASCII characters, such as fullwidth ones, as Unicode's form NFKC knows them, in UTF-8, UTF-16 and
///   Latin-1
/// - white space, control characters and invisible characters, anywhere in between
/// - whatever else occurs in no key, anywhere in between; of keys with a checksum, which tells them from what stands
///   apart for a reason.
///
/// The effort is linear in the length of the text. A text that would take more than that is replaced as a whole.
#[derive(Debug, Clone)]
pub struct Redactor {
    engine: Arc<Engine>,
    /// Length of the shortest key, in bytes. No encoding shortens it.
    shortest: usize,
    /// Finder of keys with characters in between that occur in no key, such as `rsc-sk-ab.cd`.
    loose: Arc<Loose>,
}

/// Part of a text to remove, and its replacement.
struct Cut {
    place: Range<usize>,
    shown: String,
}

impl Redactor {
    /// Creates a redactor for keys of all `formats`, secret and public.
    pub fn new(formats: &FormatSet) -> Self {
        Self {
            engine: Arc::new(Engine::of_every_format(formats)),
            shortest: formats.iter().map(KeyFormat::min_len).min().unwrap_or(0),
            loose: Arc::new(Loose::new(formats)),
        }
    }

    /// Returns the engine that finds keys of every format, secret and public, in every encoding.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Returns whether `text`, which need not be UTF-8, contains a key.
    pub fn holds_key(&self, text: impl AsRef<[u8]>) -> bool {
        let text = text.as_ref();
        let mut is_found = false;
        let mut budget = Budget::new(text.len(), 1);
        let mut look = |view: &View<'_>| {
            is_found = !self.keys(view).is_empty();
            if is_found {
                Seen::Enough
            } else {
                Seen::Nothing
            }
        };
        let unread = read(text, self.shortest, &self.loose, &mut budget, &mut look);
        is_found || unread.map_or(true, |unread| !unread.is_empty())
    }

    /// Returns `text` with every key replaced by its redacted form, such as `rsc_sk_…wxyz`, including everything
    /// that the key's encoding takes up.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.without(text, self.shortest, &|view| self.keys(view))
    }

    /// Returns `text` with every key redacted, and with `value` replaced by `…` however it is encoded. The value
    /// may be a key of a format that is not configured.
    pub fn redact_value<'t>(&self, text: &'t str, value: &KeyValue) -> Cow<'t, str> {
        let value = value.expose().as_bytes();
        if value.is_empty() {
            return self.redact(text);
        }
        let letters: Vec<u8> = value
            .iter()
            .copied()
            .filter(u8::is_ascii_alphanumeric)
            .collect();
        let least = self.shortest.min(value.len().max(MIN_ENCODED));
        let value = memmem::Finder::new(value);
        let letters = (letters.len() >= MIN_ENCODED).then(|| memmem::Finder::new(&letters));
        self.without(text, least, &|view| {
            let mut cuts = self.keys(view);
            let mut add = |finder: &memmem::Finder<'_>| {
                let places = finder.find_iter(view.bytes);
                cuts.extend(places.map(|at| Cut {
                    place: at..at + finder.needle().len(),
                    shown: UNKNOWN.to_owned(),
                }));
            };
            add(&value);
            if view.loose == Looseness::Marks {
                letters.iter().for_each(add);
            }
            cuts
        })
    }

    /// Returns the keys in a view, as places in it.
    fn keys(&self, view: &View<'_>) -> Vec<Cut> {
        let mut places = Vec::new();
        // Whatever else a view without marks encodes is decoded from it.
        if view.loose != Looseness::Marks {
            let only_checked = view.loose == Looseness::Foreign;
            places = self.engine.places(view.bytes, only_checked);
        }
        if view.loose != Looseness::Nothing {
            places.extend(self.loose.places(view.bytes));
        }
        let places = places.into_iter();
        places.map(|(place, shown)| Cut { place, shown }).collect()
    }

    /// Returns `text` without the parts that `find` finds in it and in its decoded forms. Parts shorter than `least`
    /// bytes do not matter.
    fn without<'t>(
        &self,
        text: &'t str,
        least: usize,
        find: &dyn Fn(&View<'_>) -> Vec<Cut>,
    ) -> Cow<'t, str> {
        let mut budget = Budget::new(text.len(), 1);
        let mut text = Cow::Borrowed(text);
        for round in 0..MAX_ROUNDS {
            match self.cuts(text.as_bytes(), least, &mut budget, find) {
                Err(Unread) => break,
                Ok(cuts) if cuts.is_empty() => return text,
                Ok(cuts) => text = Cow::Owned(cut(&text, &cuts)),
            }
            if round == 0 {
                // What was cut has to be read again, without what was in it.
                budget = Budget::new(text.len(), 1);
            }
        }
        Cow::Borrowed(UNKNOWN)
    }

    /// Returns the parts that `find` finds in `text` and in its decoded forms, as places in `text`, in ascending order.
    /// Places may overlap.
    fn cuts(
        &self,
        text: &[u8],
        least: usize,
        budget: &mut Budget,
        find: &dyn Fn(&View<'_>) -> Vec<Cut>,
    ) -> Result<Vec<Cut>, Unread> {
        let mut all = Vec::new();
        let mut look = |view: &View<'_>| {
            let mut cuts = find(view);
            if cuts.is_empty() {
                return Seen::Nothing;
            }
            view.trace(cuts.iter_mut().map(|cut| &mut cut.place), &self.loose);
            all.append(&mut cuts);
            Seen::Traced
        };
        let unread = read(text, least, &self.loose, budget, &mut look)?;
        all.extend(unread.into_iter().map(|place| Cut {
            place,
            shown: UNKNOWN.to_owned(),
        }));
        all.sort_unstable_by_key(|cut| (cut.place.start, cut.place.end));
        Ok(all)
    }
}

/// Returns `text` with `cuts` applied. Overlapping cuts are merged, and the replacement of the first one is kept.
fn cut(text: &str, cuts: &[Cut]) -> String {
    let mut rest = String::with_capacity(text.len());
    let mut done = 0;
    for cut in cuts {
        // Keys are ASCII, and so are the characters that encode them.
        let start = text.floor_char_boundary(cut.place.start);
        let end = text.ceil_char_boundary(cut.place.end);
        if start >= done {
            rest.push_str(&text[done..start]);
            rest.push_str(&cut.shown);
        }
        done = done.max(end);
    }
    rest.push_str(&text[done..]);
    rest
}
