//! Numbers for whoever watches a deployment.

use std::time::Instant;

use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::views::{rfc3339, rfc3339_option};
use crate::server::AppState;
use crate::server::access::{Caller, Permission};
use crate::server::counted::Numbers;
use crate::server::error::{ApiError, ApiResult, Refusals};
use crate::server::query::Query;
use crate::source::{SourceCondition, SourceStatus, source_statuses};
use crate::store::{Action, Count, DEFAULT_PROJECT, IncidentStatus, PepperUse, Standing, Stats};

/// Numbers of what there is.
#[derive(Debug, Serialize, ToSchema)]
pub struct StatsView {
    /// Time at which it was counted.
    #[serde(serialize_with = "rfc3339")]
    at: Timestamp,
    /// Project that was counted; absent if all were.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    project: Option<String>,
    keys: KeysView,
    incidents: Vec<IncidentsView>,
    revocations: Vec<EntriesView>,
    /// Keys and access tokens by the pepper that their digests stand under: those of the configuration in their order, then
    /// all else. A retired pepper under which nothing stands can be dropped. Absent for a single project.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    peppers: Option<Vec<PepperView>>,
    /// Work items. Absent for a single project.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    work: Option<WorkView>,
    /// Sources by their state. Absent for a single project.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    sources: Option<Vec<SourcesView>>,
}

/// Number of keys.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeysView {
    /// Number of all keys, valid or not.
    total: u64,
    /// Keys by project and format, the largest numbers first, at most 1,000.
    groups: Vec<KeyGroupView>,
    /// Number of keys that are in none of these groups.
    others: u64,
}

/// Keys of one project and format.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyGroupView {
    project: String,
    format: String,
    valid: u64,
    /// Number of keys that expired and were not revoked.
    expired: u64,
    revoked: u64,
}

/// Incidents with one status.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct IncidentsView {
    status: IncidentStatus,
    incidents: u64,
    /// Number of those that were opened in the last 24 hours.
    last_day: u64,
}

/// Entries of the revocation log with one action.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EntriesView {
    action: Action,
    entries: u64,
    /// Number of those of the last 24 hours.
    last_day: u64,
}

/// Pepper, or none, under which a digest stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum PepperStanding {
    /// The current pepper.
    Current,
    /// A retired pepper.
    Retired,
    /// No pepper.
    None,
    /// A pepper that is not configured: these keys are not found.
    NotConfigured,
    /// It is older than the records of peppers, and was not looked up since.
    Unknown,
}

/// Keys and access tokens under one pepper.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PepperView {
    standing: PepperStanding,
    /// Position of the pepper in `keys.peppers`, from 1, if it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    position: Option<usize>,
    /// Identifier of the pepper, of which it tells nothing: the first 16 digits of its check value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    id: Option<String>,
    /// Number of keys, valid or not.
    keys: u64,
    /// Number of access tokens, valid or not.
    tokens: u64,
}

/// Work items of all sources.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WorkView {
    /// Items that wait or are in flight.
    waiting: u64,
    /// Time at which the oldest of them that no worker has started yet was added.
    #[serde(
        serialize_with = "rfc3339_option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    oldest_waiting_at: Option<Timestamp>,
    /// Those of the waiting items that were tried and could not be read so far.
    retrying: u64,
    /// Items that were dead-lettered after their last attempt.
    dead_letters: u64,
    /// Items that were scanned completely.
    scanned: u64,
    /// Items of which a part was left out because of a limit.
    truncated: u64,
    /// Items that were shed because there were more than could be read.
    shed: u64,
    /// Items that were refused because too many from their repository or host were already waiting.
    refused: u64,
}

/// Sources in one state.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SourcesView {
    state: SourceCondition,
    /// Names of the sources, as in the list of them.
    names: Vec<String>,
}

