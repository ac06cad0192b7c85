//! Incidents: leaked keys of the caller's project, the places of the leaks, and the actions taken.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::path_id;
use super::views::{List, rfc3339, rfc3339_option};
use crate::respond::{IncidentDetail, Moment, What};
use crate::server::AppState;
use crate::server::access::{Caller, Permission};
use crate::server::error::{ApiError, ApiResult, ErrorCode, Refusals, Refuses};
use crate::server::query::{Paging, Query};
use crate::store::{
    Action, Incident, IncidentFilter, IncidentStatus, Occurrence, OwnerType, UseAfterExposure,
};

/// Leaked key.
#[derive(Debug, Serialize, ToSchema)]
pub struct IncidentView {
    id: Uuid,
    /// Always `open` in this version.
    status: IncidentStatus,
    key_id: Uuid,
    format: String,
    owner_type: OwnerType,
    owner_id: String,
    last_four: String,
    description: String,
    /// Time at which the key was first seen in public.
    #[serde(serialize_with = "rfc3339")]
    opened_at: Timestamp,
    /// Time at which the key was last seen in public.
    #[serde(serialize_with = "rfc3339")]
    last_seen_at: Timestamp,
    /// Time at which the key was revoked.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    revoked_at: Option<Timestamp>,
    /// Time at which the key expires or expired.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    expires_at: Option<Timestamp>,
    /// Number of sightings, including repeated ones of the same place.
    sighting_count: u64,
    /// Number of places where the key was seen.
    occurrence_count: u64,
    /// Number of checks of the key after it had been seen.
    use_count: u64,
}

impl IncidentView {
    fn of(incident: Incident) -> Self {
        let key = incident.key;
        Self {
            id: incident.id,
            status: incident.status,
            key_id: key.id,
            format: key.format,
            owner_type: key.owner.kind,
            owner_id: key.owner.id,
            last_four: key.last_four,
            description: key.description,
            opened_at: incident.opened_at,
            last_seen_at: incident.last_seen_at,
            revoked_at: key.revoked_at,
            expires_at: key.expires_at,
            sighting_count: incident.sightings,
            occurrence_count: incident.occurrences,
            use_count: incident.uses,
        }
    }
}

/// Incident with its occurrences, uses and timeline.
#[derive(Debug, Serialize, ToSchema)]
pub struct DetailedIncidentView {
    #[serde(flatten)]
    incident: IncidentView,
    /// Places where the key was seen, in the order of discovery; at most 500.
    occurrences: Vec<OccurrenceView>,
    /// Checks of the key after it was seen, oldest first; at most 500.
    uses_after_exposure: Vec<UseView>,
    /// Events in chronological order.
    timeline: Vec<TimelineEvent>,
}

impl DetailedIncidentView {
    fn of(detail: IncidentDetail) -> Self {
        Self {
            incident: IncidentView::of(detail.incident),
            occurrences: detail
                .occurrences
                .into_iter()
                .map(OccurrenceView::of)
                .collect(),
            uses_after_exposure: detail.uses.into_iter().map(UseView::of).collect(),
            timeline: detail.timeline.into_iter().map(TimelineEvent::of).collect(),
        }
    }
}

/// Place where the key was seen.
#[derive(Debug, Serialize, ToSchema)]
pub struct OccurrenceView {
    id: Uuid,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    repository: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    commit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    line: Option<u64>,
    #[serde(serialize_with = "rfc3339")]
    detected_at: Timestamp,
    #[serde(serialize_with = "rfc3339")]
    last_seen_at: Timestamp,
    sighting_count: u64,
}

impl OccurrenceView {
    fn of(occurrence: Occurrence) -> Self {
        let place = occurrence.place;
        Self {
            id: occurrence.id,
            source: place.source,
            url: place.url,
            repository: place.repository,
            commit: place.commit,
            path: place.path,
            line: place.line,
            detected_at: occurrence.detected_at,
            last_seen_at: occurrence.last_seen_at,
            sighting_count: occurrence.sightings,
        }
    }
}

/// Check of the key after it had been seen in public.
#[derive(Debug, Serialize, ToSchema)]
pub struct UseView {
    #[serde(serialize_with = "rfc3339")]
    at: Timestamp,
    /// Address of the client that presented the key, if the provider's back end forwarded it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    client_address: Option<String>,
}

impl UseView {
    fn of(used: UseAfterExposure) -> Self {
        Self {
            at: used.at,
            client_address: used.client_address,
        }
    }
}

/// Event in the life of the key.
#[derive(Debug, Serialize, ToSchema)]
pub struct TimelineEvent {
    #[serde(serialize_with = "rfc3339")]
    at: Timestamp,
    event: EventKind,
    /// Source of the occurrence, address of the client, or actor of the log entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    by: Option<String>,
    /// Number of the log entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    log_seq: Option<u64>,
}

