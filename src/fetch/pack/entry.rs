//! One entry of a pack: its header, and where it ends.

use flate2::{Decompress, FlushDecompress, Status};
use gix_hash::ObjectId;

use super::PackError;

/// What an object is.
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

/// How an entry holds its object.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// In full.
    Full(Kind),
    /// As a delta to the entry at this index.
    DeltaToEntry(u32),
    /// As a delta to the object with this id, wherever it is.
    DeltaToObject(ObjectId),
}

/// An entry in the list of a pack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Where it starts.
    start: usize,
    /// Where its compressed data start.
    pub(super) data: usize,
    /// Bytes of the data, inflated.
    pub(super) size: u64,
    pub(super) form: Form,
}

/// What reading one entry came to.
pub(super) enum Step {
    /// It is whole; the next one starts there.
    Entry(Entry, usize),
    /// The bytes end before it does.
    EndOfInput,
    /// It would inflate to more than is allowed.
    TooMuch,
}

/// Reads the entry at `start`, inflating at most `budget` bytes to find its end. `before` are the entries in
/// front of it.
pub(super) fn read(
    bytes: &[u8],
    start: usize,
    budget: u64,
    before: &[Entry],
    inflater: &mut Inflater,
) -> Result<Step, PackError> {
    let mut header = Header {
        rest: bytes.get(start..).unwrap_or_default(),
    };
    let (form, size) = match header.read(start, before) {
        Ok(Some(read)) => read,
        Ok(None) => return Ok(Step::EndOfInput),
        Err(error) => return Err(error),
    };
    if size > budget {
        return Ok(Step::TooMuch);
    }
    let data = bytes.len() - header.rest.len();
    match inflater.skip(header.rest, size)? {
        Some(compressed) => {
            let entry = Entry {
                start,
                data,
                size,
                form,
            };
            Ok(Step::Entry(entry, data + compressed))
        }
        None => Ok(Step::EndOfInput),
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

    /// The form and the inflated size; nothing when the bytes end too early.
    fn read(&mut self, start: usize, before: &[Entry]) -> Result<Option<(Form, u64)>, PackError> {
        let Some((kind, size)) = self.kind_and_size()? else {
            return Ok(None);
        };
        let form = match kind {
            1 => Form::Full(Kind::Commit),
            2 => Form::Full(Kind::Tree),
            3 => Form::Full(Kind::Blob),
            4 => Form::Full(Kind::Tag),
            6 => match self.distance()? {
                Some(distance) => Form::DeltaToEntry(entry_at(start, distance, before)?),
                None => return Ok(None),
            },
            7 => match self.rest.split_first_chunk::<20>() {
                Some((id, rest)) => {
                    self.rest = rest;
                    Form::DeltaToObject(ObjectId::Sha1(*id))
                }
                None => return Ok(None),
            },
            _ => return Err(PackError("an object is of no known type")),
        };
        Ok(Some((form, size)))
    }

    /// Three bits of type, then the size: 4 bits, and 7 for each byte that follows.
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

    /// How far back the base of a delta starts: 7 bits a byte, highest first, one added per further byte.
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

fn entry_at(start: usize, distance: u64, before: &[Entry]) -> Result<u32, PackError> {
    usize::try_from(distance)
        .ok()
        .and_then(|distance| start.checked_sub(distance))
        .and_then(|base| before.binary_search_by_key(&base, |entry| entry.start).ok())
        .and_then(|index| u32::try_from(index).ok())
        .ok_or(PackError("a delta's base is not at the start of an object"))
}

/// A zlib decoder that is used again and again.
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

    /// Inflates to nowhere, checks that `size` bytes came of it, and returns how many compressed bytes it
    /// took; nothing when `input` ends too early.
    fn skip(&mut self, input: &[u8], size: u64) -> Result<Option<usize>, PackError> {
        self.state.reset(true);
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
                return Err(WRONG_SIZE);
            }
            match status {
                Status::StreamEnd if total == size => return Ok(Some(at)),
                Status::StreamEnd => return Err(WRONG_SIZE),
                _ if at == input.len() && total == written => return Ok(None),
                _ if total == written && self.state.total_in() == read => return Err(BAD_STREAM),
                _ => {}
            }
        }
    }

    /// Inflates exactly `size` bytes.
    pub(super) fn inflate(&mut self, input: &[u8], size: usize) -> Result<Vec<u8>, PackError> {
        self.state.reset(true);
        // One byte more than needed: the decoder must reach the end of its stream, and must not go beyond.
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
