//! Decoded views of a text, with the origin of each byte.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;

/// Text, or the result of decoding a piece of it.
pub(super) struct View<'t> {
    pub(super) bytes: Cow<'t, [u8]>,
    /// Origin of each byte in the text. `None` if this is the text itself.
    origins: Option<Vec<Extent>>,
    /// Number of times that escapes were decoded to obtain this view.
    pub(super) layers: u8,
    /// The same for escapes of an odd kind.
    pub(super) odd_layers: u8,
    /// Set if blanks were removed to obtain this view.
    pub(super) is_joined: bool,
    /// Set if zeros were among these blanks.
    pub(super) was_wide: bool,
    /// Set if whatever occurs in no key was removed to obtain this view, so that only a checksum tells a key from what
    /// stood apart.
    pub(super) is_loose: bool,
}

/// Range of the text that was decoded. Texts too long for it are not searched.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    start: u32,
    end: u32,
}

/// View under construction.
pub(super) struct Draft<'v> {
    of: &'v View<'v>,
    bytes: Vec<u8>,
    origins: Vec<Extent>,
}

impl<'t> View<'t> {
    /// Returns the text as a view, or `None` if it is too long.
    pub(super) fn of(text: &'t [u8]) -> Option<Self> {
        u32::try_from(text.len()).ok()?;
        Some(Self {
            bytes: Cow::Borrowed(text),
            origins: None,
            layers: 0,
            odd_layers: 0,
            is_joined: false,
            was_wide: false,
            is_loose: false,
        })
    }

    /// Returns the range of the text that a range of this view was decoded from.
    pub(super) fn place(&self, range: Range<usize>) -> Range<usize> {
        let Some(origins) = &self.origins else {
            return range;
        };
        match origins.get(range) {
            Some([first, .., last] | [first @ last]) => first.start as usize..last.end as usize,
            _ => 0..0,
        }
    }

    /// Returns the range of the text that the whole view was decoded from.
    pub(super) fn whole(&self) -> Range<usize> {
        self.place(0..self.bytes.len())
    }

    /// Returns a hash that is equal for views with the same bytes and the same start in the text that are read on in the
    /// same way.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let kind = (self.is_joined, self.is_loose, self.odd_layers);
        (self.whole().start, &self.bytes, kind).hash(&mut hasher);
        hasher.finish()
    }

    /// Returns the origin of the bytes at `range`, as one extent.
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
    /// Creates an empty view, to be derived from `of`.
    pub(super) fn of(of: &'v View<'v>) -> Self {
        Self {
            of,
            bytes: Vec::new(),
            origins: Vec::new(),
        }
    }

    /// Appends the bytes at `range` unchanged.
    pub(super) fn copy(&mut self, range: Range<usize>) {
        self.bytes.extend_from_slice(&self.of.bytes[range.clone()]);
        if let Some(origins) = &self.of.origins {
            self.origins.extend_from_slice(&origins[range]);
        } else {
            let extents = range.map(|at| self.of.extent(at..at + 1));
            self.origins.extend(extents);
        }
    }

    /// Appends a byte decoded from the bytes at `range`.
    pub(super) fn push(&mut self, byte: u8, range: Range<usize>) {
        self.bytes.push(byte);
        self.origins.push(self.of.extent(range));
    }

    /// Completes the view.
    pub(super) fn into_view(self) -> View<'static> {
        View {
            bytes: Cow::Owned(self.bytes),
            origins: Some(self.origins),
            layers: self.of.layers,
            odd_layers: self.of.odd_layers,
            is_joined: false,
            was_wide: false,
            is_loose: false,
        }
    }
}
