//! Packs that no git would write, made quickly.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use rescind::fetch::ObjectId;
use rescind::keyformat::{FormatSet, KeyValue};

pub(in crate::attacks) const COMMIT: u8 = 1;
pub(in crate::attacks) const TREE: u8 = 2;
pub(in crate::attacks) const BLOB: u8 = 3;
pub(in crate::attacks) const TAG: u8 = 4;
const OFFSET_DELTA: u8 = 6;
const REF_DELTA: u8 = 7;

/// Returns the previous commit of every pushed branch.
pub(in crate::attacks) fn before() -> ObjectId {
    ObjectId::from_hex(&[b'1'; 40]).expect("an id")
}

/// A pack, entry by entry.
pub(in crate::attacks) struct Pack {
    bytes: Vec<u8>,
    count: u32,
}

/// A pushed branch: the commit, and the pack that the server sends for it.
pub(in crate::attacks) struct Push {
    pub(in crate::attacks) after: ObjectId,
    pub(in crate::attacks) pack: Vec<u8>,
}

/// Compressed data that can stand in many entries.
pub(in crate::attacks) struct Deflated {
    size: usize,
    data: Vec<u8>,
}

pub(in crate::attacks) fn deflate(data: &[u8], level: u32) -> Deflated {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(data).expect("memory");
    Deflated {
        size: data.len(),
        data: encoder.finish().expect("memory"),
    }
}

