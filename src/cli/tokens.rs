//! `rescind tokens`: access tokens of Rescind itself.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::context::{Empty, InitArgs, Instance, block_on};
use super::output::{self, List, time};
use super::time as when;
use super::time::Expiry;
use super::{Context, DONE, UsageError, text};
use crate::issuer::mint_token;
use crate::store::DEFAULT_PROJECT;
use crate::store::{PageRequest, Role, StoreError, Token, retried};

/// `rescind tokens`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rescind tokens create --role issuer --description \"API backend\" --expires 1y
  rescind tokens list")]
pub(super) struct TokensArgs {
    #[command(subcommand)]
    command: TokensCommand,
}

#[derive(Debug, Subcommand)]
enum TokensCommand {
    /// Mint an access token and print it, once
    Create(CreateArgs),
    /// List access tokens, newest first
    List(ListArgs),
    /// Revoke an access token
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
#[command(
    after_help = "The token goes to standard output, without --json alone, and is never shown again.
An expiry in the year 9999 or later means never.

Example:
  rescind tokens create --role issuer --description \"API backend\" --expires 1y"
)]
struct CreateArgs {
    /// Role of the token
    #[arg(long, value_enum)]
    role: RoleArg,
    /// Purpose of the token
    #[arg(long, value_name = "TEXT", default_value = "made on the command line", value_parser = text::description)]
    description: String,
    /// Project that the token belongs to
    #[arg(long, value_name = "PROJECT", default_value = DEFAULT_PROJECT, value_parser = text::project)]
    project: String,
    /// Expiry: never, 90d, a date or a time
    #[arg(long, value_name = "WHEN", default_value = "never", value_parser = when::expiry)]
    expires: Expiry,
    /// Print JSON, the token itself as its value
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    init: InitArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleArg {
    /// Everything
    Admin,
    /// Issue and manage keys: for the provider's own back end
    Issuer,
    /// Work on incidents
    Operator,
    /// Read
    Viewer,
    /// Report leaks
    Reporter,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Admin => Self::Admin,
            RoleArg::Issuer => Self::Issuer,
            RoleArg::Operator => Self::Operator,
            RoleArg::Viewer => Self::Viewer,
            RoleArg::Reporter => Self::Reporter,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  rescind tokens list --json")]
struct ListArgs {
    /// Tokens of this project only
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  rescind tokens revoke 0199c3a2-6b1e-7d3f-8a51-2f0c9b7e4d10")]
struct RevokeArgs {
    /// Identifier of the token
    id: Uuid,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: TokensArgs, context: &Context) -> anyhow::Result<ExitCode> {
    block_on(async {
        match args.command {
            TokensCommand::Create(args) => create(args, context).await,
            TokensCommand::List(args) => list(args, context).await,
            TokensCommand::Revoke(args) => revoke(args, context).await,
        }
    })
}

async fn create(args: CreateArgs, context: &Context) -> anyhow::Result<ExitCode> {
    output::check_is_seen()?;
    let instance = Instance::open(context, args.init.set_up()).await?;
    instance.check_texts([
        ("--description", args.description.as_str()),
        ("--project", args.project.as_str()),
    ])?;
    let now = instance.now();
    let expires_at = args.expires.from(now);
    let expires_at = expires_at.map_err(|wrong| UsageError(format!("--expires {wrong}")))?;
    let (mut new, value) = mint_token(
        &instance.formats,
        &instance.minting.secret,
        args.role.into(),
        now,
    )?;
    new.project = args.project;
    new.description = args.description;
    new.expires_at = expires_at;
    let token = retried(|| async {
        let mut tx = instance.store.begin().await?;
        let token = tx.insert_token(new.clone()).await?;
        tx.commit().await?;
        Ok::<_, StoreError>(token)
    });
    let token = token.await?;
    output::note(&format!(
        "created access token {} ({}), role {}",
        token.id,
        redacted(&token),
        token.role.name()
    ));
    output::note("the token follows and is never shown again:");
    let remedy = format!(
        "revoke the token with `rescind tokens revoke {}` and create another",
        token.id
    );
    if args.json {
        let made = MadeJson {
            token: TokenJson::new(&token, now),
            value: value.expose(),
        };
        output::once_json(&made, &remedy)?;
    } else {
        output::once(value.expose(), &remedy)?;
    }
    Ok(DONE)
}

const HEADER: &[&str] = &[
    "ID",
    "TOKEN",
    "STATUS",
    "ROLE",
    "PROJECT",
    "CREATED",
    "EXPIRES",
    "DESCRIPTION",
];

async fn list(args: ListArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let instance = Instance::open(context, Empty::Refuse).await?;
    let mut list = List::new(HEADER, args.json);
    let mut request = PageRequest::first();
    loop {
        let page = instance
            .store
            .list_tokens(args.project.as_deref(), &request)
            .await?;
        let now = instance.now();
        for token in &page.items {
            list.add(&TokenJson::new(token, now), &row(token, now))?;
        }
        if page.next_cursor.is_none() {
            break;
        }
        request = PageRequest::new(PageRequest::LIMIT, page.next_cursor);
    }
    list.finish()?;
    Ok(DONE)
}

async fn revoke(args: RevokeArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let instance = Instance::open(context, Empty::Refuse).await?;
    let token = retried(|| async {
        let mut tx = instance.store.begin().await?;
        let token = tx.revoke_token(args.id, instance.now()).await?;
        tx.commit().await?;
        Ok::<_, StoreError>(token)
    });
    let token = token.await?;
    let missing = || {
        let id = args.id;
        UsageError(format!(
            "there is no access token {id}; `rescind tokens list` shows what there is"
        ))
    };
    let token = token.ok_or_else(missing)?;
    let now = instance.now();
    let lines = HEADER.iter().map(|name| name.to_ascii_lowercase());
    let lines: Vec<(String, String)> = lines.zip(row(&token, now)).collect();
    let lines: Vec<(&str, String)> = lines
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    output::show(args.json, &TokenJson::new(&token, now), &lines)?;
    Ok(DONE)
}

/// JSON form of an access token. Unset fields are omitted.
#[derive(Debug, Serialize)]
struct TokenJson<'a> {
    id: Uuid,
    project: &'a str,
    status: &'static str,
    role: &'static str,
    description: &'a str,
    redacted: String,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<Timestamp>,
}

/// JSON form of an access token that was just made.
#[derive(Serialize)]
struct MadeJson<'a> {
    #[serde(flatten)]
    token: TokenJson<'a>,
    value: &'a str,
}

impl<'a> TokenJson<'a> {
    fn new(token: &'a Token, now: Timestamp) -> Self {
        Self {
            id: token.id,
            project: &token.project,
            status: status(token, now),
            role: token.role.name(),
            description: &token.description,
            redacted: redacted(token),
            created_at: token.created_at,
            expires_at: token.expires_at,
            revoked_at: token.revoked_at,
        }
    }
}

fn status(token: &Token, now: Timestamp) -> &'static str {
    match token.revoked_at {
        Some(_) => "revoked",
        None if token.is_valid(now) => "valid",
        None => "expired",
    }
}

fn redacted(token: &Token) -> String {
    format!("{}…{}", token.prefix, token.last_four)
}

/// Returns a token's cells, in the order of [`HEADER`].
fn row(token: &Token, now: Timestamp) -> Vec<String> {
    vec![
        token.id.to_string(),
        redacted(token),
        status(token, now).to_owned(),
        token.role.name().to_owned(),
        token.project.clone(),
        time(Some(token.created_at)),
        time(token.expires_at),
        token.description.clone(),
    ]
}
