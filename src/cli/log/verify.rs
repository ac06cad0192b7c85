//! `rescind log verify`

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::context::Records;
use crate::cli::{Context, DONE, FOUND, UsageError, output};
use crate::store::{Broken, Verified, VerifyError, verify_lines};

#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 1 when the chain does not hold. A file whose last entries were cut off holds by itself: compare
the number of entries and the head with those of the database.

Examples:
  rescind log verify
  rescind log verify log.jsonl
  curl … | rescind log verify -"
)]
pub(super) struct VerifyArgs {
    /// Export in JSON Lines, or - for standard input [default: the configured database]
    #[arg(value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) async fn database(context: &Context, json: bool) -> anyhow::Result<ExitCode> {
    let records = Records::open(context).await?;
    report(records.store.verify_log().await?, json)
}

pub(super) fn file(path: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let verified = if path == Path::new("-") {
        verify_lines(io::stdin().lock())
    } else {
        let file = File::open(path)
            .map_err(|error| UsageError(format!("cannot read {}: {error}", path.display())))?;
        verify_lines(BufReader::new(file))
    };
    match verified {
        Err(VerifyError::Read(error)) => Err(unreadable(path, error)),
        Err(VerifyError::Broken(broken)) => report(Err(broken), json),
        Ok(verified) => report(Ok(verified), json),
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

fn report(result: Result<Verified, Broken>, json: bool) -> anyhow::Result<ExitCode> {
    match result {
        Ok(Verified { entries, head }) if json => output::say_json(&json!({
            "valid": true, "entries": entries, "head": head,
        }))?,
        Ok(Verified { entries, head }) => {
            output::say(&format!("ok: {entries} entries, head {head}"))?;
        }
        Err(broken) => {
            if json {
                let entries = broken.position.saturating_sub(1);
                let problem = broken.problem.to_string();
                let mut bad = json!({ "position": broken.position, "problem": problem });
                if let Some(seq) = broken.seq {
                    bad["seq"] = seq.into();
                }
                output::say_json(&json!({
                    "valid": false, "entries": entries, "first_bad": bad,
                }))?;
            } else {
                output::say(&format!("the chain does not hold: {broken}"))?;
            }
            return Ok(ExitCode::from(FOUND));
        }
    }
    Ok(DONE)
}
