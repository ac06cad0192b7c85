//! Keys and access tokens that a backup makes valid again.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cli::actor::actor;
use crate::cli::context::{Empty, Instance, open_store};
use crate::cli::{Context, output};
use crate::config::Config;
use crate::store::{StoreError, ValidAgain, retried};

/// Number of keys that are revoked in one transaction.
const BATCH: usize = 100;

/// Revokes what was revoked since. Returns what is left to be done by hand.
pub(super) async fn apply(
    context: &Context,
    config: &Config,
    valid_again: &[ValidAgain],
) -> anyhow::Result<Vec<ValidAgain>> {
    let store = open_store(config, Empty::Refuse).await?;
    store.migrate().await?;
    let instance = Instance::open(context, Empty::Refuse).await?;
    let (mut keys, mut tokens, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for one in valid_again {
        match one {
            ValidAgain::RevokedKey(id) => keys.push(Uuid::try_parse(id)?),
            ValidAgain::RevokedToken(id) => tokens.push(Uuid::try_parse(id)?),
            ValidAgain::RotatedKey(_) | ValidAgain::ShortenedKey(..) => left.push(one.clone()),
        }
    }
    for some in keys.chunks(BATCH) {
        instance.responder().revoke_all(some, &actor()).await?;
    }
    for id in &tokens {
        let revoked = retried(|| async {
            let mut tx = instance.store.begin().await?;
            tx.revoke_token(*id, instance.now()).await?;
            tx.commit().await?;
            Ok::<_, StoreError>(())
        });
        revoked.await?;
    }
    output::note(&format!(
        "{} keys and {} access tokens were revoked again",
        keys.len(),
        tokens.len()
    ));
    Ok(left)
}

/// Prints the commands that end what is valid again.
pub(super) fn tell(valid_again: &[ValidAgain]) -> anyhow::Result<()> {
    if valid_again.is_empty() {
        return Ok(());
    }
    output::note(
        "these keys and access tokens ended after the backup was made, and are VALID AGAIN now; each line ends one of them:",
    );
    for one in valid_again {
        let (command, remark) = ending(one);
        let remark = remark.map_or_else(String::new, |remark| format!("  # {remark}"));
        output::say(&format!("{command}{remark}"))?;
    }
    Ok(())
}

/// Returns the command that ends what is valid again, and what there is to know of it.
fn ending(one: &ValidAgain) -> (String, Option<String>) {
    match one {
        ValidAgain::RevokedKey(id) => (format!("rescind keys revoke {id}"), None),
        ValidAgain::RotatedKey(id) => (
            format!("rescind keys rotate {id} --overlap 0s"),
            Some("its owner needs the new value".to_owned()),
        ),
        ValidAgain::ShortenedKey(id, end) => {
            let end = Timestamp::from_microsecond(*end).unwrap_or(Timestamp::MAX);
            (
                format!("rescind keys revoke {id}"),
                Some(format!("or PATCH its expiry back to {end:.0}")),
            )
        }
        ValidAgain::RevokedToken(id) => (format!("rescind tokens revoke {id}"), None),
    }
}

pub(super) fn as_json(one: &ValidAgain) -> Value {
    let (ValidAgain::RevokedKey(id)
    | ValidAgain::RotatedKey(id)
    | ValidAgain::ShortenedKey(id, _)
    | ValidAgain::RevokedToken(id)) = one;
    let kind = match one {
        ValidAgain::RevokedToken(_) => "token",
        _ => "key",
    };
    let (command, remark) = ending(one);
    json!({ "type": kind, "id": id, "command": command, "remark": remark })
}
