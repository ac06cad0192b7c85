//! Result of decoding a piece of text, and where its bytes came from.

use std::ops::Range;

/// Replacement of a character that occurs in no key.
pub(super) const FOREIGN: u8 = 0xff;

/// Result of a step under construction.
pub(super) struct Draft<'t> {
    of: &'t [u8],
    pub(super) bytes: Vec<u8>,
    /// Place in `of` of each byte, if wanted.
    origins: Option<Vec<(u32, u32)>>,
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

    /// Appends bytes that were decoded together from the bytes at `range`.
    pub(super) fn push_all(&mut self, bytes: &[u8], range: Range<usize>) {
        for byte in bytes {
            self.push(*byte, range.clone());
        }
    }

    /// Appends the character with the number `code`, decoded from the bytes at `range`. Numbers up to 255 are taken for
    /// bytes.
    pub(super) fn push_code(&mut self, code: u32, range: Range<usize>) {
        match (u8::try_from(code), char::from_u32(code)) {
            (Ok(byte), _) => self.push(byte, range),
            (_, Some(c)) => self.push_all(c.encode_utf8(&mut [0; 4]).as_bytes(), range),
            _ => self.push(FOREIGN, range),
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
