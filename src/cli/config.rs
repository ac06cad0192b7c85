//! `rescind config show`

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{Context, DONE, output};
use crate::config::{ConfigError, Needs};

/// `rescind config`
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rescind --config /etc/rescind/config.toml config show")]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the effective configuration as TOML, with secrets masked and the origin of each value
    #[command(after_help = "Example:
  RESCIND__SERVER__BIND=0.0.0.0:8787 rescind config show

A secret that cannot be looked up is shown as \"not set\", and named on standard error; the exit code is 2 then.")]
    Show {
        /// Print JSON, without the origins
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: &ConfigArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let ConfigCommand::Show { json } = args.command;
    let config = context.config(Needs::SHOWN)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let shown = config.to_masked_toml();
    if json {
        let shown: serde_json::Value =
            toml::from_str(&shown).context("the configuration cannot be shown as JSON")?;
        output::say_json(&shown)?;
    } else {
        output::say(shown.trim_end())?;
    }
    if !config.unset.is_empty() {
        return Err(ConfigError::Invalid(config.unset).into());
    }
    // A valid file may still name formats that do not exist.
    config.issuer_formats(&context.formats(&config)?)?;
    Ok(DONE)
}
