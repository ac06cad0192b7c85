//! Decoded views of a text, and the way back from a view to the text.

use std::ops::Range;

use super::blanks::{join, loosen};
use super::escapes::{Kind, unescape};
use super::lists;
use super::loose::Loose;
use super::packed::Packed;
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
    /// Set if blanks were removed to obtain this view.
    pub(super) is_joined: bool,
    /// Set if zeros were among these blanks.
    pub(super) was_wide: bool,
    /// Set if the letters and digits of this view are those of a view that was looked at.
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

/// One way of decoding one thing.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Unescape(Kind),
    Join { without_plus: bool },
    Loosen(Looseness),
    Narrow,
    Unpack(Packed),
    Unlist(lists::List),
}

/// Result of a step under construction.
pub(super) struct Draft<'t> {
    of: &'t [u8],
    pub(super) bytes: Vec<u8>,
    /// Place in `of` of each byte, if wanted.
    origins: Option<Vec<(u32, u32)>>,
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
            Self::Unpack(packed) => packed.write(draft),
            Self::Unlist(list) => list.write(draft),
        }
    }
}

impl<'t> Draft<'t> {
    /// Creates an empty draft of what is made of `of`.
    pub(super) fn of(of: &'t [u8]) -> Self {
        Self {
            of,
            bytes: Vec::new(),
            origins: None,
        }
    }

    /// Creates an empty draft that can be asked for the origin of its parts.
    pub(super) fn with_origins(of: &'t [u8]) -> Self {
        Self {
            origins: Some(Vec::new()),
            ..Self::of(of)
        }
    }

    /// Returns the bytes that are decoded.
    pub(super) fn source(&self) -> &'t [u8] {
        self.of
    }

    /// Appends the bytes at `range` unchanged.
    pub(super) fn copy(&mut self, range: Range<usize>) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(self.of.len());
        }
        self.bytes.extend_from_slice(&self.of[range.clone()]);
        if let Some(origins) = &mut self.origins {
            origins.extend(range.map(|at| (offset(at), offset(at + 1))));
        }
    }

    /// Appends those of the bytes from `start` on that are to be kept.
    pub(super) fn keep(&mut self, start: usize, is_kept: impl Fn(u8) -> bool) {
        let done = self.bytes.len();
        let rest = &self.of[start..];
        self.bytes.resize(done + rest.len(), 0);
        let mut end = done;
        // Without a branch, since what is kept follows no pattern.
        for byte in rest {
            self.bytes[end] = *byte;
            end += usize::from(is_kept(*byte));
        }
        self.bytes.truncate(end);
        if let Some(origins) = &mut self.origins {
            let kept = (start..).zip(rest).filter(|(_, byte)| is_kept(**byte));
            origins.extend(kept.map(|(at, _)| (offset(at), offset(at + 1))));
        }
    }

    /// Appends a byte decoded from the bytes at `range`.
    pub(super) fn push(&mut self, byte: u8, range: Range<usize>) {
        self.bytes.push(byte);
        if let Some(origins) = &mut self.origins {
            origins.push((offset(range.start), offset(range.end)));
        }
    }

    /// Returns the place of what the bytes at `range` were decoded from.
    pub(super) fn origin(&self, range: Range<usize>) -> Range<usize> {
        match self.origins.as_ref().and_then(|all| all.get(range)) {
            Some([first, .., last] | [first @ last]) => first.0 as usize..last.1 as usize,
            _ => 0..0,
        }
    }
}

/// Texts are shorter than this by far.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
