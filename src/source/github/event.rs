//! One event of a GitHub feed or archive, read leniently: what is needed and nothing else.
//!
//! Source: <https://docs.github.com/en/rest/using-the-rest-api/github-event-types>, and for the shapes of
//! before 2015 the archives themselves.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::payload::{News, news};
use super::scalar::{id, text_or_nothing};
use crate::fetch::RepositoryName;
use crate::forge::Remote;

/// The form of times in the oldest archives.
const OLD_TIME: &str = "%Y/%m/%d %H:%M:%S %z";

/// Types that are known to hold nothing but texts, now or in the archives. The others that are known stand in
/// [`news`].
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

/// One event.
#[derive(Debug, Clone)]
pub(in crate::source) struct Event<'a> {
    /// Unique in its feed. The oldest archives have none.
    pub(in crate::source) id: Option<String>,
    /// When it happened, if it says so.
    pub(in crate::source) at: Option<Timestamp>,
    /// What there is to fetch.
    pub(in crate::source) news: Vec<News>,
    /// The JSON whose texts are to be scanned.
    pub(in crate::source) texts: Option<&'a RawValue>,
    /// The repository's name, if it has a valid one.
    pub(in crate::source) repository: Option<RepositoryName>,
    /// Its type is none that this version knows.
    pub(in crate::source) is_unknown: bool,
    /// What is wrong with it, if it cannot be read, or not as a whole.
    pub(in crate::source) malformed: Option<&'static str>,
}

/// What all events have.
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
    /// In the oldest archives `name` has no owner in it.
    #[serde(default, deserialize_with = "text_or_nothing")]
    owner: Option<String>,
}

impl Envelope<'_> {
    /// The repository that the event is about.
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
    /// Reads one event; the repositories it names are cloned from `host`.
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

/// Whether a payload may hold texts: a push in its present shape has only names and numbers, and the names are
/// looked at anyway.
fn has_texts(kind: &str, payload: &RawValue) -> bool {
    let has = |field| payload.get().contains(field);
    kind != "PushEvent" || has("\"commits\"") || has("\"shas\"")
}

fn time(text: &str) -> Option<Timestamp> {
    text.parse()
        .or_else(|_| Timestamp::strptime(OLD_TIME, text))
        .ok()
}
