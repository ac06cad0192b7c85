//! Revocation log: list, verify, export.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Json};
use futures_util::stream;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;
use uuid::Uuid;

use super::views::List;
use crate::memory::EXPORTED_AT_ONCE;
use crate::server::AppState;
use crate::server::access::{Caller, DefaultCaller, Permission};
use crate::server::client::whole_log::Leave;
use crate::server::error::{ApiError, ApiResult, Refusals};
use crate::server::query::{Paging, Query};
use crate::store::DEFAULT_PROJECT;
use crate::store::{Action, CSV_HEADER, LogEntry, LogFilter, Reason, Store};

/// Maximum number of entries that an export reads at a time: those of two exports are in memory until they are written
/// down, and each may have 8 KiB.
const BATCH: u32 = 250;

/// Value of `Retry-After` where the log could not be verified in time.
const RETRY_AFTER: Duration = Duration::from_mins(1);

/// List entries of the log, newest first, in exactly the shape that is hashed.
#[utoipa::path(
    get, path = "/api/v1/revocations", operation_id = "list_revocations", tag = "Operators",
    params(
        ("key_id" = Option<Uuid>, Query, description = "About this key"),
        ("action" = Option<Action>, Query, description = "With this action"),
        ("reason" = Option<Reason>, Query, description = "With this reason"),
        ("since" = Option<Timestamp>, Query, description = "Done at this time or later, RFC 3339"),
        ("until" = Option<Timestamp>, Query, description = "Done before this time, RFC 3339"),
        Paging,
    ),
    responses((status = 200, description = "The entries", body = List<LogEntry>), Refusals<Caller, Query>),
)]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    mut query: Query,
) -> ApiResult<Response> {
    caller.require(Permission::ReadLog)?;
    let word = |name: &str| ApiError::schema(name, "is not a word of the log");
    let filter = LogFilter {
        // Tokens of the default project see the whole chain, others only the entries about their own keys.
        project: Some(caller.project.clone()).filter(|project| project != DEFAULT_PROJECT),
        key_id: query
            .text("key_id")?
            .map(|id| {
                Uuid::try_parse(&id).map_err(|_| ApiError::schema("key_id", "has to be a UUID"))
            })
            .transpose()?,
        action: query
            .text("action")?
            .map(|action| Action::by_name(&action).ok_or_else(|| word("action")))
            .transpose()?,
        reason: query
            .text("reason")?
            .map(|reason| Reason::by_name(&reason).ok_or_else(|| word("reason")))
            .transpose()?,
        since: query.time("since")?,
        until: query.time("until")?,
    };
    let page = query.page()?;
    query.finish()?;
    let store = state.lists();
    let entries = async {
        let entries = store.list_log(&filter, &page).await?;
        Ok(List::of(entries, |entry| entry))
    };
    state.listed(&caller, entries).await
}

/// Result of verifying the chain.
#[derive(Debug, Serialize, ToSchema)]
pub struct Verification {
    /// `true` if the whole chain is intact.
    valid: bool,
    /// Number of intact entries, from the first one on.
    entries: u64,
    /// Hash of the last entry, to be compared with a copy kept elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    head: Option<String>,
    /// First entry that breaks the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    first_bad: Option<FirstBad>,
}

/// First entry that breaks the chain.
#[derive(Debug, Serialize, ToSchema)]
pub struct FirstBad {
    /// Position of the entry in the chain, from 1.
    position: u64,
    /// Number that the entry claims to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    seq: Option<u64>,
    /// Problem with the entry.
    problem: String,
}

/// Recompute the whole chain in the database and name the first bad entry.
///
/// A log of more entries than can be verified within the time of a request is a 503: `rescind log verify` has no limit.
#[utoipa::path(
    get, path = "/api/v1/revocations/verify", operation_id = "verify_revocations", tag = "Operators",
    responses(
        (status = 200, description = "Whether the chain is intact", body = Verification),
        Refusals<DefaultCaller, Query>,
    ),
)]
pub async fn verify(
    State(state): State<AppState>,
    caller: Caller,
    query: Query,
) -> ApiResult<Json<Verification>> {
    caller.require(Permission::ReadLog)?;
    caller.require_default_project()?;
    query.finish()?;
    let until = Instant::now() + state.0.rooms.limits.request_time / 10 * 9;
    let _leave = state.whole_log(&caller).await?;
    let verified = tokio::time::timeout_at(until, state.store().verify_log()).await;
    Ok(Json(match verified.map_err(|_| too_long())?? {
        Ok(verified) => Verification {
            valid: true,
            entries: verified.entries,
            head: Some(verified.head),
            first_bad: None,
        },
        Err(broken) => Verification {
            valid: false,
            entries: broken.position.saturating_sub(1),
            head: None,
            first_bad: Some(FirstBad {
                position: broken.position,
                seq: broken.seq,
                problem: broken.problem.to_string(),
            }),
        },
    }))
}

