//! Log lines on standard error.

use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};

use clap::ValueEnum;
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, fmt};

use super::{Context, UsageError};
use crate::scan::{visible_but, visible_json};

/// The variable that says how much is logged.
const LEVEL: &str = "RESCIND_LOG";

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// One line of text per event
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// Starts logging for the rest of the process, at the level of `RESCIND_LOG` or else at `default`.
///
/// # Errors
/// When the level is none.
pub(super) fn start(context: &Context, default: LevelFilter) -> anyhow::Result<()> {
    let level = match context.environment.get(LEVEL).unwrap_or("") {
        "" => default,
        text => text.parse().map_err(|_| {
            UsageError(format!(
                "{LEVEL} has to be off, error, warn, info, debug or trace"
            ))
        })?,
    };
    // Other crates log headers and bodies below `warn`, and those may hold keys.
    let targets = Targets::new()
        .with_target("rescind", level)
        // It warns of parameters of the database's URL with their values.
        .with_target("sqlx_postgres::options", LevelFilter::OFF)
        .with_default(level.min(LevelFilter::from_level(Level::WARN)));
    let colored = context.log == LogFormat::Text && io::stderr().is_terminal();
    let format = context.log;
    let lines = fmt::layer().with_writer(move || Lines { format, colored });
    let lines = match format {
        LogFormat::Text => lines.with_ansi(colored).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let subscriber = Registry::default().with(lines.with_filter(targets));
    // Only a second start in the same process can fail, and then logging works already.
    let _ = tracing::subscriber::set_global_default(subscriber);
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Standard error, where each write is one event. What an event quotes comes from strangers: it must not
/// look like another line, nor steer a terminal.
struct Lines {
    format: LogFormat,
    colored: bool,
}

impl Lines {
    fn shown(&self, event: &str) -> String {
        match self.format {
            LogFormat::Json => visible_json(event).into_owned(),
            LogFormat::Text => {
                // Of its own escape sequences the formatter makes colors; those of values it has replaced.
                let line = event.strip_suffix('\n').unwrap_or(event);
                visible_but(line, |c| self.colored && c == '\u{1b}').into_owned() + "\n"
            }
        }
    }
}

impl io::Write for Lines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let shown = self.shown(&String::from_utf8_lossy(event));
        io::Write::write_all(&mut io::stderr().lock(), shown.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::Write::flush(&mut io::stderr())
    }
}

/// A panic becomes a log line like any other. Its message is shown only when it is a constant: a message
/// that was put together at run time may quote data.
fn log_panic(panic: &PanicHookInfo<'_>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_that_steers_nothing() {
        let event = "WARN a host=x\u{202e}y\nWARN forged\r\u{1b}[2J\n";
        let lines = |format, colored| Lines { format, colored };
        assert_eq!(
            lines(LogFormat::Text, false).shown(event),
            "WARN a host=x\\u{202e}y\\nWARN forged\\r\\u{1b}[2J\n"
        );
        let colored = lines(LogFormat::Text, true).shown("\u{1b}[33mWARN\u{1b}[0m \u{9b}31m\n");
        assert_eq!(colored, "\u{1b}[33mWARN\u{1b}[0m \\u{9b}31m\n");
        let json = lines(LogFormat::Json, false).shown("{\"host\":\"x\u{202e}\"}\n");
        assert_eq!(json, "{\"host\":\"x\\u202e\"}\n");
    }
}
