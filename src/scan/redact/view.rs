//! What a text says to somebody who decodes it, and where in the text that stands.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;

/// A text, or what a piece of it says once something was decoded.
pub(super) struct View<'t> {
    pub(super) bytes: Cow<'t, [u8]>,
    /// Where in the text each byte comes from; none if this is the text itself.
    origins: Option<Vec<Extent>>,
    /// How often escapes were undone on the way here.
    pub(super) layers: u8,
    /// Whether blanks were left out of the view that this one was made of.
    pub(super) is_joined: bool,
    /// Whether zeros were among these blanks.
    pub(super) was_wide: bool,
}

/// A piece of the text that was encoded. Texts that do not fit are not looked through.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    start: u32,
    end: u32,
}

/// A view that is being made.
pub(super) struct Draft<'v> {
    of: &'v View<'v>,
    bytes: Vec<u8>,
    origins: Vec<Extent>,
}

impl<'t> View<'t> {
    /// The text as it is, unless it is too long.
    pub(super) fn of(text: &'t [u8]) -> Option<Self> {
        u32::try_from(text.len()).ok()?;
        Some(Self {
            bytes: Cow::Borrowed(text),
            origins: None,
            layers: 0,
            is_joined: false,
            was_wide: false,
        })
    }

    /// Returns where in the text a place in this view stands.
    pub(super) fn place(&self, range: Range<usize>) -> Range<usize> {
        let Some(origins) = &self.origins else {
            return range;
        };
        match origins.get(range) {
            Some([first, .., last] | [first @ last]) => first.start as usize..last.end as usize,
            _ => 0..0,
        }
    }

    /// Returns where in the text all of it stands.
    pub(super) fn whole(&self) -> Range<usize> {
        self.place(0..self.bytes.len())
    }

    /// The same number for views that say the same and start at the same place.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.whole().start, &self.bytes, self.is_joined).hash(&mut hasher);
        hasher.finish()
    }

    /// Returns where in the text the bytes at `range` stand, as one piece.
    pub(super) fn extent(&self, range: Range<usize>) -> Extent {
        let place = self.place(range);
        let end = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Extent {
            start: end(place.start),
            end: end(place.end),
        }
    }
}

impl<'v> Draft<'v> {
    /// An empty view, to be made of what `of` says.
    pub(super) fn of(of: &'v View<'v>) -> Self {
        Self {
            of,
            bytes: Vec::new(),
            origins: Vec::new(),
        }
    }

    /// Adds what stands at `range` as it is.
    pub(super) fn copy(&mut self, range: Range<usize>) {
        self.bytes.extend_from_slice(&self.of.bytes[range.clone()]);
        if let Some(origins) = &self.of.origins {
            self.origins.extend_from_slice(&origins[range]);
        } else {
            let extents = range.map(|at| self.of.extent(at..at + 1));
            self.origins.extend(extents);
        }
    }

    /// Adds the byte that what stands at `range` is read as.
    pub(super) fn push(&mut self, byte: u8, range: Range<usize>) {
        self.bytes.push(byte);
        self.origins.push(self.of.extent(range));
    }

    /// The view that was made.
    pub(super) fn into_view(self) -> View<'static> {
        View {
            bytes: Cow::Owned(self.bytes),
            origins: Some(self.origins),
            layers: self.of.layers,
            is_joined: false,
            was_wide: false,
        }
    }
}
