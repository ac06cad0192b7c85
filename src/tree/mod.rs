//! Scans of folders and git repositories.

mod files;
mod git;
mod ignored;
mod listing;
mod open;
mod outlet;
mod walk;

pub use files::{FilesError, scan_path, scan_stream};
pub use git::{HistoryError, scan_history, scan_since, scan_staged};
pub use outlet::Event;
