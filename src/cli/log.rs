//! `rescind log`: the revocation log.

mod verify;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use uuid::Uuid;

use super::context::{Records, block_on};
use super::kept::Kept;
use super::output::{self, List, time};
use super::time as when;
use super::{Context, DONE, UsageError, file};
use crate::store::{Action, CSV_HEADER, LogEntry, LogFilter, PageRequest, Reason, Store};
use verify::VerifyArgs;

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
  rescind log list --key 0199c3a2-6b1e-7d3f-8a51-2f0c9b7e4d10
  rescind log list --all --reason leaked --since 2026-11-01 --until 2026-12-01")]
struct ListArgs {
    /// Entries about this key only
    #[arg(long, value_name = "ID", visible_alias = "key-id")]
    key: Option<Uuid>,
    /// Entries about keys of this project only
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// Entries with this action only
    #[arg(long, value_parser = action())]
    action: Option<Action>,
    /// Entries with this reason only
    #[arg(long, value_parser = reason())]
    reason: Option<Reason>,
    /// Entries of this time or later: a day, or a time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = when::moment)]
    since: Option<Timestamp>,
    /// Entries from before this time
    #[arg(long, value_name = "TIME", value_parser = when::moment)]
    until: Option<Timestamp>,
    /// Number of entries to print
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Print all of them
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

fn action() -> impl TypedValueParser<Value = Action> {
    PossibleValuesParser::new(Action::ALL.map(Action::name))
        .try_map(|name| Action::by_name(&name).ok_or("is no action"))
}

fn reason() -> impl TypedValueParser<Value = Reason> {
    PossibleValuesParser::new(Reason::ALL.map(Reason::name))
        .try_map(|name| Reason::by_name(&name).ok_or("is no reason"))
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
    /// File to write instead of standard output, which is `-`
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

pub(super) fn run(args: LogArgs, context: &Context) -> anyhow::Result<ExitCode> {
    // A file is verified offline: without configuration, without a database.
    if let LogCommand::Verify(VerifyArgs {
        file: Some(file),
        json,
    }) = &args.command
    {
        return verify::file(file, *json);
    }
    block_on(async {
        match args.command {
            LogCommand::List(args) => list(args, context).await,
            LogCommand::Show(args) => show(args, context).await,
            LogCommand::Export(args) => export(args, context).await,
            LogCommand::Verify(args) => verify::database(context, args.json).await,
        }
    })
}

const HEADER: &[&str] = &[
    "SEQ", "AT", "ACTION", "REASON", "KEY", "FORMAT", "OWNER", "ACTOR", "WHERE",
];

async fn list(args: ListArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let records = Records::open(context).await?;
    let filter = LogFilter {
        project: args.project,
        key_id: args.key,
        action: args.action,
        reason: args.reason,
        since: args.since,
        until: args.until,
    };
    let mut list = List::new(HEADER, args.json);
    let mut left = if args.all { usize::MAX } else { args.limit };
    let mut request = PageRequest::new(left, None);
    while left > 0 {
        let page = records.store.list_log(&filter, &request).await?;
        for entry in &page.items {
            list.add(entry, &row(entry))?;
        }
        left -= page.items.len();
        if page.next_cursor.is_none() {
            break;
        }
        if left == 0 {
            output::note("there are more entries: raise --limit, or use --all");
        }
        request = PageRequest::new(left, page.next_cursor);
    }
    list.finish()?;
    Ok(DONE)
}

async fn show(args: ShowArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let records = Records::open(context).await?;
    let entry = records.store.log_entry(args.seq).await?;
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
    let records = Records::open(context).await?;
    let file = args.output.as_deref();
    let count = match file.filter(|path| !file::is_standard_output(path)) {
        None => {
            if output::may_be_closed() {
                output::note(
                    "standard output is closed or the null device, so the export goes nowhere: send it to a file or a pipe, or name a file with --output",
                );
            }
            let written = write_log(&records.store, args.format, io::stdout()).await;
            written.map_err(|error| {
                if error.is::<io::Error>() {
                    error.context(output::UNWRITABLE)
                } else {
                    error
                }
            })?
        }
        Some(path) => {
            let mut file = file::Output::create(path, &Kept::of(context))?;
            let count = write_log(&records.store, args.format, &mut file).await?;
            file.finish()?;
            count
        }
    };
    output::note(&format!("exported {count} entries"));
    Ok(DONE)
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
