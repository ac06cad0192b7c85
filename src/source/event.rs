//! One event of a GitHub feed, read leniently: what is needed and nothing else.
//!
//! A push comes in three shapes. Since 2025-10-07 its payload has `repository_id, push_id, ref, head,
//! before` only; before, and on GitHub Enterprise Server, also `commits`; in the oldest archives `shas`
//! instead, no `before`, and the repository beside the payload as `repository`.
//! Source: <https://docs.github.com/en/rest/using-the-rest-api/github-event-types#pushevent>.

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::fetch::{ObjectId, RepositoryName};
use crate::forge::{Push, Remote, is_reference, object_id};

/// The longest event id that is taken; GitHub's have 11 digits.
const MAX_ID: usize = 64;

/// The form of times in the oldest archives.
const OLD_TIME: &str = "%Y/%m/%d %H:%M:%S %z";

/// What became of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A branch or tag was pushed to, or deleted.
    Push(Box<Push>),
    /// Some other event.
    Other,
    /// No event that can be read; says what is wrong with it.
    Malformed(&'static str),
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Unique in its feed. The oldest archives have none.
    pub(super) id: Option<String>,
    /// When it happened, if it says so.
    pub(super) at: Option<Timestamp>,
    /// What it tells.
    pub(super) meaning: Meaning,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default, deserialize_with = "text_or_number")]
    id: Option<String>,
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default, deserialize_with = "text_or_nothing")]
    created_at: Option<String>,
    #[serde(borrow, default)]
    repo: Option<&'a RawValue>,
    #[serde(borrow, default)]
    repository: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Repository {
    id: u64,
    name: String,
    /// In the oldest archives `name` has no owner in it.
    #[serde(default, deserialize_with = "text_or_nothing")]
    owner: Option<String>,
}

#[derive(Deserialize)]
struct Payload {
    #[serde(default)]
    repository_id: Option<u64>,
    #[serde(rename = "ref")]
    reference: String,
    head: String,
    #[serde(default, deserialize_with = "text_or_nothing")]
    before: Option<String>,
}

/// Reads one event of a page; the repositories it names are cloned from `host`.
pub(super) fn read(raw: &RawValue, host: &str) -> Event {
    let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(raw.get()) else {
        return Event {
            id: None,
            at: None,
            meaning: Meaning::Malformed("it is no object with a type and an id"),
        };
    };
    let meaning = match envelope.kind.as_deref() {
        Some("PushEvent") => match push(&envelope, host) {
            Ok(push) => Meaning::Push(Box::new(push)),
            Err(wrong) => Meaning::Malformed(wrong),
        },
        Some(_) => Meaning::Other,
        None => Meaning::Malformed("it has no type"),
    };
    Event {
        at: envelope.created_at.as_deref().and_then(time),
        id: envelope.id,
        meaning,
    }
}

fn push(envelope: &Envelope<'_>, host: &str) -> Result<Push, &'static str> {
    let payload = envelope.payload.ok_or("it has no payload")?;
    let payload: Payload = serde_json::from_str(payload.get())
        .map_err(|_| "its payload has no ref and head, or they are no text")?;
    let repository = envelope.repo.or(envelope.repository);
    let repository = repository.ok_or("it names no repository")?;
    let repository: Repository = serde_json::from_str(repository.get())
        .map_err(|_| "its repository has no id and name, or of a wrong type")?;
    let name = match &repository.owner {
        Some(owner) if !repository.name.contains('/') => format!("{owner}/{}", repository.name),
        _ => repository.name,
    };
    if !is_reference(&payload.reference) {
        return Err("its ref is empty or too long");
    }
    let repository_id = payload.repository_id.unwrap_or(repository.id);
    Ok(Push {
        remote: Remote {
            host: host.to_owned(),
            repository_id: repository_id.to_string(),
            repository: RepositoryName::parse(&name)
                .map_err(|_| "its repository's name is not OWNER/NAME")?,
            clone_url: None,
        },
        reference: payload.reference,
        before: match payload.before.as_deref() {
            None | Some("") => ObjectId::null(gix_hash::Kind::Sha1),
            Some(before) => object_id(before)?,
        },
        after: object_id(&payload.head)?,
    })
}

fn time(text: &str) -> Option<Timestamp> {
    text.parse()
        .or_else(|_| Timestamp::strptime(OLD_TIME, text))
        .ok()
}

fn text_or_number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let id = match Value::deserialize(from)? {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        _ => return Ok(None),
    };
    if id.len() > MAX_ID {
        return Err(D::Error::custom("an id is too long"));
    }
    Ok(Some(id))
}

