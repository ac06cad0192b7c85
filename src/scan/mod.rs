//! Text in, candidates out. Pure: no clock, no runtime, no database, no network.
//!
//! The [`Engine`] finds candidates in a text that is in memory; a [`Scanner`] feeds it with texts of any
//! size, piece by piece.

mod candidate;
mod engine;
mod lines;
#[cfg(test)]
mod oracle;
mod scanner;

pub use candidate::{Candidate, Encoding, Encodings};
pub use engine::Engine;
pub use scanner::Scanner;
