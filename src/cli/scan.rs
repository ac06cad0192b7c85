//! `rescind scan`

mod matches;
mod progress;
mod sink;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;

use super::output::note;
use super::{COULD_NOT_RUN, Context, DONE, FOUND, UsageError};
use crate::config::Needs;
use crate::scan::{
    Counters, Disobeyed, Engine, Match, Redactor, Report, ReportFormat, STANDARD_INPUT, Summary,
    printable, printable_unread,
};
use crate::tree::{
    Event, FilesError, HistoryError, scan_history, scan_path, scan_since, scan_staged, scan_stream,
};
use matches::{note_unhunted, report_matches};
use progress::{progress, progress_text, tell};
use sink::Sink;

/// Maximum number of findings that wait to be written. Beyond it, the scan waits.
const WAITING: usize = 1_024;
/// Number of candidates per lookup in the key store.
const LOOKED_UP: usize = 500;

/// Interval between progress updates while nothing is found.
const TICK: Duration = Duration::from_millis(200);

/// `rescind scan`
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line, which checks how they go together"
)]
#[derive(Debug, Args)]
#[command(
    after_help = "Candidates are shown redacted, such as rsc_sk_…wxyz. No database is needed, unless with --match.

Examples:
  rescind scan                            files, hidden ones too, but not those that ignore files list
  rescind scan --no-ignore --report jsonl /srv/www
  rescind scan --git .                    the whole history: every file's contents once, and messages
  rescind scan --staged                   what the next commit would add: for .git/hooks/pre-commit
  rescind scan --since origin/main        what every commit since then added, and their messages
  rescind scan --report sarif --output rescind.sarif src docs
  git log -p | rescind scan -
  rescind scan --match leaked-folder      which of the candidates are keys of ours, and whose

Exit codes: 0 nothing found, 1 candidates found, 2 wrong usage, 3 the scan could not be done or not to its end: something
that was to be scanned could not be read (unless --allow-incomplete)."
)]
pub(super) struct ScanArgs {
    /// Files and folders, `-` for standard input; with --staged and --since one path in the repository
    /// [default: the current folder]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Scan the history of the repository at each PATH instead of its files
    #[arg(long)]
    git: bool,
    /// Scan what is staged for the next commit in the repository around PATH
    #[arg(long, conflicts_with_all = ["git", "since"])]
    staged: bool,
    /// Scan what each commit reachable from HEAD but not from REV added, in the repository around PATH
    #[arg(long, value_name = "REV", value_parser = revision)]
    since: Option<String>,
    /// Format of the report
    #[arg(long, value_enum, value_name = "FORM", default_value_t = Form::Text)]
    report: Form,
    /// File to write the report to instead of standard output, which is `-`
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Look candidates up in the configured key store
    #[arg(long = "match")]
    look_up: bool,
    /// Also scan files that ignore files list
    #[arg(long, conflicts_with_all = ["git", "staged", "since"])]
    no_ignore: bool,
    /// Exit with 0 instead of 3 if nothing was found but something could not be scanned
    #[arg(long)]
    allow_incomplete: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
    Jsonl,
    Sarif,
}

