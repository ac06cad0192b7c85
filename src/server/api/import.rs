//! Import of digests of keys that were issued elsewhere.

use std::io::{BufRead, Cursor, Read, Result as IoResult};
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::issuer::{ImportRow, RowError, RowFormat, parse_rows};
use crate::server::AppState;
use crate::server::access::{Caller, Permission};
use crate::server::body::{Hold, Whole};
use crate::server::client::Client;
use crate::server::client::turns::{NoTurn, Turn};
use crate::server::error::{ApiError, ApiResult};
use crate::store::{ImportOutcome, NewKey};

/// Maximum size of an import request, in bytes. The command line accepts files of any size.
const MAX_IMPORT: usize = 25 << 20;

/// Number of rows, valid or not, that are read at a time and stored in one transaction.
const BATCH: usize = 5000;

/// Maximum time that an import waits for others.
const PATIENCE: Duration = Duration::from_secs(5);

/// Maximum number of invalid rows listed in the response.
const MAX_ERRORS: usize = 1000;

/// Result of an import.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ImportResult {
    /// Rows that were imported as keys.
    imported: u64,
    /// Rows whose key was already known. It is left unchanged.
    duplicates: u64,
    /// Rows that could not be read.
    failed: u64,
    /// Reasons, row by row; at most the first 1000.
    errors: Vec<RowProblem>,
}

/// Reason for which a row could not be read.
#[derive(Debug, Serialize, ToSchema)]
pub struct RowProblem {
    /// Line on which the row begins, counted from 1.
    line: u64,
    /// Column at fault, if it is a single one.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    /// Problem, and the value that is expected.
    error: String,
}

/// Import SHA-256 digests of keys, as CSV or JSON Lines.
///
/// The columns are `sha256,owner_type,owner_id,description,format,last_four,created_at,expires_at`. An invalid row is
/// reported and does not affect the others; a row that is sent again is a duplicate.
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
    let Whole { bytes, mut hold } = state.read_proved(&parts, body, MAX_IMPORT).await?;
    let client = Client::counted(&parts);
    let turn = state.0.import_turns.turn(client, PATIENCE).await;
    let turn = turn.map_err(|NoTurn| too_many())?;
    // Held until the last row is stored: a batch of rows in memory is larger than its text.
    state.work(&mut hold, 2 * bytes.len()).await?;
    let hung_up = CancellationToken::new();
    let _until_dropped = hung_up.clone().drop_guard();
    let body = Awaited {
        bytes: Cursor::new(bytes),
        hung_up,
    };
    let mut import = Import {
        rows: parse_rows(body, format, state.redactor()),
        is_over: false,
        project: caller.project,
        result: ImportResult::default(),
        _hold: hold,
        _turn: turn,
    };
    while !import.is_over {
        let keys;
        (keys, import) = next_batch(&state, import).await?;
        if keys.is_empty() {
            continue;
        }
        let outcomes = state.responder().import(keys).await?;
        for outcome in outcomes {
            match outcome {
                ImportOutcome::Imported => import.result.imported += 1,
                ImportOutcome::Duplicate => import.result.duplicates += 1,
            }
        }
    }
    Ok(Json(import.result))
}

fn too_many() -> ApiError {
    let message = "Too many keys are being imported at once. Nothing was changed; send the import again later.";
    ApiError::unavailable(message, PATIENCE)
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

/// Import in flight, with its shares of the budgets. A thread that reads rows cannot be stopped from outside, so the
/// shares travel with the rows and are released when these are gone.
struct Import<R> {
    rows: R,
    is_over: bool,
    project: String,
    result: ImportResult,
    _hold: Hold,
    _turn: Turn,
}

impl<R: Iterator<Item = Result<ImportRow, RowError>>> Import<R> {
    /// Reads up to [`BATCH`] rows and returns the keys among them.
    fn read_batch(&mut self, state: &AppState) -> Vec<NewKey> {
        let now = state.now();
        let mut keys = Vec::new();
        for _ in 0..BATCH {
            match self.rows.next() {
                Some(Ok(row)) => keys.push(row.into_new_key(&self.project, state.formats(), now)),
                Some(Err(error)) => self.result.note(&error),
                None => {
                    self.is_over = true;
                    break;
                }
            }
        }
        keys
    }
}

/// Reads the next rows on a blocking thread, away from those that answer requests. Reading all keys of a request at
/// once would take several times its size in memory.
async fn next_batch<R>(
    state: &AppState,
    mut import: Import<R>,
) -> ApiResult<(Vec<NewKey>, Import<R>)>
where
    R: Iterator<Item = Result<ImportRow, RowError>> + Send + 'static,
{
    let state = state.clone();
    let read = move || (import.read_batch(&state), import);
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|_| ApiError::internal())
}

/// Body that ends as soon as its client has hung up: the result for the rest would be of no use to anyone.
struct Awaited {
    bytes: Cursor<Vec<u8>>,
    hung_up: CancellationToken,
}

impl Read for Awaited {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Awaited {
    fn fill_buf(&mut self) -> IoResult<&[u8]> {
        if self.hung_up.is_cancelled() {
            return Ok(&[]);
        }
        self.bytes.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.bytes.consume(bytes);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyformat::FormatSet;
    use crate::scan::Redactor;

    #[test]
    fn nothing_more_is_read_for_whoever_hung_up() {
        let redactor = Redactor::new(&FormatSet::builtin());
        // Also if no row comes for long.
        for more in ["{}\n", "\n", "x"] {
            let hung_up = CancellationToken::new();
            let body = Awaited {
                bytes: Cursor::new(format!("{{}}\n{}\n{{}}\n", more.repeat(200_000)).into_bytes()),
                hung_up: hung_up.clone(),
            };
            let mut rows = parse_rows(body, RowFormat::JsonLines, &redactor);
            assert!(rows.next().is_some());
            hung_up.cancel();
            assert_eq!(rows.count(), 0, "{more:?}");
        }
    }
}
