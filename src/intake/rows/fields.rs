//! Fields of a row, cut out of its JSON.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of a row that are used, as raw JSON. If a field is repeated, the last one counts that is a
/// text. All other fields are skipped, so that no row takes more memory than its text.
#[derive(Default)]
pub(super) struct Fields<'j> {
    pub(super) token: Option<&'j RawValue>,
    pub(super) kind: Option<&'j RawValue>,
    pub(super) url: Option<&'j RawValue>,
    pub(super) location: Option<&'j RawValue>,
    pub(super) source: Option<&'j RawValue>,
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Row;
        impl<'de> Visitor<'de> for Row {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a row")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut row: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields::default();
                while let Some(Name(name)) = row.next_key()? {
                    let field = match &*name {
                        b"token" => &mut fields.token,
                        b"type" => &mut fields.kind,
                        b"url" => &mut fields.url,
                        b"location" => &mut fields.location,
                        b"source" => &mut fields.source,
                        _ => {
                            row.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    let value: &RawValue = row.next_value()?;
                    if field.is_none() || is_text(value) {
                        *field = Some(value);
                    }
                }
                Ok(fields)
            }
        }
        from.deserialize_map(Row)
    }
}

/// Returns whether a value is a text, and not an empty one.
fn is_text(value: &RawValue) -> bool {
    value.get().starts_with('"') && value.get() != "\"\""
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
