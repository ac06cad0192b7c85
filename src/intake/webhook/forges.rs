//! Reader of the payloads of each forge.

use super::meaning::{Delivered, Meaning};
use super::{bitbucket, github_like, gitlab};
use crate::forge::Forge;

/// Returns the contents of a delivery of `forge`.
pub(super) fn meaning(forge: Forge, delivered: &Delivered<'_>) -> Meaning {
    match forge {
        Forge::GitHub => github_like::github(delivered),
        Forge::Gitea => github_like::gitea(delivered),
        Forge::GitLab => gitlab::read(delivered),
        Forge::Bitbucket => bitbucket::read(delivered),
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::{fields, form_payload};
    use super::super::places::ClonePlaces;
    use super::*;
    use crate::fuzzing::fuzz;
    use crate::keyformat::FormatSet;
    use crate::scan::Redactor;

    #[test]
    fn fuzz_webhook_bodies() {
        let words: &[&[u8]] = &[
            b"\"ref\":\"refs/heads/x\"",
            b"\"repository\":",
            b"\"changes\":[",
            b"\"id\":-1",
            b"%7B",
        ];
        let places = ClonePlaces::default();
        let redactor = Redactor::new(&FormatSet::builtin());
        // The forge and the event stand before the body.
        fuzz("webhook_bodies", words, |input| {
            let (head, body) = input
                .split_at_checked(input.iter().position(|byte| *byte == b'\n').unwrap_or(0))
                .unwrap_or_default();
            let body = body.get(1..).unwrap_or_default();
            let _ = form_payload(body);
            let (Some(forge), Ok(fields)) = (head.first(), fields(body)) else {
                return;
            };
            let event = String::from_utf8_lossy(&head[1..]);
            let forge = Forge::ALL[usize::from(*forge) % Forge::ALL.len()];
            let delivered = Delivered {
                event: &event,
                fields: &fields.kept,
                redactor: &redactor,
                id: "1",
                places: &places,
            };
            let read = meaning(forge, &delivered);
            let told = read.pushes.len() + read.announcements.len() + read.malformed.len();
            assert!(told <= body.len());
        });
    }
}
