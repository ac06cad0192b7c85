//! `rescind keys`

mod change;
mod create;
mod import;
mod list;
mod view;

use std::process::ExitCode;

use clap::{Args, Subcommand};

pub(super) use view::status;

use super::Context;
use super::context::block_on;

/// `rescind keys`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rescind keys create --user u_42 --description \"CI of the docs\" --expires 90d
  rescind keys list --user u_42
  rescind keys revoke --value-stdin < leaked-key.txt")]
pub(super) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Mint a key and print its value, once
    Create(create::CreateArgs),
    /// List keys, newest first
    List(list::ListArgs),
    /// Show one key
    Show(list::ShowArgs),
    /// Report whether the key on standard input is known and valid
    Check(list::CheckArgs),
    /// Revoke a key
    Revoke(change::RevokeArgs),
    /// Replace a key with a new one for the same owner and print the new value, once
    Rotate(change::RotateArgs),
    /// Import digests of keys that were issued elsewhere
    Import(import::ImportArgs),
}

pub(super) fn run(args: KeysArgs, context: &Context) -> anyhow::Result<ExitCode> {
    block_on(async {
        match args.command {
            KeysCommand::Create(args) => create::run(args, context).await,
            KeysCommand::List(args) => list::list(args, context).await,
            KeysCommand::Show(args) => list::show(args, context).await,
            KeysCommand::Check(args) => list::check(args, context).await,
            KeysCommand::Revoke(args) => change::revoke(args, context).await,
            KeysCommand::Rotate(args) => change::rotate(args, context).await,
            KeysCommand::Import(args) => import::run(args, context).await,
        }
    })
}

/// Arguments that name the owner of keys.
#[derive(Debug, Args)]
struct OwnerArgs {
    /// User who owns the key
    #[arg(long, value_name = "ID", value_parser = super::text::id)]
    user: Option<String>,
    /// Team that owns the key
    #[arg(long, value_name = "ID", conflicts_with = "user", value_parser = super::text::id)]
    team: Option<String>,
}

impl OwnerArgs {
    fn owner(&self) -> Option<crate::store::Owner> {
        use crate::store::Owner;
        let user = self.user.as_ref().map(Owner::user);
        user.or_else(|| self.team.as_ref().map(Owner::team))
    }
}
