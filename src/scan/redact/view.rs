//! Decoded views of a text, and the way back from a view to the text.

use std::ops::Range;

use super::blanks::{join, loosen};
use super::draft::Draft;
use super::escapes::{Kind, unescape};
use super::lists;
use super::loose::Loose;
use super::packed::Packed;
use super::wide::Wide;
use super::widths::narrow;

/// Text, or the result of decoding a piece of it.
///
/// A view knows the one that it was made of and how, so that places in it can be followed back by decoding once more.
/// Few views hold a key: to note the origin of each byte of all of them would take several times as long.
pub(super) struct View<'v> {
    pub(super) bytes: &'v [u8],
    pub(super) origin: Option<(&'v View<'v>, Step)>,
    /// Number of times that something was decoded to obtain this view.
    pub(super) depth: usize,
    /// Number of times that escapes were decoded.
    pub(super) layers: u8,
    /// The same for escapes of an odd kind.
    pub(super) odd_layers: u8,
    /// `true` if blanks were removed to obtain this view.
    pub(super) is_joined: bool,
    /// `true` if zeros were among these blanks.
    pub(super) was_wide: bool,
    /// `true` if the letters and digits of this view are those of a view that was looked at.
    pub(super) has_known_letters: bool,
    pub(super) loose: Looseness,
}

/// Characters left out of a view, so that only a checksum tells a key from what stood apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looseness {
    Nothing,
    /// Whatever occurs in no key.
    Foreign,
    /// All but letters and digits.
    Marks,
}

/// A way of decoding what a place of a view consists of.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Unescape(Kind),
    Join { without_plus: bool },
    Loosen(Looseness),
    Narrow,
    Wide(Wide),
    Unpack(Packed),
    Unlist(lists::List),
}

impl<'v> View<'v> {
    /// Returns the text itself as a view.
    pub(super) fn of(text: &'v [u8]) -> Self {
        Self {
            bytes: text,
            origin: None,
            depth: 0,
            layers: 0,
            odd_layers: 0,
            is_joined: false,
            was_wide: false,
            has_known_letters: false,
            loose: Looseness::Nothing,
        }
    }

    /// Returns what `step` makes of this view, with the same number of layers.
    pub(super) fn derive<'d>(&'d self, step: Step, bytes: &'d [u8]) -> View<'d> {
        View {
            bytes,
            origin: Some((self, step)),
            depth: self.depth + 1,
            layers: self.layers,
            odd_layers: self.odd_layers,
            ..View::of(bytes)
        }
    }

    /// Replaces places in this view by the places in the text that they were decoded from.
    pub(super) fn trace<'r>(
        &self,
        places: impl IntoIterator<Item = &'r mut Range<usize>>,
        loose: &Loose,
    ) {
        let mut places: Vec<_> = places.into_iter().collect();
        let mut view = self;
        while let Some((parent, step)) = &view.origin {
            let mut draft = Draft::with_origins(parent.bytes);
            step.apply(loose, &mut draft);
            for place in &mut places {
                **place = draft.origin((**place).clone());
            }
            view = parent;
        }
    }
}

impl Step {
    /// Decodes what the draft is made of. Returns whether there was something to decode.
    pub(super) fn apply(&self, loose: &Loose, draft: &mut Draft<'_>) -> bool {
        match self {
            Self::Unescape(kind) => unescape(draft, *kind),
            Self::Join { without_plus } => join(draft, *without_plus),
            Self::Loosen(Looseness::Foreign) => loosen(draft, |byte| loose.keeps(byte)),
            Self::Loosen(_) => loosen(draft, |byte| byte.is_ascii_alphanumeric()),
            Self::Narrow => narrow(draft),
            Self::Wide(wide) => {
                let text = draft.source();
                wide.write(draft, |at| text[at], |place| place);
                true
            }
            Self::Unpack(packed) => packed.write(draft),
            Self::Unlist(list) => list.write(draft),
        }
    }
}
