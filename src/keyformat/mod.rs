//! Key formats, described once in `patterns/*.toml` and used for minting, checksums, digests, redaction
//! and scanning. Pure: no clock, no runtime, no database, no network.
//!
//! A [`FormatSet`] is loaded from pattern files, which are validated together before any of them is used.
//! Each [`KeyFormat`] in it can then mint a key, judge a string, and match a key around a literal in a
//! text.

mod alphabet;
mod around;
mod automaton;
mod byte_set;
mod checksum;
mod definition;
mod digest;
mod explain;
mod fields;
#[cfg(test)]
mod folders;
mod format;
mod load;
mod mint;
mod overlap;
mod problem;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod refusals;
mod set;
mod shape;
mod surroundings;
mod value;
#[cfg(test)]
mod vectors;

pub use alphabet::Alphabet;
pub use checksum::{Checksum, ChecksumAlgorithm, ChecksumEncoding, Coverage};
pub use definition::Definition;
pub use digest::{PepperCheck, PepperId, Peppers, Sha256Digest, StoredDigest};
pub use explain::Step;
pub use format::{ChecksumState, KeyFormat, Verdict, Visibility};
pub use mint::MintError;
pub use problem::{FormatsError, Problem};
pub use set::FormatSet;
pub use value::KeyValue;
