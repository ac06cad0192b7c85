//! Deserialization of fields that should be texts or numbers, whatever is in their place.
//!
//! A hostile feed may have a list of millions of elements in place of a text. Such values are skipped without being
//! kept: a `Value` built from one takes fifty times its length.

use std::fmt;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use crate::forge::is_plain_id;
use crate::keyformat::Sha256Digest;

/// Maximum length of a text, in bytes. Names of branches have up to 255.
const MAX_TEXT: usize = 8 << 10;

/// Maximum length of an event or repository id, in bytes. GitHub's have 11 digits.
const MAX_ID: usize = 64;

/// Reads an id, which may be a number or a text: of a text of anything but hexadecimal digits and `-{}`, which may hold
/// a key, the digest, which identifies what it did as well. Digits are stored as [`kept_id`](crate::forge::kept_id)
/// says. Returns `None` for anything else.
///
/// # Errors
/// Fails if the id is longer than [`MAX_ID`].
pub(super) fn id<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let id = match from.deserialize_any(Scalars)? {
        Scalar::Text(text) => text,
        Scalar::Number(number) => return bounded(number.to_string()).map(Some),
        Scalar::Other => return Ok(None),
    };
    let id = bounded(id)?;
    if is_plain_id(&id) {
        return Ok(Some(id).filter(|id| !id.is_empty()));
    }
    let is_graphic = id.bytes().all(|byte| byte.is_ascii_graphic());
    Ok(is_graphic.then(|| Sha256Digest::of(id.as_bytes()).to_hex()))
}

fn bounded<E: Error>(id: String) -> Result<String, E> {
    if id.len() > MAX_ID {
        return Err(E::custom("an id is too long"));
    }
    Ok(id)
}

/// Reads a text. Returns `None` for anything else, and for a text longer than [`MAX_TEXT`].
pub(super) fn text_or_nothing<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<String>, D::Error> {
    match from.deserialize_any(Scalars)? {
        Scalar::Text(text) => Ok(Some(text)),
        _ => Ok(None),
    }
}

/// Reads a list and returns its first element.
pub(super) fn first<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    struct First<T>(std::marker::PhantomData<T>);

    impl<'de, T: serde::Deserialize<'de>> Visitor<'de> for First<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let first = items.next_element()?;
            while items.next_element::<IgnoredAny>()?.is_some() {}
            Ok(first)
        }
    }

    from.deserialize_seq(First(std::marker::PhantomData))
}

enum Scalar {
    Text(String),
    Number(Number),
    Other,
}

struct Scalars;

impl<'de> Visitor<'de> for Scalars {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        if text.len() > MAX_TEXT {
            return Ok(Scalar::Other);
        }
        Ok(Scalar::Text(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
        Ok(Number::from_f64(number).map_or(Scalar::Other, Scalar::Number))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Scalar, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Sample {
        #[serde(default, deserialize_with = "id")]
        id: Option<String>,
        #[serde(default, deserialize_with = "text_or_nothing")]
        text: Option<String>,
        #[serde(default, deserialize_with = "first")]
        list: Option<u8>,
    }

    #[test]
    fn whatever_stands_in_its_place_is_passed_over() {
        let read = |json: &str| serde_json::from_str::<Sample>(json);
        for (json, id, text) in [
            (r#"{"id": 12, "text": "a"}"#, Some("12"), Some("a")),
            (r#"{"id": "a-1", "text": 1}"#, Some("a-1"), None),
            // Another text than a number is known by its digest.
            (
                r#"{"id": "x-1", "text": 1}"#,
                Some("e0f26c5c92757661153f941e9d0e65ece63b67e4e2e4640e69d7a71437f2aa31"),
                None,
            ),
            (r#"{"id": -1.5, "text": true}"#, Some("-1.5"), None),
            (r#"{"id": [1, {"a": []}], "text": [[], 2]}"#, None, None),
            (r#"{"id": {"a": [1]}, "text": {"b": "c"}}"#, None, None),
            (r#"{"id": null, "text": null}"#, None, None),
            (r#"{"id": "a b", "text": "\u0061"}"#, None, Some("a")),
            ("{}", None, None),
        ] {
            let read = read(json).unwrap();
            assert_eq!(
                (read.id.as_deref(), read.text.as_deref()),
                (id, text),
                "{json}"
            );
        }
        assert!(read(&format!(r#"{{"id": "{}"}}"#, "9".repeat(65))).is_err());
        let long = format!(r#"{{"text": "{}"}}"#, "x".repeat(MAX_TEXT + 1));
        assert_eq!(read(&long).unwrap().text, None);
    }

    #[test]
    fn of_a_list_the_first_is_kept() {
        let read = |json: &str| serde_json::from_str::<Sample>(json).map(|read| read.list);
        assert_eq!(read(r#"{"list": [7, "x", [1]]}"#).unwrap(), Some(7));
        assert_eq!(read(r#"{"list": []}"#).unwrap(), None);
        assert!(read(r#"{"list": 7}"#).is_err());
    }
}