/// Kind of an event in the life of a key.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// The key was created.
    Issued,
    /// The key was seen in public.
    Seen,
    /// The key was checked after it had been seen.
    Used,
    /// The log has an entry about a revocation.
    Revoked,
    /// The log has an entry about a rotation.
    Rotated,
}

impl TimelineEvent {
    fn of(moment: Moment) -> Self {
        let (event, by, log_seq) = match moment.what {
            What::Issued => (EventKind::Issued, None, None),
            What::Seen(source) => (EventKind::Seen, Some(source), None),
            What::Used(used) => (EventKind::Used, used.client_address, None),
            What::Logged(entry) => {
                let event = match entry.action {
                    Action::Revoked => EventKind::Revoked,
                    Action::Rotated => EventKind::Rotated,
                };
                (event, Some(entry.actor), Some(entry.seq))
            }
        };
        Self {
            at: moment.at,
            event,
            by,
            log_seq,
        }
    }
}

/// List incidents, newest first.
#[utoipa::path(
    get, path = "/api/v1/incidents", operation_id = "list_incidents", tag = "Operators",
    params(
        ("status" = Option<String>, Query, pattern = "^(open|acknowledged|resolved|held)$", description = "`open`, `acknowledged`, `resolved` or `held`"),
        ("format" = Option<String>, Query, description = "Of keys of this format"),
        ("source" = Option<String>, Query, description = "With an occurrence from this source, among the first 500"),
        ("owner" = Option<String>, Query, description = "Of keys of this user or team"),
        ("q" = Option<String>, Query, description = "Text in description, owner, last four characters or repository (of the first 500 occurrences)"),
        ("since" = Option<Timestamp>, Query, description = "Opened at this time or later, RFC 3339"),
        ("until" = Option<Timestamp>, Query, description = "Opened before this time, RFC 3339"),
        Paging,
    ),
    responses((status = 200, description = "The incidents", body = List<IncidentView>), Refusals<Caller, Query>),
)]
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    mut query: Query,
) -> ApiResult<Response> {
    caller.require(Permission::ReadIncidents)?;
    let status = query.text("status")?;
    let filter = IncidentFilter {
        project: Some(caller.project.clone()),
        status: status.as_deref().and_then(IncidentStatus::by_name),
        format: query.text("format")?,
        source: query.text("source")?,
        owner: query.text("owner")?,
        q: query.text("q")?,
        since: query.time("since")?,
        until: query.time("until")?,
    };
    let page = query.page()?;
    query.finish()?;
    match (status.as_deref(), filter.status) {
        // No incident can be in one of these states in this version.
        (Some("acknowledged" | "resolved" | "held"), None) => {
            return Ok(Json(List::<IncidentView>::empty()).into_response());
        }
        (Some(_), None) => {
            let problem = "has to be open, acknowledged, resolved or held";
            return Err(ApiError::schema("status", problem));
        }
        _ => {}
    }
    let store = state.lists();
    let incidents = async {
        let incidents = store.list_incidents(&filter, &page).await?;
        Ok(List::of(incidents, IncidentView::of))
    };
    let is_search = filter.q.is_some() || filter.source.is_some();
    state.found(&caller, is_search, incidents).await
}

/// Show an incident with its occurrences, uses after exposure and timeline.
#[utoipa::path(
    get, path = "/api/v1/incidents/{id}", operation_id = "get_incident", tag = "Operators",
    params(("id" = Uuid, Path, description = "The incident's identifier")),
    responses(
        (status = 200, description = "The incident", body = DetailedIncidentView),
        Refusals<Caller, IncidentId>,
    ),
)]
pub async fn show(
    State(state): State<AppState>,
    caller: Caller,
    IncidentId(id): IncidentId,
) -> ApiResult<Response> {
    caller.require(Permission::ReadIncidents)?;
    let detail = async {
        let detail = state.responder().incident(id).await?;
        detail
            .filter(|detail| detail.incident.key.project == caller.project)
            .map(DetailedIncidentView::of)
            .ok_or_else(|| ApiError::not_found("Incident"))
    };
    state.listed(&caller, detail).await
}

/// Identifier in the path. Anything that is not a UUID is an incident that does not exist.
pub struct IncidentId(Uuid);

impl Refuses for IncidentId {
    const CODES: &'static [ErrorCode] = &[ErrorCode::NotFound];
}

impl FromRequestParts<AppState> for IncidentId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        path_id(parts, state)
            .await
            .map(Self)
            .ok_or_else(|| ApiError::not_found("Incident"))
    }
}