/// Returns the error for a log that cannot be verified within the time of a request.
fn too_long() -> ApiError {
    let message = "The log is too long, or the database too busy, for all of it to be verified within a request. Run `rescind log verify`, which has no time limit, or verify an export.";
    ApiError::unavailable(message, RETRY_AFTER)
}

/// Export the whole chain, oldest entry first. The JSON Lines can be verified offline.
#[utoipa::path(
    get, path = "/api/v1/revocations/export", operation_id = "export_revocations", tag = "Operators",
    params(("format" = Option<String>, Query, pattern = "^(jsonl|csv)$", description = "`jsonl` (default) or `csv`")),
    responses(
        (
            status = 200,
            description = "The log: one entry per line, as in the list, or as CSV with a header",
            content((String = "application/x-ndjson"), (String = "text/csv")),
        ),
        Refusals<DefaultCaller, Query>,
    ),
)]
pub async fn export(
    State(state): State<AppState>,
    caller: Caller,
    mut query: Query,
) -> ApiResult<Response> {
    caller.require(Permission::ReadLog)?;
    caller.require_default_project()?;
    let format = match query.text("format")?.as_deref() {
        None | Some("jsonl") => Format::JsonLines,
        Some("csv") => Format::Csv,
        Some(_) => return Err(ApiError::schema("format", "has to be `csv` or `jsonl`")),
    };
    query.finish()?;
    let leave = state.whole_log(&caller).await?;
    // The first piece is read before the response begins, so that an unavailable database results in a 503.
    let first = format.write(&state.store().log_after(0, BATCH).await?, true);
    leave.add(first.text);
    let (content_type, disposition) = match format {
        Format::JsonLines => (
            "application/x-ndjson",
            "attachment; filename=\"revocation-log.jsonl\"",
        ),
        Format::Csv => (
            "text/csv; charset=utf-8",
            "attachment; filename=\"revocation-log.csv\"",
        ),
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (
            header::CONTENT_DISPOSITION,
            HeaderValue::from_static(disposition),
        ),
    ];
    let body = Body::from_stream(pieces(state.store().clone(), format, first.last, leave));
    Ok((headers, body).into_response())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    JsonLines,
    Csv,
}

/// Part of the log, as it is exported.
struct Piece {
    text: Vec<u8>,
    /// Number of the last entry in it, or `None` if there is none.
    last: Option<u64>,
}

/// Streams the export in pieces. An error in the middle aborts the response, so that half a log is never taken for a
/// whole one.
fn pieces(
    store: Store,
    format: Format,
    first: Option<u64>,
    leave: Leave,
) -> impl stream::Stream<Item = Result<Bytes, BoxError>> + Send {
    stream::try_unfold((first, leave), move |(mut last, leave)| {
        let store = store.clone();
        async move {
            loop {
                if let Some(bytes) = leave.next()? {
                    return Ok(Some((bytes, (last, leave))));
                }
                let Some(seq) = last else {
                    return Ok(None);
                };
                let piece = format.write(&store.log_after(seq, BATCH).await?, false);
                last = piece.last;
                leave.add(piece.text);
            }
        }
    })
}

impl Format {
    /// Writes down the first of these entries, as many as are kept for a reader.
    fn write(self, entries: &[LogEntry], with_head: bool) -> Piece {
        let mut piece = Piece {
            text: Vec::new(),
            last: None,
        };
        if with_head && self == Self::Csv {
            csv_row(&mut piece.text, CSV_HEADER);
        }
        for entry in entries {
            match self {
                Self::JsonLines => piece.text.extend((entry.to_json_line() + "\n").bytes()),
                Self::Csv => csv_row(&mut piece.text, entry.to_csv_row()),
            }
            piece.last = Some(entry.seq);
            if piece.text.len() >= EXPORTED_AT_ONCE {
                break;
            }
        }
        piece
    }
}

fn csv_row<T: AsRef<[u8]>>(text: &mut Vec<u8>, row: impl IntoIterator<Item = T>) {
    // Writing to memory cannot fail.
    let _ = csv::Writer::from_writer(text).write_record(row);
}
