//! Output of commands: tables for people, tab-separated lines for pipes, JSON for programs.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::scan::{visible, visible_json, visible_lines};

/// Output format of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Table,
    Tabs,
    Json,
}

/// Number of rows that are laid out together, which bounds memory.
const TABLE_ROWS: usize = 1000;

/// Printer of a list of any length, page by page.
pub(super) struct List {
    form: Form,
    header: Option<&'static [&'static str]>,
    rows: Vec<Vec<String>>,
    out: BufWriter<io::Stdout>,
}

impl List {
    /// Creates a list with these columns, or with one JSON object per line if `json` is set.
    pub(super) fn new(header: &'static [&'static str], json: bool) -> Self {
        let form = match json {
            true => Form::Json,
            false if io::stdout().is_terminal() => Form::Table,
            false => Form::Tabs,
        };
        Self {
            form,
            header: Some(header),
            rows: Vec::new(),
            out: BufWriter::new(io::stdout()),
        }
    }

    /// Adds one item, printed as `item` in JSON and as `row` otherwise.
    pub(super) fn add(&mut self, item: &impl Serialize, row: &[String]) -> anyhow::Result<()> {
        if self.form == Form::Json {
            let json = serde_json::to_string(item).map_err(io::Error::from)?;
            return writeln!(self.out, "{}", visible_json(&json)).context(UNWRITABLE);
        }
        self.rows
            .push(row.iter().map(|cell| visible(cell).into_owned()).collect());
        if self.rows.len() == TABLE_ROWS {
            self.print_rows().context(UNWRITABLE)?;
        }
        Ok(())
    }

    fn print_rows(&mut self) -> io::Result<()> {
        let header = self.header.take();
        let rows = std::mem::take(&mut self.rows);
        if self.form == Form::Table {
            let mut table = Table::new();
            table.load_style(presets::NOTHING);
            if let Some(header) = header {
                table.set_header(header.to_vec());
            }
            table.add_rows(rows);
            return writeln!(self.out, "{}", table.trim_fmt());
        }
        if let Some(header) = header {
            writeln!(self.out, "{}", header.join("\t"))?;
        }
        for row in rows {
            writeln!(self.out, "{}", row.join("\t"))?;
        }
        Ok(())
    }

    /// Prints the remaining rows and flushes standard output.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        if self.form != Form::Json && (self.header.is_some() || !self.rows.is_empty()) {
            self.print_rows().context(UNWRITABLE)?;
        }
        self.out.flush().context(UNWRITABLE)
    }
}

pub(super) const UNWRITABLE: &str = "cannot write to standard output";

/// Prints one item, as JSON or as lines of name and value.
pub(super) fn show(
    json: bool,
    item: &impl Serialize,
    lines: &[(&str, String)],
) -> anyhow::Result<()> {
    if json {
        return say_json(item);
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = lines.iter();
    let lines: Vec<String> = lines
        .map(|(name, value)| format!("{name:width$}  {}", visible(value)))
        .collect();
    say(&lines.join("\n"))
}

/// Prints one item as JSON, as [`say`] does.
pub(super) fn say_json(item: &impl Serialize) -> anyhow::Result<()> {
    say(&visible_json(&serde_json::to_string_pretty(item)?))
}

/// Prints a line of a result. A reader that has seen enough and left is no error: what the command still has to do is
/// done, and its exit code is that of its result.
pub(super) fn say(text: &str) -> anyhow::Result<()> {
    match write_line(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            LEFT.store(true, Ordering::Relaxed);
            Ok(())
        }
        written => written.context(UNWRITABLE),
    }
}

static LEFT: AtomicBool = AtomicBool::new(false);

/// Returns whether [`say`] has noticed that the reader of standard output left.
pub(super) fn is_left() -> bool {
    LEFT.load(Ordering::Relaxed)
}

/// Prints one line that has to be read to standard output, and flushes it.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    write_line(text).context(UNWRITABLE)
}

fn write_line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush())
}

/// Returns whether whatever is printed is discarded: standard output is the null device, which a program that is
/// started without one is given in its stead.
pub(super) fn is_discarded() -> bool {
    use rustix::fs::{FileType, fstat, stat};
    let (Ok(out), Ok(null)) = (fstat(io::stdout()), stat("/dev/null")) else {
        return false;
    };
    let kind = FileType::from_raw_mode(out.st_mode);
    kind == FileType::CharacterDevice && out.st_rdev == null.st_rdev
}

/// Returns whether standard output may have been closed when this program was started. The standard library opens the
/// null device in its stead, for reading and writing. Shells open it for writing only if that is what they are told to do,
/// but other programs do not.
pub(super) fn may_be_closed() -> bool {
    use rustix::fs::{OFlags, fcntl_getfl};
    let flags = fcntl_getfl(io::stdout());
    is_discarded() && flags.is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR)
}

/// Checks that a value which is shown only once would be seen by somebody, before it is made.
///
/// # Errors
/// Returns an error if standard output is closed or the null device.
pub(super) fn check_is_seen() -> anyhow::Result<()> {
    anyhow::ensure!(
        !is_discarded(),
        "standard output is closed or the null device, so the value would be lost: nothing was changed; send it to a terminal, a file or a pipe"
    );
    Ok(())
}

/// Prints a value that is shown only once. If that fails, the value is lost, and the error carries `remedy`.
///
/// A closed pipe is a failure here too. The error is therefore no [`io::Error`], which
/// [`report`](super::exit::report) would take for a reader that had seen enough.
pub(super) fn once(value: &str, remedy: &str) -> anyhow::Result<()> {
    line(value).map_err(|error| anyhow::anyhow!("{error:#}; the value is lost: {remedy}"))
}

/// Prints an item with a value that is shown only once as JSON, as [`once`] does.
pub(super) fn once_json(item: &impl Serialize, remedy: &str) -> anyhow::Result<()> {
    let json = Zeroizing::new(serde_json::to_string_pretty(item)?);
    once(&Zeroizing::new(visible_json(&json).into_owned()), remedy)
}

/// Formats a time to the second, in UTC, or as a dash if there is none.
pub(super) fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"))
}

/// Prints a remark to standard error, apart from the data.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", visible_lines(text));
}
