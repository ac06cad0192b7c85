//! Candidates that are keys of ours, and whose they are.

use std::io::Write;

use jiff::Timestamp;

use crate::cli::Context;
use crate::cli::context::{Empty, Instance, block_on};
use crate::cli::keys::status;
use crate::cli::output::note;
use crate::clock::{Clock as _, SystemClock};
use crate::keyformat::{FormatSet, Sha256Digest};
use crate::scan::{Finding, KnownKey, Match, Report};
use crate::store::Key;

/// Looks candidates up in the key store and reports them with the result.
pub(super) fn report_matches<W: Write>(
    context: &Context,
    report: &mut Report<'_, W>,
    findings: &[Finding],
) -> anyhow::Result<()> {
    let digests: Vec<Sha256Digest> = findings
        .iter()
        .map(|finding| finding.candidate.value.sha256())
        .collect();
    let known = block_on(async {
        let instance = Instance::open(context, Empty::Refuse).await?;
        Ok(instance.store.find_keys(&digests).await?)
    })?;
    let now = SystemClock.now();
    for (finding, digest) in findings.iter().zip(&digests) {
        let keys = known.get(digest).map_or(&[][..], Vec::as_slice);
        // If several projects hold the key, one in which it is valid takes precedence.
        let valid = keys.iter().find(|key| key.why_invalid(now).is_none());
        let key = valid.or(keys.first());
        let key = key.map_or(Match::Unknown, |key| Match::Known(known_key(key, now)));
        report.add(finding, &key)?;
    }
    Ok(())
}

/// Notes the valid keys of the store that the scan did not look for: that nothing was found says nothing about them.
///
/// # Errors
/// Returns an error if the store cannot be opened or read.
pub(super) fn note_unhunted(context: &Context, formats: &FormatSet) -> anyhow::Result<()> {
    let unhunted = block_on(async {
        let instance = Instance::open(context, Empty::Refuse).await?;
        let now = SystemClock.now();
        Ok(instance.store.unhunted(formats, now).await?)
    })?;
    for group in unhunted {
        note(&group.told());
    }
    Ok(())
}

fn known_key(key: &Key, now: Timestamp) -> KnownKey {
    KnownKey {
        id: key.id.to_string(),
        owner_type: key.owner.kind.name(),
        owner_id: key.owner.id.clone(),
        state: status(key, now),
    }
}
