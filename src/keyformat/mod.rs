//! What a key looks like, described once in `patterns/*.toml` and used everywhere: minting, checksums,
//! digests, redaction, scanning. Pure: no clock, no runtime, no database, no network.

mod digest;
mod value;

pub use digest::{Peppers, Sha256Digest, StoredDigest};
pub use value::KeyValue;
