//! The texts inside a JSON message: every string in it, wherever it stands.
//!
//! Which field of which event holds words of people changes with each version of each forge. So all strings
//! are scanned, names of fields too; it costs little, since the engine is faster than the parser.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::scan::{Candidate, Engine};

/// How deep a message may be nested. `serde_json` itself stops at 128.
pub const MAX_DEPTH: u8 = 100;

/// Scans every string of a JSON text; calls `found` with each candidate and the nearest link that goes
/// with it: the `html_url` (or Bitbucket's `links.html.href`, or else GitLab's `url`) of the object that
/// the string stands in, or of one around it.
///
/// # Errors
/// What is wrong with the JSON, without quoting it. Candidates in front of the fault were not reported.
pub fn scan_texts(
    engine: &Engine,
    json: &[u8],
    mut found: impl FnMut(Candidate, Option<&str>),
) -> Result<(), serde_json::Error> {
    // Nearly all messages hold no candidate: for them one pass without building anything is enough.
    let mut any = false;
    let mut reader = serde_json::Deserializer::from_slice(json);
    let strings = Strings {
        depth: 0,
        each: &mut |text: &str| any |= !any && !engine.scan(text.as_bytes()).is_empty(),
    };
    strings.deserialize(&mut reader)?;
    reader.end()?;
    if any {
        walk(engine, &serde_json::from_slice(json)?, None, &mut found);
    }
    Ok(())
}

fn walk(
    engine: &Engine,
    value: &Value,
    link: Option<&str>,
    found: &mut impl FnMut(Candidate, Option<&str>),
) {
    match value {
        Value::String(text) => {
            for candidate in engine.scan(text.as_bytes()) {
                found(candidate, link);
            }
        }
        Value::Array(items) => {
            for item in items {
                walk(engine, item, link, found);
            }
        }
        Value::Object(fields) => {
            let link = link_of(value).or(link);
            for (name, field) in fields {
                for candidate in engine.scan(name.as_bytes()) {
                    found(candidate, link);
                }
                walk(engine, field, link, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The page of an object, for people.
fn link_of(object: &Value) -> Option<&str> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let link = text("/html_url").or_else(|| text("/links/html/href"));
    let link = link.or_else(|| text("/url"))?;
    (link.starts_with("https://") || link.starts_with("http://")).then_some(link)
}

/// Hands every string of a JSON value to `each`, without keeping any.
struct Strings<'e, F> {
    depth: u8,
    each: &'e mut F,
}

impl<F: FnMut(&str)> Strings<'_, F> {
    fn inner(&mut self) -> Strings<'_, F> {
        Strings {
            depth: self.depth + 1,
            each: self.each,
        }
    }
}

impl<'de, F: FnMut(&str)> DeserializeSeed<'de> for Strings<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        if self.depth > MAX_DEPTH {
            return Err(D::Error::custom("nested too deep"));
        }
        from.deserialize_any(self)
    }
}

impl<'de, F: FnMut(&str)> Visitor<'de> for Strings<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        (self.each)(text);
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self.inner())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        while fields.next_key_seed(self.inner())?.is_some() {
            fields.next_value_seed(self.inner())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use serde_json::json;

    use super::*;
    use crate::keyformat::FormatSet;
    use crate::scan::Encodings;

    fn found(json: &[u8]) -> Result<Vec<(String, Option<String>)>, serde_json::Error> {
        let engine = Engine::new(&FormatSet::builtin(), Encodings::ALL);
        let mut found = Vec::new();
        scan_texts(&engine, json, |candidate, link| {
            let value = candidate.value.expose().to_owned();
            found.push((value, link.map(str::to_owned)));
        })?;
        Ok(found)
    }

    fn key() -> String {
        let formats = FormatSet::builtin();
        let key = formats.get("rescind_secret").unwrap().mint().unwrap();
        key.expose().to_owned()
    }

    #[test]
    fn finds_a_key_wherever_it_stands_and_its_nearest_link() {
        let key = key();
        let here = "https://forge.example/issues/7";
        let body = format!("look: {key}.");
        for (message, link) in [
            (json!(key), None),
            (json!({ &key: 1 }), None),
            (json!([[1, null, { "a": [true, body] }]]), None),
            (
                json!({"html_url": here, "issue": {"body": body}}),
                Some(here),
            ),
            (
                json!({"url": here, "object_attributes": {"url": 5, "note": body}}),
                Some(here),
            ),
            (
                json!({"html_url": "x", "links": {"html": {"href": here}}, "body": body}),
                None,
            ),
            (
                json!({"links": {"html": {"href": here}}, "body": body}),
                Some(here),
            ),
        ] {
            let expected = vec![(key.clone(), link.map(str::to_owned))];
            assert_eq!(
                found(message.to_string().as_bytes()).unwrap(),
                expected,
                "{message}"
            );
        }
    }

    #[test]
    fn finds_a_key_behind_escapes() {
        let key = key();
        let mut escaped = String::new();
        for c in key.chars() {
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        }
        let json = format!("{{\"body\":\"{escaped}\"}}");
        assert_eq!(found(json.as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_json_is_an_error_and_deep_nesting_no_overflow() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for json in ["", "{", "[1,]", "\"\\ud800\"", "{} {}", &deep] {
            assert!(found(json.as_bytes()).is_err(), "{json:.20}");
        }
    }
}
