//! `rescind doctor`: checks of the whole installation, each with its remedy.

mod ask;
mod check;
mod daemon;
mod database;
mod descriptors;
mod hunted;
mod network;
mod peppers;
mod sources;
mod webhooks;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use serde::Serialize;

use self::check::{Check, Status, in_time};
use super::context::block_on;
use super::{Context, FOUND, output};
use crate::config::{self, Config, ConfigError, DEFAULT_FILE, Needs};
use crate::forge::redact_message;
use crate::keyformat::FormatSet;
use crate::scan::{Redactor, visible, visible_json};

/// Exit code if the configuration must change.
const CONFIGURATION: u8 = 2;

/// `rescind doctor`
#[derive(Debug, Args)]
#[command(
    after_help = "Looks at the configuration, the database, the key formats, the daemon that listens at server.bind, if one does, every
source, the addresses of partners' public keys, webhooks and the clock, all at once and for 10 seconds at most each.
Nothing is changed: each source is asked once for one event, or its branches and tags. Secrets are never printed.

Exit codes: 0 all is well, or there are warnings only, 1 something failed, 2 the configuration has to change,
3 could not run or not to its end.

Examples:
  rescind doctor
  rescind --config /etc/rescind/config.toml doctor --json"
)]
pub(super) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DoctorArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let config = match context.config(Needs::ALL) {
        Ok(config) => config,
        Err(error) => {
            let mut checks = configuration_problems(&error);
            clean(&mut checks, &FormatSet::builtin());
            return report(args.json, &checks);
        }
    };
    let mut checks = configuration(context, &config);
    let formats = patterns(context, &config, &mut checks);
    checks.push(descriptors::examine());
    checks.extend(webhooks::examine(&config));
    checks.extend(block_on(examine(&config))?);
    clean(&mut checks, &formats.unwrap_or_else(FormatSet::builtin));
    report(args.json, &checks)
}

/// Redacts keys: what a server answered, or a misplaced value in a file, may be one, and a remedy may quote it.
fn clean(checks: &mut [Check], formats: &FormatSet) {
    let redactor = Redactor::new(formats);
    for check in checks {
        check.name = redactor.redact(&check.name).into_owned().into();
        check.message = redact_message(&redactor, &check.message);
        if let Some(mend) = &mut check.mend {
            *mend = redact_message(&redactor, mend);
        }
    }
}

/// Runs the checks that wait for a database or a server, all concurrently.
async fn examine(config: &Config) -> anyhow::Result<Vec<Check>> {
    let http = crate::fetch::http_client()?;
    let probes = network::probes(config, &http).boxed();
    let database = database::examine(config).boxed();
    let daemon = daemon::examine(config).boxed();
    let all: Vec<BoxFuture<'_, Vec<Check>>> = vec![database, daemon, probes];
    Ok(join_all(all).await.into_iter().flatten().collect())
}

fn configuration_problems(error: &ConfigError) -> Vec<Check> {
    match error {
        ConfigError::Unreadable { path, cause, hint } => {
            let message = format!("cannot read {}: {cause}", path.display());
            vec![Check::misconfigured("configuration", message, *hint)]
        }
        ConfigError::Invalid(problems) => problems
            .iter()
            .map(|problem| {
                let place = match &problem.place {
                    config::ConfigPlace::Default => String::new(),
                    place => format!("{place}: "),
                };
                let key = match problem.key.as_str() {
                    "" => String::new(),
                    key => format!("{key}: "),
                };
                let message = format!("{place}{key}{}", problem.what);
                Check::misconfigured("configuration", message, problem.hint.clone())
            })
            .collect(),
    }
}

