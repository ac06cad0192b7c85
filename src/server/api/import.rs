//! Import of digests of keys that were issued elsewhere.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::fair::{FairPlace, NoPlace};
use crate::issuer::{ImportRow, RowError, RowFormat, parse_rows};
use crate::server::AppState;
use crate::server::access::{Caller, Permission};
use crate::server::body::inflow::inflow;
use crate::server::body::refuse_too_large;
use crate::server::error::{ApiError, ApiResult, ErrorCode, RawBody, Refusals, Refuses};
use crate::store::{ImportOutcome, NewKey};

/// Maximum size of an import request, in bytes. The command line accepts files of any size.
const MAX_IMPORT: usize = 25 << 20;

/// Maximum number of rows, valid or not, that are read at a time and stored in one transaction, and the length of their
/// texts, in bytes, and the time from which on no further one is.
const BATCH: usize = 5000;
const BATCH_TEXT: usize = 1 << 20;
const BATCH_TIME: Duration = Duration::from_secs(1);

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
    #[schema(nullable = false)]
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
    request_body(
        description = "At most 25 MiB. The CSV has a header that names its columns; JSON Lines have one object per line",
        content(
            (String = "text/csv", example = "sha256,owner_type,owner_id\n\
                2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae,user,o-1\n"),
            (String = "application/x-ndjson", example = "{\"owner_type\": \"user\", \"owner_id\": \"o-1\", \
                \"sha256\": \"fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9\"}\n"),
        ),
    ),
    responses(
        (status = 200, description = "The result, row by row where one is invalid", body = ImportResult),
        Refusals<Caller, RawBody, ContentType>,
    ),
)]
pub async fn import(
    State(state): State<AppState>,
    caller: Caller,
    request: Request,
) -> ApiResult<Json<ImportResult>> {
    caller.require(Permission::ImportKeys)?;
    let (parts, body) = request.into_parts();
    let format = row_format(&parts.headers)?;
    refuse_too_large(&parts.headers, MAX_IMPORT)?;
    // Before the body is read: whoever waits takes nothing but a connection.
    let place = state.0.rooms.imports.place(caller.claim(), PATIENCE).await;
    let place = place.map_err(|NoPlace| too_many())?;
    let hung_up = CancellationToken::new();
    let _until_dropped = hung_up.clone().drop_guard();
    // Rows are stored as they come. As a whole, the bodies of a few imports would take the room of all other large ones
    // for as long as their rows take.
    let terms = state.terms(true, MAX_IMPORT);
    let (feed, body) = inflow(&parts, body, terms, hung_up);
    let place_of_feed = place.watch();
    let import = Import {
        rows: parse_rows(body, format, state.redactor()),
        is_over: false,
        project: caller.project,
        result: ImportResult::default(),
        place,
    };
    let ((), result) = tokio::try_join!(
        feed.run(|| place_of_feed.is_wanted()),
        import.stored(&state)
    )?;
    Ok(Json(result))
}

/// Content type of an import, in the description.
struct ContentType;

impl Refuses for ContentType {
    const CODES: &'static [ErrorCode] = &[ErrorCode::UnsupportedMediaType];
}

fn too_many() -> ApiError {
    let message = "Too many keys are being imported at once. Send all of the import again later.";
    ApiError::unavailable(message, PATIENCE).of_many()
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

/// Import in flight, with its place. A thread that reads rows cannot be stopped from outside, so the place travels with
/// the rows and is released when these are gone.
struct Import<R> {
    rows: R,
    is_over: bool,
    project: String,
    result: ImportResult,
    place: FairPlace,
}

impl<R> Import<R>
where
    R: Iterator<Item = Result<ImportRow, RowError>> + Send + 'static,
{
    /// Stores all rows, and lets others go first between batches of them.
    async fn stored(mut self, state: &AppState) -> ApiResult<ImportResult> {
        loop {
            let keys;
            (keys, self) = next_batch(state, self).await?;
            if !keys.is_empty() {
                for outcome in state.issuer().import(keys).await? {
                    match outcome {
                        ImportOutcome::Imported => self.result.imported += 1,
                        ImportOutcome::Duplicate => self.result.duplicates += 1,
                    }
                }
            }
            if self.is_over {
                return Ok(self.result);
            }
            self.place.share().await.map_err(|NoPlace| too_many())?;
        }
    }

    /// Reads up to [`BATCH`] rows, fewer if they are long or take long, and returns the keys among them.
    fn read_batch(&mut self, state: &AppState) -> Vec<NewKey> {
        let now = state.now();
        let began = Instant::now();
        let (mut keys, mut text) = (Vec::new(), 0);
        for _ in 0..BATCH {
            if text >= BATCH_TEXT || began.elapsed() >= BATCH_TIME {
                break;
            }
            match self.rows.next() {
                Some(Ok(row)) => {
                    text += row.text_len();
                    keys.push(row.into_new_key(&self.project, state.formats(), now));
                }
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
