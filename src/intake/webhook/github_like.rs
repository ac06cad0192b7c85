//! Payloads of GitHub, and of Gitea, Forgejo and Gogs, which have the same shape where it matters.
//!
//! Source: <https://docs.github.com/en/webhooks/webhook-events-and-payloads>, and
//! `modules/structs/hook.go` in <https://github.com/go-gitea/gitea>.

use std::sync::Arc;

use super::meaning::{Delivered, Meaning, all_of, wiki_of};
use super::places::{Wrong, id};
use crate::forge::{Announcement, Remote, object_id};

/// GitHub's events that contain nothing but texts.
const GITHUB_TEXTS: &[&str] = &[
    "branch_protection_configuration",
    "branch_protection_rule",
    "check_run",
    "check_suite",
    "code_scanning_alert",
    "commit_comment",
    "create",
    "custom_property",
    "custom_property_values",
    "delete",
    "dependabot_alert",
    "deploy_key",
    "deployment",
    "deployment_protection_rule",
    "deployment_review",
    "deployment_status",
    "discussion",
    "discussion_comment",
    "fork",
    "github_app_authorization",
    "installation",
    "installation_repositories",
    "installation_target",
    "integration_installation",
    "integration_installation_repositories",
    "issue_comment",
    "issue_dependencies",
    "issues",
    "label",
    "marketplace_purchase",
    "member",
    "membership",
    "merge_group",
    "meta",
    "milestone",
    "org_block",
    "organization",
    "package",
    "page_build",
    "personal_access_token_request",
    "ping",
    "project",
    "project_card",
    "project_column",
    "projects_v2",
    "projects_v2_item",
    "projects_v2_status_update",
    "pull_request",
    "pull_request_review",
    "pull_request_review_comment",
    "pull_request_review_thread",
    "registry_package",
    "release",
    "repository",
    "repository_advisory",
    "repository_dispatch",
    "repository_import",
    "repository_ruleset",
    "repository_vulnerability_alert",
    "secret_scanning_alert",
    "secret_scanning_alert_location",
    "secret_scanning_scan",
    "security_advisory",
    "security_and_analysis",
    "sponsorship",
    "star",
    "status",
    "sub_issues",
    "team",
    "team_add",
    "watch",
    "workflow_dispatch",
    "workflow_job",
    "workflow_run",
];

/// Events of Gitea, Forgejo and Gogs that contain nothing but texts.
const GITEA_TEXTS: &[&str] = &[
    "action_run_failure",
    "action_run_recover",
    "action_run_success",
    "create",
    "delete",
    "fork",
    "issue_assign",
    "issue_comment",
    "issue_label",
    "issue_milestone",
    "issues",
    "package",
    "pull_request",
    "pull_request_approved",
    "pull_request_assign",
    "pull_request_comment",
    "pull_request_label",
    "pull_request_milestone",
    "pull_request_rejected",
    "pull_request_review",
    "pull_request_review_approved",
    "pull_request_review_comment",
    "pull_request_review_rejected",
    "pull_request_review_request",
    "pull_request_sync",
    "release",
    "repository",
    "schedule",
    "status",
    "workflow_dispatch",
    "workflow_job",
    "workflow_run",
];

pub(super) fn github(delivered: &Delivered<'_>) -> Meaning {
    let mut meaning = Meaning::default();
    match delivered.event {
        "push" => pushed(delivered, &mut meaning),
        "public" => {
            let announced = remote(delivered).map(|remote| all_of(remote, delivered.id));
            meaning.announce(announced);
        }
        "gollum" => meaning.announce(wiki(delivered)),
        event => return Meaning::texts(GITHUB_TEXTS.contains(&event)),
    }
    meaning
}

pub(super) fn gitea(delivered: &Delivered<'_>) -> Meaning {
    let mut meaning = Meaning::default();
    match delivered.event {
        "push" => pushed(delivered, &mut meaning),
        "wiki" => {
            let wiki = remote(delivered).and_then(|remote| wiki_of(&remote));
            meaning.announce(wiki.map(|wiki| all_of(wiki, delivered.id)));
        }
        event => return Meaning::texts(GITEA_TEXTS.contains(&event)),
    }
    meaning
}

fn pushed(delivered: &Delivered<'_>, meaning: &mut Meaning) {
    let push = remote(delivered).and_then(|remote| delivered.moved(Arc::new(remote)));
    meaning.push(push);
}

/// Reads a change to the pages of a wiki. The newest page's commit tells this change from others, as it
/// does in the events feed.
fn wiki(delivered: &Delivered<'_>) -> Result<Announcement, Wrong> {
    let wiki = wiki_of(&remote(delivered)?)?;
    let newest = delivered.text("/pages/0/sha");
    let newest = newest.and_then(|sha| object_id(sha).ok());
    let newest = newest.map(|id| id.to_string());
    Ok(all_of(wiki, newest.as_deref().unwrap_or(delivered.id)))
}

fn remote(delivered: &Delivered<'_>) -> Result<Remote, Wrong> {
    delivered.remote(
        delivered.at("/repository/id").and_then(id),
        delivered.text("/repository/full_name"),
        delivered.text("/repository/clone_url"),
    )
}
