//! Packs as a server would write them, and as none would.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use gix_hash::Kind as HashKind;

pub(super) const COMMIT: u8 = 1;
pub(super) const BLOB: u8 = 3;
pub(super) const OFFSET_DELTA: u8 = 6;
pub(super) const REF_DELTA: u8 = 7;

/// Writes packs entry by entry, sound or not.
pub(super) struct Builder {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u32,
    pub(super) level: Compression,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            bytes: b"PACK\0\0\0\x02\0\0\0\0".to_vec(),
            count: 0,
            level: Compression::fast(),
        }
    }

    /// Appends an entry and returns its offset. `size` is the inflated size that the entry claims.
    pub(super) fn raw(&mut self, kind: u8, size: u64, base: &[u8], data: &[u8]) -> usize {
        let start = self.bytes.len();
        let mut rest = size >> 4;
        let low = u8::try_from(size & 15).unwrap();
        let more = |rest| if rest > 0 { 0x80 } else { 0 };
        self.bytes.push(more(rest) | kind << 4 | low);
        while rest > 0 {
            let byte = u8::try_from(rest & 0x7f).unwrap();
            rest >>= 7;
            self.bytes.push(more(rest) | byte);
        }
        self.bytes.extend_from_slice(base);
        let mut encoder = ZlibEncoder::new(&mut self.bytes, self.level);
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap();
        self.count += 1;
        start
    }

    pub(super) fn object(&mut self, kind: u8, data: &[u8]) -> usize {
        self.raw(kind, data.len() as u64, b"", data)
    }

    pub(super) fn offset_delta(&mut self, base: usize, delta: &[u8]) -> usize {
        let mut distance = self.bytes.len() - base;
        let mut encoded = vec![u8::try_from(distance & 0x7f).unwrap()];
        while distance >= 0x80 {
            distance = (distance >> 7) - 1;
            encoded.insert(0, 0x80 | u8::try_from(distance & 0x7f).unwrap());
        }
        self.raw(OFFSET_DELTA, delta.len() as u64, &encoded, delta)
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.finish_by(HashKind::Sha1)
    }

    pub(super) fn finish_by(mut self, hash: HashKind) -> Vec<u8> {
        self.bytes[8..12].copy_from_slice(&self.count.to_be_bytes());
        seal_by(hash, &mut self.bytes);
        self.bytes
    }
}

/// Appends the checksum.
pub(super) fn seal(bytes: &mut Vec<u8>) {
    seal_by(HashKind::Sha1, bytes);
}

pub(super) fn seal_by(hash: HashKind, bytes: &mut Vec<u8>) {
    let mut hasher = gix_hash::hasher(hash);
    hasher.update(bytes);
    let id = hasher.try_finalize().unwrap();
    bytes.extend_from_slice(id.as_slice());
}

pub(super) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

/// Returns a delta that inserts `text` and then copies the first 64 KiB of its base `copies` times.
pub(super) fn delta(base: u64, text: &[u8], copies: u64) -> Vec<u8> {
    let result = text.len() as u64 + copies * 0x10000;
    let mut bytes = [varint(base), varint(result)].concat();
    if !text.is_empty() {
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend_from_slice(text);
    }
    bytes.extend(std::iter::repeat_n(0x80, usize::try_from(copies).unwrap()));
    bytes
}

pub(super) fn blob_id(data: &[u8]) -> Vec<u8> {
    blob_id_by(HashKind::Sha1, data)
}

pub(super) fn blob_id_by(hash: HashKind, data: &[u8]) -> Vec<u8> {
    let mut hasher = gix_hash::hasher(hash);
    hasher.update(format!("blob {}\0", data.len()).as_bytes());
    hasher.update(data);
    hasher.try_finalize().unwrap().as_slice().to_vec()
}

pub(super) fn sample() -> Vec<u8> {
    let mut pack = Builder::new();
    let base = pack.object(BLOB, b"some text that is the base of others");
    let next = pack.offset_delta(base, &delta(36, b"a first change", 0));
    pack.offset_delta(next, &delta(14, b"a second change", 0));
    let by_id = delta(36, b"by id", 0);
    let id = blob_id(b"some text that is the base of others");
    pack.raw(REF_DELTA, by_id.len() as u64, &id, &by_id);
    pack.object(
        COMMIT,
        b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\nmessage",
    );
    pack.finish()
}
