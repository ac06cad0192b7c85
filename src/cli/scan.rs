//! `rescind scan`

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::house::{Empty, House, block_on};
use super::output::note;
use super::{Context, DONE, FOUND, UsageError};
use crate::clock::{Clock as _, SystemClock};
use crate::keyformat::Sha256Digest;
use crate::scan::{
    Counters, Engine, Event, FilesError, Finding, HistoryError, KnownKey, Match, Report,
    ReportFormat, Summary, Unread, printable, scan_history, scan_path, scan_stream,
};
use crate::store::{Key, WhyInvalid};

/// How many findings may wait to be written before the scan waits for the writer.
const WAITING: usize = 1_024;
/// How many candidates are looked up in the key store at a time.
const LOOKED_UP: usize = 500;

/// How often the progress is shown while nothing is found.
const TICK: Duration = Duration::from_millis(200);

/// `rescind scan`
#[derive(Debug, Args)]
#[command(
    after_help = "Candidates are shown redacted, such as rsc_sk_…wxyz. No database is needed, unless with --match.

Examples:
  rescind scan .                          files, hidden ones too, but not those that ignore files list
  rescind scan --no-ignore --report jsonl /srv/www
  rescind scan --git .                    the whole history: every file's contents once, and messages
  git log -p | rescind scan -
  rescind scan --match leaked-folder      which of the candidates are keys of ours, and whose

Exit codes: 0 nothing found, 1 candidates found, 2 wrong usage, 3 the scan could not be done or not to its end."
)]
pub(super) struct ScanArgs {
    /// File or folder, or `-` for standard input
    path: PathBuf,
    /// Scan the history of the repository at PATH instead of its files
    #[arg(long)]
    git: bool,
    /// How candidates are reported, on standard output
    #[arg(long, value_enum, value_name = "FORM", default_value_t = Form::Text)]
    report: Form,
    /// Look candidates up in the configured key store
    #[arg(long = "match")]
    look_up: bool,
    /// Scan files too that ignore files list
    #[arg(long, conflicts_with = "git")]
    no_ignore: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
    Jsonl,
}

/// Runs `rescind scan`.
pub(super) fn run(args: &ScanArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.config()?;
    let formats = context.formats(&config)?;
    let engine = Engine::new(&formats, config.scan.encodings);
    let counters = Counters::default();
    let (events, found) = sync_channel(WAITING);
    let bar = progress();
    let (scanned, written) = thread::scope(|scope| {
        let (engine, counters) = (&engine, &counters);
        // The sender lives in the scanning thread: the channel closes with the scan's end.
        let scanning = scope.spawn(move || scan(args, engine, counters, &events));
        let written = write(args, context, engine, counters, found, &bar);
        let scanned = scanning
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the scan broke off")));
        (scanned, written)
    });
    bar.finish_and_clear();
    let candidates = written?;
    scanned?;
    tell(&Summary::of(&counters, candidates));
    Ok(match candidates {
        0 => DONE,
        _ => ExitCode::from(FOUND),
    })
}

fn scan(
    args: &ScanArgs,
    engine: &Engine,
    counters: &Counters,
    events: &SyncSender<Event>,
) -> anyhow::Result<()> {
    let path = &args.path;
    let named = |what: String| format!("{}: {what}", printable(engine, path));
    if path.as_os_str() == "-" {
        if args.git {
            return Err(
                UsageError("--git needs a repository, not standard input".to_owned()).into(),
            );
        }
        let name = Path::new("(standard input)");
        scan_stream(&mut io::stdin().lock(), name, engine, counters, events);
        return Ok(());
    }
    if args.git {
        return scan_history(path, engine, counters, events).map_err(|error| match error {
            HistoryError::NotARepository { .. } | HistoryError::Unreadable(_) => {
                UsageError(named(error.to_string())).into()
            }
            error => anyhow::Error::new(error).context(printable(engine, path)),
        });
    }
    scan_path(path, args.no_ignore, engine, counters, events).map_err(|error| match error {
        FilesError::Missing | FilesError::NotAFile(_) => {
            UsageError(named(error.to_string())).into()
        }
        FilesError::Unreadable(_) => anyhow::anyhow!(named(error.to_string())),
    })
}

/// Writes what the scan finds, as it comes; says how many candidates that were.
fn write(
    args: &ScanArgs,
    context: &Context,
    engine: &Engine,
    counters: &Counters,
    found: Receiver<Event>,
    bar: &ProgressBar,
) -> anyhow::Result<u64> {
    let form = match args.report {
        Form::Text => ReportFormat::Text,
        Form::Json => ReportFormat::Json,
        Form::Jsonl => ReportFormat::JsonLines,
    };
    let mut report = Report::new(BufWriter::new(io::stdout()), form, engine);
    let mut candidates = 0;
    let mut unknown = Vec::new();
    loop {
        let event = match found.recv_timeout(TICK) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => {
                bar.set_message(progress_text(counters, candidates));
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        match event {
            Event::Unread(Unread { path, reason }) => bar.suspend(|| {
                note(&format!(
                    "not scanned: {}: {reason}",
                    printable(engine, &path)
                ));
            }),
            Event::Found(finding) => {
                candidates += 1;
                if args.look_up {
                    unknown.push(finding);
                } else {
                    bar.suspend(|| report.add(&finding, &Match::NotAsked))
                        .context(UNWRITABLE)?;
                }
            }
        }
        if unknown.len() == LOOKED_UP {
            report_matches(context, &mut report, &std::mem::take(&mut unknown))?;
        }
    }
    if args.look_up {
        report_matches(context, &mut report, &unknown)?;
    }
    // Gone early after an error above, so that the scan ends too.
    drop(found);
    let summary = Summary::of(counters, candidates);
    report.finish(&summary).context(UNWRITABLE)?;
    Ok(candidates)
}

const UNWRITABLE: &str = "cannot write to standard output";

/// Looks candidates up in the key store and reports what it knows of each.
fn report_matches<W: Write>(
    context: &Context,
    report: &mut Report<'_, W>,
    findings: &[Finding],
) -> anyhow::Result<()> {
    let digests: Vec<Sha256Digest> = findings
        .iter()
        .map(|finding| finding.candidate.value.sha256())
        .collect();
    let known = block_on(async {
        let house = House::open(context, Empty::Refuse).await?;
        Ok(house.store.find_keys(&digests).await?)
    })?;
    for (finding, digest) in findings.iter().zip(&digests) {
        let key = known
            .get(digest)
            .map_or(Match::Unknown, |key| Match::Known(known_key(key)));
        report.add(finding, &key).context(UNWRITABLE)?;
    }
    Ok(())
}

fn known_key(key: &Key) -> KnownKey {
    KnownKey {
        id: key.id.to_string(),
        owner_type: key.owner.kind.as_str(),
        owner_id: key.owner.id.clone(),
        state: match key.why_invalid(SystemClock.now()) {
            None => "valid",
            Some(WhyInvalid::ManuallyRevoked) => "revoked",
            Some(WhyInvalid::Expired) => "expired",
        },
    }
}

/// A bar on a terminal, nothing elsewhere.
fn progress() -> ProgressBar {
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

fn progress_text(counters: &Counters, candidates: u64) -> String {
    let Summary { scanned, bytes, .. } = Summary::of(counters, candidates);
    format!(
        "{scanned} scanned, {}, {candidates} candidates",
        megabytes(bytes)
    )
}

fn tell(summary: &Summary) {
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
    ] {
        if count > 0 {
            text = format!("{text}, {count} {what}");
        }
    }
    note(&text);
}

/// A size in megabytes of a million bytes, with one decimal.
fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}
