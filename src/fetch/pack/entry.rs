//! Entries of a pack: the header of an entry, and its end.

use flate2::{Decompress, FlushDecompress, Status};
use gix_hash::Kind as HashKind;

use super::PackError;
use crate::fetch::FetchError;
use crate::fetch::weight::Weight;

/// Type of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fetch) enum Kind {
    /// A commit.
    Commit,
    /// A tree.
    Tree,
    /// A blob.
    Blob,
    /// An annotated tag.
    Tag,
}

/// Index that stands for no entry.
pub(super) const NONE: u32 = u32::MAX;

/// Representation of an object in an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The object in full.
    Full(Kind),
    /// A delta to another entry, [`Entry::base`].
    DeltaToEntry,
    /// A delta to the object whose id precedes the data, wherever that object is.
    DeltaToObject,
}

/// An entry in the listing of a pack. There may be half a million of them, so it is small.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Offset of the entry.
    start: u32,
    /// Size of the data, inflated, in bytes.
    size: u32,
    /// Index of the entry to which this one is a delta, or [`NONE`] if it is not in the listing.
    pub(super) base: u32,
    /// Number of bytes before the compressed data.
    header: u8,
    pub(super) form: Form,
}

impl Entry {
    /// Returns the size of the data, inflated, in bytes.
    pub(super) fn size(self) -> u64 {
        u64::from(self.size)
    }

    /// Returns the offset of the compressed data.
    pub(super) fn data(self) -> usize {
        self.start as usize + usize::from(self.header)
    }

    /// Returns the id that precedes the data of a [`Form::DeltaToObject`].
    pub(super) fn base_id(self, hash: HashKind, bytes: &[u8]) -> Option<&[u8]> {
        let end = self.data();
        bytes.get(end.checked_sub(hash.len_in_bytes())?..end)
    }
}

/// Result of reading an entry.
pub(super) enum Step {
    /// The entry is complete. The next one starts at the given offset.
    Entry(Entry, usize),
    /// The bytes end before the entry does, after this many were inflated.
    EndOfInput(u64),
    /// The entry would inflate to more than is allowed.
    TooMuch,
}

/// A stretch of a pack, from which entries are read.
#[derive(Debug, Clone, Copy)]
pub(in crate::fetch) struct Stretch<'b> {
    pub(in crate::fetch) bytes: &'b [u8],
    /// Number of bytes of the pack before the stretch, which are no longer at hand.
    pub(in crate::fetch) gone: u64,
    /// Hash function of the names of objects.
    pub(in crate::fetch) hash: HashKind,
}

/// Reads the entry at `start`, inflating at most `budget` bytes to find its end. `before` contains the
/// preceding entries.
pub(super) fn read(
    stretch: Stretch<'_>,
    start: usize,
    budget: u64,
    before: &[Entry],
    inflater: &mut Inflater,
    weight: &mut Weight,
) -> Result<Step, FetchError> {
    let bytes = stretch.bytes;
    let mut header = Header {
        rest: bytes.get(start..).unwrap_or_default(),
    };
    let Some((form, base, size)) = header.read(start, stretch, before)? else {
        return Ok(Step::EndOfInput(0));
    };
    let data = bytes.len() - header.rest.len();
    let (Ok(start), Ok(small)) = (u32::try_from(start), u32::try_from(size)) else {
        return Ok(Step::TooMuch);
    };
    if size > budget {
        return Ok(Step::TooMuch);
    }
    let header_bytes = u8::try_from(data - start as usize)
        .map_err(|_| PackError("an object's header is too long"))?;
    inflater.begin();
    let (compressed, is_whole) = inflater.pass(header.rest, size, weight)?;
    if !is_whole {
        return Ok(Step::EndOfInput(inflater.state.total_out()));
    }
    let entry = Entry {
        start,
        size: small,
        base,
        header: header_bytes,
        form,
    };
    Ok(Step::Entry(entry, data + compressed))
}

/// An object that is passed over as it arrives, since it is too large to be held.
pub(in crate::fetch) struct Passing {
    inflater: Inflater,
    size: u64,
}