/// Input of a scan.
enum Target<'a> {
    /// Standard input.
    Stream,
    /// A file or a folder, and whether ignore files are disregarded.
    Files(&'a Path, bool),
    /// The whole history of a repository.
    History(&'a Path),
    /// The changes staged in the repository around a path.
    Staged(Option<&'a Path>),
    /// The commits since a revision of the repository around a path.
    Since(Option<&'a Path>, &'a str),
}

/// Parses a revision, which git must not mistake for an option.
fn revision(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('-') {
        return Err("is no commit, branch or tag".to_owned());
    }
    Ok(text.to_owned())
}

/// Runs `rescind scan`.
///
/// # Errors
/// Returns an error if the arguments, the configuration or the formats are invalid, the scan fails, or its report
/// cannot be written.
pub(super) fn run(args: &ScanArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let targets = targets(args)?;
    let config = context.config(if args.look_up {
        Needs::MATCHES
    } else {
        Needs::SCANS
    })?;
    let formats = context.formats(&config)?;
    let engine = Engine::new(&formats, config.scan.encodings);
    let counters = Counters::default();
    let (events, found) = sync_channel(WAITING);
    let bar = progress();
    let form = match args.report {
        Form::Text => ReportFormat::Text,
        Form::Json => ReportFormat::Json,
        Form::Jsonl => ReportFormat::JsonLines,
        Form::Sarif => ReportFormat::Sarif,
    };
    let redactor = Redactor::new(&formats);
    let mut sink = Sink::open(args.output.as_deref(), context)?;
    let is_left = sink.is_left();
    let mut report = Report::new(&mut sink, form, &engine, &redactor);
    let (scanned, written) = thread::scope(|scope| {
        let (engine, counters, targets, redactor) = (&engine, &counters, &targets, &redactor);
        // The scanning thread owns the sender, so the channel closes when the scan ends.
        let scanning = scope.spawn(move || scan_all(targets, engine, redactor, counters, &events));
        let is_enough = |candidates| candidates > 0 && is_left.get();
        let mut writing = Writing {
            args,
            context,
            redactor,
            report: &mut report,
            bar: &bar,
        };
        let written = writing.write(counters, found, is_enough);
        let scanned = scanning
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the scan broke off")));
        (scanned, written)
    });
    bar.finish_and_clear();
    let candidates = written?;
    if candidates > 0 && is_left.get() {
        // Nobody reads on, and nothing that is still to be found would change the exit code.
        return Ok(ExitCode::from(FOUND));
    }
    let summary = Summary::of(&counters, candidates);
    let failure = scanned.as_ref().err().map(|error| format!("{error:#}"));
    report.finish(&summary, failure.as_deref())?;
    sink.finish()?;
    scanned?;
    tell(&summary);
    if args.look_up {
        note_unhunted(context, &formats)?;
    }
    if candidates > 0 {
        if args.staged {
            note(STAGED);
        }
        return Ok(ExitCode::from(FOUND));
    }
    if summary.unread > 0 && !args.allow_incomplete {
        note(INCOMPLETE);
        return Ok(ExitCode::from(COULD_NOT_RUN));
    }
    Ok(DONE)
}

/// Note printed by a scan that found nothing but could not read everything.
const INCOMPLETE: &str = "not everything was scanned (see above): that nothing was found means little; \
                          with --allow-incomplete this is no failure";

/// Remedy printed for candidates that are staged.
const STAGED: &str = "take the candidates out of these files and stage them again, \
                      or leave the files out with `git reset -- FILE`";

fn targets(args: &ScanArgs) -> Result<Vec<Target<'_>>, UsageError> {
    let of_git = [
        (args.git, "--git"),
        (args.staged, "--staged"),
        (args.since.is_some(), "--since"),
    ];
    let of_git = of_git.iter().find(|(is_set, _)| *is_set);
    let is_stream = |path: &PathBuf| path == Path::new("-");
    if let Some((_, flag)) = of_git
        && args.paths.iter().any(is_stream)
    {
        let message = format!("{flag} needs a repository, not standard input");
        return Err(UsageError(message));
    }
    let first = args.paths.first().map(PathBuf::as_path);
    if args.staged || args.since.is_some() {
        if args.paths.len() > 1 {
            let message = "--staged and --since take one path, by which the repository is found";
            return Err(UsageError(message.to_owned()));
        }
        return Ok(vec![match &args.since {
            Some(revision) => Target::Since(first, revision),
            None => Target::Staged(first),
        }]);
    }
    let target = |path| match path {
        path if path == Path::new("-") => Target::Stream,
        path if args.git => Target::History(path),
        path => Target::Files(path, args.no_ignore),
    };
    if first.is_none() {
        return Ok(vec![target(Path::new("."))]);
    }
    let mut targets = Vec::new();
    for (number, path) in args.paths.iter().enumerate() {
        if !args.paths[..number].contains(path) {
            targets.push(target(path));
        }
    }
    Ok(targets)
}

/// Scans each target, also those behind one that cannot be scanned.
///
/// # Errors
/// Returns the first error.
fn scan_all(
    targets: &[Target<'_>],
    engine: &Engine,
    redactor: &Redactor,
    counters: &Counters,
    events: &SyncSender<Event>,
) -> anyhow::Result<()> {
    let mut result = Ok(());
    for target in targets {
        result = result.and(scan(target, engine, redactor, counters, events));
    }
    result
}

fn scan(
    target: &Target<'_>,
    engine: &Engine,
    redactor: &Redactor,
    counters: &Counters,
    events: &SyncSender<Event>,
) -> anyhow::Result<()> {
    let named = |path: &Path| printable(redactor, path);
    let around = |path: Option<&Path>| named(path.unwrap_or(Path::new(".")));
    match target {
        Target::Stream => {
            let name = Path::new(STANDARD_INPUT);
            scan_stream(&mut io::stdin().lock(), name, engine, counters, events);
            Ok(())
        }
        Target::Files(path, all) => scan_path(path, *all, engine, counters, events)
            .map_err(|error| refused_files(&named(path), &error)),
        Target::History(path) => scan_history(path, engine, counters, events)
            .map_err(|error| refused_repository(named(path), error, named)),
        Target::Staged(path) => scan_staged(*path, engine, counters, events)
            .map_err(|error| refused_repository(around(*path), error, named)),
        Target::Since(path, revision) => scan_since(*path, revision, engine, counters, events)
            .map_err(|error| refused_repository(around(*path), error, named)),
    }
}

fn refused_files(path: &str, error: &FilesError) -> anyhow::Error {
    match error {
        FilesError::Missing | FilesError::NotAFile(_) => {
            UsageError(format!("{path}: {error}")).into()
        }
        FilesError::Unreadable(_) => anyhow::anyhow!("{path}: {error}"),
    }
}

fn refused_repository(
    path: String,
    error: HistoryError,
    named: impl Fn(&Path) -> String,
) -> anyhow::Error {
    match error {
        HistoryError::Special {
            path: ref special, ..
        } => UsageError(format!("{}: {error}", named(special))).into(),
        HistoryError::NotARepository { .. }
        | HistoryError::NoRepository { .. }
        | HistoryError::NothingStaged
        | HistoryError::UnknownRevision { .. }
        | HistoryError::NoCommits
        | HistoryError::Unreadable(_) => UsageError(format!("{path}: {error}")).into(),
        HistoryError::NoGit
        | HistoryError::CannotRun(_)
        | HistoryError::NoFolder(_)
        | HistoryError::Failed { .. }
        | HistoryError::Broken { .. } => anyhow::Error::new(error).context(path),
    }
}

/// Report in progress.
struct Writing<'a, 'r, W> {
    args: &'a ScanArgs,
    context: &'a Context,
    redactor: &'a Redactor,
    report: &'a mut Report<'r, W>,
    bar: &'a ProgressBar,
}

impl<W: Write> Writing<'_, '_, W> {
    /// Reports findings as they arrive, until their number is enough. Returns it.
    fn write(
        &mut self,
        counters: &Counters,
        found: Receiver<Event>,
        is_enough: impl Fn(u64) -> bool,
    ) -> anyhow::Result<u64> {
        let mut candidates = 0;
        let mut unknown = Vec::new();
        while !is_enough(candidates) {
            match found.recv_timeout(TICK) {
                Ok(Event::Found(finding)) => {
                    candidates += 1;
                    if self.args.look_up {
                        unknown.push(finding);
                    } else {
                        let report = &mut *self.report;
                        self.bar
                            .suspend(|| report.add(&finding, &Match::NotAsked))?;
                    }
                }
                Ok(event) => self.remark(event)?,
                Err(RecvTimeoutError::Timeout) => {
                    self.bar.set_message(progress_text(counters, candidates));
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if unknown.len() == LOOKED_UP {
                report_matches(self.context, self.report, &std::mem::take(&mut unknown))?;
            }
        }
        if self.args.look_up {
            report_matches(self.context, self.report, &unknown)?;
        }
        // Dropped early if an error returned above, so that the scan ends too.
        drop(found);
        Ok(candidates)
    }

    /// Tells of what was not scanned, or scanned all the same.
    fn remark(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Unread(unread) => {
                let what = printable_unread(self.redactor, &unread);
                let report = &mut *self.report;
                self.bar.suspend(|| {
                    note(&format!("not scanned: {what}"));
                    report.unread(&unread)
                })?;
            }
            Event::Disobeyed(Disobeyed { path, reason }) => {
                let path = printable(self.redactor, &path);
                let text = format!("ignore file not obeyed: {path}: {reason}");
                self.bar.suspend(|| note(&text));
            }
            Event::Found(_) => {}
        }
        Ok(())
    }
}
