//! `rescind formats list|check|test`

mod trial;

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::context::{Empty, block_on, open_store};
use super::output::{List, note, say, say_json};
use super::{Context, DONE, FOUND, UsageError};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, Needs};
use crate::keyformat::{FormatSet, FormatsError, KeyFormat, KeyValue, Problem};
use crate::store::Unhunted;
use trial::Trial;

/// Maximum length of a string to test, in bytes. Keys are far shorter, and files are for `scan`.
const MAX_TRIED_BYTES: u64 = 64 << 10;

/// Conventional folder of pattern files.
const USUAL_DIR: &str = "patterns";

/// `rescind formats`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rescind formats list
  rescind formats check patterns
  rescind formats test - < suspect.txt")]
pub(super) struct FormatsArgs {
    #[command(subcommand)]
    command: FormatsCommand,
}

#[derive(Debug, Subcommand)]
enum FormatsCommand {
    /// List the key formats in force
    #[command(after_help = "Examples:
  rescind formats list
  rescind formats list --json")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check a folder of pattern files and report every problem
    #[command(after_help = "Examples:
  rescind formats check
  rescind formats check my-patterns && echo sound

Exit codes: 0 sound, 1 sound, but valid keys of the configured database would not be hunted, 2 something is wrong,
3 could not run or not to its end.")]
    Check {
        /// Folder [default: the configured one, or else `patterns`, or else the built-in formats]
        dir: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Explain step by step why a string is or is not a candidate
    #[command(after_help = "Examples:
  rescind formats test - < suspect.txt
  rescind formats test --json rsc_sk_0123456789

A real key belongs on standard input: other users of the machine can read arguments.
Exit codes: 0 a candidate, 1 not, 2 usage or configuration error, 3 could not run or not to its end.")]
    Test {
        /// String to test, or `-` for standard input
        #[arg(value_parser = as_key)]
        string: KeyValue,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs `rescind formats`.
///
/// # Errors
/// Returns an error if the configuration or the pattern files are invalid, or the string cannot be read.
pub(super) fn run(args: &FormatsArgs, context: &Context) -> anyhow::Result<ExitCode> {
    match &args.command {
        FormatsCommand::List { json } => list(&configured(context)?, *json),
        FormatsCommand::Check { dir, json } => check(dir.as_deref(), context, *json),
        FormatsCommand::Test { string, json } => test(&configured(context)?, string, *json),
    }
}

/// Parses an argument that may be a key, and is treated as one from the start.
#[expect(
    clippy::unnecessary_wraps,
    reason = "a parser of arguments returns a result"
)]
fn as_key(argument: &str) -> Result<KeyValue, std::convert::Infallible> {
    Ok(KeyValue::new(argument))
}

fn configured(context: &Context) -> anyhow::Result<FormatSet> {
    Ok(context.formats(&context.config(Needs::FORMATS)?)?)
}

// ---- list

const COLUMNS: &[&str] = &[
    "id",
    "visibility",
    "literal",
    "length",
    "checksum",
    "entropy",
    "description",
];

fn list(formats: &FormatSet, json: bool) -> anyhow::Result<ExitCode> {
    let mut list = List::new(COLUMNS, json);
    for format in formats.iter() {
        let row = [
            format.id().to_owned(),
            format.visibility().name().to_owned(),
            format.literal().to_owned(),
            length(format),
            checksum_text(format),
            entropy_text(format),
            format.description().to_owned(),
        ];
        list.add(&format_as_json(format), &row)?;
    }
    list.finish()?;
    Ok(DONE)
}

fn length(format: &KeyFormat) -> String {
    if format.min_len() == format.max_len() {
        return format.min_len().to_string();
    }
    format!("{}-{}", format.min_len(), format.max_len())
}

fn checksum_text(format: &KeyFormat) -> String {
    format.checksum().map_or_else(
        || "none".to_owned(),
        |checksum| {
            format!(
                "{} {} over {}",
                checksum.algorithm.name(),
                checksum.encoding.name(),
                checksum.over.name()
            )
        },
    )
}

fn entropy_text(format: &KeyFormat) -> String {
    let without = if format.is_retired() {
        "retired"
    } else {
        "does not mint"
    };
    format
        .entropy_bits()
        .map_or_else(|| without.to_owned(), |bits| format!("{bits:.0} bits"))
}

fn format_as_json(format: &KeyFormat) -> Value {
    let mut value = json!({
        "id": format.id(),
        "description": format.description(),
        "visibility": format.visibility().name(),
        "min_length": format.min_len(),
        "max_length": format.max_len(),
        "mints": format.can_mint(),
        "retired": format.is_retired(),
    });
    let literal = if format.literal_is_prefix() {
        "prefix"
    } else {
        "anchor"
    };
    value[literal] = format.literal().into();
    if let Some(bits) = format.entropy_bits() {
        value["entropy_bits"] = bits.into();
    }
    if let Some(checksum) = format.checksum() {
        value["checksum"] = json!({
            "algorithm": checksum.algorithm.name(),
            "encoding": checksum.encoding.name(),
            "length": checksum.encoding.length(),
            "over": checksum.over.name(),
        });
    }
    value
}

// ---- check

fn check(dir: Option<&Path>, context: &Context, json: bool) -> anyhow::Result<ExitCode> {
    let (place, loaded) = match dir {
        Some(dir) => (dir.display().to_string(), FormatSet::load_dir(dir)),
        None => configured_or_found(&context.config(Needs::FORMATS)?),
    };
    match loaded {
        Ok(formats) => {
            let unhunted = unhunted(context, &formats)?;
            let groups: Vec<String> = unhunted.iter().map(ToString::to_string).collect();
            if json {
                say_json(&json!({
                    "ok": true,
                    "ruleset_version": formats.ruleset_version(),
                    "problems": [],
                    "not_hunted": groups,
                }))?;
            } else {
                let (all, hunted) = (formats.iter().count(), formats.secret().count());
                let noun = if all == 1 { "format" } else { "formats" };
                say(&format!(
                    "{place}: {all} {noun}, {hunted} of them secret: all is well"
                ))?;
            }
            for group in &unhunted {
                note(&group.told());
            }
            Ok(if groups.is_empty() {
                DONE
            } else {
                ExitCode::from(FOUND)
            })
        }
        Err(FormatsError { problems }) => {
            if json {
                let problems: Vec<Value> = problems.iter().map(problem_as_json).collect();
                say_json(&json!({ "ok": false, "problems": problems }))?;
            } else {
                for problem in &problems {
                    note(&problem.to_string());
                }
            }
            let count = problems.len();
            let noun = if count == 1 { "problem" } else { "problems" };
            Err(UsageError(format!("{place}: {count} {noun} to mend")).into())
        }
    }
}

/// Returns the valid keys of the configured database that these formats do not hunt. Where there is no database, or none
/// that can be read, nothing is said of it: pattern files are checked on machines that have no access to it, too.
fn unhunted(context: &Context, formats: &FormatSet) -> anyhow::Result<Vec<Unhunted>> {
    let Ok(config) = context.config(Needs::RECORDS) else {
        return Ok(Vec::new());
    };
    block_on(async {
        let Ok(store) = open_store(&config, Empty::Refuse).await else {
            return Ok(Vec::new());
        };
        if store.check_ready().await.is_err() {
            return Ok(Vec::new());
        }
        Ok(store.unhunted(formats, SystemClock.now()).await?)
    })
}

/// Loads the formats to check, and returns them with the name of their location. In order of precedence, these are
/// the configured folder, the folder with the conventional name, whose presence is taken for intent, and the built-in
/// formats.
fn configured_or_found(config: &Config) -> (String, Result<FormatSet, FormatsError>) {
    let usual = Path::new(USUAL_DIR);
    if let Some(dir) = &config.formats.dir {
        return (dir.display().to_string(), config.load_formats());
    }
    if usual.is_dir() {
        tracing::warn!(
            "the folder {USUAL_DIR} is checked, but the built-in formats are in force; set formats.dir = \"{USUAL_DIR}\" to use it"
        );
        return (USUAL_DIR.to_owned(), FormatSet::load_dir(usual));
    }
    ("built in".to_owned(), config.load_formats())
}

fn problem_as_json(problem: &Problem) -> Value {
    let mut value = json!({
        "file": problem.file,
        "message": problem.message,
        "remedy": problem.remedy,
    });
    if let Some(line) = problem.line {
        value["line"] = line.into();
    }
    if let Some(format) = &problem.format {
        value["format"] = format.as_str().into();
    }
    value
}

// ---- test

fn test(formats: &FormatSet, argument: &KeyValue, json: bool) -> anyhow::Result<ExitCode> {
    let input;
    let string = if argument.expose() == "-" {
        input = read_string()?;
        &input
    } else {
        argument
    };
    let trial = Trial::new(formats, string.expose());
    if json {
        say_json(&trial.as_json())?;
    } else {
        say(trial.as_text().trim_end())?;
    }
    Ok(if trial.is_candidate() {
        DONE
    } else {
        ExitCode::from(FOUND)
    })
}

/// Reads standard input, without the line break at its end.
fn read_string() -> anyhow::Result<KeyValue> {
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    io::stdin()
        .lock()
        .take(MAX_TRIED_BYTES + 1)
        .read_to_end(&mut bytes)
        .context("cannot read standard input")?;
    if bytes.len() as u64 > MAX_TRIED_BYTES {
        let text = format!(
            "standard input is longer than {MAX_TRIED_BYTES} bytes; use `rescind scan -` for texts"
        );
        return Err(UsageError(text).into());
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        UsageError(
            "standard input is not UTF-8 text; use `rescind scan -` for other encodings".to_owned(),
        )
    })?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    Ok(KeyValue::new(line.strip_suffix('\r').unwrap_or(line)))
}
