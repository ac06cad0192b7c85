//! Body of a delivery: a JSON object, or a form with such an object in a field. Fields about pushes are
//! kept; the rest is parsed and discarded.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher as _, Hash, RandomState};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::forge::MAX_DEPTH;

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

/// Maximum number of fields of one payload, kept or not. A push of 2,048 commits has some 40,000.
const MAX_FIELDS: usize = 500_000;

/// Error returned for a body that is not a payload. Every variant is a 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    #[error("the payload {0}")]
    Odd(&'static str),
}

/// Returns `true` if the body is declared as a form.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let declared = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let essence = declared.unwrap_or_default().split(|b| *b == b';').next();
    let essence = essence.unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// Returns the JSON of a body, which is the field `payload` if the body is a form.
pub(super) fn json<'b>(headers: &HeaderMap, body: &'b [u8]) -> Result<Cow<'b, [u8]>, BodyError> {
    if body.is_empty() {
        return Err(BodyError::Empty);
    }
    if is_form(headers) {
        return form_payload(body)
            .map(Cow::Owned)
            .ok_or(BodyError::NoPayload);
    }
    Ok(Cow::Borrowed(body))
}

/// Returns the field `payload` of a form, decoded. Returns `None` if there is no such field or its
/// escapes are invalid.
pub(super) fn form_payload(form: &[u8]) -> Option<Vec<u8>> {
    let mut fields = form.split(|b| *b == b'&');
    let encoded = fields.find_map(|field| field.strip_prefix(b"payload="))?;
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                let mut byte = [0];
                hex::decode_to_slice(digits, &mut byte).ok()?;
                decoded.extend(byte);
                rest = after;
            }
            byte => decoded.push(byte),
        }
    }
    Some(decoded)
}

/// Parses the payload and returns the fields that describe pushes.
///
/// # Errors
///
/// Returns a [`BodyError`] if the payload is not JSON, or not what a forge sends.
pub(super) fn fields(json: &[u8]) -> Result<Map<String, Value>, BodyError> {
    let mut state = State {
        left: MAX_KEPT,
        fields_left: MAX_FIELDS,
        hasher: RandomState::new(),
        odd: None,
    };
    let mut reader = serde_json::Deserializer::from_slice(json);
    let seed = Keep {
        state: &mut state,
        depth: 0,
        wanted: true,
    };
    let read = seed
        .deserialize(&mut reader)
        .and_then(|seen| reader.end().map(|()| seen.value));
    match (read, state.odd) {
        (Ok(Value::Object(fields)), None) => Ok(fields),
        (Ok(_), None) => Err(BodyError::Odd("is no JSON object")),
        (_, Some(odd)) => Err(BodyError::Odd(odd)),
        (Err(error), None) => Err(BodyError::NotJson {
            line: error.line(),
            column: error.column(),
        }),
    }
}

struct State {
    /// Number of values that may still be kept.
    left: usize,
    /// Number of fields that may still follow.
    fields_left: usize,
    hasher: RandomState,
    /// Problem of the payload, if it is something other than its syntax.
    odd: Option<&'static str>,
}

impl State {
    fn refuse<E: serde::de::Error>(&mut self, odd: &'static str) -> E {
        self.odd = Some(odd);
        E::custom(odd)
    }
}

/// Deserializes a value, which is built only if it is `wanted` and null otherwise.
struct Keep<'s> {
    state: &'s mut State,
    depth: u8,
    wanted: bool,
}

/// A deserialized value and its fingerprint, by which values are compared for equality.
struct Seen {
    value: Value,
    print: u64,
}

