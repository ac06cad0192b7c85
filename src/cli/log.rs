//! `rescind log`: the revocation log.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use uuid::Uuid;

use super::context::{Empty, Instance, block_on, open_store};
use super::output::{self, List, time};
use super::{Context, DONE, FOUND, UsageError};
use crate::store::{
    CSV_HEADER, LogEntry, LogFilter, PageRequest, Store, Verified, VerifyError, verify_lines,
};

/// `rescind log`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rescind log list --limit 20
  rescind log export --format jsonl --output log.jsonl
  rescind log verify log.jsonl")]
pub(super) struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// List entries, newest first
    List(ListArgs),
    /// Show one entry
    Show(ShowArgs),
    /// Write all entries, oldest first
    Export(ExportArgs),
    /// Recompute the chain and name the first invalid entry
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rescind log list --limit 20
  rescind log list --key 0199c3a2-6b1e-7d3f-8a51-2f0c9b7e4d10")]
struct ListArgs {
    /// Entries about this key only
    #[arg(long, value_name = "ID")]
    key: Option<Uuid>,
    /// Number of entries to print
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  rescind log show 17")]
struct ShowArgs {
    /// Number of the entry
    seq: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "JSON Lines keep every field and can be verified; CSV is for spreadsheets.

Examples:
  rescind log export --format jsonl --output log.jsonl
  rescind log export --format csv > log.csv"
)]
struct ExportArgs {
    /// Format of the entries
    #[arg(long, value_enum, default_value_t)]
    format: ExportFormat,
    /// File to write instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum ExportFormat {
    /// One JSON object per line
    #[default]
    Jsonl,
    /// Comma-separated values
    Csv,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 1 when the chain does not hold. A file whose last entries were cut off holds by itself: compare
the number of entries and the head with those of the database.

Examples:
  rescind log verify
  rescind log verify log.jsonl
  curl … | rescind log verify -"
)]
struct VerifyArgs {
    /// Export in JSON Lines, or - for standard input [default: the configured database]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) fn run(args: LogArgs, context: &Context) -> anyhow::Result<ExitCode> {
    // A file is verified offline: without configuration, without a database.
    if let LogCommand::Verify(VerifyArgs { file: Some(file) }) = &args.command {
        return verify_file(file);
    }
    block_on(async {
        match args.command {
            LogCommand::List(args) => list(args, context).await,
            LogCommand::Show(args) => show(args, context).await,
            LogCommand::Export(args) => export(args, context).await,
            LogCommand::Verify(_) => verify_database(context).await,
        }
    })
}

const HEADER: &[&str] = &[
    "SEQ", "AT", "ACTION", "REASON", "KEY", "FORMAT", "OWNER", "ACTOR", "WHERE",
];

async fn list(args: ListArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let instance = Instance::open_records(context, Empty::Refuse).await?;
    let filter = LogFilter {
        key_id: args.key,
        ..LogFilter::default()
    };
    let mut list = List::new(HEADER, args.json);
    let mut left = args.limit;
    let mut request = PageRequest::new(left, None);
    while left > 0 {
        let page = instance.store.list_log(&filter, &request).await?;
        for entry in &page.items {
            list.add(entry, &row(entry))?;
        }
        left -= page.items.len();
        if page.next_cursor.is_none() {
            break;
        }
        request = PageRequest::new(left, page.next_cursor);
    }
    list.finish()?;
    Ok(DONE)
}

async fn show(args: ShowArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let instance = Instance::open_records(context, Empty::Refuse).await?;
    let entry = instance.store.log_entry(args.seq).await?;
    let missing = || UsageError(format!("the revocation log has no entry {}", args.seq));
    let entry = entry.ok_or_else(missing)?;
    output::show(args.json, &entry, &lines(&entry))?;
    Ok(DONE)
}

fn row(entry: &LogEntry) -> Vec<String> {
    vec![
        entry.seq.to_string(),
        time(Some(entry.at)),
        entry.action.name().to_owned(),
        entry.reason.name().to_owned(),
        format!("…{}", entry.last_four),
        entry.format.clone(),
        format!("{} {}", entry.owner_type.name(), entry.owner_id),
        entry.actor.clone(),
        place(entry),
    ]
}

/// Returns the place where the key was seen: the link, or else repository and path, or else the source.
fn place(entry: &LogEntry) -> String {
    let Some(occurrence) = &entry.occurrence else {
        return "-".to_owned();
    };
    let path = occurrence
        .path
        .as_deref()
        .map(|path| match occurrence.line {
            Some(line) => format!("{path}:{line}"),
            None => path.to_owned(),
        });
    let parts = [occurrence.repository.clone(), path];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let url = occurrence.url.clone();
    url.unwrap_or_else(|| {
        if parts.is_empty() {
            occurrence.source.clone()
        } else {
            parts.join(" ")
        }
    })
}

