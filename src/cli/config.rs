//! `rescind config show`

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Context, DONE, output};

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
  RESCIND__SERVER__BIND=0.0.0.0:8787 rescind config show")]
    Show,
}

pub(super) fn run(args: &ConfigArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let ConfigCommand::Show = args.command;
    let config = context.config()?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    output::line(config.to_masked_toml().trim_end())?;
    // A valid file may still name formats that do not exist.
    config.issuer_formats(&context.formats(&config)?)?;
    Ok(DONE)
}
