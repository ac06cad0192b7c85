//! Outcome of a command: its exit code, and its error on standard error.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use super::output::UNWRITABLE;
use super::{Context, LogFormat, UsageError, logging};
use crate::config::{Config, ConfigError};
use crate::daemon::DaemonError;
use crate::issuer::IssueError;
use crate::keyformat::FormatsError;
use crate::scan::{Redactor, visible_lines};
use crate::store::{BackupError, StoreError};

/// Exit code of a command that succeeded.
pub const DONE: ExitCode = ExitCode::SUCCESS;

/// Exit code of a command that found leaks or candidates, or whose verification failed.
pub const FOUND: u8 = 1;

const USAGE: u8 = 2;
/// Exit code of a command that could not run, or not to completion.
pub(super) const COULD_NOT_RUN: u8 = 3;

/// Prints an error with its causes and returns its exit code. A key that was passed in place of a path or a name is
/// redacted.
pub(super) fn report(error: &anyhow::Error, context: &Context) -> ExitCode {
    if is_broken_pipe(error) {
        // The reader of the output closed the pipe: it has what it wanted.
        return DONE;
    }
    let path = context.config_path.as_deref();
    let formats = Config::formats_of_messages(path, &context.environment);
    let text = format!("{error:#}");
    let redactor = Redactor::new(&formats);
    let text = redactor.redact(&text);
    match context.log {
        LogFormat::Text => logging::print(&format!("error: {}", visible_lines(&text))),
        LogFormat::Json => tracing::error!(error = %text, "could not run"),
    }
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    if error.chain().any(is_usage) {
        USAGE
    } else {
        COULD_NOT_RUN
    }
}

/// Returns whether the command line or the configuration must change before the command can succeed.
fn is_usage(cause: &(dyn Error + 'static)) -> bool {
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return is_of_configuration(error);
    }
    if let Some(error) = cause.downcast_ref::<DaemonError>() {
        return match error {
            DaemonError::Store(error) => is_of_configuration(error),
            _ => false,
        };
    }
    if let Some(error) = cause.downcast_ref::<BackupError>() {
        return matches!(
            error,
            BackupError::Unfit { .. } | BackupError::Kept { .. } | BackupError::OnAServer { .. }
        );
    }
    if let Some(error) = cause.downcast_ref::<IssueError>() {
        return !matches!(error, IssueError::Store(_) | IssueError::Mint(_));
    }
    cause.is::<ConfigError>() || cause.is::<FormatsError>() || cause.is::<UsageError>()
}

/// Returns whether `database.url` must name something else, or `keys.peppers` one more.
fn is_of_configuration(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Url(_) | StoreError::Encoding { .. } | StoreError::UnknownPepper { .. }
    )
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Prints clap's message about the arguments, which may be the requested help, and returns the exit code. Long
/// arguments are not echoed: one of them may be a key that does not belong on a command line.
pub(super) fn refused_arguments(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let printed = error.print().and_then(|()| io::stdout().flush());
        return match printed {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let _ = writeln!(io::stderr(), "error: {UNWRITABLE}: {error}");
                ExitCode::from(COULD_NOT_RUN)
            }
            _ => DONE,
        };
    }
    let arguments = std::env::args_os().skip(1);
    let arguments = arguments.map(|argument| argument.to_string_lossy().into_owned());
    let text = without_long_words(&error.to_string(), arguments);
    let _ = write!(io::stderr(), "{}", visible_lines(&text));
    ExitCode::from(USAGE)
}

fn without_long_words(text: &str, arguments: impl Iterator<Item = String>) -> String {
    let mut text = text.to_owned();
    for argument in arguments {
        let value = argument
            .split_once('=')
            .map_or(&*argument, |(_, value)| value);
        if value.chars().count() >= 16 {
            text = text.replace(value, "…");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_not_repeat_long_arguments() {
        let key = "rsc_sk_0123456789abcdefghijklmnopqrstuvwxyz";
        let text = format!("error: unexpected argument '{key}' found");
        for argument in [key.to_owned(), format!("--key={key}")] {
            assert_eq!(
                without_long_words(&text, [argument].into_iter()),
                "error: unexpected argument '…' found"
            );
        }
        let short = "error: unexpected argument '--jsn' found";
        assert_eq!(
            without_long_words(short, ["--jsn".to_owned()].into_iter()),
            short
        );
    }

    #[test]
    fn tells_usage_from_failure() {
        let usage = anyhow::Error::new(UsageError("no".to_owned())).context("while reading");
        assert_eq!(code(&usage), USAGE);
        assert_eq!(code(&anyhow::anyhow!("disk full")), COULD_NOT_RUN);
        let url = || StoreError::Url("no".to_owned());
        assert_eq!(code(&url().into()), USAGE);
        assert_eq!(code(&DaemonError::from(url()).into()), USAGE);
        assert_eq!(code(&IssueError::NotFound.into()), USAGE);
        assert_eq!(code(&IssueError::from(url()).into()), COULD_NOT_RUN);
    }
}