fn text_or_nothing<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(from)? {
        Value::String(text) => Ok(Some(text)),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HEAD: &str = "7a8f3ac80e2ad2f6842cb86f576d4bfe2c03e300";
    const BEFORE: &str = "883efe034920928c47fe18598c01249d1a9fdabd";

    fn event(value: &Value) -> Event {
        read(
            &serde_json::value::to_raw_value(value).unwrap(),
            "github.com",
        )
    }

    fn push_of(value: &Value) -> Push {
        match event(value).meaning {
            Meaning::Push(push) => *push,
            other => panic!("no push: {other:?}"),
        }
    }

    fn modern() -> Value {
        json!({
            "id": "22249084964", "type": "PushEvent", "created_at": "2022-06-07T07:50:26Z",
            "repo": {"id": 1_296_269, "name": "octocat/Hello-World", "url": "https://example.com"},
            "payload": {"repository_id": 1_296_269, "push_id": 1, "ref": "refs/heads/master",
                "head": HEAD, "before": BEFORE},
        })
    }

    #[test]
    fn all_shapes_say_the_same() {
        let mut with_commits = modern();
        with_commits["payload"]["commits"] = json!([{"sha": HEAD, "message": "x", "author": {}}]);
        with_commits["payload"]["repository_id"].take();
        assert_eq!(push_of(&modern()), push_of(&with_commits));

        let oldest = json!({
            "type": "PushEvent", "created_at": "2012/04/01 00:00:03 -0700", "actor": "octocat",
            "repository": {"id": 1_296_269, "name": "Hello-World", "owner": "octocat"},
            "payload": {"shas": [[HEAD, "mail", "words", "name"]], "ref": "refs/heads/master", "head": HEAD},
        });
        let old = event(&oldest);
        assert_eq!(old.id, None);
        assert_eq!(old.at.unwrap().to_string(), "2012-04-01T07:00:03Z");
        let expected = Push {
            before: ObjectId::null(gix_hash::Kind::Sha1),
            ..push_of(&modern())
        };
        assert_eq!(old.meaning, Meaning::Push(Box::new(expected)));
    }

    #[test]
    fn numbers_and_texts_are_ids() {
        let mut numbered = modern();
        numbered["id"] = json!(22_249_084_964_u64);
        assert_eq!(event(&numbered).id, event(&modern()).id);
    }

    #[test]
    fn what_is_odd_is_malformed_and_keeps_its_id() {
        for (pointer, odd) in [
            ("/payload", json!(null)),
            ("/payload", json!("text")),
            ("/payload/head", json!("7a8f")),
            ("/payload/head", json!(17)),
            ("/payload/before", json!("not hex")),
            ("/payload/ref", json!(null)),
            ("/payload/ref", json!("x".repeat(2000))),
            ("/repo", json!(null)),
            ("/repo", json!([])),
            ("/repo/id", json!("1")),
            ("/repo/name", json!("../../etc")),
            ("/type", json!(null)),
        ] {
            let mut value = modern();
            *value.pointer_mut(pointer).unwrap() = odd;
            let event = event(&value);
            assert!(matches!(event.meaning, Meaning::Malformed(_)), "{value}");
            assert_eq!(event.id.as_deref(), Some("22249084964"), "{value}");
        }
        for value in [
            json!(null),
            json!(3),
            json!("PushEvent"),
            json!([]),
            json!({}),
        ] {
            assert!(
                matches!(event(&value).meaning, Meaning::Malformed(_)),
                "{value}"
            );
        }
    }

    #[test]
    fn other_events_and_odd_times_are_no_trouble() {
        let watch = json!({"id": "1", "type": "WatchEvent", "payload": 7, "created_at": []});
        let event = event(&watch);
        assert_eq!((event.meaning, event.at), (Meaning::Other, None));
    }
}
