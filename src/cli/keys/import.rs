//! `rescind keys import`

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::context::{InitArgs, Instance};
use crate::cli::{Context, DONE, FOUND, UsageError, output, text};
use crate::issuer::{RowError, RowFormat, parse_rows};
use crate::store::DEFAULT_PROJECT;
use crate::store::{ImportOutcome, NewKey};

/// Keys per transaction: enough to make the commit cheap, few enough to leave the database to others.
const BATCH: usize = 10_000;

#[derive(Debug, Args)]
#[command(
    after_help = "CSV begins with a line that names its columns; JSON Lines has one object per line with the same names:
  sha256, owner_type (user or team), owner_id, description, format, last_four, created_at, expires_at
The first three are required. An expires_at that is never, infinity, empty, or in the year 9999 or later means that the key has no end. Rows that cannot be imported are reported with their line and cost no other row;
the exit code is then 1. Keys that are stored already stay as they are.

Examples:
  rescind keys import keys.csv
  generate-digests | rescind keys import -"
)]
pub(super) struct ImportArgs {
    /// CSV or JSON Lines file, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Project that the keys belong to
    #[arg(long, value_name = "PROJECT", default_value = DEFAULT_PROJECT, value_parser = text::project)]
    project: String,
    /// Print the numbers of rows as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    init: InitArgs,
}

#[derive(Debug, Default, Serialize)]
struct Counts {
    imported: u64,
    #[serde(rename = "already_stored")]
    known: u64,
    refused: u64,
}

pub(super) async fn run(args: ImportArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let (mut input, progress) = open(&args.file)?;
    let instance = Instance::open(context, args.init.set_up()).await?;
    instance.check_texts([("--project", args.project.as_str())])?;
    let format = sniff(&mut input).map_err(|error| unreadable(&args.file, &error))?;
    let mut counts = Counts::default();
    let mut batch: Vec<NewKey> = Vec::with_capacity(BATCH);
    let mut errors = Errors::new(progress.clone());
    for row in parse_rows(input, format, &instance.redactor) {
        match row {
            Ok(row) => {
                batch.push(row.into_new_key(&args.project, &instance.formats, instance.now()));
            }
            Err(error) => {
                counts.refused += 1;
                errors.report(&error);
            }
        }
        if batch.len() == BATCH {
            store(&instance, &mut batch, &mut counts).await?;
            errors.flush();
        }
    }
    store(&instance, &mut batch, &mut counts).await?;
    errors.flush();
    progress.finish_and_clear();
    output::note(&format!(
        "imported {}, already stored {}, refused {}",
        counts.imported, counts.known, counts.refused
    ));
    if args.json {
        output::say_json(&counts)?;
    }
    Ok(if counts.refused == 0 {
        DONE
    } else {
        ExitCode::from(FOUND)
    })
}

async fn store(
    instance: &Instance,
    batch: &mut Vec<NewKey>,
    counts: &mut Counts,
) -> anyhow::Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let rows = std::mem::replace(batch, Vec::with_capacity(BATCH));
    let outcomes = instance.issuer().import(rows).await;
    let outcomes = outcomes.with_context(|| {
        format!(
            "stopped after {} keys were imported; run the import again, what is stored stays",
            counts.imported
        )
    })?;
    for outcome in outcomes {
        match outcome {
            ImportOutcome::Imported => counts.imported += 1,
            ImportOutcome::Duplicate => counts.known += 1,
        }
    }
    Ok(())
}

type Input = BufReader<Counted<Box<dyn Read>>>;

/// Opens the file, and a progress bar that follows the reading. The bar is hidden unless the file's length is known
/// and standard error is a terminal.
fn open(path: &Path) -> anyhow::Result<(Input, ProgressBar)> {
    let (input, length): (Box<dyn Read>, Option<u64>) = if path == Path::new("-") {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let length = file.metadata().ok().filter(std::fs::Metadata::is_file);
        (Box::new(file), length.map(|length| length.len()))
    };
    let progress = match length {
        Some(length) if io::stderr().is_terminal() => {
            let style = "{bar:40} {percent}% {binary_bytes}/{binary_total_bytes}, {eta} left";
            let style = ProgressStyle::with_template(style)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(length).with_style(style)
        }
        _ => ProgressBar::hidden(),
    };
    let counted = Counted {
        input,
        progress: progress.clone(),
    };
    Ok((BufReader::with_capacity(1 << 20, counted), progress))
}

fn unreadable(path: &Path, error: &io::Error) -> UsageError {
    UsageError(format!("cannot read {}: {error}", path.display()))
}

/// Detects the format. JSON Lines begin with a brace, preceded by a byte order mark or blank lines at most.
fn sniff(input: &mut Input) -> io::Result<RowFormat> {
    let start = input.fill_buf()?;
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let first = start.iter().find(|byte| !byte.is_ascii_whitespace());
    Ok(if first == Some(&b'{') {
        RowFormat::JsonLines
    } else {
        RowFormat::Csv
    })
}

/// Reader that advances the progress bar.
struct Counted<R> {
    input: R,
    progress: ProgressBar,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.progress.inc(read as u64);
        Ok(read)
    }
}

/// Printer of refused rows to standard error that leaves the progress bar intact.
struct Errors {
    out: BufWriter<io::Stderr>,
    progress: ProgressBar,
}

impl Errors {
    fn new(progress: ProgressBar) -> Self {
        Self {
            out: BufWriter::new(io::stderr()),
            progress,
        }
    }

    fn report(&mut self, error: &RowError) {
        if self.progress.is_hidden() {
            let _ = writeln!(self.out, "{error}");
        } else {
            self.progress.suspend(|| output::note(&error.to_string()));
        }
    }

    fn flush(&mut self) {
        let _ = self.out.flush();
    }
}
