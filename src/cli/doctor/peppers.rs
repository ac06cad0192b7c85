//! Check of the peppers: whether every key would be found, and what stands under which of them.

use super::{Check, in_time};
use crate::store::{PepperUse, Standing, Store, StoreError, Urgency};

const NAME: &str = "peppers";

pub(super) async fn examine(store: &Store) -> Check {
    const MEND: &str = "see the check of the database";
    let uses = async {
        store.check_peppers().await?;
        // With millions of keys a count takes longer than a look-up may.
        let patient = store.with_urgency(Urgency::Housekeeping);
        patient.pepper_uses().await
    };
    match in_time(uses).await {
        Some(Ok(uses)) => {
            let uses: Vec<String> = uses.iter().filter_map(text).collect();
            Check::ok(NAME, uses.join("; "))
        }
        Some(Err(error @ StoreError::UnknownPepper { .. })) => {
            let mend =
                "put the pepper back into keys.peppers: behind the current one it is a retired one";
            Check::misconfigured(NAME, error.to_string(), mend)
        }
        Some(Err(error)) => Check::failed(NAME, error.to_string(), MEND),
        None => Check::warning(NAME, "there is too much to be counted in 10 s", MEND),
    }
}

/// Returns what stands under a pepper, for people, or `None` where nothing does and nobody asks.
fn text(found: &PepperUse) -> Option<String> {
    let PepperUse {
        standing,
        keys,
        tokens,
    } = found;
    let under = match standing {
        Standing::Current(id) => format!("current ({id})"),
        Standing::Retired(number, id) => format!("retired {number} ({id})"),
        Standing::Unconfigured(id) => format!("not configured ({id})"),
        Standing::Plain => "none".to_owned(),
        Standing::Unknown if keys + tokens == 0 => return None,
        Standing::Unknown => "unknown until they are looked up".to_owned(),
    };
    Some(format!("{under}: {keys} keys, {tokens} access tokens"))
}
