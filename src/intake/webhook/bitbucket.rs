//! Payloads of Bitbucket Cloud and Bitbucket Data Center (formerly Server).
//!
//! Source: <https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/> and
//! <https://confluence.atlassian.com/bitbucketserver/event-payload-938025882.html>.

use std::sync::Arc;

use reqwest::Url;
use serde_json::Value;

use super::meaning::{Delivered, MAX_PUSHES, Meaning, all_of, moved};
use super::places::{Wrong, id};
use crate::forge::{NO_COMMIT, Remote};

/// URL under which the repositories of Bitbucket Cloud are found.
const CLOUD: &str = "https://bitbucket.org";

/// Prefixes of the keys of known events.
const FAMILIES: &[&str] = &[
    "diagnostics:",
    "issue:",
    "mirror:",
    "pr:",
    "project:",
    "pullrequest:",
    "repo:",
];

pub(super) fn read(delivered: &Delivered<'_>) -> Meaning {
    let known = FAMILIES
        .iter()
        .any(|family| delivered.event.starts_with(family));
    let mut meaning = Meaning::texts(known);
    match delivered.event {
        "repo:push" => pushed(delivered, "/push/changes", cloud_change, &mut meaning),
        "repo:refs_changed" | "mirror:repo_synchronized" => {
            pushed(delivered, "/changes", server_change, &mut meaning);
        }
        _ => {}
    }
    meaning
}

/// A changed reference: its name, and the commits before and after the change.
type Change<'v> = (String, &'v str, &'v str);

fn pushed(
    delivered: &Delivered<'_>,
    changes: &str,
    read: fn(&Value) -> Result<Option<Change<'_>>, &'static str>,
    meaning: &mut Meaning,
) {
    let remote = match remote(delivered) {
        Ok(remote) => Arc::new(remote),
        Err(wrong) => return meaning.malformed.push(wrong),
    };
    let Some(changes) = delivered.at(changes).and_then(Value::as_array) else {
        return meaning.malformed.push("it has no changes".into());
    };
    for change in changes.iter().take(MAX_PUSHES) {
        match read(change) {
            Ok(Some((reference, before, after))) => {
                let push = moved(
                    Arc::clone(&remote),
                    Some(&reference),
                    Some(before),
                    Some(after),
                );
                meaning.push(push);
            }
            Ok(None) => {}
            Err(wrong) => meaning.malformed.push(wrong.into()),
        }
    }
    // A change's `truncated` refers to its list of commits, which is not needed; that of a synchronized
    // mirror (`refLimitExceeded`) refers to the changes themselves.
    let cut = ["/push/truncated", "/refLimitExceeded"].iter();
    let cut = cut.filter_map(|path| delivered.at(path)).any(|v| v == true);
    if cut || changes.len() > MAX_PUSHES {
        meaning.announce(Ok(all_of(Remote::clone(&remote), delivered.id)));
    }
}

/// Reads a change of Cloud: `old` is null for a created reference, `new` for a deleted one.
fn cloud_change(change: &Value) -> Result<Option<Change<'_>>, &'static str> {
    let text = |path: &str| change.pointer(path).and_then(Value::as_str);
    let side = |side: &str| match change.get(side) {
        None | Some(Value::Null) => Ok(NO_COMMIT),
        Some(_) => text(&format!("/{side}/target/hash")).ok_or("a change has no commit"),
    };
    let kind = text("/new/type").or_else(|| text("/old/type"));
    let folder = match kind {
        Some("branch") => "refs/heads",
        Some("tag" | "annotated_tag") => "refs/tags",
        // Mercurial's branches and bookmarks.
        Some("named_branch" | "bookmark") => return Ok(None),
        _ => return Err("a change is of no branch and no tag"),
    };
    let name = text("/new/name").or_else(|| text("/old/name"));
    let name = name.ok_or("a change has no name")?;
    Ok(Some((
        format!("{folder}/{name}"),
        side("old")?,
        side("new")?,
    )))
}

/// Reads a change of Data Center: both commits are given, all zeros for none.
fn server_change(change: &Value) -> Result<Option<Change<'_>>, &'static str> {
    let text = |name: &str| change.get(name).and_then(Value::as_str);
    let reference = text("refId").or_else(|| change.pointer("/ref/id").and_then(Value::as_str));
    Ok(Some((
        reference.ok_or("a change has no ref")?.to_owned(),
        text("fromHash").ok_or("a change has no commit")?,
        text("toHash").ok_or("a change has no commit")?,
    )))
}

fn remote(delivered: &Delivered<'_>) -> Result<Remote, Wrong> {
    if let Some(name) = delivered.text("/repository/full_name") {
        let told = cloud_address(delivered, name);
        let uuid = delivered.at("/repository/uuid").and_then(id);
        return delivered.remote(uuid, Some(name), Some(&told));
    }
    let key = delivered.text("/repository/project/key");
    let slug = delivered.text("/repository/slug");
    let name = key.zip(slug).map(|(key, slug)| format!("{key}/{slug}"));
    let number = delivered.at("/repository/id").and_then(id);
    let told = server_address(delivered);
    delivered.remote(number, name.as_deref(), told)
}

/// Returns the clone URL of a repository on Cloud, whose payloads contain the URL of its page instead.
fn cloud_address(delivered: &Delivered<'_>, name: &str) -> String {
    let page = delivered.text("/repository/links/html/href");
    let page = page.and_then(|page| Url::parse(page).ok());
    let path = format!("/{name}");
    match page.filter(|page| page.path() == path) {
        Some(page) => format!("{page}.git"),
        None => format!("{CLOUD}/{name}.git"),
    }
}

fn server_address<'d>(delivered: &'d Delivered<'_>) -> Option<&'d str> {
    let links = delivered.at("/repository/links/clone")?.as_array()?;
    let mut http = links.iter().filter(|link| {
        let name = link.get("name").and_then(Value::as_str);
        matches!(name, Some("http" | "https"))
    });
    http.next()?.get("href")?.as_str()
}
