//! `rescind keys create`

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::OwnerArgs;
use super::view::{self, redacted};
use crate::cli::context::{InitArgs, Instance};
use crate::cli::time as when;
use crate::cli::time::Expiry;
use crate::cli::{Context, DONE, UsageError, output, text};
use crate::issuer::IssueRequest;
use crate::store::DEFAULT_PROJECT;

#[derive(Debug, Args)]
#[command(
    after_help = "The value goes to standard output, without --json alone, and is never shown again.
An expiry in the year 9999 or later means never.

Examples:
  rescind keys create --user u_42 --description \"CI of the docs\" --expires 90d
  rescind keys create --team acme --description \"browser\" --public"
)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    owner: OwnerArgs,
    /// Purpose of the key
    #[arg(long, value_name = "TEXT", value_parser = text::description)]
    description: String,
    /// Expiry: never, 90d, a date or a time
    #[arg(long, value_name = "WHEN", default_value = "never", value_parser = when::expiry)]
    expires: Expiry,
    /// For client-side code: never scanned for, never revoked by a report
    #[arg(long)]
    public: bool,
    /// Project that the key belongs to
    #[arg(long, value_name = "PROJECT", default_value = DEFAULT_PROJECT, value_parser = text::project)]
    project: String,
    /// Response to a leak of the key [default: as configured]
    #[arg(long, value_enum)]
    policy: Option<PolicyArg>,
    /// Print the key as JSON, its value among it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    init: InitArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PolicyArg {
    /// Revoke the key at once
    Revoke,
}

pub(super) async fn run(args: CreateArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let owner = args.owner.owner();
    let owner =
        owner.ok_or_else(|| UsageError("name the owner with --user ID or --team ID".to_owned()))?;
    output::check_is_seen()?;
    let instance = Instance::open(context, args.init.set_up()).await?;
    instance.check_texts([
        ("--description", args.description.as_str()),
        ("the owner", owner.id.as_str()),
        ("--project", args.project.as_str()),
    ])?;
    let expires_at = args.expires.from(instance.now());
    let expires_at = expires_at.map_err(|wrong| UsageError(format!("--expires {wrong}")))?;
    let policy = args.policy.map(|PolicyArg::Revoke| "revoke".to_owned());
    let new = IssueRequest {
        project: args.project,
        owner,
        description: args.description,
        expires_at,
        is_public: args.public,
        policy,
        notify_emails: Vec::new(),
    };
    let (key, value) = instance.issuer().issue(new).await?;
    output::note(&format!("created key {} ({})", key.id, redacted(&key)));
    output::note("the value follows and is never shown again:");
    let remedy = format!(
        "revoke the key with `rescind keys revoke {}` and create another",
        key.id
    );
    if args.json {
        view::show_once(&key, None, &value, instance.now(), &remedy)?;
    } else {
        output::once(value.expose(), &remedy)?;
    }
    Ok(DONE)
}
