//! Views returned by the API: keys as in Stack Auth, and lists.

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::keyformat::KeyValue;
use crate::store::{Key, OwnerType, Page};

/// Key as in Stack Auth. Unset fields are absent, never null.
// `V` is the view of the value: `FirstValue` in the responses that create a key, `LastFour` in all others.
#[derive(Serialize, ToSchema)]
pub struct KeyView<V> {
    id: Uuid,
    #[serde(rename = "type")]
    kind: OwnerType,
    /// Owner of a user's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    user_id: Option<String>,
    /// Owner of a team's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    team_id: Option<String>,
    description: String,
    is_public: bool,
    created_at_millis: i64,
    /// Absent if the key never expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    expires_at_millis: Option<i64>,
    /// Absent unless the key is revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    manually_revoked_at_millis: Option<i64>,
    value: V,
}

/// Last four characters of a key's value.
#[derive(Serialize, ToSchema)]
pub struct LastFour {
    last_four: String,
}

/// Whole value of a key.
// On its only way out: it is wiped from memory once the response is written.
#[derive(ToSchema)]
#[schema(value_type = String)]
pub struct WholeValue(KeyValue);

impl Serialize for WholeValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

/// The whole value of a new key; or, where the request was sent before with the same `Idempotency-Key`, its last four
/// characters.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum FirstValue {
    /// The whole value, which is never shown again.
    Whole(WholeValue),
    /// Last characters of the key that was created before.
    Before(LastFour),
}

impl KeyView<LastFour> {
    /// Creates the view without the value.
    pub fn short(key: Key) -> Self {
        let last_four = key.last_four.clone();
        Self::with_value(key, LastFour { last_four })
    }
}

impl KeyView<FirstValue> {
    /// Creates the first view of a new key, with its value.
    pub fn first(key: Key, value: KeyValue) -> Self {
        Self::with_value(key, FirstValue::Whole(WholeValue(value)))
    }

    /// Creates the view for whoever repeats the request that created the key: its value is not kept.
    pub fn again(key: Key) -> Self {
        let last_four = key.last_four.clone();
        Self::with_value(key, FirstValue::Before(LastFour { last_four }))
    }
}

impl<V> KeyView<V> {
    fn with_value(key: Key, value: V) -> Self {
        let (user_id, team_id) = match key.owner.kind {
            OwnerType::User => (Some(key.owner.id), None),
            OwnerType::Team => (None, Some(key.owner.id)),
        };
        Self {
            id: key.id,
            kind: key.owner.kind,
            user_id,
            team_id,
            description: key.description,
            is_public: key.is_public,
            created_at_millis: key.created_at.as_millisecond(),
            expires_at_millis: key.expires_at.map(Timestamp::as_millisecond),
            manually_revoked_at_millis: key.revoked_at.map(Timestamp::as_millisecond),
            value,
        }
    }
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    items: Vec<T>,
    /// Always true: every list is paginated, even if it has a single page.
    is_paginated: bool,
    pagination: Pagination,
}

/// Position in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Pagination {
    /// The `cursor` of the next page; null on the last one.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

impl<T> List<T> {
    /// Creates a page from one of the store, converting each entry to its view.
    pub fn of<S>(page: Page<S>, view: impl FnMut(S) -> T) -> Self {
        Self {
            items: page.items.into_iter().map(view).collect(),
            is_paginated: true,
            pagination: Pagination {
                next_cursor: page.next_cursor,
            },
        }
    }

    /// Creates a page without entries.
    pub fn empty() -> Self {
        let page = Page {
            items: Vec::new(),
            next_cursor: None,
        };
        Self::of(page, |entry| entry)
    }
}

/// Serializes a time as everywhere in Rescind's own JSON: `2026-11-22T20:46:15.123456Z`.
pub fn rfc3339<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.6}"))
}

/// Serializes an optional time as [`rfc3339`] does.
pub fn rfc3339_option<S: Serializer>(
    at: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => rfc3339(at, serializer),
        None => serializer.serialize_none(),
    }
}
