//! One event of a GitHub feed or archive, parsed leniently: only the fields that are needed.
//!
//! Source: <https://docs.github.com/en/rest/using-the-rest-api/github-event-types>, and for the shapes before 2015,
//! the archives themselves.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::payload::{News, news};
use super::scalar::{id, text_or_nothing};
use crate::fetch::RepositoryName;
use crate::forge::Remote;

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
    /// JSON whose texts are to be scanned.
    pub(in crate::source) texts: Option<&'a RawValue>,
    /// Name of the repository, if it is valid.
    pub(in crate::source) repository: Option<RepositoryName>,
    /// `true` if its type is not known to this version.
    pub(in crate::source) is_unknown: bool,
    /// Reason why the event cannot be read, or not as a whole.
    pub(in crate::source) malformed: Option<&'static str>,
}

/// Fields that all events share.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(default, deserialize_with = "id")]
    pub(super) id: Option<String>,
    #[serde(rename = "type", default, deserialize_with = "text_or_nothing")]
    pub(super) kind: Option<String>,
    #[serde(default, deserialize_with = "text_or_nothing")]
    pub(super) created_at: Option<String>,
    #[serde(borrow, default)]
    repo: Option<&'a RawValue>,
    #[serde(borrow, default)]
    repository: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Repository {
    #[serde(default, deserialize_with = "id")]
    id: Option<String>,
    name: String,
    /// Owner, given in the oldest archives, in which `name` does not include it.
    #[serde(default, deserialize_with = "text_or_nothing")]
    owner: Option<String>,
}

impl Envelope<'_> {
    /// Returns the repository that the event is about.
    ///
    /// # Errors
    /// Returns what is wrong with the repository, without quoting it.
    pub(super) fn remote(&self, host: &str) -> Result<Remote, &'static str> {
        let repository = self.repo.or(self.repository);
        let repository = repository.ok_or("it names no repository")?;
        let repository: Repository = serde_json::from_str(repository.get())
            .map_err(|_| "its repository has no name, or something else in its place")?;
        let name = match &repository.owner {
            Some(owner) if !repository.name.contains('/') => format!("{owner}/{}", repository.name),
            _ => repository.name,
        };
        Ok(Remote {
            host: host.to_owned(),
            repository_id: repository.id.ok_or("its repository has no id")?,
            repository: RepositoryName::parse(&name)
                .map_err(|_| "its repository's name is not OWNER/NAME")?,
            clone_url: None,
        })
    }
}

impl<'a> Event<'a> {
    /// Parses one event. The repositories that it names are cloned from `host`.
    pub(in crate::source) fn read(json: &'a str, host: &str) -> Self {
        let Ok(envelope) = serde_json::from_str::<Envelope<'a>>(json) else {
            return Self::unreadable("it is no object with a type and an id");
        };
        let Some(kind) = envelope.kind.as_deref() else {
            return Self {
                id: envelope.id,
                texts: envelope.payload,
                ..Self::unreadable("it has no type")
            };
        };
        let found = news(kind, &envelope, host);
        let is_unknown = matches!(found, Ok(None)) && !TEXT_ONLY.contains(&kind);
        let (news, malformed) = match found {
            Ok(news) => (news.unwrap_or_default(), None),
            Err(wrong) => (Vec::new(), Some(wrong)),
        };
        let remote = envelope.remote(host).ok();
        Self {
            at: envelope.created_at.as_deref().and_then(time),
            news,
            texts: envelope.payload.filter(|payload| has_texts(kind, payload)),
            repository: remote.map(|remote| remote.repository),
            is_unknown,
            malformed,
            id: envelope.id,
        }
    }

    fn unreadable(wrong: &'static str) -> Self {
        Self {
            id: None,
            at: None,
            news: Vec::new(),
            texts: None,
            repository: None,
            is_unknown: false,
            malformed: Some(wrong),
        }
    }
}

/// Returns whether a payload may hold texts. A push in its present shape has only names and numbers, and the names are
/// scanned anyway.
fn has_texts(kind: &str, payload: &RawValue) -> bool {
    let has = |field| payload.get().contains(field);
    kind != "PushEvent" || has("\"commits\"") || has("\"shas\"")
}

fn time(text: &str) -> Option<Timestamp> {
    text.parse()
        .or_else(|_| Timestamp::strptime(OLD_TIME, text))
        .ok()
}
