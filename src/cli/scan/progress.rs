//! Progress of a scan, and its summary.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output::note;
use crate::scan::{Counters, Summary};

/// Returns a progress bar, hidden unless standard error is a terminal.
pub(super) fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Returns the text beside the bar.
pub(super) fn progress_text(counters: &Counters, candidates: u64) -> String {
    let Summary { scanned, bytes, .. } = Summary::of(counters, candidates);
    format!(
        "{scanned} scanned, {}, {candidates} candidates",
        megabytes(bytes)
    )
}

/// Prints what was scanned at the end.
pub(super) fn tell(summary: &Summary) {
    let mut text = format!(
        "{} scanned, {}, {} candidates",
        summary.scanned,
        megabytes(summary.bytes),
        summary.candidates
    );
    for (count, what) in [
        (summary.unread, "not scanned (see above)"),
        (summary.links_not_followed, "symbolic links not followed"),
        (
            summary.git_folders_left_out,
            ".git folders left out (--git scans a history)",
        ),
        (
            summary.ignored_left_out,
            "left out by ignore files (--no-ignore scans them)",
        ),
    ] {
        if count > 0 {
            text = format!("{text}, {count} {what}");
        }
    }
    note(&text);
}

/// Formats a size in megabytes (1,000,000 bytes), truncated to one decimal.
fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}
