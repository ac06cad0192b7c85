//! Scans of texts of any size through a buffer of fixed size.

use std::io::{self, Read};
use std::ops::Range;

use super::super::{Candidate, Encoding};
use super::lines::Lines;
use super::{Engine, Found};

#[cfg(test)]
thread_local! {
    /// Bytes of texts in memory that were scanned on this thread.
    pub(crate) static SCANNED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Size of a read in bytes. It fits in the second-level cache between reading and scanning, and most files are
/// smaller.
const BUFFER_BYTES: usize = 256 << 10;

/// Scanner of one text after another, with a buffer of its own. Each thread needs one.
#[derive(Debug)]
pub struct Scanner<'a> {
    engine: &'a Engine,
    buffer: Vec<u8>,
    buffer_bytes: usize,
}

/// Identity of a candidate within a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    start: u64,
    length: usize,
    format: usize,
    encoding: Encoding,
}

/// Progress in the current text.
struct Progress {
    /// Start of the window, in bytes from the start of the text.
    base: u64,
    /// End of the part whose hits are decided, in bytes from the start of the text.
    decided: u64,
    /// Line counter, which has counted up to `base`.
    lines: Lines,
    /// Candidates that hits from `decided` on could find again.
    seen: Vec<Identity>,
}

impl<'a> Scanner<'a> {
    /// Creates a scanner. Its buffer is allocated on first use.
    pub fn new(engine: &'a Engine) -> Self {
        Self {
            engine,
            buffer: Vec::new(),
            // Each window starts with a copy of the end of the previous one.
            buffer_bytes: BUFFER_BYTES.max(engine.reach() * 8),
        }
    }

    /// Creates a scanner with the smallest buffer that can work, plus `more` bytes.
    #[cfg(test)]
    pub(in crate::scan) fn with_small_buffer(engine: &'a Engine, more: usize) -> Self {
        Self {
            engine,
            buffer: Vec::new(),
            buffer_bytes: engine.reach() * 2 + 2 + more,
        }
    }

    /// Passes the candidates in `text`, read piece by piece, to `found`. Returns the length of the text in bytes.
    ///
    /// # Errors
    /// Returns an error if `text` cannot be read to its end. The part before the error was scanned.
    pub fn scan(
        &mut self,
        text: &mut impl Read,
        found: &mut dyn FnMut(Candidate),
    ) -> io::Result<u64> {
        if self.buffer.is_empty() {
            // The system has zeros at no cost.
            self.buffer = vec![0; self.buffer_bytes];
        }
        let (mut filled, mut outcome) = fill(text, &mut self.buffer, 0);
        let mut progress = Progress::of(&self.buffer[..filled]);
        while filled == self.buffer.len() {
            let window = &self.buffer[..filled];
            let end = filled - self.engine.reach();
            progress.pass(self.engine, window, end, found);
            let keep = progress.slide(self.engine, window, end);
            self.buffer.copy_within(keep.clone(), 0);
            (filled, outcome) = fill(text, &mut self.buffer, keep.len());
        }
        progress.pass(self.engine, &self.buffer[..filled], filled, found);
        outcome.map(|()| progress.base + filled as u64)
    }

    /// Passes the candidates in a text in memory, of any size, to `found`. A large text is scanned piece by piece
    /// as well, so that one full of candidates takes no more memory than another.
    pub fn scan_text(&mut self, mut text: &[u8], found: &mut dyn FnMut(Candidate)) {
        #[cfg(test)]
        SCANNED.set(SCANNED.get() + text.len());
        if text.len() <= self.buffer_bytes {
            self.scan_slice(text, found);
        } else {
            // Reading from memory does not fail.
            let _ = self.scan(&mut text, found);
        }
    }

    /// Passes the candidates in a small text in memory to `found`.
    pub fn scan_slice(&self, text: &[u8], found: &mut dyn FnMut(Candidate)) {
        Progress::of(text).pass(self.engine, text, text.len(), found);
    }
}

impl Progress {
    fn of(start: &[u8]) -> Self {
        Self {
            base: 0,
            decided: 0,
            lines: Lines::of(start),
            seen: Vec::new(),
        }
    }

    /// Decides the undecided hits of `window` before `end`.
    fn pass(
        &mut self,
        engine: &Engine,
        window: &[u8],
        end: usize,
        found: &mut dyn FnMut(Candidate),
    ) {
        let from = usize::try_from(self.decided - self.base).unwrap_or(usize::MAX);
        self.decided = self.base + end as u64;
        let mut lines = self.lines;
        let mut seen = std::mem::take(&mut self.seen);
        let old = seen.len();
        for new in engine.find(window, self.base, &(from..end)) {
            let identity = self.identify(&new);
            if seen[..old].contains(&identity) {
                continue;
            }
            seen.push(identity);
            let spot = lines.locate(window, self.base, new.place.start);
            found(engine.candidate(new, identity.start, spot, lines.unit_bytes()));
        }
        // All hits of a candidate lie within it, and it is shorter than the reach.
        seen.retain(|identity| identity.start + engine.reach() as u64 >= self.decided);
        self.seen = seen;
    }

    /// Moves the window so that hits from `decided_to` on keep their context. Returns the part of the window to
    /// keep.
    fn slide(&mut self, engine: &Engine, window: &[u8], decided_to: usize) -> Range<usize> {
        // Code units of UTF-16 are not split.
        let start = decided_to.saturating_sub(engine.reach()) / 2 * 2;
        self.lines.count_to(window, self.base, start);
        self.base += start as u64;
        start..window.len()
    }

    fn identify(&self, found: &Found) -> Identity {
        Identity {
            start: self.base + found.place.start as u64,
            length: found.value.expose().len(),
            format: found.format,
            encoding: found.encoding,
        }
    }
}

/// Reads into `buffer`, which is filled up to `filled`, until it is full or the text ends. Returns the new fill
/// level, and the error that ended the reading, if any.
fn fill(text: &mut impl Read, buffer: &mut [u8], mut filled: usize) -> (usize, io::Result<()>) {
    while filled < buffer.len() {
        match text.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (filled, Err(error)),
        }
    }
    (filled, Ok(()))
}
