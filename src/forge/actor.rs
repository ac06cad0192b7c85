//! Sources as actors in the revocation log.

use super::Forge;

/// Prefix of the actor of a polled source, before its name.
const POLLED: &str = "source:";

/// Returns the actor to which the revocation log attributes what a source found. The webhooks of a forge act in their
/// own name.
pub fn actor_of(source: &str) -> String {
    match Forge::by_source(source) {
        Some(forge) => forge.source().to_owned(),
        None => format!("{POLLED}{source}"),
    }
}

/// Returns whether an actor of the revocation log is a source that is polled.
pub fn is_polled(actor: &str) -> bool {
    actor.starts_with(POLLED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polled_sources_and_webhooks_are_told_apart() {
        assert_eq!(actor_of("github-public"), "source:github-public");
        assert!(is_polled(&actor_of("github-public")));
        for forge in Forge::ALL {
            assert_eq!(actor_of(forge.source()), forge.source());
            assert!(!is_polled(forge.source()));
        }
    }
}
