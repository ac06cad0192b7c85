//! Redaction of keys in texts that are stored or shown. It holds the program's only definition of "contains a key".

mod blanks;
mod escapes;
mod lists;
mod loose;
mod packed;
mod readings;
#[cfg(test)]
mod tests;
mod view;
mod widths;

use std::borrow::Cow;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;

use super::Engine;
use crate::keyformat::{FormatSet, KeyFormat, KeyValue};
use loose::Loose;
use readings::read;
use view::View;

/// Maximum number of passes over a text. If keys remain after that, the text was made to outlast them.
const MAX_ROUNDS: usize = 4;

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
///   such as `114, 115` or `0x72 0x73`
/// - UTF-16
/// - other forms of ASCII characters, such as fullwidth ones, as Unicode's form NFKC knows them
/// - white space, control characters and invisible characters, anywhere in between
/// - whatever else occurs in no key, anywhere in between; of keys with a checksum, which tells them from what stands
///   apart for a reason.
///
/// The effort is linear in the length of the text. A part that would take more than that is treated as a key.
#[derive(Debug, Clone)]
pub struct Redactor {
    engine: Arc<Engine>,
    /// Length of the shortest key, in bytes. No encoding shortens it.
    shortest: usize,
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

    /// Returns whether `text`, which need not be UTF-8, contains a key.
    pub fn holds_key(&self, text: impl AsRef<[u8]>) -> bool {
        let unread = read(text.as_ref(), self.shortest, &self.loose, |view| {
            if self.keys(view).is_empty() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        unread.is_none_or(|unread| !unread.is_empty())
    }

    /// Returns `text` with every key replaced by its redacted form, such as `rsc_sk_…wxyz`, including everything
    /// that the key's encoding takes up.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        without(text, self.shortest, &self.loose, |view| self.keys(view))
    }

    /// Returns `text` with every key redacted, and with `value` replaced by `…` however it is encoded. The value
    /// may be a key of a format that is not configured.
    pub fn redact_value<'t>(&self, text: &'t str, value: &KeyValue) -> Cow<'t, str> {
        let forms = forms(value.expose());
        let length = value.expose().len();
        if length == 0 {
            return self.redact(text);
        }
        let least = self.shortest.min(length.max(MIN_ENCODED));
        without(text, least, &self.loose, |view| {
            let mut cuts = self.keys(view);
            for form in &forms {
                cuts.extend(memmem::find_iter(&view.bytes, form).map(|at| Cut {
                    place: at..at + form.len(),
                    shown: UNKNOWN.to_owned(),
                }));
            }
            cuts
        })
    }

    /// Returns the keys in a view, as places in it.
    fn keys(&self, view: &View<'_>) -> Vec<Cut> {
        let mut places = self.engine.places(&view.bytes, view.is_loose);
        if view.is_loose {
            places.extend(self.loose.places(&view.bytes));
        }
        let places = places.into_iter();
        places.map(|(place, shown)| Cut { place, shown }).collect()
    }
}

/// Returns the encoded forms in which a value can occur.
fn forms(value: &str) -> Vec<Vec<u8>> {
    if value.is_empty() {
        return Vec::new();
    }
    let mut forms = vec![value.as_bytes().to_vec()];
    if value.len() < MIN_ENCODED {
        return forms;
    }
    let mut wide: Vec<u8> = value.encode_utf16().flat_map(u16::to_le_bytes).collect();
    // Without its last zero byte, this form also matches the other byte order.
    wide.pop_if(|byte| *byte == 0);
    forms.push(wide);
    for before in 0..3 {
        let bytes = [&[0; 3][..before], value.as_bytes()].concat();
        // The characters at the ends are shared with neighboring bytes.
        let whole = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
        for encoded in [
            STANDARD_NO_PAD.encode(&bytes),
            URL_SAFE_NO_PAD.encode(&bytes),
        ] {
            forms.push(encoded.as_bytes()[whole.clone()].to_vec());
        }
    }
    forms
}

/// Returns `text` without the parts that `find` finds in it and in its decoded forms. Parts shorter than `least`
/// bytes do not matter.
fn without<'t>(
    text: &'t str,
    least: usize,
    loose: &Loose,
    find: impl Fn(&View<'_>) -> Vec<Cut>,
) -> Cow<'t, str> {
    let mut text = Cow::Borrowed(text);
    for _ in 0..MAX_ROUNDS {
        let cuts = cuts(text.as_bytes(), least, loose, &find);
        if cuts.is_empty() {
            return text;
        }
        text = Cow::Owned(cut(&text, &cuts));
    }
    if cuts(text.as_bytes(), least, loose, &find).is_empty() {
        text
    } else {
        Cow::Borrowed(UNKNOWN)
    }
}

/// Returns the parts that `find` finds in `text` and in its decoded forms, as places in `text`, in ascending order.
/// Places may overlap.
fn cuts(
    text: &[u8],
    least: usize,
    loose: &Loose,
    find: impl Fn(&View<'_>) -> Vec<Cut>,
) -> Vec<Cut> {
    let mut all = Vec::new();
    let unread = read(text, least, loose, |view| {
        all.extend(find(view).into_iter().map(|cut| Cut {
            place: view.place(cut.place),
            shown: cut.shown,
        }));
        ControlFlow::Continue(())
    });
    all.extend(unread.into_iter().flatten().map(|place| Cut {
        place,
        shown: UNKNOWN.to_owned(),
    }));
    all.sort_unstable_by_key(|cut| (cut.place.start, cut.place.end));
    all
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
