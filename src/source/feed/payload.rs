//! Interpretation of the events that announce something to fetch, by type.
//!
//! A push has three shapes. Since 2025-10-07, its payload has only `repository_id, push_id, ref, head, before`;
//! earlier, and on GitHub Enterprise Server, also `commits`; in the oldest archives `shas` instead, no `before`, and
//! the repository beside the payload as `repository`.
//!
//! A new branch, a new tag, or a whole repository is reported without commits: it is announced, and the worker asks
//! the server for them. Source: <https://docs.github.com/en/rest/using-the-rest-api/github-event-types>.

mod shapes;

use serde::de::DeserializeOwned;

use super::envelope::Envelope;
use crate::fetch::RepositoryName;
use crate::forge::{Announcement, Push, Remote, id_or_name, is_reference, no_commit, object_id};
use shapes::{CreatePayload, ForkPayload, Forkee, PushPayload, WikiPayload};

/// Contents to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source) enum News {
    /// A branch or tag was pushed to, or deleted.
    Push(Push),
    /// A branch, a tag, a wiki, or a whole repository became public.
    Announcement(Announcement),
    /// A repository was forked. Its objects are those of its parent, which are reported on their own; only commits
    /// that the parent drops later, or that are pushed to the fork alone, are new.
    Fork(Announcement),
}

/// Returns the contents that an event announces, or `None` if its type is not known to announce any.
///
/// # Errors
/// Returns what is wrong with the payload or the repository, without quoting it.
pub(super) fn news(
    kind: &str,
    envelope: &Envelope<'_>,
    host: &str,
) -> Result<Option<Vec<News>>, &'static str> {
    let found = match kind {
        "PushEvent" => Some(News::Push(push(envelope, host)?)),
        "CreateEvent" => created(envelope, host)?.map(News::Announcement),
        "PublicEvent" => Some(News::Announcement(published(envelope, host)?)),
        "GollumEvent" => Some(News::Announcement(wiki(envelope, host)?)),
        "ForkEvent" => forked(envelope, host)?.map(News::Fork),
        _ => return Ok(None),
    };
    Ok(Some(found.into_iter().collect()))
}

fn payload<T: DeserializeOwned>(
    envelope: &Envelope<'_>,
    wrong: &'static str,
) -> Result<T, &'static str> {
    let payload = envelope.payload.ok_or("it has no payload")?;
    serde_json::from_str(payload.get()).map_err(|_| wrong)
}