/// The same without compressing anything (RFC 1950, and 3.2.4 of RFC 1951), which takes no time.
fn stored(data: &[u8]) -> Deflated {
    let length = u16::try_from(data.len()).expect("a short text");
    let (mut low, mut high) = (1_u32, 0_u32);
    for byte in data {
        low = (low + u32::from(*byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    let mut bytes = vec![0x78, 0x01, 0x01];
    bytes.extend(length.to_le_bytes());
    bytes.extend((!length).to_le_bytes());
    bytes.extend_from_slice(data);
    bytes.extend((high << 16 | low).to_be_bytes());
    Deflated {
        size: data.len(),
        data: bytes,
    }
}

fn id_of(kind: u8, data: &[u8]) -> ObjectId {
    let kind = match kind {
        COMMIT => gix_object::Kind::Commit,
        TREE => gix_object::Kind::Tree,
        TAG => gix_object::Kind::Tag,
        _ => gix_object::Kind::Blob,
    };
    gix_object::compute_hash(gix_hash::Kind::Sha1, kind, data).expect("an id")
}

impl Pack {
    pub(in crate::attacks) fn new() -> Self {
        Self {
            bytes: b"PACK\0\0\0\x02\0\0\0\0".to_vec(),
            count: 0,
        }
    }

    /// Appends an entry; returns where it starts.
    pub(in crate::attacks) fn entry(&mut self, kind: u8, base: &[u8], object: &Deflated) -> usize {
        let start = self.bytes.len();
        let mut rest = object.size >> 4;
        let mut byte = kind << 4 | low_bits(object.size, 15);
        while rest > 0 {
            self.bytes.push(byte | 0x80);
            byte = low_bits(rest, 127);
            rest >>= 7;
        }
        self.bytes.push(byte);
        self.bytes.extend_from_slice(base);
        self.bytes.extend_from_slice(&object.data);
        self.count += 1;
        start
    }

    /// Appends an object; returns its id.
    pub(in crate::attacks) fn object(&mut self, kind: u8, data: &[u8]) -> ObjectId {
        let entry = if data.len() < 1000 {
            stored(data)
        } else {
            deflate(data, 1)
        };
        self.entry(kind, b"", &entry);
        id_of(kind, data)
    }

    /// Appends a delta to the entry at `base`.
    pub(in crate::attacks) fn offset_delta(&mut self, base: usize, delta: &Deflated) -> usize {
        let mut distance = self.bytes.len() - base;
        let mut encoded = vec![low_bits(distance, 127)];
        while distance >= 0x80 {
            distance = (distance >> 7) - 1;
            encoded.insert(0, 0x80 | low_bits(distance, 127));
        }
        self.entry(OFFSET_DELTA, &encoded, delta)
    }

    /// Appends a delta to an object by id.
    pub(in crate::attacks) fn ref_delta(&mut self, base: &[u8; 20], delta: &Deflated) {
        self.entry(REF_DELTA, base, delta);
    }

    /// Appends a commit of `tree`, whose parents are `parents`.
    pub(in crate::attacks) fn commit(&mut self, tree: ObjectId, parents: &[ObjectId]) -> ObjectId {
        let mut text = format!("tree {tree}\n");
        for parent in parents {
            text.push_str("parent ");
            text.push_str(&parent.to_string());
            text.push('\n');
        }
        text.push_str("author A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nm\n");
        self.object(COMMIT, text.as_bytes())
    }

    pub(in crate::attacks) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes the number of entries and the checksum.
    pub(in crate::attacks) fn finish(mut self, after: ObjectId) -> Push {
        self.bytes[8..12].copy_from_slice(&self.count.to_be_bytes());
        let mut hasher = gix_hash::hasher(gix_hash::Kind::Sha1);
        hasher.update(&self.bytes);
        let id = hasher.try_finalize().expect("a checksum");
        self.bytes.extend_from_slice(id.as_slice());
        Push {
            after,
            pack: self.bytes,
        }
    }

    /// One commit of `tree` on what was there before.
    pub(in crate::attacks) fn push(mut self, tree: ObjectId) -> Push {
        let after = self.commit(tree, &[before()]);
        self.finish(after)
    }
}

fn low_bits(value: usize, mask: usize) -> u8 {
    u8::try_from(value & mask).expect("few bits")
}

/// An entry of a tree.
pub(in crate::attacks) fn named(mode: &str, name: &[u8], id: ObjectId) -> Vec<u8> {
    [mode.as_bytes(), b" ", name, b"\0", id.as_slice()].concat()
}

/// A push of one file.
pub(in crate::attacks) fn file(name: &[u8], text: &[u8]) -> Push {
    let mut pack = Pack::new();
    let blob = pack.object(BLOB, text);
    let tree = pack.object(TREE, &named("100644", name, blob));
    pack.push(tree)
}

/// A delta from a base to an object that is made of `copies` times its first 64 KiB.
pub(in crate::attacks) fn copying(base: usize, copies: usize) -> Deflated {
    let mut delta = sizes([base, copies << 16]);
    delta.extend(std::iter::repeat_n(0x80, copies));
    deflate(&delta, 1)
}

/// A delta to an object that is made of `copies` times 60 bytes of its base, each from one byte further on, and of
/// `text`.
pub(in crate::attacks) fn overlapping(base: usize, copies: usize, text: &[u8]) -> Deflated {
    let mut delta = sizes([base, copies * 60 + text.len()]);
    for offset in 0..copies {
        let offset = u32::try_from(offset).expect("a small number").to_le_bytes();
        delta.extend([0x97, offset[0], offset[1], offset[2], 60]);
    }
    delta.push(low_bits(text.len(), 127));
    delta.extend_from_slice(text);
    deflate(&delta, 1)
}

/// The sizes at the beginning of a delta.
fn sizes(sizes: [usize; 2]) -> Vec<u8> {
    let mut delta = Vec::new();
    for mut size in sizes {
        while size >= 0x80 {
            delta.push(0x80 | low_bits(size, 127));
            size >>= 7;
        }
        delta.push(low_bits(size, 127));
    }
    delta
}

/// Strings that are keys in everything but that nobody issued them.
pub(in crate::attacks) fn candidates(count: usize) -> Vec<KeyValue> {
    let formats = FormatSet::builtin();
    let format = formats.get("rescind_secret").expect("a format");
    (0..count).map(|_| format.mint().expect("a key")).collect()
}

/// A text with one of `keys` on each line.
pub(in crate::attacks) fn lines<'k>(keys: impl IntoIterator<Item = &'k str>) -> Vec<u8> {
    let mut text = String::new();
    for key in keys {
        text.push_str(key);
        text.push('\n');
    }
    text.into_bytes()
}
