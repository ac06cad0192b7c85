//! What a scan yields.

use std::sync::Arc;

use crate::keyformat::KeyValue;

/// A string of a secret key format that stands in a text: its shape is right, and so is its checksum if
/// the format has one. Whether it is a key, only the key store can tell.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The identifier of its key format.
    pub format: Arc<str>,
    /// The string itself, decoded.
    pub value: KeyValue,
    /// The string as people may see it: `rsc_sk_…wxyz`.
    pub display: String,
    /// Where it starts in the text, in bytes from 0. In base64 that is the character that holds its
    /// first bits.
    pub offset: u64,
    /// The line it starts on, counted from 1.
    pub line: u64,
    /// Where on that line it starts, counted from 1: in bytes, or in code units if the whole text is
    /// UTF-16.
    pub column: u64,
    /// The same in characters: Unicode code points.
    pub character: u64,
    /// How many characters of its line it takes up. None in base64, where it may go on over line breaks
    /// and its last character may belong to what follows as well.
    pub characters: Option<u64>,
    /// How it is written there.
    pub encoding: Encoding,
}

/// How a candidate is written in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encoding {
    /// As it is: UTF-8, and whatever else keeps ASCII as it is.
    Utf8,
    /// UTF-16, low byte first.
    Utf16Le,
    /// UTF-16, high byte first.
    Utf16Be,
    /// Base64 of RFC 4648 section 4 or 5, with or without padding.
    Base64,
}

impl Encoding {
    /// The word that reports use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf8",
            Self::Utf16Le => "utf16le",
            Self::Utf16Be => "utf16be",
            Self::Base64 => "base64",
        }
    }
}

/// The encodings that keys are looked for in, besides UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encodings {
    /// UTF-16 of either byte order.
    pub utf16: bool,
    /// Base64 of either alphabet.
    pub base64: bool,
}

impl Encodings {
    /// All that there are.
    pub const ALL: Self = Self {
        utf16: true,
        base64: true,
    };
}