impl Passing {
    /// Begins with the object whose entry is at the start of `stretch`. Also returns the number of bytes before its
    /// compressed data. Returns `None` if not even those are there.
    pub(in crate::fetch) fn begin(
        stretch: Stretch<'_>,
    ) -> Result<Option<(Self, usize)>, PackError> {
        let bytes = stretch.bytes;
        let mut header = Header { rest: bytes };
        let Some((_, _, size)) = header.read(0, stretch, &[])? else {
            return Ok(None);
        };
        let mut inflater = Inflater::new();
        inflater.begin();
        Ok(Some((
            Self { inflater, size },
            bytes.len() - header.rest.len(),
        )))
    }

    /// Returns the size of the object, inflated, in bytes.
    pub(in crate::fetch) fn size(&self) -> u64 {
        self.size
    }

    /// Passes over `bytes`. Returns the number of those that belong to the object, and `true` if it ended with them.
    pub(in crate::fetch) fn pass(
        &mut self,
        bytes: &[u8],
        weight: &mut Weight,
    ) -> Result<(usize, bool), FetchError> {
        self.inflater.pass(bytes, self.size, weight)
    }
}

struct Header<'a> {
    rest: &'a [u8],
}

impl Header<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    /// Reads the form, the base and the inflated size. Returns `None` if the bytes end too early.
    fn read(
        &mut self,
        start: usize,
        stretch: Stretch<'_>,
        before: &[Entry],
    ) -> Result<Option<(Form, u32, u64)>, PackError> {
        let Some((kind, size)) = self.kind_and_size()? else {
            return Ok(None);
        };
        let (form, base) = match kind {
            1 => (Form::Full(Kind::Commit), NONE),
            2 => (Form::Full(Kind::Tree), NONE),
            3 => (Form::Full(Kind::Blob), NONE),
            4 => (Form::Full(Kind::Tag), NONE),
            6 => match self.distance()? {
                Some(distance) => (
                    Form::DeltaToEntry,
                    entry_at(start, stretch.gone, distance, before)?,
                ),
                None => return Ok(None),
            },
            7 => match self.rest.split_at_checked(stretch.hash.len_in_bytes()) {
                Some((_, rest)) => {
                    self.rest = rest;
                    (Form::DeltaToObject, NONE)
                }
                None => return Ok(None),
            },
            _ => return Err(PackError("an object is of no known type")),
        };
        Ok(Some((form, base, size)))
    }

    /// Reads three bits of type, then the size: 4 bits, and 7 for each byte that follows.
    fn kind_and_size(&mut self) -> Result<Option<(u8, u64)>, PackError> {
        let Some(first) = self.byte() else {
            return Ok(None);
        };
        let mut size = u64::from(first & 0x0f);
        let mut more = first & 0x80 != 0;
        let mut shift = 4;
        while more {
            let Some(byte) = self.byte() else {
                return Ok(None);
            };
            if shift > 53 {
                return Err(PackError("an object states an impossible size"));
            }
            size |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            more = byte & 0x80 != 0;
        }
        Ok(Some(((first >> 4) & 7, size)))
    }

    /// Reads the distance back to the start of a delta's base: 7 bits per byte, highest first, one added
    /// per further byte.
    fn distance(&mut self) -> Result<Option<u64>, PackError> {
        let mut value = 0u64;
        loop {
            let Some(byte) = self.byte() else {
                return Ok(None);
            };
            value |= u64::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                return Ok(Some(value));
            }
            if value >= 1 << 48 {
                return Err(PackError("a delta states an impossible distance"));
            }
            value = (value + 1) << 7;
        }
    }
}

/// Returns the entry that starts `distance` bytes before `start`, or [`NONE`] if it is before the bytes
/// at hand.
fn entry_at(start: usize, gone: u64, distance: u64, before: &[Entry]) -> Result<u32, PackError> {
    const WRONG: PackError = PackError("a delta's base is not at the start of an object");
    let back = usize::try_from(distance).ok();
    let Some(base) = back.and_then(|distance| start.checked_sub(distance)) else {
        let is_gone = distance < gone + start as u64;
        return if is_gone { Ok(NONE) } else { Err(WRONG) };
    };
    before
        .binary_search_by_key(&base, |entry| entry.start as usize)
        .ok()
        .and_then(|index| u32::try_from(index).ok())
        .ok_or(WRONG)
}

