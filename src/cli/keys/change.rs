//! `rescind keys revoke` and `rotate`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;
use uuid::Uuid;

use super::list::no_such_key;
use super::view::{self, redacted, status};
use crate::cli::actor::actor;
use crate::cli::context::{Empty, Instance};
use crate::cli::{Context, DONE, UsageError, output, text, time as when};
use crate::issuer::RotateRequest;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rescind keys revoke 0199c3a2-6b1e-7d3f-8a51-2f0c9b7e4d10
  pbpaste | rescind keys revoke --value-stdin")]
pub(super) struct RevokeArgs {
    /// Identifier of the key
    #[arg(required_unless_present = "value_stdin")]
    id: Option<Uuid>,
    /// Read the key itself from standard input instead
    #[arg(long, conflicts_with = "id")]
    value_stdin: bool,
    /// With --value-stdin: revoke in this project only, not in every project that holds the key
    #[arg(long, value_name = "PROJECT", requires = "value_stdin")]
    project: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn revoke(args: RevokeArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let instance = Instance::open(context, Empty::Refuse).await?;
    let ids = match args.id {
        Some(id) => vec![id],
        None => presented(&instance, args.project.as_deref()).await?,
    };
    let keys = instance.responder().revoke_all(&ids, &actor()).await?;
    if let Some(missing) = ids.iter().find(|id| keys.iter().all(|key| key.id != **id)) {
        return Err(no_such_key(*missing).into());
    }
    view::show(args.json, &keys, instance.now())?;
    Ok(DONE)
}

/// Returns the keys whose value is on standard input, in one project or in every project that holds it.
async fn presented(instance: &Instance, project: Option<&str>) -> anyhow::Result<Vec<Uuid>> {
    let digest = text::key_from_stdin()?.sha256();
    let keys = super::list::held(instance, project, &digest).await?;
    if keys.is_empty() {
        let unknown = "this is not a key of ours; nothing was revoked";
        return Err(UsageError(unknown.to_owned()).into());
    }
    Ok(keys.iter().map(|key| key.id).collect())
}

/// Maximum overlap of a rotation.
const MAX_OVERLAP: SignedDuration = SignedDuration::from_hours(365 * 24);

#[derive(Debug, Args)]
#[command(
    after_help = "The new value goes to standard output, without --json alone, and is never shown again.

Example:
  rescind keys rotate 0199c3a2-6b1e-7d3f-8a51-2f0c9b7e4d10 --overlap 24h"
)]
pub(super) struct RotateArgs {
    /// Identifier of the key to replace
    id: Uuid,
    /// Time for which the old key stays valid beside the new one, at most a year; 0s ends it at once
    #[arg(long, value_name = "DURATION", value_parser = overlap)]
    overlap: SignedDuration,
    /// Print the new key and the old one as JSON, the new value among it
    #[arg(long)]
    json: bool,
}

fn overlap(text: &str) -> Result<SignedDuration, String> {
    let overlap = when::duration(text)?;
    if overlap > MAX_OVERLAP {
        return Err("may be at most a year".to_owned());
    }
    Ok(overlap)
}

pub(super) async fn rotate(args: RotateArgs, context: &Context) -> anyhow::Result<ExitCode> {
    output::check_is_seen()?;
    let instance = Instance::open(context, Empty::Refuse).await?;
    let key = instance.store.key(args.id).await?;
    let key = key.ok_or_else(|| no_such_key(args.id))?;
    let now = instance.now();
    if key.why_invalid(now).is_some() {
        let message = format!(
            "the key {} is {}; create a new one",
            key.id,
            status(&key, now)
        );
        return Err(UsageError(message).into());
    }
    let overlap = Duration::try_from(args.overlap).unwrap_or_default();
    let rotation = RotateRequest {
        id: key.id,
        overlap,
        actor: &actor(),
    };
    let rotated = instance.issuer().rotate(rotation).await?;
    let (old, new) = (&rotated.old, &rotated.new);
    output::note(&format!(
        "key {} ends at {}",
        old.id,
        output::time(old.expires_at)
    ));
    output::note(&format!("created key {} ({})", new.id, redacted(new)));
    output::note("the value follows and is never shown again:");
    let remedy = format!(
        "revoke the new key with `rescind keys revoke {}` and create another before the old one ends",
        new.id
    );
    if args.json {
        view::show_once(new, Some(old), &rotated.value, instance.now(), &remedy)?;
    } else {
        output::once(rotated.value.expose(), &remedy)?;
    }
    Ok(DONE)
}
