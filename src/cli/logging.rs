//! Log lines on standard error. Commands write them synchronously, since a line printed just before the process
//! ends must appear. The daemon never waits for the reader of its log.

mod limit;
mod queue;
mod writer;

use std::fs::File;
use std::io::{self, IsTerminal, Write as _};
use std::os::fd::AsFd as _;
use std::panic::{self, PanicHookInfo};
use std::sync::OnceLock;

use anyhow::Context as _;
use clap::ValueEnum;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{self, SubscriberExt};
use tracing_subscriber::{Layer, Registry, fmt};

use self::writer::Writer;
use super::{Context, UsageError};
use crate::config::Environment;
use crate::scan::{visible_but, visible_json};

/// Environment variable that sets the log level.
const LEVEL: &str = "RESCIND_LOG";

/// Log of this process, if it is a daemon.
static WRITER: OnceLock<Writer> = OnceLock::new();

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// One line of text per event
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// Kind of process that logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// A command, whose lines are always written, however long that takes.
    Command,
    /// The daemon, which waits for no reader and lets no stranger fill a disk.
    Daemon,
}

/// Starts logging for the rest of the process, at the level of `RESCIND_LOG` or else at `default`.
///
/// # Errors
/// Returns an error if the level is invalid, or the thread of the daemon's log cannot be started.
pub(super) fn start(context: &Context, default: LevelFilter, whose: Whose) -> anyhow::Result<()> {
    let level = match context.environment.get(LEVEL).unwrap_or("") {
        "" => default,
        text => text.parse().map_err(|_| {
            UsageError(format!(
                "{LEVEL} has to be off, error, warn, info, debug or trace"
            ))
        })?,
    };
    // Other crates log headers and bodies below `warn`, which may contain keys.
    let targets = Targets::new()
        .with_target("rescind", level)
        // It warns about parameters of the database URL and quotes their values.
        .with_target("sqlx_postgres::options", LevelFilter::OFF)
        .with_default(level.min(LevelFilter::from_level(Level::WARN)));
    let outlet = match whose {
        Whose::Command => Outlet::Direct,
        Whose::Daemon => Outlet::Queue(daemon_writer().context("cannot start logging")?),
    };
    let form = Form {
        format: context.log,
        colored: context.log == LogFormat::Text
            && io::stderr().is_terminal()
            && allows_color(&context.environment),
    };
    let subscriber = subscriber(form, outlet, targets);
    // Only a second call in the same process can fail, and then logging is already set up.
    let _ = tracing::subscriber::set_global_default(subscriber);
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn daemon_writer() -> io::Result<Writer> {
    if let Some(writer) = WRITER.get() {
        return Ok(writer.clone());
    }
    let writer = Writer::default();
    // Not through `std::io::stderr`, whose lock would be held while this thread waits for a reader.
    let out = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    writer.run(out, writer::TELL_EVERY)?;
    Ok(WRITER.get_or_init(|| writer).clone())
}

/// Returns whether the environment leaves colors to terminals. See <https://no-color.org>.
fn allows_color(environment: &Environment) -> bool {
    let is_set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && environment.get("TERM") != Some("dumb")
}

/// Prints a line that states why the process ends.
pub(super) fn print(line: &str) {
    let line = format!("{line}\n");
    if let Some(writer) = WRITER.get() {
        writer.add_last(line);
    } else {
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }
}

/// Flushes the daemon's last lines, unless nothing reads them.
pub(super) fn end() {
    if let Some(writer) = WRITER.get() {
        writer.end();
    }
}

fn subscriber(form: Form, outlet: Outlet, targets: Targets) -> impl Subscriber + Send + Sync {
    let filter = Filter {
        targets,
        outlet: outlet.clone(),
    };
    let lines = fmt::layer().with_writer(Lines { form, outlet });
    let lines = match form.format {
        LogFormat::Text => lines.with_ansi(form.colored).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    Registry::default().with(lines).with(filter)
}

/// Destination of log lines.
#[derive(Debug, Clone)]
enum Outlet {
    Direct,
    Queue(Writer),
}

/// Filter of events: by level and target, and in the daemon also by rate. It applies to the whole subscriber,
/// because a per-layer filter is not consulted about callsites that are always enabled.
struct Filter {
    targets: Targets,
    outlet: Outlet,
}

impl<S: Subscriber> Layer<S> for Filter {
    fn enabled(&self, metadata: &Metadata<'_>, context: layer::Context<'_, S>) -> bool {
        Layer::enabled(&self.targets, metadata, context)
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        Layer::<S>::register_callsite(&self.targets, metadata)
    }

    fn event_enabled(&self, event: &Event<'_>, _: layer::Context<'_, S>) -> bool {
        match &self.outlet {
            Outlet::Direct => true,
            Outlet::Queue(writer) => writer.allows(event),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Layer::<S>::max_level_hint(&self.targets)
    }
}

/// Format of a line. Quoted values come from strangers: they must not look like another line or control a terminal.
#[derive(Debug, Clone, Copy)]
struct Form {
    format: LogFormat,
    colored: bool,
}

impl Form {
    fn shown(self, event: &str) -> String {
        match self.format {
            LogFormat::Json => visible_json(event).into_owned(),
            LogFormat::Text => {
                // Escape sequences left here are the formatter's own colors; it has replaced those in values.
                let line = event.strip_suffix('\n').unwrap_or(event);
                visible_but(line, |c| self.colored && c == '\u{1b}').into_owned() + "\n"
            }
        }
    }
}

/// Factory that makes a [`Line`] for each event.
struct Lines {
    form: Form,
    outlet: Outlet,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            lines: self,
            level: Level::ERROR,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line {
            lines: self,
            level: *metadata.level(),
        }
    }
}

/// Writer of one line. Each write is one event.
struct Line<'a> {
    lines: &'a Lines,
    level: Level,
}

impl io::Write for Line<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let shown = self.lines.form.shown(&String::from_utf8_lossy(event));
        match &self.lines.outlet {
            Outlet::Direct => io::stderr().lock().write_all(shown.as_bytes())?,
            Outlet::Queue(writer) => writer.add(shown, self.level),
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logs a panic like any other event. Its message is included only if it is a constant: one that was formatted at
/// run time may quote data.
fn log_panic(panic: &PanicHookInfo<'_>) {
    if panic
        .payload()
        .downcast_ref::<String>()
        .is_some_and(|text| lacks_thread(text))
    {
        tracing::error!(
            "the system gives no further thread: raise the limit of the user (ulimit -u, LimitNPROC), of the service \
             (TasksMax) or of the container (pids)"
        );
        return;
    }
    let location = panic.location().map(ToString::to_string);
    let message = panic.payload().downcast_ref::<&'static str>();
    tracing::error!(
        location = location.unwrap_or_default(),
        message = message
            .copied()
            .unwrap_or("withheld, since it may quote data"),
        "a task panicked; this is a bug, please report it"
    );
}

/// Returns whether a panic says that no thread could be started. The runtime and the standard library have no other way
/// to say so.
fn lacks_thread(message: &str) -> bool {
    let is_of_thread = ["spawn worker thread", "failed to spawn thread"];
    is_of_thread.iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As tokio and the standard library say it.
    #[test]
    fn a_limit_of_threads_is_no_bug() {
        let error = io::Error::from_raw_os_error(11);
        assert!(lacks_thread(&format!(
            "OS can't spawn worker thread: {error}"
        )));
        assert!(lacks_thread(&format!("failed to spawn thread: {error:?}")));
        assert!(!lacks_thread("index out of bounds"));
    }

    #[test]
    fn colors_are_for_those_who_did_not_refuse_them() {
        let allows = |variables: &[(&str, &str)]| {
            let variables = variables.iter();
            let environment =
                variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            allows_color(&environment.collect())
        };
        assert!(allows(&[]) && allows(&[("NO_COLOR", ""), ("TERM", "xterm")]));
        assert!(!allows(&[("NO_COLOR", "1")]) && !allows(&[("TERM", "dumb")]));
    }

    #[test]
    fn an_event_is_one_line_that_steers_nothing() {
        let event = "WARN a host=x\u{202e}y\nWARN forged\r\u{1b}[2J\n";
        let form = |format, colored| Form { format, colored };
        assert_eq!(
            form(LogFormat::Text, false).shown(event),
            "WARN a host=x\\u{202e}y\\nWARN forged\\r\\u{1b}[2J\n"
        );
        let colored = form(LogFormat::Text, true).shown("\u{1b}[33mWARN\u{1b}[0m \u{9b}31m\n");
        assert_eq!(colored, "\u{1b}[33mWARN\u{1b}[0m \\u{9b}31m\n");
        let json = form(LogFormat::Json, false).shown("{\"host\":\"x\u{202e}\"}\n");
        assert_eq!(json, "{\"host\":\"x\\u202e\"}\n");
    }
}