/// Count the keys, incidents, revocations, work items and sources.
///
/// An access token of the project `default` counts those of all projects, another one those of its own, without what all
/// projects share. The numbers may be up to 5 seconds old.
#[utoipa::path(
    get, path = "/api/v1/stats", operation_id = "stats", tag = "Operators",
    responses((status = 200, description = "The numbers", body = StatsView), Refusals<Caller, Query>),
)]
pub async fn stats(
    State(state): State<AppState>,
    caller: Caller,
    query: Query,
) -> ApiResult<Response> {
    caller.require(Permission::ReadStats)?;
    query.finish()?;
    let project = Some(&*caller.project).filter(|project| *project != DEFAULT_PROJECT);
    let (store, now) = (state.lists(), state.now());
    let count = async {
        let counts = store.stats(project, now).await?;
        let sources = match project {
            None => Some(source_statuses(&store, state.sources(), now).await?),
            Some(_) => None,
        };
        Ok::<_, ApiError>(Numbers {
            stats: counts,
            sources,
        })
    };
    let view = async {
        let numbers = state
            .0
            .rooms
            .counted
            .of(project, Instant::now(), count)
            .await?;
        Ok(view(&numbers, project))
    };
    // What counts holds much meanwhile, which is not kept in the task of each connection.
    state.listed(&caller, Box::pin(view)).await
}

fn view(numbers: &Numbers, project: Option<&str>) -> StatsView {
    let Numbers { stats, sources } = numbers;
    let incidents = stats.incidents.iter();
    let incidents = incidents.map(|count| IncidentsView {
        status: count.kind,
        incidents: count.number,
        last_day: count.lately,
    });
    let entries = |count: &Count<Action>| EntriesView {
        action: count.kind,
        entries: count.number,
        last_day: count.lately,
    };
    let peppers = || stats.peppers.iter().map(PepperView::of).collect();
    StatsView {
        at: stats.at,
        project: project.map(str::to_owned),
        keys: KeysView::of(stats),
        incidents: incidents.collect(),
        revocations: stats.entries.iter().map(entries).collect(),
        peppers: project.is_none().then(peppers),
        work: sources.as_deref().map(WorkView::of),
        sources: sources.as_deref().map(by_state),
    }
}

impl KeysView {
    fn of(stats: &Stats) -> Self {
        let groups = stats.groups.iter().map(|group| KeyGroupView {
            project: group.project.clone(),
            format: group.format.clone(),
            valid: group.valid,
            expired: group.expired,
            revoked: group.revoked,
        });
        let listed = stats.groups.iter();
        let listed: u64 = listed
            .map(|group| group.valid + group.expired + group.revoked)
            .sum();
        Self {
            total: stats.keys,
            groups: groups.collect(),
            others: stats.keys.saturating_sub(listed),
        }
    }
}

impl PepperView {
    fn of(found: &PepperUse) -> Self {
        let (standing, position, id) = match found.standing {
            Standing::Current(id) => (PepperStanding::Current, Some(1), Some(id)),
            Standing::Retired(number, id) => (PepperStanding::Retired, Some(number + 1), Some(id)),
            Standing::Plain => (PepperStanding::None, None, None),
            Standing::Unconfigured(id) => (PepperStanding::NotConfigured, None, Some(id)),
            Standing::Unknown => (PepperStanding::Unknown, None, None),
        };
        Self {
            standing,
            position,
            id: id.map(|id| id.to_string()),
            keys: found.keys,
            tokens: found.tokens,
        }
    }
}

impl WorkView {
    fn of(sources: &[SourceStatus]) -> Self {
        let sum = |number: fn(&SourceStatus) -> u64| sources.iter().map(number).sum();
        let oldest = sources.iter().filter_map(|one| one.work.oldest_waiting_at);
        Self {
            waiting: sum(|one| one.work.waiting),
            oldest_waiting_at: oldest.min(),
            retrying: sum(|one| one.work.retrying),
            dead_letters: sum(|one| one.work.dead),
            scanned: sum(|one| one.work.done.scanned),
            truncated: sum(|one| one.work.done.truncated),
            shed: sum(|one| one.work.shed),
            refused: sum(|one| one.work.refused),
        }
    }
}

/// Returns the names of the sources in each state that any is in.
fn by_state(sources: &[SourceStatus]) -> Vec<SourcesView> {
    let of = |state: SourceCondition| {
        let names = sources.iter().filter(|source| source.condition == state);
        let names: Vec<String> = names.map(|source| source.name.clone()).collect();
        (!names.is_empty()).then_some(SourcesView { state, names })
    };
    SourceCondition::ALL.into_iter().filter_map(of).collect()
}
