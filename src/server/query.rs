//! Query of a request, taken parameter by parameter like the fields of a body.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use jiff::Timestamp;
use utoipa::IntoParams;

use super::AppState;
use super::error::{ApiError, ApiResult, ErrorCode, Refuses};
use super::fields::{check_text, unknown_name};
use crate::issuer::time;
use crate::scan::Redactor;
use crate::store::PageRequest;

/// Maximum number of entries per page.
pub const MAX_LIMIT: u32 = 200;

/// Default page size. Clients of Stack Auth send no limit and expect every key.
const DEFAULT_LIMIT: u32 = MAX_LIMIT;

/// Maximum length of a parameter's value, in characters.
const MAX_VALUE: usize = 512;

/// Page of a list, as asked for.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// Maximum number of entries.
    #[param(required = false, minimum = 1, maximum = 200, default = 200)]
    pub(super) limit: u32,
    /// `next_cursor` of the page before.
    #[param(max_length = 512)]
    pub(super) cursor: Option<String>,
}

/// Query parameters that have not been taken yet.
#[derive(Debug)]
pub struct Query {
    left: Vec<(String, String)>,
    redactor: Redactor,
}

impl Query {
    /// Takes the value of `name`. Returns `None` if it is absent or empty.
    ///
    /// # Errors
    /// Returns 400 if the parameter is repeated, too long, or contains control characters or a key.
    pub fn text(&mut self, name: &str) -> ApiResult<Option<String>> {
        let Some(at) = self.left.iter().position(|(given, _)| given == name) else {
            return Ok(None);
        };
        let (_, value) = self.left.remove(at);
        if self.left.iter().any(|(given, _)| given == name) {
            return Err(ApiError::schema(name, "is given more than once"));
        }
        if value.is_empty() {
            return Ok(None);
        }
        check_text(&self.redactor, name, &value, MAX_VALUE)?;
        Ok(Some(value))
    }

    fn limit(&mut self) -> ApiResult<u32> {
        let Some(text) = self.text("limit")? else {
            return Ok(DEFAULT_LIMIT);
        };
        text.parse()
            .ok()
            .filter(|limit| (1..=MAX_LIMIT).contains(limit))
            .ok_or_else(|| ApiError::schema("limit", "has to be a whole number from 1 to 200"))
    }

    /// Takes `limit`, from 1 to [`MAX_LIMIT`], and `cursor`.
    ///
    /// # Errors
    /// Returns 400 if one of them is invalid.
    pub(super) fn paging(&mut self) -> ApiResult<Paging> {
        Ok(Paging {
            limit: self.limit()?,
            cursor: self.text("cursor")?,
        })
    }

    /// Takes the page of a list from the database.
    ///
    /// # Errors
    /// Returns 400 if `limit` or `cursor` is invalid.
    pub fn page(&mut self) -> ApiResult<PageRequest> {
        let paging = self.paging()?;
        Ok(PageRequest::new(paging.limit as usize, paging.cursor))
    }

    /// Takes an optional time in RFC 3339.
    ///
    /// # Errors
    /// Returns 400 if the value is not a time.
    pub fn time(&mut self, name: &str) -> ApiResult<Option<Timestamp>> {
        self.text(name)?
            .map(|text| {
                time(&text).ok_or_else(|| {
                    ApiError::schema(name, "has to be a time such as 2026-11-22T20:46:15Z")
                })
            })
            .transpose()
    }

    /// Refuses the request if it has an unknown parameter.
    ///
    /// # Errors
    /// Returns 400 if any parameter is left.
    pub fn finish(self) -> ApiResult<()> {
        match self.left.first() {
            None => Ok(()),
            Some((name, _)) => Err(unknown_name(&self.redactor, name, "query parameter")),
        }
    }
}

impl Refuses for Query {
    const CODES: &'static [ErrorCode] = &[ErrorCode::SchemaError];
}

impl FromRequestParts<AppState> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let axum::extract::Query(left) = axum::extract::Query::try_from_uri(&parts.uri)
            .map_err(|_| ApiError::schema_without_field("The query cannot be read."))?;
        Ok(Self {
            left,
            redactor: state.redactor().clone(),
        })
    }
}
