//! Import of digests of keys that were issued elsewhere.

use std::io::Cursor;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::intake::{ImportRow, RowError, RowFormat, parse_rows};
use crate::server::AppState;
use crate::server::access::{Caller, Permission};
use crate::server::error::{ApiError, ApiResult};
use crate::store::{ImportOutcome, NewKey};

/// The largest import of one request, in bytes. The command line takes files of any size.
const MAX_IMPORT: usize = 25 << 20;

/// Rows that are stored in one transaction.
const BATCH: usize = 5000;

/// The most wrong rows that an answer lists.
const MAX_ERRORS: usize = 1000;

/// What became of the rows.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ImportResult {
    /// Rows that are keys now.
    imported: u64,
    /// Rows whose key was known already; it stays as it was.
    duplicates: u64,
    /// Rows that could not be read.
    failed: u64,
    /// Why, row by row; at most the first 1000.
    errors: Vec<RowProblem>,
}

/// Why a row could not be read.
#[derive(Debug, Serialize, ToSchema)]
pub struct RowProblem {
    /// Where the row begins, counted from 1.
    line: u64,
    /// The column, when it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    /// What is wrong and what has to be there.
    error: String,
}

/// Import SHA-256 digests of keys, as CSV or JSON Lines of
/// `sha256,owner_type,owner_id,description,format,last_four,created_at,expires_at`. A wrong row is
/// reported and costs no other; a row that is sent again is a duplicate.
#[utoipa::path(
    post, path = "/api/v1/keys/import", operation_id = "import_keys", tag = "Operators",
    request_body(content = String, description = "At most 25 MiB", content_type = "text/csv"),
    responses((status = 200, body = ImportResult), (status = "4XX", description = "Refused; see the codes")),
)]
pub async fn import(
    State(state): State<AppState>,
    caller: Caller,
    request: Request,
) -> ApiResult<Json<ImportResult>> {
    caller.require(Permission::ImportKeys)?;
    let (parts, body) = request.into_parts();
    let format = row_format(&parts.headers)?;
    let mut body = state.read_proved(&parts, body, MAX_IMPORT).await?;
    // Until the last of its rows is stored: a batch of them at a time is larger than its text.
    state.work(&mut body.hold, 2 * body.bytes.len()).await?;
    let mut rows = parse_rows(Cursor::new(body.bytes), format, state.redactor());
    let mut result = ImportResult::default();
    loop {
        let read = read_batch(&state, rows, result, caller.project.clone());
        let (keys, more, so_far) = read.await?;
        (rows, result) = (more, so_far);
        if keys.is_empty() {
            break;
        }
        let outcomes = state.responder().import(keys).await?;
        for outcome in outcomes {
            match outcome {
                ImportOutcome::Imported => result.imported += 1,
                ImportOutcome::Duplicate => result.duplicates += 1,
            }
        }
    }
    Ok(Json(result))
}

fn row_format(headers: &HeaderMap) -> ApiResult<RowFormat> {
    let declared = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        "text/csv" | "application/csv" => Ok(RowFormat::Csv),
        "application/x-ndjson"
        | "application/jsonl"
        | "application/json-lines"
        | "application/jsonlines"
        | "application/x-jsonlines" => Ok(RowFormat::JsonLines),
        _ => Err(ApiError::media_type("text/csv or application/x-ndjson")),
    }
}

/// Reads the next rows away from the threads that answer requests, up to [`BATCH`] that can be imported;
/// none at the end. Keys of a whole request at once would take several times its size in memory.
async fn read_batch<R>(
    state: &AppState,
    mut rows: R,
    mut result: ImportResult,
    project: String,
) -> ApiResult<(Vec<NewKey>, R, ImportResult)>
where
    R: Iterator<Item = Result<ImportRow, RowError>> + Send + 'static,
{
    let state = state.clone();
    let read = move || {
        let now = state.now();
        let mut keys = Vec::new();
        for row in rows.by_ref() {
            match row {
                Ok(row) => keys.push(row.into_new_key(&project, state.formats(), now)),
                Err(error) => result.note(&error),
            }
            if keys.len() == BATCH {
                break;
            }
        }
        (keys, rows, result)
    };
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|_| ApiError::internal())
}

impl ImportResult {
    fn note(&mut self, error: &RowError) {
        self.failed += 1;
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(RowProblem {
                line: error.line,
                field: error.field,
                error: error.to_string(),
            });
        }
    }
}
