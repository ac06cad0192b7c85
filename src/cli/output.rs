//! What commands print: tables for people, tab-separated lines for pipes, JSON for programs.

use std::io::{self, BufWriter, IsTerminal, Write};

use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Table,
    Tabs,
    Json,
}

/// Prints a list page by page, so that it may be of any length.
pub(super) struct List {
    form: Form,
    header: &'static [&'static str],
    rows: Vec<Vec<String>>,
    out: BufWriter<io::Stdout>,
    started: bool,
}

impl List {
    /// A list with these columns; with `json`, one object per line instead.
    pub(super) fn new(header: &'static [&'static str], json: bool) -> Self {
        let form = match json {
            true => Form::Json,
            false if io::stdout().is_terminal() => Form::Table,
            false => Form::Tabs,
        };
        Self {
            form,
            header,
            rows: Vec::new(),
            out: BufWriter::new(io::stdout()),
            started: false,
        }
    }

    /// Adds one item: as `item` in JSON, as `row` otherwise.
    pub(super) fn add(&mut self, item: &impl Serialize, row: &[String]) -> io::Result<()> {
        let cells = row.iter().map(|cell| printable(cell));
        match self.form {
            Form::Table => self.rows.push(cells.collect()),
            Form::Tabs => {
                let cells: Vec<String> = cells.collect();
                self.start()?;
                writeln!(self.out, "{}", cells.join("\t"))?;
            }
            Form::Json => {
                serde_json::to_writer(&mut self.out, item)?;
                self.out.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    fn start(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.started, true) {
            writeln!(self.out, "{}", self.header.join("\t"))?;
        }
        Ok(())
    }

    /// Prints what is left.
    pub(super) fn finish(mut self) -> io::Result<()> {
        match self.form {
            Form::Table => {
                let mut table = Table::new();
                table.load_style(presets::NOTHING);
                table.set_header(self.header.to_vec());
                table.add_rows(std::mem::take(&mut self.rows));
                writeln!(self.out, "{}", table.trim_fmt())?;
            }
            Form::Tabs => self.start()?,
            Form::Json => {}
        }
        self.out.flush()
    }
}

/// Prints one item: as JSON, or as lines of name and value.
pub(super) fn show(json: bool, item: &impl Serialize, lines: &[(&str, String)]) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout());
    if json {
        serde_json::to_writer_pretty(&mut out, item)?;
        writeln!(out)?;
    } else {
        let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in lines {
            writeln!(out, "{name:width$}  {}", printable(value))?;
        }
    }
    out.flush()
}

/// Prints one line and flushes it.
pub(super) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// A time, or a dash.
pub(super) fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"))
}

/// Descriptions come from strangers: nothing in them may steer a terminal or break a line.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Prints a remark on standard error, where it does not mix with data.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