/// Number of inflated bytes after which others that wait are looked for, while an object is passed over.
const AT_ONCE: u64 = 16 << 20;

/// Callback for each piece of an object, with the number of bytes before it.
type EachPiece<'e> = dyn FnMut(u64, &[u8]) -> Result<(), FetchError> + 'e;

/// A zlib decoder that is reused.
pub(super) struct Inflater {
    state: Decompress,
    sink: Vec<u8>,
}

impl Inflater {
    pub(super) fn new() -> Self {
        Self {
            state: Decompress::new(true),
            sink: vec![0; 32 << 10],
        }
    }

    /// Begins an object.
    fn begin(&mut self) {
        self.state.reset(true);
    }

    /// Inflates more of an object that has `size` bytes without keeping the result. Returns the number of compressed
    /// bytes, and `true` if the object ended with them, `false` if `input` did.
    fn pass(
        &mut self,
        input: &[u8],
        size: u64,
        weight: &mut Weight,
    ) -> Result<(usize, bool), FetchError> {
        let mut counted = self.state.total_out();
        let passed = self.each_piece(input, size, &mut |start, _| {
            if start - counted >= AT_ONCE {
                weight.work(start - counted)?;
                counted = start;
            }
            Ok(())
        })?;
        weight.work(self.state.total_out() - counted)?;
        Ok(passed)
    }

    /// Inflates an object of `size` bytes, all of which is in `input`, and shows it piece by piece.
    pub(super) fn pieces(
        &mut self,
        input: &[u8],
        size: u64,
        each: &mut EachPiece<'_>,
    ) -> Result<(), FetchError> {
        self.begin();
        match self.each_piece(input, size, each)? {
            (_, true) => Ok(()),
            (_, false) => Err(WRONG_SIZE.into()),
        }
    }

    fn each_piece(
        &mut self,
        input: &[u8],
        size: u64,
        each: &mut EachPiece<'_>,
    ) -> Result<(usize, bool), FetchError> {
        let mut at = 0;
        loop {
            let (read, written) = (self.state.total_in(), self.state.total_out());
            let status = self
                .state
                .decompress(&input[at..], &mut self.sink, FlushDecompress::None)
                .map_err(|_| BAD_STREAM)?;
            at += usize::try_from(self.state.total_in() - read).map_err(|_| BAD_STREAM)?;
            let total = self.state.total_out();
            if total > size {
                return Err(WRONG_SIZE.into());
            }
            let made = usize::try_from(total - written).map_err(|_| BAD_STREAM)?;
            each(written, self.sink.get(..made).unwrap_or_default())?;
            match status {
                Status::StreamEnd if total == size => return Ok((at, true)),
                Status::StreamEnd => return Err(WRONG_SIZE.into()),
                _ if at == input.len() && total == written => return Ok((at, false)),
                _ if total == written && self.state.total_in() == read => {
                    return Err(BAD_STREAM.into());
                }
                _ => {}
            }
        }
    }

    /// Inflates the beginning of an object into `out`. Returns the part that was filled.
    pub(super) fn beginning<'o>(
        &mut self,
        input: &[u8],
        out: &'o mut [u8],
    ) -> Result<&'o [u8], PackError> {
        self.begin();
        self.state
            .decompress(input, out, FlushDecompress::None)
            .map_err(|_| BAD_STREAM)?;
        let made = usize::try_from(self.state.total_out()).map_err(|_| BAD_STREAM)?;
        Ok(out.get(..made).unwrap_or_default())
    }

    /// Inflates exactly `size` bytes.
    pub(super) fn inflate(&mut self, input: &[u8], size: usize) -> Result<Vec<u8>, PackError> {
        self.state.reset(true);
        // One byte more than needed: the decoder must reach the end of its stream, and must not go
        // beyond.
        let mut out = Vec::with_capacity(size + 1);
        let status = self
            .state
            .decompress_vec(input, &mut out, FlushDecompress::Finish)
            .map_err(|_| BAD_STREAM)?;
        if status == Status::StreamEnd && out.len() == size {
            Ok(out)
        } else {
            Err(WRONG_SIZE)
        }
    }
}

const BAD_STREAM: PackError = PackError("an object's compressed data are damaged");
const WRONG_SIZE: PackError = PackError("an object is not of the size it states");
