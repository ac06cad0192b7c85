//! `rescind migrate`

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::context::{InitArgs, announce_new, block_on, open_store};
use super::{Context, DONE, output};
use crate::config::Needs;

/// `rescind migrate`
#[derive(Debug, Args)]
#[command(
    after_help = "`rescind serve` does this too. Run it by itself to upgrade the database when the old version
was stopped and the new one is not started yet: the old one does not work with the new schema, and the way back is a backup.

Example:
  rescind --config /etc/rescind/config.toml migrate"
)]
pub(super) struct MigrateArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    init: InitArgs,
}

pub(super) fn run(args: &MigrateArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let config = context.config(Needs::RECORDS)?;
    block_on(async {
        let store = open_store(&config, args.init.set_up()).await?;
        let is_new = store.is_new().await?;
        let steps = store.migrate().await?;
        if is_new {
            announce_new(&store);
        }
        let place = store.place();
        match steps {
            _ if args.json => {
                output::say_json(&json!({ "database": place, "applied": steps }))?;
            }
            0 => output::say(&format!("{place} is up to date"))?,
            steps => output::say(&format!("{place}: applied {steps} migrations"))?,
        }
        store.close().await;
        Ok(DONE)
    })
}