fn configuration(context: &Context, config: &Config) -> Vec<Check> {
    let default = std::path::Path::new(DEFAULT_FILE);
    let file = context.config_path.as_deref();
    let file = file.or_else(|| Some(default).filter(|file| file.exists()));
    let loaded = match file {
        Some(file) => format!("{} is valid", file.display()),
        None => "there is no file; the defaults are used".to_owned(),
    };
    let mut checks = vec![Check::ok("configuration", loaded)];
    let warnings = config.warnings.iter();
    checks.extend(warnings.map(|warning| {
        let mend = "change the configuration if that is not what you want";
        Check::warning("configuration", warning.clone(), mend)
    }));
    if config.sources.is_empty() && webhooks::count(config) == 0 {
        let what =
            "no source and no webhook is configured: nothing is watched but partners' reports";
        let mend =
            "add [[sources]] or [webhooks]; docs/sources.md and docs/configuration.md tell how";
        checks.push(Check::warning("sources", what, mend));
    }
    checks
}

/// Checks that the key formats load and new keys can be minted. Returns the formats if they load.
fn patterns(context: &Context, config: &Config, checks: &mut Vec<Check>) -> Option<FormatSet> {
    const NAME: &str = "patterns";
    let formats = match context.formats(config) {
        Ok(formats) => formats,
        Err(error) => {
            let mend = "`rescind formats check` explains each problem";
            checks.push(Check::misconfigured(NAME, error.to_string(), mend));
            return None;
        }
    };
    let issuer = match config.issuer_formats(&formats) {
        Ok(issuer) => issuer,
        Err(error) => {
            checks.extend(configuration_problems(&error));
            return Some(formats);
        }
    };
    let ids = [&issuer.secret, &issuer.public];
    let minted = ids.map(|id| formats.get(id).map(|format| format.mint().map(drop)));
    for minted in minted.into_iter().flatten() {
        if let Err(error) = minted {
            let mend = "the operating system has to give random numbers";
            checks.push(Check::failed(NAME, error.to_string(), mend));
            return Some(formats);
        }
    }
    let count = formats.iter().count();
    let message = format!("{count} key formats; secret and public keys can be minted");
    checks.push(Check::ok(NAME, message));
    Some(formats)
}

/// Output of `rescind doctor --json`.
#[derive(Debug, Serialize)]
struct Diagnosis<'a> {
    status: Status,
    checks: &'a [Check],
}

fn report(json: bool, checks: &[Check]) -> anyhow::Result<ExitCode> {
    let status = checks.iter().map(|check| check.status).max();
    let status = status.unwrap_or(Status::Ok);
    if json {
        let text = serde_json::to_string_pretty(&Diagnosis { status, checks });
        output::say(&visible_json(&text.context("cannot write JSON")?))?;
    } else {
        output::say(&text(checks))?;
    }
    Ok(match status {
        _ if checks.iter().any(|check| check.is_configuration) => ExitCode::from(CONFIGURATION),
        Status::Failed => ExitCode::from(FOUND),
        Status::Ok | Status::Warning => super::DONE,
    })
}

fn text(checks: &[Check]) -> String {
    let names = checks.iter().map(|check| check.name.chars().count());
    let width = names.max().unwrap_or(0);
    let mut lines = Vec::new();
    for check in checks {
        let Check {
            name,
            status,
            message,
            mend,
            ..
        } = check;
        let message = visible(message);
        let name = visible(name);
        lines.push(format!("{:7}  {name:width$}  {message}", status.as_str()));
        lines.extend(
            mend.as_ref()
                .map(|mend| format!("{:7}  {:width$}  to mend: {}", "", "", visible(mend))),
        );
    }
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    lines.push(format!(
        "{} ok, {} warnings, {} failed",
        count(Status::Ok),
        count(Status::Warning),
        count(Status::Failed)
    ));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_check_repeats_a_key_or_steers_a_terminal() {
        let formats = FormatSet::builtin();
        let key = formats.get("rescind_secret").unwrap().mint().unwrap();
        let key = key.expose();
        let mut checks = [Check::failed(
            format!("source {key}"),
            format!("no {key}"),
            format!("write {key}\u{1b}[2J or another"),
        )];
        clean(&mut checks, &formats);
        let shown = text(&checks);
        assert!(shown.contains("to mend: write "), "{shown}");
        assert!(!shown.contains(key) && !shown.contains('\u{1b}'), "{shown}");
        let json = serde_json::to_string(&checks).unwrap();
        assert!(!json.contains(key), "{json}");
    }
}
