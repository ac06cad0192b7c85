//! Scanner for candidates in texts, files and git histories.
//!
//! The [`Engine`] finds candidates in a text that is in memory; a [`Scanner`] feeds it texts of any size, piece by
//! piece. Neither needs a clock, an asynchronous runtime, a database or the network.

mod candidate;
mod engine;
mod files;
mod finding;
mod git;
mod ignored;
mod lines;
mod open;
#[cfg(test)]
mod oracle;
mod redact;
mod report;
mod sarif;
mod scanner;
mod visible;
mod walk;

pub use candidate::{Candidate, Encoding, Encodings};
pub use engine::Engine;
pub use files::{FilesError, STANDARD_INPUT, scan_path, scan_stream};
pub use finding::{Counters, Disobeyed, Event, Finding, GitKind, GitObject, LostObject, Unread};
pub use git::{HistoryError, scan_history, scan_since, scan_staged};
pub use redact::Redactor;
pub use report::{KnownKey, Match, Report, ReportFormat, Summary, printable, printable_unread};
pub use scanner::Scanner;
pub use visible::{visible, visible_but, visible_json, visible_lines, visible_name};
