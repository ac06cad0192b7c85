//! Texts of a row's fields, of which no more is unescaped than is used.

use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::fetch::{Said, said};
use crate::keyformat::Sha256Digest;

/// Beginning of a text.
pub(super) struct Beginning {
    pub(super) text: String,
    pub(super) is_whole: bool,
    /// `true` if halves of surrogate pairs became U+FFFD.
    pub(super) has_halves: bool,
}

impl Beginning {
    /// Returns the first `most` bytes of what a field says, up to a character boundary, or `None` if it is no text, or an
    /// empty one.
    pub(super) fn of(json: &RawValue, most: usize) -> Option<Self> {
        let inner = inner(json)?;
        let mut beginning = Self {
            text: String::with_capacity(inner.len().min(most)),
            is_whole: true,
            has_halves: false,
        };
        for piece in said(inner) {
            beginning.has_halves |= piece == Said::Half;
            with_text(piece, |piece| beginning.add(piece, most));
            if !beginning.is_whole {
                break;
            }
        }
        beginning.text.shrink_to_fit();
        Some(beginning)
    }

    fn add(&mut self, piece: &str, most: usize) {
        let end = piece.floor_char_boundary(most - self.text.len());
        self.text.push_str(&piece[..end]);
        self.is_whole = end == piece.len();
    }

    /// Returns the text if all that was read of it is valid.
    pub(super) fn valid(self) -> Option<String> {
        (!self.has_halves).then_some(self.text)
    }
}

/// Returns the digest of what a field says, with U+FFFD for halves of surrogate pairs, however long it is.
pub(super) fn digest(json: &RawValue) -> Option<Sha256Digest> {
    let mut digest = Sha256::new();
    for piece in said(inner(json)?) {
        with_text(piece, |text| digest.update(text));
    }
    Some(Sha256Digest(digest.finalize().into()))
}

/// Returns a text without its quotation marks, or `None` if it is none, or an empty one.
pub(super) fn inner(json: &RawValue) -> Option<&str> {
    let inner = json.get().strip_prefix('"')?.strip_suffix('"')?;
    (!inner.is_empty()).then_some(inner)
}

fn with_text(piece: Said<'_>, with: impl FnOnce(&str)) {
    let mut bytes = [0; 4];
    with(match piece {
        Said::Plain(plain) => plain,
        Said::Escaped(c) => c.encode_utf8(&mut bytes),
        Said::Half => char::REPLACEMENT_CHARACTER.encode_utf8(&mut bytes),
    });
}
