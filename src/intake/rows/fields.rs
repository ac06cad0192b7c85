//! Fields of a row, cut out of its JSON.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::text::inner;

/// The fields of a row that are used, as raw JSON. If a field is repeated, the last one counts that is a
/// text. All other fields are skipped, so that no row takes more memory than its text.
#[derive(Default)]
pub(super) struct Fields<'j> {
    pub(super) token: Option<&'j RawValue>,
    pub(super) kind: Option<&'j RawValue>,
    pub(super) url: Option<&'j RawValue>,
    pub(super) location: Option<&'j RawValue>,
    pub(super) source: Option<&'j RawValue>,
    /// `true` if the name `token` stands there several times.
    pub(super) has_more_tokens: bool,
    /// Size of all other names and values, and of all but the last value of a name that is repeated, in bytes.
    pub(super) others: usize,
}

impl<'j> Fields<'j> {
    /// Returns the fields of a row, or none if it is no object.
    pub(super) fn of(row: &'j str) -> Self {
        Self::read(row, &mut |_| ())
    }

    /// Passes each value of a row's name `token` on.
    pub(super) fn each_token(row: &'j str, each: &mut dyn FnMut(&RawValue)) {
        Self::read(row, each);
    }

    fn read(row: &'j str, token: &mut dyn FnMut(&RawValue)) -> Self {
        let mut from = serde_json::Deserializer::from_str(row);
        from.deserialize_map(Reading(token)).unwrap_or_default()
    }
}

/// Visitor that reads the fields of a row, and passes each token on.
struct Reading<'e>(&'e mut dyn FnMut(&RawValue));

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut row: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(Name(name)) = row.next_key()? {
            let value: &RawValue = row.next_value()?;
            let field = match &*name {
                b"token" => {
                    (self.0)(value);
                    fields.has_more_tokens |= fields.token.is_some();
                    &mut fields.token
                }
                b"type" => &mut fields.kind,
                b"url" => &mut fields.url,
                b"location" => &mut fields.location,
                b"source" => &mut fields.source,
                _ => {
                    fields.others += name.len() + value.get().len();
                    continue;
                }
            };
            let is_better = field.is_none() || inner(value).is_some();
            let other = if is_better {
                field.replace(value)
            } else {
                Some(value)
            };
            fields.others += other.map_or(0, |other| other.get().len());
        }
        Ok(fields)
    }
}

/// Name of a field, which need not be valid text: a lone surrogate in it does not affect the other
/// fields.
struct Name<'j>(Cow<'j, [u8]>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_bytes<E>(self, name: &'de [u8]) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_bytes<E>(self, name: &[u8]) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_vec())))
            }
        }
        from.deserialize_bytes(Bytes)
    }
}
