//! Search for candidates in texts, and redaction of what is stored or shown.
//!
//! The [`Engine`] finds candidates in a text that is in memory; a [`Scanner`] feeds it texts of any size, piece by
//! piece. Neither needs a clock, an asynchronous runtime, a database or the network.

mod candidate;
mod engine;
mod finding;
mod redact;
mod report;
mod visible;

pub use candidate::{Candidate, Encoding, Encodings};
pub use engine::Engine;

pub use finding::{
    Counters, Disobeyed, Finding, GitKind, GitObject, LostObject, Part, STANDARD_INPUT, Unread,
};

#[cfg(test)]
pub(crate) use engine::scanner::SCANNED;
pub use engine::scanner::Scanner;
pub use redact::Redactor;
pub use report::{KnownKey, Match, Report, ReportFormat, Summary, printable, printable_unread};
pub use visible::{visible, visible_but, visible_json, visible_lines, visible_name};
