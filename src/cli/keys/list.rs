//! `rescind keys list`, `show` and `check`

use std::process::ExitCode;

use clap::Args;
use uuid::Uuid;

use super::OwnerArgs;
use super::view::{self, KeyJson};
use crate::cli::context::{Empty, Instance};
use crate::cli::output::{self, List};
use crate::cli::{Context, DONE, FOUND, UsageError, text};
use crate::keyformat::Sha256Digest;
use crate::store::{Key, KeyFilter, PageRequest};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rescind keys list --user u_42
  rescind keys list --all --json | jq -r 'select(.status == \"valid\") | .id'")]
pub(super) struct ListArgs {
    #[command(flatten)]
    owner: OwnerArgs,
    /// Keys of this project only
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// Keys of this format only
    #[arg(long, value_name = "ID")]
    format: Option<String>,
    /// Number of keys to print
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Print all of them
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

pub(super) async fn list(args: ListArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let instance = Instance::open(context, Empty::Refuse).await?;
    let filter = KeyFilter {
        project: args.project,
        owner: args.owner.owner(),
        format: args.format,
        ..KeyFilter::default()
    };
    let mut left = if args.all { usize::MAX } else { args.limit };
    let mut list = List::new(view::HEADER, args.json);
    let mut request = PageRequest::new(left, None);
    while left > 0 {
        let now = instance.now();
        let page = instance.store.list_keys(&filter, &request).await?;
        for key in &page.items {
            list.add(&KeyJson::new(key, now), &view::row(key, now))?;
        }
        left -= page.items.len();
        if page.next_cursor.is_none() {
            break;
        }
        if left == 0 {
            output::note("there are more keys: raise --limit, or use --all");
        }
        request = PageRequest::new(left, page.next_cursor);
    }
    list.finish()?;
    Ok(DONE)
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  rescind keys show 0199c3a2-6b1e-7d3f-8a51-2f0c9b7e4d10")]
pub(super) struct ShowArgs {
    /// Identifier of the key
    id: Uuid,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn show(args: ShowArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let instance = Instance::open(context, Empty::Refuse).await?;
    let key = instance.store.key(args.id).await?;
    let key = key.ok_or_else(|| no_such_key(args.id))?;
    let now = instance.now();
    output::show(args.json, &KeyJson::new(&key, now), &view::lines(&key, now))?;
    Ok(DONE)
}

pub(super) fn no_such_key(id: Uuid) -> UsageError {
    UsageError(format!(
        "there is no key {id}; `rescind keys list` shows what there is"
    ))
}

#[derive(Debug, Args)]
#[command(
    after_help = "The key is read from standard input, never from the arguments. Exit code 1 when it is not valid.

Example:
  pbpaste | rescind keys check"
)]
pub(super) struct CheckArgs {
    /// Look in this project only
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn check(args: CheckArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let instance = Instance::open(context, Empty::Refuse).await?;
    let value = text::key_from_stdin()?;
    let now = instance.now();
    let keys = held(&instance, args.project.as_deref(), &value.sha256()).await?;
    if keys.is_empty() {
        let unknown = serde_json::json!({ "status": "unknown" });
        output::show(args.json, &unknown, &[("status", "unknown".to_owned())])?;
        return Ok(ExitCode::from(FOUND));
    }
    view::show(args.json, &keys, now)?;
    let valid = keys.iter().any(|key| key.why_invalid(now).is_none());
    Ok(if valid { DONE } else { ExitCode::from(FOUND) })
}

/// Returns the keys with this digest, in one project or in every project that holds it.
pub(super) async fn held(
    instance: &Instance,
    project: Option<&str>,
    digest: &Sha256Digest,
) -> anyhow::Result<Vec<Key>> {
    let mut found = instance
        .store
        .find_keys(std::slice::from_ref(digest))
        .await?;
    let mut keys = found.remove(digest).unwrap_or_default();
    keys.retain(|key| project.is_none_or(|project| key.project == project));
    Ok(keys)
}
