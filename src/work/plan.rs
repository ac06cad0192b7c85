//! Plans of fetches: the address, and the token that is sent there.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use super::Origin;
use super::pauses::Failure;
use crate::fetch::{RangeRequest, RepositoryName, Token};
use crate::forge::{Forge, is_to_the_letter, object_id};
use crate::github::{GitHubError, Installation};
use crate::store::{NewWorkItem, Priority, WorkItem};

/// Maximum time for an app to issue a token. Together with the pause after it, it stays below the ten seconds within
/// which leaks are answered, once the app's API is well again.
const TOKEN_PATIENCE: Duration = Duration::from_secs(5);

/// Everything about the fetch of an item that is known before anything is sent.
pub(super) struct Plan {
    pub(super) clone_url: Url,
    pub(super) token: Option<Token>,
    app: Option<Arc<Installation>>,
    without_token: Option<String>,
}

impl Plan {
    /// Requests a token if the item is to be fetched with an app's installation.
    pub(super) async fn with_token(mut self) -> Result<Self, NoToken> {
        if let (None, Some(app)) = (&self.token, &self.app) {
            let token = tokio::time::timeout(TOKEN_PATIENCE, app.token()).await;
            let token = token.map_err(|_| NoToken::in_time())?;
            let token = token.map_err(|error| NoToken::of(&error))?;
            self.token = Some(Token::new(Forge::GitHub.token_user(), token));
        }
        match self.without_token.take().filter(|_| self.token.is_none()) {
            // Without one, contents that are not public would seem to be gone.
            Some(why) => Err(NoToken {
                why,
                kind: NoTokenKind::Failed(Failure::Refused),
            }),
            None => Ok(self),
        }
    }
}

/// Error returned if the API of a host issues no token.
pub(super) struct NoToken {
    pub(super) why: String,
    pub(super) kind: NoTokenKind,
}

pub(super) enum NoTokenKind {
    Failed(Failure),
    /// It asked to be left alone, for this long if it said.
    Throttled(Option<Duration>),
}

impl NoToken {
    fn in_time() -> Self {
        Self {
            why: "its GitHub App gives no token in time".to_owned(),
            kind: NoTokenKind::Failed(Failure::Tokenless),
        }
    }

    fn of(error: &GitHubError) -> Self {
        let kind = match error {
            GitHubError::RateLimited { retry_after, .. } => NoTokenKind::Throttled(*retry_after),
            GitHubError::Connection(_) | GitHubError::Server { status: 500.. } => {
                NoTokenKind::Failed(Failure::Tokenless)
            }
            _ => NoTokenKind::Failed(Failure::Refused),
        };
        Self {
            why: error.to_string(),
            kind,
        }
    }
}

/// Error returned if an item cannot be fetched.
pub(super) enum Unplanned {
    /// With this configuration. Another process may have another one.
    Elsewhere(String),
    /// With any configuration.
    Wrong(&'static str),
}

/// Plans the fetch of an item: its own URL, or one derived from the configuration of its host. A token is only ever
/// sent to the server for which it is configured.
pub(super) fn plan(range: &NewWorkItem, origin: Option<&Origin>) -> Result<Plan, Unplanned> {
    let clone_url = match (&range.clone_url, origin) {
        (Some(url), _) => {
            Url::parse(url).map_err(|_| Unplanned::Wrong("its clone address is not a URL"))?
        }
        (None, Some(origin)) => RepositoryName::parse(&range.repository)
            .and_then(|name| name.clone_url(&origin.clone_url))
            .map_err(|_| Unplanned::Wrong("its repository's name is not OWNER/NAME"))?,
        (None, None) => {
            return Err(Unplanned::Elsewhere(format!(
                "no source is configured for the host {}: add one, or name the host in \
                 `webhooks.<forge>.clone_hosts`, unless another process reads it; else the item is dead-lettered",
                range.host
            )));
        }
    };
    let origin = origin.filter(|origin| origin.clone_url.origin() == clone_url.origin());
    Ok(Plan {
        clone_url,
        token: origin.and_then(|origin| origin.token.clone()),
        app: origin.and_then(|origin| origin.app.clone()),
        without_token: origin.and_then(|origin| origin.without_token.clone()),
    })
}

/// Returns the request for a range, or a part of one.
pub(super) fn request(item: &WorkItem, plan: Plan) -> Result<RangeRequest, &'static str> {
    let (range, part) = (&item.range, &item.part);
    Ok(RangeRequest {
        is_sampled: is_sampled(item),
        others: Vec::new(),
        clone_url: plan.clone_url,
        token: plan.token,
        // What only resembles the default branch's name may be it.
        reference: if is_to_the_letter(&range.ref_name) {
            range.ref_name.clone()
        } else {
            String::new()
        },
        before: object_id(&range.before)?,
        after: object_id(&range.after)?,
        haves: part
            .haves
            .iter()
            .map(|have| object_id(have))
            .collect::<Result<_, _>>()?,
    })
}

/// Returns whether a range was named by a feed of which a part is seen, or by an archive, which names what was pushed
/// within its period alone. What a `git` source lists at first has an address of its own, and parts of parts were found
/// by reading.
fn is_sampled(item: &WorkItem) -> bool {
    let may_be_named = item.lineage.is_none_or(|of| of.generation <= 1);
    match item.range.priority {
        Priority::Partner | Priority::Webhook | Priority::Watched => false,
        Priority::Firehose => may_be_named,
        Priority::Backfill => may_be_named && item.range.clone_url.is_none(),
    }
}
