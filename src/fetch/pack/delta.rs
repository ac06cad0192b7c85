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

/// Parses the sizes and returns them with the instructions that follow.
pub(super) fn sizes(delta: &[u8]) -> Result<(Sizes, &[u8]), PackError> {
    let (base, rest) = size(delta)?;
    let (result, instructions) = size(rest)?;
    Ok((Sizes { base, result }, instructions))
}

fn size(bytes: &[u8]) -> Result<(u64, &[u8]), PackError> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(9) {
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
    if length(base, instructions)? != size {
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

/// Returns the size of the result of applying `instructions` to `base`, in bytes.
fn length(base: &[u8], instructions: &[u8]) -> Result<usize, PackError> {
    let mut total = 0usize;
    let mut rest = Instructions(instructions);
    while let Some(instruction) = rest.next()? {
        let length = match instruction {
            Instruction::Copy { offset, length } if offset + length <= base.len() => length,
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