impl Keep<'_> {
    fn seen<T: Hash + Into<Value>>(&self, value: T) -> Seen {
        Seen {
            print: self.state.hasher.hash_one(&value),
            value: self.kept(value),
        }
    }

    fn kept(&self, value: impl Into<Value>) -> Value {
        if self.wanted {
            value.into()
        } else {
            Value::Null
        }
    }

    fn inner(&mut self, wanted: bool) -> Keep<'_> {
        Keep {
            state: self.state,
            depth: self.depth + 1,
            wanted,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Keep<'_> {
    type Value = Seen;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Seen, D::Error> {
        if self.depth > MAX_DEPTH {
            return Err(self.state.refuse("is nested too deep"));
        }
        if self.wanted {
            self.state.left = match self.state.left.checked_sub(1) {
                Some(left) => left,
                None => return Err(self.state.refuse("tells of too much at once")),
            };
        }
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keep<'_> {
    type Value = Seen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Seen, E> {
        Ok(self.seen(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Seen, E> {
        Ok(self.seen(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Seen, E> {
        Ok(self.seen(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Seen, E> {
        Ok(Seen {
            value: self.kept(value),
            print: self.state.hasher.hash_one(value.to_bits()),
        })
    }

    fn visit_str<E>(self, value: &str) -> Result<Seen, E> {
        Ok(self.seen(value))
    }

    fn visit_unit<E>(self) -> Result<Seen, E> {
        Ok(Seen {
            value: Value::Null,
            print: 0,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Seen, A::Error> {
        let wanted = self.wanted;
        let mut kept = Vec::new();
        let mut print = 1;
        while let Some(item) = items.next_element_seed(self.inner(wanted))? {
            print = self.state.hasher.hash_one((print, item.print));
            if wanted {
                kept.push(item.value);
            }
        }
        Ok(Seen {
            value: self.kept(kept),
            print,
        })
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<Seen, A::Error> {
        let mut prints = Vec::new();
        let mut kept = Map::new();
        while let Some(name) = fields.next_key::<Name<'de>>()? {
            let wanted =
                self.wanted && name.0 != COMMITS && (self.depth > 0 || KEPT.contains(&&*name.0));
            self.state.fields_left = match self.state.fields_left.checked_sub(1) {
                Some(left) => left,
                None => return Err(self.state.refuse("tells of too much at once")),
            };
            let field = fields.next_value_seed(self.inner(wanted))?;
            prints.push((self.state.hasher.hash_one(&*name.0), field.print));
            if wanted {
                kept.insert(name.0.into_owned(), field.value);
            }
        }
        // GitLab's build events repeat a field with the same value. If the values differ, it is anybody's
        // guess which one holds.
        prints.sort_unstable();
        prints.dedup();
        if prints.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(self.state.refuse("has one field with two values"));
        }
        Ok(Seen {
            value: self.kept(kept),
            print: self.state.hasher.hash_one(prints),
        })
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
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keeps_what_tells_of_pushes() {
        let body = json!({"ref": "r", "sender": {"ref": 1}, "repository": {"id": 7, "owner": {"x": [true, null]}},
            "push": {"changes": [{"commits": [{"hash": "x"}], "old": null, "f": 1.5, "n": -1}]}});
        let expected = json!({"ref": "r", "repository": {"id": 7, "owner": {"x": [true, null]}},
            "push": {"changes": [{"old": null, "f": 1.5, "n": -1}]}});
        let kept = fields(body.to_string().as_bytes()).unwrap();
        assert_eq!(Value::Object(kept), expected);
    }

    #[test]
    fn what_is_odd_is_refused_in_words() {
        let deep = format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000));
        let many = format!("{{\"changes\":[{}0]}}", "0,".repeat(MAX_KEPT));
        let cases: [(&[u8], &str); 13] = [
            (b"[]", "is no JSON object"),
            (b"null", "is no JSON object"),
            (b"7", "is no JSON object"),
            (b"{", "line 1, column 1"),
            (b"{}x", "line 1, column 3"),
            (b"{\n\"a\":tru}", "line 2"),
            (b"{\"a\":\"\xff\"}", "line 1"),
            (br#"{"a":"\ud800"}"#, "line 1"),
            (br#"{"a":1e999}"#, "line 1"),
            (br#"{"a":1,"a":2}"#, "one field with two values"),
            (
                br#"{"x":[{"b":{},"\u0062":1}]}"#,
                "one field with two values",
            ),
            (deep.as_bytes(), "nested too deep"),
            (many.as_bytes(), "too much at once"),
        ];
        for (body, expected) in cases {
            let error = fields(body).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_field_may_say_the_same_twice() {
        for same in [
            "1",
            "-1",
            "0.5",
            "true",
            "null",
            r#""x""#,
            r#"[1,{"b":[]}]"#,
            "{}",
        ] {
            let body = format!(r#"{{"x":{{"a":{same},"b":1,"a":{same}}}}}"#);
            assert!(fields(body.as_bytes()).is_ok(), "{body}");
            let body = format!(r#"{{"x":{{"a":{same},"b":1,"a":"other"}}}}"#);
            assert!(fields(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn forms_are_decoded() {
        for (form, expected) in [
            (
                "payload=%7B%22a%22%3A+%22%C3%A4%22%7d",
                Some("{\"a\": \"ä\"}"),
            ),
            ("x=1&payload={}&y=2", Some("{}")),
            ("payload=", Some("")),
            ("payloads={}", None),
            ("payload=%7", None),
            ("payload=%", None),
            ("payload=%zz", None),
            ("", None),
        ] {
            let decoded = form_payload(form.as_bytes());
            assert_eq!(decoded.as_deref(), expected.map(str::as_bytes), "{form}");
        }
    }
}
