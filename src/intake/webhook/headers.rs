//! Headers of deliveries: the name of the event, and the identifier of the delivery.

use reqwest::header::HeaderMap;

use crate::forge::Forge;
use crate::scan::Redactor;

/// Maximum length of a delivery's identifier that is kept, in bytes. GitHub's have 36.
const MAX_DELIVERY: usize = 128;

/// Number of hexadecimal digits of a body's digest that are part of the identifier.
const DIGEST_DIGITS: usize = 32;

/// Maximum length of an event's name that is accepted, in bytes.
const MAX_EVENT: usize = 100;

/// Returns the headers that may name the event, the preferred one first.
fn event_headers(forge: Forge) -> &'static [&'static str] {
    match forge {
        Forge::GitHub => &["X-GitHub-Event"],
        Forge::GitLab => &["X-Gitlab-Event"],
        Forge::Gitea => &["X-Gitea-Event", "X-Forgejo-Event", "X-Gogs-Event"],
        Forge::Bitbucket => &["X-Event-Key"],
    }
}

/// Returns the preferred header that names the event.
pub(super) fn event_header(forge: Forge) -> &'static str {
    event_headers(forge).first().copied().unwrap_or_default()
}

/// Returns the headers that may identify the delivery, the preferred one first.
fn delivery_headers(forge: Forge) -> &'static [&'static str] {
    match forge {
        Forge::GitHub => &["X-GitHub-Delivery"],
        // `webhook-id` equals `Idempotency-Key`, which is the same for each attempt.
        // Old versions send only the identifier of the event, which several deliveries may share: an event that causes
        // further ones passes its identifier on to them.
        Forge::GitLab => &["webhook-id", "Idempotency-Key", "X-Gitlab-Event-UUID"],
        Forge::Gitea => &["X-Gitea-Delivery", "X-Forgejo-Delivery", "X-Gogs-Delivery"],
        // Cloud's is the same for each attempt; Data Center has the other one.
        Forge::Bitbucket => &["X-Request-UUID", "X-Request-Id"],
    }
}

/// Returns the name of the event that the delivery is about.
///
/// # Errors
/// Returns [`NoEvent`] if the header is missing or unreadable, or if the delivery is from another
/// forge.
pub(super) fn event(forge: Forge, headers: &HeaderMap) -> Result<String, NoEvent> {
    let names = event_headers(forge);
    if let Some(event) = first(headers, names, MAX_EVENT) {
        // Gitea imitates GitHub's headers in addition to its own.
        let imitates = forge == Forge::GitHub
            && first(headers, event_headers(Forge::Gitea), MAX_EVENT).is_some();
        if imitates {
            return Err(NoEvent::Foreign(Forge::Gitea));
        }
        return Ok(event.to_owned());
    }
    let others = Forge::ALL.into_iter().filter(|other| *other != forge);
    let mut others =
        others.filter(|other| first(headers, event_headers(*other), MAX_EVENT).is_some());
    Err(match others.next() {
        Some(other) => NoEvent::Foreign(other),
        None => NoEvent::Missing(event_header(forge)),
    })
}

/// Returns the identifier of the delivery, which consists of the forge's and the digest of the body: no proof covers the
/// header, so that whoever has a secret could use up the identifiers of others' deliveries. Returns `None` if there is
/// none that can be kept, such as one with a key; such a delivery cannot be told from its repetition, which does no harm.
pub(super) fn delivery(
    forge: Forge,
    headers: &HeaderMap,
    digest: &str,
    redactor: &Redactor,
) -> Option<String> {
    let plain = |text: &&str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:{}".contains(&b))
    };
    let id = first(headers, delivery_headers(forge), MAX_DELIVERY).filter(plain)?;
    // Alone: beside other digits an encoded key may not be recognized.
    if redactor.holds_key(id) {
        return None;
    }
    Some(format!("{id}:{}", digest.get(..DIGEST_DIGITS)?))
}

/// Error returned for a verified delivery whose headers do not say what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoEvent {
    /// The given header is missing, empty or too long.
    Missing(&'static str),
    /// The delivery is from another forge.
    Foreign(Forge),
}

/// Returns the first of the given headers that has a readable value of at most `max` bytes.
fn first<'h>(headers: &'h HeaderMap, names: &[&str], max: usize) -> Option<&'h str> {
    let values = names.iter().filter_map(|name| headers.get(*name));
    let mut texts = values.filter_map(|value| value.to_str().ok());
    texts.find(|text| !text.is_empty() && text.len() <= max)
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use crate::keyformat::FormatSet;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| {
                let name: HeaderName = name.parse().unwrap();
                (name, HeaderValue::from_static(value))
            })
            .collect()
    }

    #[test]
    fn the_event_is_the_forges_own() {
        let github = headers(&[("x-github-event", "push")]);
        assert_eq!(event(Forge::GitHub, &github), Ok("push".to_owned()));
        assert_eq!(
            event(Forge::GitLab, &github),
            Err(NoEvent::Foreign(Forge::GitHub))
        );
        let gitea = headers(&[("x-github-event", "push"), ("x-gitea-event", "push")]);
        assert_eq!(event(Forge::Gitea, &gitea), Ok("push".to_owned()));
        assert_eq!(
            event(Forge::GitHub, &gitea),
            Err(NoEvent::Foreign(Forge::Gitea))
        );
        assert_eq!(
            event(Forge::Bitbucket, &headers(&[("x-event-key", "")])),
            Err(NoEvent::Missing("X-Event-Key"))
        );
    }

    #[test]
    fn a_delivery_has_the_name_that_stays_the_same_for_each_try() {
        let guid = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
        let (digest, other) = ("0".repeat(64), "1".repeat(64));
        let formats = FormatSet::builtin();
        let redactor = Redactor::new(&formats);
        let delivery =
            |forge, headers: &HeaderMap, digest: &str| delivery(forge, headers, digest, &redactor);
        let github = headers(&[("x-github-delivery", guid)]);
        let id = |digest: &str| delivery(Forge::GitHub, &github, digest);
        assert_eq!(id(&digest), Some(format!("{guid}:{}", "0".repeat(32))));
        assert_ne!(id(&digest), id(&other));
        for odd in ["", "a b", "a\tb"] {
            let headers = headers(&[("x-github-delivery", odd)]);
            assert_eq!(delivery(Forge::GitHub, &headers, &digest), None, "{odd:?}");
        }
        let new = headers(&[("idempotency-key", "i"), ("x-gitlab-event-uuid", "e")]);
        let old = headers(&[("x-gitlab-event-uuid", "e")]);
        for (headers, name) in [(new, "i"), (old, "e")] {
            let id = delivery(Forge::GitLab, &headers, &digest);
            assert_eq!(id, Some(format!("{name}:{}", "0".repeat(32))));
        }
    }
}
