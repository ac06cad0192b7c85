//! `rescind sources dead` and `rescind sources requeue`

use std::process::ExitCode;

use clap::Args;
use uuid::Uuid;

use super::{require_source, statuses};
use crate::cli::context::Records;
use crate::cli::output::{self, List, time};
use crate::cli::{Context, DONE, UsageError};
use crate::config::Needs;
use crate::server::api::sources::DeadLetterView;
use crate::store::{DeadItem, PageRequest};

#[derive(Debug, Args)]
#[command(
    after_help = "A work item is dead-lettered after eight failed tries, or when it cannot be tried at all. Mend what ERROR says, then
put it back with `rescind sources requeue`.

Examples:
  rescind sources dead
  rescind sources dead github-public --json"
)]
pub(super) struct DeadArgs {
    /// Items of this source only
    name: Option<String>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "They are tried again from the first try on, by `rescind serve`.

Examples:
  rescind sources requeue 0199c3a2-6b1e-7d3f-8a51-2f0c9b7e4d10
  rescind sources requeue --all github-public"
)]
pub(super) struct RequeueArgs {
    /// Identifiers of the items
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<Uuid>,
    /// All items of this source
    #[arg(long, value_name = "NAME", conflicts_with = "ids")]
    all: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const HEADER: &[&str] = &[
    "ID",
    "SOURCE",
    "REPOSITORY",
    "REF",
    "BEFORE",
    "AFTER",
    "TRIES",
    "DIED",
    "ERROR",
];

pub(super) async fn dead(args: DeadArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let records = Records::open_for(context, Needs::SOURCES).await?;
    let source = args.name.as_deref();
    if let Some(name) = source {
        require_source(name, &statuses(&records).await?)?;
    }
    let mut list = List::new(HEADER, args.json);
    let mut request = PageRequest::first();
    loop {
        let page = records.store.dead_items(source, &request).await?;
        for dead in page.items {
            let row = row(&dead);
            list.add(&DeadLetterView::of(dead), &row)?;
        }
        if page.next_cursor.is_none() {
            break;
        }
        request = PageRequest::new(PageRequest::LIMIT, page.next_cursor);
    }
    list.finish()?;
    Ok(DONE)
}

fn row(dead: &DeadItem) -> Vec<String> {
    let range = &dead.item.range;
    vec![
        dead.item.id.to_string(),
        range.source.clone(),
        format!("{}/{}", range.host, range.repository),
        range.ref_name.clone(),
        short(&range.before),
        short(&range.after),
        dead.item.tries.to_string(),
        time(Some(dead.died_at)),
        dead.error.clone(),
    ]
}

/// Returns the beginning of a commit's hash, enough to find it. `--json` prints all of it.
fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

pub(super) async fn requeue(args: RequeueArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let records = Records::open_for(context, Needs::SOURCES).await?;
    let requeued = match &args.all {
        Some(name) => {
            require_source(name, &statuses(&records).await?)?;
            records.store.revive_all(name).await?
        }
        None => requeue_each(&records, &args.ids).await?,
    };
    if args.json {
        output::say_json(&serde_json::json!({ "requeued": requeued }))?;
    } else {
        output::say(&said(requeued))?;
    }
    Ok(DONE)
}

/// Requeues the items that are dead-lettered, even if some of the identifiers are unknown. Returns their number.
///
/// # Errors
/// Returns an error that names the unknown identifiers.
async fn requeue_each(records: &Records, ids: &[Uuid]) -> anyhow::Result<u64> {
    let revived = records.store.revive_these(ids).await?;
    let requeued = revived.len() as u64;
    let unknown = ids.iter().filter(|id| !revived.contains(id));
    let unknown: Vec<String> = unknown.map(Uuid::to_string).collect();
    if unknown.is_empty() {
        return Ok(requeued);
    }
    let unknown = unknown.join(", ");
    let message = format!(
        "no work item with this identifier was dead-lettered: {unknown}; `rescind sources dead` lists those that were ({})",
        said(requeued)
    );
    Err(UsageError(message).into())
}

fn said(requeued: u64) -> String {
    match requeued {
        1 => "requeued 1 work item".to_owned(),
        count => format!("requeued {count} work items"),
    }
}