fn push(envelope: &Envelope<'_>, host: &str) -> Result<Push, &'static str> {
    let wrong = "its payload has no ref and head, or they are no text";
    let payload: PushPayload = payload(envelope, wrong)?;
    let mut remote = envelope.remote(host)?;
    if let Some(id) = payload.repository_id {
        remote.repository_id = id;
    }
    Ok(Push {
        remote: remote.into(),
        reference: checked(payload.reference)?,
        before: match payload.before.as_deref() {
            None | Some("") => no_commit(),
            Some(before) => object_id(before)?,
        },
        after: object_id(&payload.head)?,
    })
}

/// Reads the announcement of a new branch or tag. A new repository is empty; its contents are pushed later.
fn created(envelope: &Envelope<'_>, host: &str) -> Result<Option<Announcement>, &'static str> {
    let payload: CreatePayload = payload(envelope, "its payload has no ref_type")?;
    let folder = match payload.ref_type.as_str() {
        "branch" => "refs/heads",
        "tag" => "refs/tags",
        _ => return Ok(None),
    };
    let name = payload.reference.ok_or("its payload has no ref")?;
    let reference = checked(format!("{folder}/{name}"))?;
    Ok(Some(Announcement {
        remote: envelope.remote(host)?,
        reference: Some(reference),
        id: id_of(envelope),
    }))
}

/// Reads the announcement of a private repository that became public, with all its history.
fn published(envelope: &Envelope<'_>, host: &str) -> Result<Announcement, &'static str> {
    Ok(Announcement {
        remote: envelope.remote(host)?,
        reference: None,
        id: id_of(envelope),
    })
}

/// Reads the announcement of wiki pages. A wiki is a repository of its own, beside the one it belongs to.
fn wiki(envelope: &Envelope<'_>, host: &str) -> Result<Announcement, &'static str> {
    let payload: WikiPayload = payload(envelope, "its payload has no pages")?;
    let newest = payload.pages.ok_or("its payload has no pages")?;
    let remote = envelope.remote(host)?;
    let name = format!("{}.wiki", remote.repository);
    Ok(Announcement {
        remote: Remote {
            repository_id: format!("{}.wiki", remote.repository_id),
            repository: RepositoryName::parse(&name)
                .map_err(|_| "its wiki's name is not OWNER/NAME")?,
            ..remote
        },
        reference: None,
        id: object_id(&newest.sha)?.to_string(),
    })
}

/// Reads the announcement of a fork. The oldest archives give only a number for it.
fn forked(envelope: &Envelope<'_>, host: &str) -> Result<Option<Announcement>, &'static str> {
    let Ok(payload) = payload::<ForkPayload>(envelope, "") else {
        return Ok(None);
    };
    let Forkee {
        id,
        full_name,
        name,
        owner,
    } = payload.forkee;
    let full_name = full_name.or_else(|| Some(format!("{}/{}", owner?.login, name?)));
    let full_name = full_name.ok_or("its forkee has no name")?;
    let repository =
        RepositoryName::parse(&full_name).map_err(|_| "its forkee's name is not OWNER/NAME")?;
    Ok(Some(Announcement {
        remote: Remote {
            host: host.to_owned(),
            repository_id: id_or_name(id, &repository),
            repository,
            clone_url: None,
        },
        reference: None,
        id: id_of(envelope),
    }))
}

/// Returns the id of an event. The oldest archives have none; there, the time distinguishes events.
fn id_of(envelope: &Envelope<'_>) -> String {
    let id = envelope.id.as_deref().or(envelope.created_at.as_deref());
    let id = id.unwrap_or_default().chars();
    id.filter(|c| !c.is_control()).take(64).collect()
}

/// Returns a reference if its name is one of git's.
fn checked(reference: String) -> Result<String, &'static str> {
    if is_reference(&reference) {
        Ok(reference)
    } else {
        Err("its ref is empty, too long or has control characters")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::event::Event;
    use super::*;

    const HEAD: &str = "7a8f3ac80e2ad2f6842cb86f576d4bfe2c03e300";
    const BEFORE: &str = "883efe034920928c47fe18598c01249d1a9fdabd";

    /// Owned contents of an event.
    #[derive(Debug, PartialEq)]
    struct Read {
        id: Option<String>,
        at: Option<String>,
        news: Vec<News>,
        has_texts: bool,
        is_unknown: bool,
        malformed: bool,
    }

    fn read(value: &Value) -> Read {
        let json = value.to_string();
        let event = Event::read(&json, "github.com");
        Read {
            id: event.id.clone(),
            at: event.at.map(|at| at.to_string()),
            has_texts: event.texts.is_some(),
            is_unknown: event.is_unknown,
            malformed: event.malformed.is_some(),
            news: event.news,
        }
    }

    fn event(kind: &str, payload: &Value) -> Value {
        json!({
            "id": "22249084964", "type": kind, "created_at": "2022-06-07T07:50:26Z",
            "actor": {"id": 1, "login": "octocat"},
            "repo": {"id": 1_296_269, "name": "octocat/Hello-World", "url": "https://example.com"},
            "payload": payload,
        })
    }

    fn modern() -> Value {
        let payload = json!({"repository_id": 1_296_269, "push_id": 1, "ref": "refs/heads/master",
            "head": HEAD, "before": BEFORE});
        event("PushEvent", &payload)
    }

    fn announced(id: &str, name: &str, reference: Option<&str>, of: &str) -> Announcement {
        Announcement {
            remote: Remote {
                host: "github.com".to_owned(),
                repository_id: id.to_owned(),
                repository: RepositoryName::parse(name).unwrap(),
                clone_url: None,
            },
            reference: reference.map(str::to_owned),
            id: of.to_owned(),
        }
    }

    #[test]
    fn all_shapes_of_a_push_say_the_same() {
        let expected = read(&modern()).news;
        assert!(matches!(expected[..], [News::Push(_)]));
        let mut with_commits = modern();
        with_commits["payload"]["commits"] = json!([{"sha": HEAD, "message": "x", "author": {}}]);
        with_commits["payload"]["repository_id"].take();
        with_commits["repo"]["id"] = json!("1296269");
        assert_eq!(read(&with_commits).news, expected);

        let oldest = json!({
            "type": "PushEvent", "created_at": "2012/04/01 00:00:03 -0700", "actor": "octocat",
            "repository": {"id": 1_296_269, "name": "Hello-World", "owner": "octocat"},
            "payload": {"shas": [[HEAD, "mail", "words", "name"]], "ref": "refs/heads/master", "head": HEAD},
        });
        let old = read(&oldest);
        assert_eq!(old.id, None);
        assert_eq!(old.at.as_deref(), Some("2012-04-01T07:00:03Z"));
        let [News::Push(mut push)] = <[News; 1]>::try_from(expected).unwrap() else {
            panic!("no push");
        };
        push.before = no_commit();
        assert_eq!(old.news, [News::Push(push)]);
    }

    #[test]
    fn a_repository_without_a_name_is_the_one_that_the_payload_names() {
        let mut nameless = modern();
        nameless["repo"]["name"] = json!("/");
        assert!(read(&nameless).malformed);
        nameless["payload"]["repo"] = json!("octocat/Hello-World");
        nameless["payload"]["repository_id"].take();
        let with_id = read(&nameless);
        assert!(!with_id.malformed);
        assert_eq!(with_id.news, read(&modern()).news);
        nameless["repo"]["id"].take();
        let [News::Push(push)] = &read(&nameless).news[..] else {
            panic!("no push");
        };
        assert_eq!(push.remote.repository.to_string(), "octocat/Hello-World");
        // Nor is any other lost that lacks its number.
        let mut unnumbered = modern();
        unnumbered["payload"]["repository_id"].take();
        unnumbered["repo"]["id"].take();
        let [News::Push(push)] = &read(&unnumbered).news[..] else {
            panic!("no push");
        };
        assert_eq!(push.remote.repository_id, "path:octocat/Hello-World");
        nameless["payload"]["repo"] = json!("../x");
        assert!(read(&nameless).malformed);
    }

    #[test]
    fn what_is_new_to_the_public_is_announced() {
        let here = |reference, of| announced("1296269", "octocat/Hello-World", reference, of);
        let event_id = "22249084964";
        let wiki = announced("1296269.wiki", "octocat/Hello-World.wiki", None, HEAD);
        let fork = announced("77", "hubot/Hello-World", None, event_id);
        for (kind, payload, expected) in [
            (
                "CreateEvent",
                json!({"ref": "dev", "ref_type": "branch", "master_branch": "main"}),
                vec![News::Announcement(here(Some("refs/heads/dev"), event_id))],
            ),
            (
                "CreateEvent",
                json!({"ref": "v1", "ref_type": "tag"}),
                vec![News::Announcement(here(Some("refs/tags/v1"), event_id))],
            ),
            (
                "CreateEvent",
                json!({"object": "branch", "object_name": "dev", "name": "Hello-World"}),
                vec![News::Announcement(here(Some("refs/heads/dev"), event_id))],
            ),
            (
                "CreateEvent",
                json!({"ref": null, "ref_type": "repository"}),
                vec![],
            ),
            (
                "PublicEvent",
                json!({}),
                vec![News::Announcement(here(None, event_id))],
            ),
            (
                "GollumEvent",
                json!({"pages": [{"page_name": "Home", "sha": HEAD}, {"page_name": "B", "sha": BEFORE}]}),
                vec![News::Announcement(wiki)],
            ),
            (
                "ForkEvent",
                json!({"forkee": {"id": 77, "full_name": "hubot/Hello-World"}}),
                vec![News::Fork(fork.clone())],
            ),
            (
                "ForkEvent",
                json!({"forkee": {"id": 77, "name": "Hello-World", "owner": {"login": "hubot"}}}),
                vec![News::Fork(fork)],
            ),
            ("ForkEvent", json!({"forkee": 77}), vec![]),
        ] {
            let read = read(&event(kind, &payload));
            assert_eq!(read.news, expected, "{kind} {payload}");
            assert!(!read.malformed && !read.is_unknown && read.has_texts);
        }
    }

    #[test]
    fn what_is_odd_is_malformed_and_keeps_its_id() {
        for (kind, pointer, odd) in [
            ("PushEvent", "/payload", json!(null)),
            ("PushEvent", "/payload", json!("text")),
            ("PushEvent", "/payload/head", json!("7a8f")),
            ("PushEvent", "/payload/head", json!(17)),
            ("PushEvent", "/payload/before", json!("not hex")),
            ("PushEvent", "/payload/ref", json!(null)),
            ("PushEvent", "/payload/ref", json!("x".repeat(5000))),
            ("PushEvent", "/payload/ref", json!("refs/heads/\u{0}")),
            ("PushEvent", "/repo", json!(null)),
            ("PushEvent", "/repo", json!([])),
            ("PushEvent", "/repo/name", json!("../../etc")),
            ("PushEvent", "/type", json!(null)),
            ("CreateEvent", "/payload", json!({"ref_type": "branch"})),
            ("CreateEvent", "/payload", json!({})),
            ("GollumEvent", "/payload", json!({"pages": []})),
            (
                "GollumEvent",
                "/payload",
                json!({"pages": [{"sha": "../x"}]}),
            ),
            (
                "ForkEvent",
                "/payload",
                json!({"forkee": {"id": 1, "full_name": "../x"}}),
            ),
            ("ForkEvent", "/payload", json!({"forkee": {"id": 1}})),
        ] {
            let mut value = modern();
            value["type"] = json!(kind);
            *value.pointer_mut(pointer).unwrap() = odd;
            let read = read(&value);
            assert!(read.malformed && read.news.is_empty(), "{value}");
            assert_eq!(read.id.as_deref(), Some("22249084964"), "{value}");
        }
        for value in [
            json!(null),
            json!(3),
            json!("PushEvent"),
            json!([]),
            json!({}),
        ] {
            assert!(read(&value).malformed, "{value}");
        }
    }

    #[test]
    fn other_types_are_texts_known_or_not() {
        for (kind, unknown) in [
            ("WatchEvent", false),
            ("IssuesEvent", false),
            ("DeleteEvent", false),
            ("NewKindOfEvent", true),
        ] {
            let value = json!({"id": 1, "type": kind, "payload": 7, "created_at": []});
            let read = read(&value);
            assert_eq!(read.is_unknown, unknown, "{kind}");
            assert!(!read.malformed && read.has_texts && read.news.is_empty());
            assert_eq!((read.id.as_deref(), read.at), (Some("1"), None));
        }
    }
}
