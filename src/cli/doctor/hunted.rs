//! Check of the key formats against the keys that were issued, and against what other daemons hunt.

use super::{Check, in_time};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::store::Store;

const NAME: &str = "hunted keys";
const MEND: &str = "see the check of the database";

pub(super) async fn examine(config: &Config, store: &Store) -> Vec<Check> {
    // Another check tells what is wrong with them.
    let Ok(formats) = config.load_formats() else {
        return Vec::new();
    };
    let found = async {
        let unhunted = store.unhunted(&formats, SystemClock.now()).await?;
        let others = store.other_hunters("", formats.ruleset_version()).await?;
        Ok::<_, crate::store::StoreError>((unhunted, others))
    };
    let (unhunted, others) = match in_time(found).await {
        Some(Ok(found)) => found,
        Some(Err(error)) => return vec![Check::failed(NAME, error.to_string(), MEND)],
        None => {
            return vec![Check::warning(
                NAME,
                "there is too much to be counted in 10 s",
                MEND,
            )];
        }
    };
    let groups = unhunted.into_iter();
    let mut checks: Vec<Check> = groups
        .map(|group| {
            let message = format!("not hunted: {group}");
            Check::warning(NAME, message, group.remedy())
        })
        .collect();
    if !others.is_empty() {
        let message = format!(
            "daemons hunt by other rules than these: {}",
            others.join(", ")
        );
        let mend = "give all daemons and commands on this database the same key formats and version; after a change, \
                    send each daemon a SIGHUP";
        checks.push(Check::warning(NAME, message, mend));
    }
    if checks.is_empty() {
        let message = "every valid key of a known format is hunted";
        checks.push(Check::ok(NAME, message));
    }
    checks
}
