//! One work item: fetched, scanned, and what is to be done about it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::findings::Findings;
use super::place::Places;
use super::{Origin, Shared};
use crate::fetch::{FetchError, LeftOut, ObjectId, RangeRequest, RepositoryName};
use crate::respond::{Sighting, redact};
use crate::store::{Fetched, NewWorkItem, Reason, StoreError, WorkItem};

/// Sightings that are held before they are looked up, in the middle of an item if need be.
const MAX_HELD: usize = 4096;

/// The wait when a server asks to slow down and does not say for how long.
const SLOW_DOWN: Duration = Duration::from_mins(1);

/// The wait when the memory for large pushes is taken.
const BUSY: Duration = Duration::from_secs(5);

/// How one try of a work item ended.
pub(super) struct Tried {
    pub(super) item: WorkItem,
    /// What was found and is not reported yet, whatever the end.
    pub(super) sightings: Vec<Sighting>,
    pub(super) end: End,
}

/// What becomes of the item.
pub(super) enum End {
    /// It is done.
    Done(Fetched),
    /// It is taken again later; the try does not count.
    Later { wait: Duration, why: String },
    /// It is tried again, unless that was the last try.
    Failed(String),
}

/// Everything about an item that can be known before anything is sent.
struct Plan {
    request: RangeRequest,
    places: Places,
}

impl Shared {
    /// Fetches and scans one item.
    pub(super) async fn work_on(self: Arc<Self>, origin: Option<Origin>, item: WorkItem) -> Tried {
        let range = &item.range;
        let Some(origin) = origin else {
            let why = format!(
                "no source is configured for the host {}: add one, or the item is put aside",
                range.host
            );
            return Tried::failed(item, why);
        };
        if let Some(wait) = self.pauses.left(&range.host) {
            let why = "its host asked to slow down".to_owned();
            return Tried::ended(item, End::Later { wait, why });
        }
        match plan(range, &origin) {
            Ok(plan) => self.carry_out(plan, item).await,
            Err(wrong) => Tried::failed(item, wrong.to_owned()),
        }
    }

    async fn carry_out(self: Arc<Self>, plan: Plan, item: WorkItem) -> Tried {
        let has_token = plan.request.token.is_some();
        let fetched = match self.parts.fetcher.fetch(&plan.request).await {
            Ok(fetched) => fetched,
            Err(error) => return self.end_of(item, has_token, &error),
        };
        let runtime = Handle::current();
        let shared = Arc::clone(&self);
        let actor = actor(&item.range.source);
        let scanned = tokio::task::spawn_blocking(move || {
            shared.scan(&fetched, &plan.places, &actor, &runtime)
        });
        match scanned.await {
            Ok(scanned) => self.after_scan(item, scanned),
            // The panic itself was logged where it happened.
            Err(_) => Tried::failed(item, "reading its contents panicked".to_owned()),
        }
    }

    /// Scans everything that was fetched. Blocks the thread.
    fn scan(
        &self,
        fetched: &crate::fetch::Fetched,
        places: &Places,
        actor: &str,
        runtime: &Handle,
    ) -> Scanned {
        let mut findings = Findings::new(
            &self.parts.engine,
            &self.clean,
            places,
            self.parts.clock.now(),
        );
        let mut failed = Ok(());
        let visited = fetched.visit(|text| {
            if failed.is_err() {
                return;
            }
            findings.look_at(&text);
            if findings.len() >= MAX_HELD {
                // So many candidates are nobody's for the most part; keeping them all would take memory
                // without bound. Reporting them twice does no harm.
                let report = self
                    .parts
                    .responder
                    .report(findings.take(), Reason::Leaked, actor);
                failed = runtime.block_on(report).map(drop);
            }
        });
        Scanned {
            sightings: findings.take(),
            bytes: findings.bytes,
            blobs: findings.blobs,
            left_out: visited,
            reported: failed,
        }
    }

    fn after_scan(&self, item: WorkItem, scanned: Scanned) -> Tried {
        let Scanned {
            sightings,
            bytes,
            blobs,
            left_out,
            reported,
        } = scanned;
        let end = match (left_out, reported) {
            (_, Err(error)) => End::Failed(self.words(&error)),
            (Err(error), _) => End::Failed(self.words(&error)),
            (Ok(left_out), Ok(())) => {
                tell_left_out(&item, left_out);
                End::Done(Fetched {
                    truncated: !left_out.is_nothing(),
                    bytes,
                    blobs,
                })
            }
        };
        Tried {
            item,
            sightings,
            end,
        }
    }

    /// What becomes of an item that could not be fetched.
    fn end_of(&self, item: WorkItem, has_token: bool, error: &FetchError) -> Tried {
        let why = self.words(error);
        let end = match error {
            FetchError::Gone { .. } | FetchError::CommitGone => gone(&item, &why),
            // What is public needs no credentials, so it is not public any more.
            FetchError::Unauthorized { status: 401 } if !has_token => gone(&item, &why),
            FetchError::RateLimited { retry_after, .. } => {
                let wait = retry_after.unwrap_or(SLOW_DOWN);
                self.pauses.pause(&item.range.host, wait);
                End::Later { wait, why }
            }
            FetchError::Busy => End::Later { wait: BUSY, why },
            _ => End::Failed(why),
        };
        Tried::ended(item, end)
    }

    /// An error's text as it may be kept.
    pub(super) fn words(&self, error: &dyn std::error::Error) -> String {
        redact(self.parts.responder.formats(), &error.to_string()).into_owned()
    }
}

struct Scanned {
    sightings: Vec<Sighting>,
    bytes: u64,
    blobs: u64,
    left_out: Result<LeftOut, FetchError>,
    reported: Result<(), StoreError>,
}

impl Tried {
    fn ended(item: WorkItem, end: End) -> Self {
        Self {
            item,
            sightings: Vec::new(),
            end,
        }
    }

    /// Makes it a failure, whatever it was.
    pub(super) fn fail(&mut self, why: String) {
        self.sightings.clear();
        self.end = End::Failed(why);
    }

    fn failed(item: WorkItem, why: String) -> Self {
        Self::ended(item, End::Failed(why))
    }
}

/// Who acts, for the revocation log.
pub(super) fn actor(source: &str) -> String {
    format!("source:{source}")
}

fn plan(range: &NewWorkItem, origin: &Origin) -> Result<Plan, &'static str> {
    let bad_name = "its repository's name is not OWNER/NAME";
    let name = RepositoryName::parse(&range.repository).map_err(|_| bad_name)?;
    let request = RangeRequest {
        clone_url: name.clone_url(&origin.clone_url).map_err(|_| bad_name)?,
        token: origin.token.clone(),
        reference: range.ref_name.clone(),
        before: object_id(&range.before)?,
        after: object_id(&range.after)?,
    };
    let places = Places::new(range, name, &origin.clone_url);
    Ok(Plan { request, places })
}

fn object_id(hex: &str) -> Result<ObjectId, &'static str> {
    ObjectId::from_hex(hex.as_bytes())
        .map_err(|_| "its before or after is no object id of 40 digits")
}

fn gone(item: &WorkItem, why: &str) -> End {
    tracing::info!(item = %item.id, repository = item.range.repository, why, "nothing left to read");
    End::Done(Fetched::default())
}

fn tell_left_out(item: &WorkItem, left_out: LeftOut) {
    if !left_out.is_nothing() {
        tracing::warn!(
            item = %item.id, repository = item.range.repository, cut = left_out.cut,
            too_big = left_out.too_big, without_base = left_out.without_base,
            over_budget = left_out.over_budget, "not everything of a push was read"
        );
    }
}
