//! GitLab's payloads: of projects, of groups, and of the whole instance (system hooks).
//!
//! Source: <https://docs.gitlab.com/user/project/integrations/webhook_events/> and
//! <https://docs.gitlab.com/administration/system_hooks/>. The header names the kind of hook; the body
//! names the event, which for system hooks is found nowhere else.

use std::sync::Arc;

use serde_json::Value;

use super::meaning::{Delivered, MAX_PUSHES, Meaning, all_of, moved, wiki_of};
use super::places::{Wrong, id};
use crate::forge::Remote;

/// Values of the event header that this version knows.
const HOOKS: &[&str] = &[
    "Build Hook",
    "Confidential Issue Hook",
    "Confidential Note Hook",
    "Deployment Hook",
    "Emoji Hook",
    "Feature Flag Hook",
    "Issue Hook",
    "Job Hook",
    "Member Hook",
    "Merge Request Hook",
    "Milestone Hook",
    "Note Hook",
    "Pipeline Hook",
    "Project Hook",
    "Push Hook",
    "Release Hook",
    "Resource Access Token Hook",
    "Subgroup Hook",
    "System Hook",
    "Tag Push Hook",
    "Vulnerability Hook",
    "Wiki Page Hook",
    "Work Item Hook",
];

pub(super) fn read(delivered: &Delivered<'_>) -> Meaning {
    let mut meaning = Meaning::texts(HOOKS.contains(&delivered.event));
    let event = delivered
        .text("/object_kind")
        .or_else(|| delivered.text("/event_name"));
    match event {
        Some("push" | "tag_push") => {
            let push = remote(delivered).and_then(|remote| delivered.moved(Arc::new(remote)));
            meaning.push(push);
        }
        Some("repository_update") => updated(delivered, &mut meaning),
        Some("wiki_page") => {
            let wiki = remote(delivered).and_then(|remote| wiki_of(&remote));
            meaning.announce(wiki.map(|wiki| all_of(wiki, delivered.id)));
        }
        _ => {}
    }
    meaning
}

/// Reads all references of one push at once. GitLab also sends this event when it omits the single pushes
/// because there are too many of them.
fn updated(delivered: &Delivered<'_>, meaning: &mut Meaning) {
    let remote = match remote(delivered) {
        Ok(remote) => Arc::new(remote),
        Err(wrong) => return meaning.malformed.push(wrong),
    };
    let changes = delivered.at("/changes").and_then(Value::as_array);
    let Some(changes) = changes else {
        return meaning.malformed.push("it has no changes".into());
    };
    for change in changes.iter().take(MAX_PUSHES) {
        let text = |name: &str| change.get(name).and_then(Value::as_str);
        let push = moved(
            Arc::clone(&remote),
            text("ref"),
            text("before"),
            text("after"),
        );
        meaning.push(push);
    }
    if changes.len() > MAX_PUSHES {
        meaning.announce(Ok(all_of(Remote::clone(&remote), delivered.id)));
    }
}

fn remote(delivered: &Delivered<'_>) -> Result<Remote, Wrong> {
    let project = delivered.at("/project_id");
    let project = project.or_else(|| delivered.at("/project/id"));
    delivered.remote(
        // Events of wikis used to lack it.
        project.and_then(id),
        delivered.text("/project/path_with_namespace"),
        delivered
            .text("/project/git_http_url")
            .or_else(|| delivered.text("/repository/git_http_url")),
    )
}
