//! One event of a GitHub feed or archive, parsed leniently: only the fields that are needed.
//!
//! Source: <https://docs.github.com/en/rest/using-the-rest-api/github-event-types>, and for the shapes before 2015,
//! the archives themselves.

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::envelope::Envelope;
use super::payload::{News, news};
use crate::fetch::RepositoryName;

/// Format of times in the oldest archives.
const OLD_TIME: &str = "%Y/%m/%d %H:%M:%S %z";

/// Event types that are known to hold nothing but texts, at present or in the archives. The other known types are
/// handled by [`news`].
const TEXT_ONLY: &[&str] = &[
    "CommitCommentEvent",
    "DeleteEvent",
    "DiscussionCommentEvent",
    "DiscussionEvent",
    "DownloadEvent",
    "FollowEvent",
    "ForkApplyEvent",
    "GistEvent",
    "IssueCommentEvent",
    "IssuesEvent",
    "MemberEvent",
    "PullRequestEvent",
    "PullRequestReviewCommentEvent",
    "PullRequestReviewEvent",
    "PullRequestReviewThreadEvent",
    "ReleaseEvent",
    "SponsorshipEvent",
    "TeamAddEvent",
    "WatchEvent",
];

/// An event.
#[derive(Debug, Clone)]
pub(in crate::source) struct Event<'a> {
    /// Id, unique within the feed. The oldest archives have none.
    pub(in crate::source) id: Option<String>,
    /// Time of the event, if it has one.
    pub(in crate::source) at: Option<Timestamp>,
    /// Contents to fetch.
    pub(in crate::source) news: Vec<News>,
    /// JSON whose texts are to be scanned: the whole event, if it cannot be read.
    pub(in crate::source) texts: Option<&'a str>,
    /// Name of the repository, if it is valid.
    pub(in crate::source) repository: Option<RepositoryName>,
    /// `true` if its type is not known to this version.
    pub(in crate::source) is_unknown: bool,
    /// Reason why the event cannot be read, or not as a whole.
    pub(in crate::source) malformed: Option<&'static str>,
}

impl<'a> Event<'a> {
    /// Parses one event. The repositories that it names are cloned from `host`.
    pub(in crate::source) fn read(json: &'a str, host: &str) -> Self {
        let Ok(envelope) = serde_json::from_str::<Envelope<'a>>(json) else {
            return Self::unreadable(json, "it is no object with a type and an id");
        };
        let Some(kind) = envelope.kind.as_deref() else {
            return Self {
                id: envelope.id,
                ..Self::unreadable(json, "it has no type")
            };
        };
        let found = news(kind, &envelope, host);
        let is_unknown = matches!(found, Ok(None)) && !TEXT_ONLY.contains(&kind);
        let (news, malformed) = match found {
            Ok(news) => (news.unwrap_or_default(), None),
            Err(wrong) => (Vec::new(), Some(wrong)),
        };
        let remote = envelope.remote(host).ok();
        let payload = envelope.payload.map(RawValue::get);
        let texts = match malformed {
            Some(_) => Some(json),
            None => payload.filter(|payload| has_texts(kind, payload)),
        };
        Self {
            at: envelope.created_at.as_deref().and_then(time),
            news,
            texts,
            repository: remote.map(|remote| remote.repository),
            is_unknown,
            malformed,
            id: envelope.id,
        }
    }

    fn unreadable(json: &'a str, wrong: &'static str) -> Self {
        Self {
            id: None,
            at: None,
            news: Vec::new(),
            texts: Some(json),
            repository: None,
            is_unknown: false,
            malformed: Some(wrong),
        }
    }
}

/// Returns whether a payload may hold texts. A push in its present shape has only names and numbers, and the names are
/// scanned anyway.
fn has_texts(kind: &str, payload: &str) -> bool {
    let has = |field| payload.contains(field);
    kind != "PushEvent" || has("\"commits\"") || has("\"shas\"")
}

fn time(text: &str) -> Option<Timestamp> {
    text.parse()
        .or_else(|_| Timestamp::strptime(OLD_TIME, text))
        .ok()
}