fn lines(entry: &LogEntry) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("seq", entry.seq.to_string()),
        ("at", entry.at.to_string()),
        ("action", entry.action.name().to_owned()),
        ("reason", entry.reason.name().to_owned()),
        ("actor", entry.actor.clone()),
        ("key", entry.key_id.to_string()),
        ("format", entry.format.clone()),
        ("last four", entry.last_four.clone()),
        (
            "owner",
            format!("{} {}", entry.owner_type.name(), entry.owner_id),
        ),
        ("description", entry.description.clone()),
    ];
    lines.extend(entry.policy.clone().map(|policy| ("policy", policy)));
    lines.extend(entry.incident_id.map(|id| ("incident", id.to_string())));
    lines.extend(entry.detected_at.map(|at| ("detected", at.to_string())));
    if let Some(occurrence) = &entry.occurrence {
        lines.push(("source", occurrence.source.clone()));
        lines.extend(occurrence.url.clone().map(|url| ("url", url)));
        lines.extend(
            occurrence
                .repository
                .clone()
                .map(|name| ("repository", name)),
        );
        lines.extend(occurrence.commit.clone().map(|commit| ("commit", commit)));
        lines.extend(occurrence.path.clone().map(|path| ("path", path)));
        lines.extend(occurrence.line.map(|line| ("line", line.to_string())));
    }
    lines.push(("prev_hash", entry.prev_hash.clone()));
    lines.push(("hash", entry.hash.clone()));
    lines
}

async fn export(args: ExportArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let instance = Instance::open_records(context, Empty::Refuse).await?;
    let count = match &args.output {
        None => write_log(&instance.store, args.format, io::stdout()).await?,
        Some(path) => export_to_file(&instance.store, args.format, path).await?,
    };
    output::note(&format!("exported {count} entries"));
    Ok(DONE)
}

/// Exports the log to a file, which appears complete or not at all.
async fn export_to_file(store: &Store, format: ExportFormat, path: &Path) -> anyhow::Result<u64> {
    let cannot =
        |error: &io::Error| UsageError(format!("cannot write {}: {error}", path.display()));
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")));
    let mut file = file.map_err(|error| cannot(&error))?;
    let count = write_log(store, format, &mut file).await?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| cannot(&error.error))?;
    Ok(count)
}

async fn write_log(store: &Store, format: ExportFormat, out: impl Write) -> anyhow::Result<u64> {
    let mut out = Export::new(format, out)?;
    let mut last = 0;
    loop {
        let entries = store.log_after(last, 1000).await?;
        let Some(end) = entries.last() else {
            break;
        };
        last = end.seq;
        for entry in &entries {
            out.write(entry)?;
        }
    }
    out.flush()?;
    Ok(last)
}

/// Export in progress.
enum Export<W: Write> {
    Jsonl(BufWriter<W>),
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write> Export<W> {
    fn new(format: ExportFormat, out: W) -> io::Result<Self> {
        match format {
            ExportFormat::Jsonl => Ok(Self::Jsonl(BufWriter::new(out))),
            ExportFormat::Csv => {
                let mut out = csv::Writer::from_writer(out);
                out.write_record(CSV_HEADER).map_err(io::Error::from)?;
                Ok(Self::Csv(Box::new(out)))
            }
        }
    }

    fn write(&mut self, entry: &LogEntry) -> io::Result<()> {
        match self {
            Self::Jsonl(out) => writeln!(out, "{}", entry.to_json_line()),
            Self::Csv(out) => out
                .write_record(entry.to_csv_row())
                .map_err(io::Error::from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Jsonl(out) => out.flush(),
            Self::Csv(out) => out.flush(),
        }
    }
}

async fn verify_database(context: &Context) -> anyhow::Result<ExitCode> {
    let store = open_store(&context.config()?, Empty::Refuse).await?;
    store.check_ready().await?;
    report(
        store
            .verify_log()
            .await?
            .map_err(|broken| broken.to_string()),
    )
}

fn verify_file(path: &Path) -> anyhow::Result<ExitCode> {
    let verified = if path == Path::new("-") {
        verify_lines(io::stdin().lock())
    } else {
        let file = File::open(path)
            .map_err(|error| UsageError(format!("cannot read {}: {error}", path.display())))?;
        verify_lines(BufReader::new(file))
    };
    match verified {
        Err(VerifyError::Read(error)) => Err(unreadable(path, error)),
        Err(VerifyError::Broken(broken)) => report(Err(broken.to_string())),
        Ok(verified) => report(Ok(verified)),
    }
}

/// Returns the error of an export that could not be read to its end.
fn unreadable(path: &Path, error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::IsADirectory {
        let message = format!(
            "cannot verify {}: it is a folder; name a file that `rescind log export` wrote",
            path.display()
        );
        return UsageError(message).into();
    }
    let name = if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    anyhow::Error::new(error).context(format!("cannot read {name}"))
}

fn report(result: Result<Verified, String>) -> anyhow::Result<ExitCode> {
    match result {
        Ok(verified) => {
            output::line(&format!(
                "ok: {} entries, head {}",
                verified.entries, verified.head
            ))?;
            Ok(DONE)
        }
        Err(broken) => {
            output::line(&format!("the chain does not hold: {broken}"))?;
            Ok(ExitCode::from(FOUND))
        }
    }
}
