//! Body of a delivery: a JSON object, or a form with such an object in a field. Fields about pushes are
//! kept; the rest is parsed and discarded.

use std::borrow::Cow;
use std::fmt;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Value};

use super::meaning::MAX_PUSHES;
use crate::fetch::{as_json, unescape};

/// Top-level fields that are kept: those that describe pushes.
const KEPT: &[&str] = &[
    "after",
    "before",
    "changes",
    "event_name",
    "object_kind",
    "pages",
    "project",
    "project_id",
    "push",
    "ref",
    "refLimitExceeded",
    "repository",
    "wiki",
];

/// Name of a field that is dropped at any level: there may be thousands of commits.
const COMMITS: &str = "commits";

/// Maximum number of values of one payload that are kept. Real payloads have a few hundred.
const MAX_KEPT: usize = 100_000;

/// Maximum number of elements of one list that are kept: more than are handled one by one, so that it shows that there
/// are more.
const MAX_LIST: usize = MAX_PUSHES + 1;

/// Remarks on a payload of which not everything could be kept.
const TOO_MUCH: &str = "it tells of too much at once";
const AMBIGUOUS: &str = "it has one field with two values";

/// Error returned for a body that is not a payload. Every variant is a 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The body is empty.
    #[error("the body is empty")]
    Empty,
    /// The form has no payload.
    #[error("the form has no readable field `payload`")]
    NoPayload,
    /// The payload is not JSON.
    #[error("the payload is not valid JSON: line {line}, column {column}")]
    NotJson {
        /// Line, counted from 1.
        line: usize,
        /// Column, counted from 1.
        column: usize,
    },
    /// The payload is JSON, but not what a forge sends.
    #[error("the payload is no JSON object")]
    NoObject,
}

/// Returns `true` if the body is declared as a form.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let declared = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let essence = declared.unwrap_or_default().split(|b| *b == b';').next();
    let essence = essence.unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// Body of a delivery, as its texts are scanned.
#[derive(Debug)]
pub(super) enum Texts {
    /// JSON.
    Json(Vec<u8>),
    /// Anything else. Escapes as in JSON are undone.
    Plain(Vec<u8>),
}

/// Fields of a payload that describe pushes.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Fields {
    pub(super) kept: Map<String, Value>,
    /// Reason why not everything could be kept.
    pub(super) left_out: Option<&'static str>,
}

/// Reads a body: mends its payload, which is the field `payload` if the body is a form, and parses it. The texts are
/// returned in any case.
pub(super) fn read(headers: &HeaderMap, body: Vec<u8>) -> (Texts, Result<Fields, BodyError>) {
    if body.is_empty() {
        return (Texts::Plain(body), Err(BodyError::Empty));
    }
    let mut json = if is_form(headers) {
        let Some(payload) = form_payload(&body) else {
            return (Texts::Plain(decoded(&body)), Err(BodyError::NoPayload));
        };
        payload
    } else {
        body
    };
    // UTF-16 is no JSON. It would be none that can be scanned, either, if it were mended as UTF-8.
    let is_wide = json
        .iter()
        .take(2)
        .any(|byte| matches!(byte, 0 | 0xff | 0xfe));
    if !is_wide {
        as_json(&mut json);
    }
    let read = fields(&json);
    if matches!(read, Err(BodyError::NotJson { .. })) {
        unescape(&mut json);
        return (Texts::Plain(json), read);
    }
    (Texts::Json(json), read)
}

/// Returns the field `payload` of a form, decoded. Returns `None` if there is no such field.
pub(super) fn form_payload(form: &[u8]) -> Option<Vec<u8>> {
    let mut fields = form.split(|b| *b == b'&');
    fields
        .find_map(|field| field.strip_prefix(b"payload="))
        .map(decoded)
}

/// Decodes a part of a form. An escape that is none stays as it is.
fn decoded(encoded: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let mut escaped = [0];
        match (byte, after.get(..2)) {
            (b'+', _) => decoded.push(b' '),
            (b'%', Some(digits)) if hex::decode_to_slice(digits, &mut escaped).is_ok() => {
                decoded.extend(escaped);
                rest = &after[2..];
            }
            _ => decoded.push(byte),
        }
    }
    decoded
}

/// Parses the payload and returns the fields that describe pushes.
///
/// # Errors
/// Returns a [`BodyError`] if the payload is not JSON, or not an object.
pub(super) fn fields(json: &[u8]) -> Result<Fields, BodyError> {
    let mut state = State {
        left: MAX_KEPT,
        left_out: None,
    };
    let mut reader = serde_json::Deserializer::from_slice(json);
    let seed = Keep {
        state: &mut state,
        is_top: true,
    };
    let read = seed
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value));
    match read {
        Ok(Value::Object(kept)) => Ok(Fields {
            kept,
            left_out: state.left_out,
        }),
        Ok(_) => Err(BodyError::NoObject),
        Err(error) => Err(BodyError::NotJson {
            line: error.line(),
            column: error.column(),
        }),
    }
}

struct State {
    /// Number of values that may still be kept.
    left: usize,
    left_out: Option<&'static str>,
}

impl State {
    /// Returns whether another value may be kept.
    fn has_room(&mut self) -> bool {
        let has_room = self.left > 0;
        if !has_room {
            self.left_out = Some(TOO_MUCH);
        }
        self.left = self.left.saturating_sub(1);
        has_room
    }
}

/// Deserializes a value that is kept.
struct Keep<'s> {
    state: &'s mut State,
    /// `true` for the payload itself.
    is_top: bool,
}

impl Keep<'_> {
    fn inner(&mut self) -> Keep<'_> {
        Keep {
            state: self.state,
            is_top: false,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Keep<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keep<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < MAX_LIST && self.state.has_room() {
            let Some(item) = items.next_element_seed(self.inner())? else {
                return Ok(kept.into());
            };
            kept.push(item);
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(kept.into())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while let Some(name) = fields.next_key::<Name<'de>>()? {
            let is_wanted = name.0 != COMMITS && (!self.is_top || KEPT.contains(&&*name.0));
            if !is_wanted || !self.state.has_room() {
                fields.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = fields.next_value_seed(self.inner())?;
            match kept.entry(name.0.into_owned()) {
                Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                // GitLab's build events repeat a field with the same value. If the values differ, it is anybody's
                // guess which one holds.
                Entry::Occupied(mut entry) if *entry.get() != value => {
                    self.state.left_out = Some(AMBIGUOUS);
                    entry.insert(Value::Null);
                }
                Entry::Occupied(_) => {}
            }
        }
        Ok(kept.into())
    }
}

/// Name of a field, borrowed unless it contains an escape.
struct Name<'de>(Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        from.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests;
