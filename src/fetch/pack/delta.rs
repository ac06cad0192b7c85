//! Deltas: objects described by copies from another object and by insertions.
//!
//! Source: `Documentation/gitformat-pack.adoc` of git, "Deltified representation".

use super::PackError;

const BAD: PackError = PackError("a delta is not well-formed");

/// Sizes that a delta states before its instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Size of the base object, in bytes.
    pub(super) base: u64,
    /// Size of the resulting object, in bytes.
    pub(super) result: u64,
}

/// Maximum length of both sizes, in bytes.
pub(super) const SIZES: usize = 2 * SIZE;

/// Maximum length of a size, in bytes: 7 bits each.
const SIZE: usize = 9;

/// Parses the sizes and returns them with the instructions that follow.
pub(super) fn sizes(delta: &[u8]) -> Result<(Sizes, &[u8]), PackError> {
    let (base, rest) = size(delta)?;
    let (result, instructions) = size(rest)?;
    Ok((Sizes { base, result }, instructions))
}

fn size(bytes: &[u8]) -> Result<(u64, &[u8]), PackError> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(SIZE) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[at + 1..]));
        }
    }
    Err(BAD)
}

/// An instruction of a delta.
enum Instruction<'d> {
    Copy { offset: usize, length: usize },
    Insert(&'d [u8]),
}

/// Parser of the instructions of a delta.
struct Instructions<'d>(&'d [u8]);

impl<'d> Instructions<'d> {
    fn next(&mut self) -> Result<Option<Instruction<'d>>, PackError> {
        let Some((&command, after)) = self.0.split_first() else {
            return Ok(None);
        };
        self.0 = after;
        if command & 0x80 != 0 {
            let (offset, length) = copy_range(command, &mut self.0)?;
            return Ok(Some(Instruction::Copy { offset, length }));
        }
        if command == 0 {
            return Err(BAD);
        }
        let split = after.split_at_checked(usize::from(command));
        let (bytes, after) = split.ok_or(BAD)?;
        self.0 = after;
        Ok(Some(Instruction::Insert(bytes)))
    }
}

/// Builds the object of `size` bytes that `instructions` describe in terms of `base`.
pub(super) fn apply(base: &[u8], instructions: &[u8], size: usize) -> Result<Vec<u8>, PackError> {
    // A size is only a claim until the instructions add up to it, so no memory is allocated before.
    if length(base.len(), instructions)? != size {
        return Err(BAD);
    }
    let mut result = Vec::with_capacity(size);
    let mut rest = Instructions(instructions);
    while let Some(instruction) = rest.next()? {
        result.extend_from_slice(match instruction {
            Instruction::Copy { offset, length } => base.get(offset..offset + length).ok_or(BAD)?,
            Instruction::Insert(bytes) => bytes,
        });
    }
    Ok(result)
}

/// An object that is built from a base that is shown piece by piece.
pub(super) struct Picked {
    result: Vec<u8>,
    /// Copies of bytes that were not shown yet, the last one first.
    copies: Vec<Copied>,
}

/// A stretch of a base, and its place in the result.
#[derive(Debug, Clone, Copy)]
struct Copied {
    offset: u32,
    length: u32,
    at: u32,
}

impl Picked {
    /// Returns the memory needed beside the object itself, in bytes.
    pub(super) fn bytes(instructions: &[u8]) -> Result<usize, PackError> {
        Ok(copies(instructions)?.saturating_mul(size_of::<Copied>()))
    }

    /// Begins the object of `size` bytes that `instructions` describe in terms of a base of `base` bytes.
    pub(super) fn begin(base: u64, instructions: &[u8], size: usize) -> Result<Self, PackError> {
        let base = usize::try_from(base).map_err(|_| BAD)?;
        if length(base, instructions)? != size {
            return Err(BAD);
        }
        let small = |number: usize| u32::try_from(number).map_err(|_| BAD);
        let mut result = vec![0; size];
        let mut copies = Vec::with_capacity(copies(instructions)?);
        let mut at = 0;
        let mut rest = Instructions(instructions);
        while let Some(instruction) = rest.next()? {
            match instruction {
                Instruction::Copy { offset, length } => {
                    copies.push(Copied {
                        offset: small(offset)?,
                        length: small(length)?,
                        at: small(at)?,
                    });
                    at += length;
                }
                Instruction::Insert(bytes) => {
                    let place = result.get_mut(at..at + bytes.len());
                    place.ok_or(BAD)?.copy_from_slice(bytes);
                    at += bytes.len();
                }
            }
        }
        copies.sort_unstable_by_key(|copied| std::cmp::Reverse(copied.offset));
        Ok(Self { result, copies })
    }

    /// Takes what is copied of the next piece of the base, which starts at `start`.
    ///
    /// Looks only at copies that reach into the piece. All copies together are as long as the object, so however many
    /// of them overlap, there are no more looks than copies and pieces' lengths in the object.
    pub(super) fn take(&mut self, start: u64, piece: &[u8]) {
        let end = start + piece.len() as u64;
        let is_later = |copied: &Copied| u64::from(copied.offset) >= end;
        let first = self.copies.partition_point(is_later);
        let mut kept = first;
        for at in first..self.copies.len() {
            let mut copied = self.copies[at];
            copied.take(start, piece, &mut self.result);
            if copied.length > 0 {
                // The rest begins where the next piece does, before all others.
                self.copies[kept] = copied;
                kept += 1;
            }
        }
        self.copies.truncate(kept);
    }

    /// Returns the object, once all of the base was shown.
    pub(super) fn finish(self) -> Vec<u8> {
        self.result
    }
}

