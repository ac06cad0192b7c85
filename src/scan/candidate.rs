//! Results of a scan.

use std::sync::Arc;

use crate::keyformat::KeyValue;

/// String in a text that has the shape of a secret key format, and a valid checksum if the format has one. Only the
/// key store can tell whether it is a key.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Identifier of the key format.
    pub format: Arc<str>,
    /// The string itself, decoded.
    pub value: KeyValue,
    /// Redacted form of the string, such as `rsc_sk_…wxyz`.
    pub display: String,
    /// Offset of its start in the text, in bytes from 0. In base64, that of the character which holds its first
    /// bits.
    pub offset: u64,
    /// Line on which it starts, counted from 1.
    pub line: u64,
    /// Column at which it starts, counted from 1: in bytes, or in code units if the whole text is UTF-16.
    pub column: u64,
    /// Column at which it starts, counted from 1, in characters (Unicode code points).
    pub character: u64,
    /// Number of characters that it takes up on its line. `None` in base64, where it may continue across line
    /// breaks and share its last character with the text after it.
    pub characters: Option<u64>,
    /// Encoding in which it is written.
    pub encoding: Encoding,
}

/// Encoding of a candidate in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encoding {
    /// UTF-8, or any other encoding that leaves ASCII unchanged.
    Utf8,
    /// UTF-16, little-endian.
    Utf16Le,
    /// UTF-16, big-endian.
    Utf16Be,
    /// Base64 as defined in RFC 4648, sections 4 and 5, with or without padding.
    Base64,
}

impl Encoding {
    /// Returns the name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf8",
            Self::Utf16Le => "utf16le",
            Self::Utf16Be => "utf16be",
            Self::Base64 => "base64",
        }
    }
}

/// Encodings that are searched in addition to UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encodings {
    /// UTF-16 of either byte order.
    pub utf16: bool,
    /// Base64 of either alphabet.
    pub base64: bool,
}

impl Encodings {
    /// All encodings.
    pub const ALL: Self = Self {
        utf16: true,
        base64: true,
    };
}
