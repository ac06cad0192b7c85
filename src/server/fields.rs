//! Fields of a JSON body, taken one by one. Each is checked as it is taken, and those left at the end are unknown ones.
//! Errors name the field and the remedy, never the value.

use jiff::Timestamp;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::error::{ApiError, ApiResult, ErrorCode, Refuses};
use crate::issuer::{end_at, is_blank};
use crate::keyformat::KeyValue;
use crate::scan::Redactor;

/// Body of a request: a JSON object. The described type is the type that is read.
pub(super) trait JsonBody: ToSchema + Sized {
    /// Takes the fields of the body.
    ///
    /// # Errors
    /// Returns 400 if a field is missing or invalid.
    fn take(fields: &mut Fields<'_>) -> ApiResult<Self>;
}

impl<T: JsonBody> Refuses for T {
    const CODES: &'static [ErrorCode] = &[
        ErrorCode::SchemaError,
        ErrorCode::BodyParsingError,
        ErrorCode::RequestTimeout,
        ErrorCode::PayloadTooLarge,
        ErrorCode::UnsupportedMediaType,
    ];
}

/// Fields of a body that have not been taken yet.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    left: Map<String, Value>,
    redactor: &'a Redactor,
}

impl<'a> Fields<'a> {
    /// Creates the fields of a parsed body. Texts among them are checked with `redactor`.
    pub(super) fn new(body: Map<String, Value>, redactor: &'a Redactor) -> Self {
        Self {
            left: body,
            redactor,
        }
    }

    /// Takes a key, which is moved into a `KeyValue` at once.
    pub(super) fn key(&mut self, name: &str) -> ApiResult<KeyValue> {
        match self.left.get_mut(name).map(Value::take) {
            Some(Value::String(text)) if !text.is_empty() => {
                self.left.remove(name);
                Ok(KeyValue::new(text))
            }
            Some(Value::String(_)) => Err(ApiError::schema(name, "must not be empty")),
            Some(_) => Err(ApiError::schema(name, "has to be a string")),
            None => Err(ApiError::schema(name, "is required")),
        }
    }

    /// Takes a required text, checked as in [`Fields::text`].
    pub(super) fn required_text(&mut self, name: &str, longest: usize) -> ApiResult<String> {
        self.text(name, longest)?
            .ok_or_else(|| ApiError::schema(name, "is required"))
    }

    /// Takes an optional text of 1 to `longest` characters, free of control characters and of keys.
    pub(super) fn text(&mut self, name: &str, longest: usize) -> ApiResult<Option<String>> {
        match self.left.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => {
                check_text(self.redactor, name, &text, longest)?;
                Ok(Some(text))
            }
            Some(_) => Err(ApiError::schema(name, "has to be a string")),
        }
    }

    /// Takes an optional text that decides nothing and is cleaned before it is stored, and may therefore contain
    /// anything. `null` counts as absent, any other value as an empty text.
    pub(super) fn lenient_text(&mut self, name: &str) -> Option<String> {
        match self.left.remove(name)? {
            Value::Null => None,
            Value::String(text) => Some(text),
            _ => Some(String::new()),
        }
    }

    /// Takes an optional `true` or `false`.
    pub(super) fn flag(&mut self, name: &str) -> ApiResult<Option<bool>> {
        match self.left.remove(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(ApiError::schema(name, "has to be true or false")),
        }
    }

    /// Takes an optional whole number of at least 0.
    pub(super) fn count(&mut self, name: &str) -> ApiResult<Option<u64>> {
        match self.left.remove(name) {
            None => Ok(None),
            Some(value) => whole_number(&value)
                .and_then(|number| u64::try_from(number).ok())
                .map(Some)
                .ok_or_else(|| ApiError::schema(name, "has to be a whole number of at least 0")),
        }
    }

    /// Takes an optional end in milliseconds since 1970, or `null` for none, as are all from the year 9999 on. To be
    /// absent is a third case.
    #[expect(
        clippy::option_option,
        reason = "absent, null and a time are three things"
    )]
    pub(super) fn millis(&mut self, name: &str) -> ApiResult<Option<Option<Timestamp>>> {
        match self.left.remove(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(value) => whole_number(&value)
                .filter(|millis| *millis >= 0)
                .map(|millis| Some(Timestamp::from_millisecond(millis).ok().and_then(end_at)))
                .ok_or_else(|| {
                    ApiError::schema(
                        name,
                        "has to be null or a time in whole milliseconds since 1970",
                    )
                }),
        }
    }

    /// Takes a list of at most `most` texts, each checked as in [`Fields::text`]. Returns an empty list if it is
    /// absent.
    pub(super) fn texts(
        &mut self,
        name: &str,
        most: usize,
        longest: usize,
    ) -> ApiResult<Vec<String>> {
        let list = match self.left.remove(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(ApiError::schema(name, "has to be a list of strings")),
        };
        if list.len() > most {
            return Err(ApiError::schema(
                name,
                &format!("has more than {most} entries"),
            ));
        }
        list.into_iter()
            .map(|entry| match entry {
                Value::String(text) => {
                    check_text(self.redactor, name, &text, longest).map(|()| text)
                }
                _ => Err(ApiError::schema(name, "has to be a list of strings")),
            })
            .collect()
    }

    /// Refuses the body if it has an unknown field.
    pub(super) fn finish(self) -> ApiResult<()> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => Err(unknown_name(self.redactor, name, "field")),
        }
    }
}

/// Checks a text that will be stored.
pub(super) fn check_text(
    redactor: &Redactor,
    name: &str,
    text: &str,
    longest: usize,
) -> ApiResult<()> {
    let length = text.chars().count();
    if length == 0 || length > longest {
        let problem = format!("has to have 1 to {longest} characters");
        return Err(ApiError::schema(name, &problem));
    }
    if is_blank(text) {
        return Err(ApiError::schema(name, "must not be blank"));
    }
    if text
        .chars()
        .any(|c| c.is_control() && c != '\n' && c != '\t')
    {
        return Err(ApiError::schema(name, "must not have control characters"));
    }
    if redactor.holds_key(text) {
        return Err(ApiError::schema(
            name,
            "contains an API key; nothing was stored. Treat that key as leaked and leave it out",
        ));
    }
    Ok(())
}

/// Returns 400 for an unknown name. The name is only repeated if it cannot be a key.
pub(super) fn unknown_name(redactor: &Redactor, name: &str, what: &str) -> ApiError {
    let harmless = name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        && !redactor.holds_key(name);
    if harmless {
        ApiError::schema(name, &format!("is not a {what} of this request"))
    } else {
        ApiError::schema_without_field(format!(
            "The request has a {what} that does not belong to it."
        ))
    }
}

/// Returns a whole number as an integer. JavaScript has a single number type, and some clients send whole numbers as
/// `1.0` or `1e3`.
fn whole_number(value: &Value) -> Option<i64> {
    /// Largest integer up to which every `f64` is exact (ECMA-262, `Number.MAX_SAFE_INTEGER`).
    const LARGEST_EXACT: f64 = 9_007_199_254_740_991.0;
    value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "checked to be whole and in range"
        )]
        (number.fract() == 0.0 && number.abs() <= LARGEST_EXACT).then_some(number as i64)
    })
}
