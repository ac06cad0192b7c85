//! Body of a delivery: a JSON object, or a form with such an object in a field. Fields about pushes are
//! kept; the rest is parsed and discarded.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

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

/// Maximum memory of the values of one payload that are kept, in bytes. Real payloads have a few hundred values.
const MAX_KEPT: usize = 4 << 20;

/// … for each byte of the payload, beyond the first values. A push of a thousand references takes ten.
const KEPT_PER_BYTE: usize = 16;
const FIRST_KEPT: usize = 64 << 10;

/// Maximum length of a text that is kept, in bytes. Names and URLs have a quarter of that.
const MAX_TEXT: usize = 8 << 10;

/// Estimates of the memory of a value in a list or an object, of an object, and of each field of it, in bytes.
const VALUE: usize = 64;
const OBJECT: usize = 700;
const FIELD: usize = 112;

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

/// Returns the maximum memory of what is kept of a payload of this length, in bytes.
pub(super) fn most_kept(length: usize) -> usize {
    FIRST_KEPT
        .saturating_add(length.saturating_mul(KEPT_PER_BYTE))
        .min(MAX_KEPT)
}

/// Reads a body: mends its payload, which is the field `payload` if the body is a form, and parses it. The texts are
/// returned in any case.
pub(super) fn read(headers: &HeaderMap, mut body: Vec<u8>) -> (Texts, Result<Fields, BodyError>) {
    if body.is_empty() {
        return (Texts::Plain(body), Err(BodyError::Empty));
    }
    if is_form(headers) {
        // Where it stands: a copy would take as much again.
        let field = payload_field(&body);
        let has_payload = field.is_some();
        decode(&mut body, field.unwrap_or(0..usize::MAX));
        if !has_payload {
            return (Texts::Plain(body), Err(BodyError::NoPayload));
        }
    }
    let mut json = body;
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
    let mut payload = form.get(payload_field(form)?)?.to_vec();
    decode(&mut payload, 0..usize::MAX);
    Some(payload)
}

/// Returns where the value of the field `payload` stands in a form.
fn payload_field(form: &[u8]) -> Option<Range<usize>> {
    const NAME: &[u8] = b"payload=";
    let mut start = 0;
    for field in form.split(|byte| *byte == b'&') {
        let end = start + field.len();
        if field.starts_with(NAME) {
            return Some(start + NAME.len()..end);
        }
        start = end + 1;
    }
    None
}

/// Replaces a form by a part of it, decoded. An escape that is none stays as it is.
fn decode(form: &mut Vec<u8>, part: Range<usize>) {
    let end = part.end.min(form.len());
    let (mut read, mut written) = (part.start, 0);
    while read < end {
        let byte = form[read];
        let mut decoded = [byte];
        let digits = form.get(read + 1..end.min(read + 3)).unwrap_or_default();
        read += match byte {
            b'%' if hex::decode_to_slice(digits, &mut decoded).is_ok() => 3,
            b'+' => {
                decoded = [b' '];
                1
            }
            _ => 1,
        };
        form[written] = decoded[0];
        written += 1;
    }
    form.truncate(written);
}

/// Parses the payload and returns the fields that describe pushes.
///
/// # Errors
/// Returns a [`BodyError`] if the payload is not JSON, or not an object.
pub(super) fn fields(json: &[u8]) -> Result<Fields, BodyError> {
    let mut state = State {
        left: most_kept(json.len()),
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
    /// Memory that may still be kept, in bytes.
    left: usize,
    left_out: Option<&'static str>,
}

impl State {
    /// Returns whether this much more may be kept.
    fn has_room(&mut self, bytes: usize) -> bool {
        let left = self.left.checked_sub(bytes);
        if left.is_none() {
            self.left_out = Some(TOO_MUCH);
        }
        self.left = left.unwrap_or(0);
        left.is_some()
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
        if value.len() > MAX_TEXT || !self.state.has_room(value.len()) {
            self.state.left_out = Some(TOO_MUCH);
            return Ok(Value::Null);
        }
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < MAX_LIST && self.state.has_room(VALUE) {
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
        let has_room = self.state.has_room(OBJECT);
        while let Some(name) = fields.next_key::<Name<'de>>()? {
            let is_wanted = name.0 != COMMITS && (!self.is_top || KEPT.contains(&&*name.0));
            if !is_wanted || !has_room || !self.state.has_room(FIELD + name.0.len()) {
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