impl Copied {
    /// Copies what it has in common with `piece`, which starts at `start`, and becomes the rest.
    fn take(&mut self, start: u64, piece: &[u8], result: &mut [u8]) {
        let skipped = usize::try_from(u64::from(self.offset).saturating_sub(start));
        let bytes = piece
            .get(skipped.unwrap_or(usize::MAX)..)
            .unwrap_or_default();
        let bytes = &bytes[..bytes.len().min(self.length as usize)];
        let at = self.at as usize;
        if let Some(place) = result.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        // A piece is much shorter than 4 GiB.
        let taken = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.offset += taken;
        self.length -= taken;
        self.at += taken;
    }
}

/// Returns the number of copies among `instructions`.
fn copies(instructions: &[u8]) -> Result<usize, PackError> {
    let mut copies = 0;
    let mut rest = Instructions(instructions);
    while let Some(instruction) = rest.next()? {
        copies += usize::from(matches!(instruction, Instruction::Copy { .. }));
    }
    Ok(copies)
}

/// Returns the size of the result of applying `instructions` to a base of `base` bytes, in bytes.
fn length(base: usize, instructions: &[u8]) -> Result<usize, PackError> {
    let mut total = 0usize;
    let mut rest = Instructions(instructions);
    while let Some(instruction) = rest.next()? {
        let length = match instruction {
            Instruction::Copy { offset, length } if offset + length <= base => length,
            Instruction::Copy { .. } => return Err(BAD),
            Instruction::Insert(bytes) => bytes.len(),
        };
        total = total.checked_add(length).ok_or(BAD)?;
    }
    Ok(total)
}

/// Parses the offset (4 bytes) and length (3 bytes) of a copy. The low bits of the command indicate which
/// of the bytes are present.
fn copy_range(command: u8, rest: &mut &[u8]) -> Result<(usize, usize), PackError> {
    let mut fields = [0usize; 2];
    for bit in 0..7 {
        if command & (1 << bit) == 0 {
            continue;
        }
        let (&byte, after) = rest.split_first().ok_or(BAD)?;
        *rest = after;
        let (field, shift) = if bit < 4 { (0, bit) } else { (1, bit - 4) };
        fields[field] |= usize::from(byte) << (8 * shift);
    }
    let [offset, length] = fields;
    Ok((offset, if length == 0 { 0x10000 } else { length }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing::fuzz;

    #[test]
    fn copies_and_inserts() {
        // Copy 3 bytes from offset 1, insert "xy", copy 1 byte from offset 0.
        let delta = [b"\x05\x06\x91\x01\x03\x02xy\x90\x01".as_slice()].concat();
        let (sizes, instructions) = sizes(&delta).unwrap();
        assert_eq!(sizes, Sizes { base: 5, result: 6 });
        assert_eq!(apply(b"abcde", instructions, 6).unwrap(), b"bcdxya");
    }

    #[test]
    fn a_copy_without_length_is_64_kib() {
        let base = vec![7; 0x10000];
        assert_eq!(apply(&base, b"\x80", 0x10000).unwrap(), base);
    }

    #[test]
    fn refuses_what_does_not_add_up() {
        for (instructions, size) in [
            (b"\x00".as_slice(), 1),
            (b"\x91\x05\x01", 1),
            (b"\x91\x01", 1),
            (b"\x02x", 2),
            (b"\x02xy", 1),
            (b"\x02xy", 3),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", 9),
        ] {
            assert!(
                apply(b"abcde", instructions, size).is_err(),
                "{instructions:?}"
            );
        }
        assert!(sizes(b"\x80\x80").is_err());
        assert!(sizes(&[0xff; 30]).is_err());
    }

    proptest! {
        /// A base that is shown in pieces makes what one at hand makes.
        #[test]
        fn picks_what_apply_copies(
            copies in proptest::collection::vec((0usize..300, 1usize..200, any::<bool>()), 0..40),
            step in 1usize..90,
        ) {
            let base: Vec<u8> = (0..500).map(|n: u32| n.to_le_bytes()[0] ^ 0x55).collect();
            let (mut delta, mut size) = (Vec::new(), 0);
            for (offset, length, inserts) in copies {
                let [low, high, ..] = offset.to_le_bytes();
                delta.extend([0x93, low, high, u8::try_from(length).unwrap()]);
                size += length;
                if inserts {
                    delta.extend(b"\x02xy");
                    size += 2;
                }
            }
            let mut picked = Picked::begin(500, &delta, size).unwrap();
            let mut start = 0;
            for piece in base.chunks(step) {
                picked.take(start, piece);
                start += piece.len() as u64;
            }
            prop_assert_eq!(picked.finish(), apply(&base, &delta, size).unwrap());
        }

        #[test]
        fn survives_arbitrary_bytes(delta in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((sizes, instructions)) = sizes(&delta) {
                let size = usize::try_from(sizes.result.min(4096)).unwrap();
                if let Ok(result) = apply(b"some base text", instructions, size) {
                    prop_assert_eq!(result.len(), size);
                }
            }
        }
    }

    #[test]
    fn fuzz_deltas() {
        let base = b"hello hello hello\n".repeat(9);
        fuzz(
            "deltas",
            &[b"\x90\x05", b"\x80", b"\xb0\xff\xff"],
            |delta| {
                let Ok((Sizes { result, .. }, instructions)) = sizes(delta) else {
                    return;
                };
                let Ok(size) = usize::try_from(result.min(1 << 20)) else {
                    return;
                };
                if let Ok(made) = apply(&base, instructions, size) {
                    assert_eq!(made.len(), size);
                }
            },
        );
    }
}
