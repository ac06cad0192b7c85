//! One work item: fetched, scanned, and what is to be done about it.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use secrecy::SecretString;
use tokio::runtime::Handle;

use super::findings::{Findings, Outcome, Reporter};
use super::place::Places;
use super::{Origin, Shared, WorkerParts, lineage};
use crate::fetch::{
    FetchError, FetchLane, FetchLimits, ObjectId, RangeRequest, RepositoryName, Visited,
};
use crate::respond::Sighting;
use crate::source::Installation;
use crate::store::{Descendant, Fetched, Lane, NewWorkItem, Priority, WorkItem, WorkKind};

/// The wait when visits that are heavy keep others waiting.
const BUSY: Duration = Duration::from_secs(5);

/// The wait when a server asks to slow down and does not say for how long.
const SLOW_DOWN: Duration = Duration::from_mins(1);

/// How long an app may take to give a token.
const TOKEN_PATIENCE: Duration = Duration::from_secs(20);

/// How long an item may wait for a host in trouble without its tries being counted.
const HOST_PATIENCE: Duration = Duration::from_hours(24);

/// The most references of one repository that become items. The others are left out, which is counted.
const MAX_REFERENCES: usize = 10_000;

/// How many of them are as urgent as the list was. The others are read when nothing else waits.
const URGENT_REFERENCES: usize = 64;

/// How one try of a work item ended.
pub(super) struct Tried {
    pub(super) item: WorkItem,
    /// What was found and is not reported yet, whatever the end.
    pub(super) sightings: Vec<Sighting>,
    /// Blobs that hold nothing.
    pub(super) clean_blobs: Vec<ObjectId>,
    pub(super) end: End,
}

/// What becomes of the item.
pub(super) enum End {
    /// It is done.
    Done(Done),
    /// It is taken again later; the try does not count.
    Later { wait: Duration, why: String },
    /// It is taken again when it has its turn among the large ones; the try does not count.
    Large(String),
    /// It is tried again, unless that was the last try.
    Failed(String),
}

/// What was done about an item.
#[derive(Default)]
pub(super) struct Done {
    pub(super) fetched: Fetched,
    pub(super) known_blobs: u64,
    /// What is to be fetched instead, or besides.
    pub(super) more: Vec<Descendant>,
}

/// Everything about an item that can be known before anything is sent.
struct Plan {
    clone_url: Url,
    token: Option<SecretString>,
    app: Option<Arc<Installation>>,
}

impl Plan {
    /// Gets a token where an app's installation is to be asked for one.
    async fn with_token(mut self) -> Result<Self, String> {
        if let (None, Some(app)) = (&self.token, &self.app) {
            let token = tokio::time::timeout(TOKEN_PATIENCE, app.token()).await;
            let token = token.map_err(|_| "its GitHub App gives no token in time".to_owned())?;
            self.token = Some(token.map_err(|error| error.to_string())?);
        }
        Ok(self)
    }
}

impl Shared {
    /// Does what one item asks for.
    pub(super) async fn work_on(self: Arc<Self>, origin: Option<Origin>, item: WorkItem) -> Tried {
        let range = &item.range;
        if let Some(wait) = self.pauses.left(&range.host, &range.repository_id) {
            let why = "its host is left alone for a while".to_owned();
            return Tried::ended(item, End::Later { wait, why });
        }
        let plan = match plan(range, origin.as_ref()) {
            Ok(plan) => plan,
            Err(wrong) => return Tried::failed(item, wrong),
        };
        match (plan.with_token().await, range.kind) {
            // The host's own API it is that does not answer.
            (Err(why), _) => self.without_answer(item, self.words_of(&why)),
            (Ok(plan), WorkKind::Range) => self.read(plan, item).await,
            (Ok(plan), WorkKind::References) => self.list(plan, item).await,
        }
    }

    /// Fetches and scans a range.
    async fn read(self: Arc<Self>, plan: Plan, item: WorkItem) -> Tried {
        let WorkerParts {
            responder, engine, ..
        } = &self.parts;
        let places = Places::new(&item.range, &plan.clone_url, responder.redactor(), engine);
        let has_token = plan.token.is_some();
        let request = match request(&item.range, plan) {
            Ok(request) => request,
            Err(wrong) => return Tried::failed(item, wrong.to_owned()),
        };
        let (lane, limits) = bounds(&item, self.parts.fetcher.limits());
        let fetching = self.parts.fetcher.fetch_within(&request, lane, limits);
        let fetched = match fetching.await {
            Ok(fetched) => fetched,
            Err(error) => return self.end_of(item, has_token, &error),
        };
        self.pauses.answered(&item.range);
        let runtime = Handle::current();
        let shared = Arc::clone(&self);
        let actor = actor(&item.range.source);
        let scanned =
            tokio::task::spawn_blocking(move || shared.scan(fetched, &places, &actor, &runtime));
        match scanned.await {
            Ok(scanned) => self.after_scan(item, scanned),
            // The panic itself was logged where it happened.
            Err(_) => Tried::failed(item, "reading its contents panicked".to_owned()),
        }
    }

    /// Lists references; each becomes a range.
    async fn list(&self, plan: Plan, item: WorkItem) -> Tried {
        let Plan {
            clone_url, token, ..
        } = plan;
        let fetcher = &self.parts.fetcher;
        let references = match fetcher.references(&clone_url, token.as_ref()).await {
            Ok(references) => references,
            Err(error) => return self.end_of(item, token.is_some(), &error),
        };
        self.pauses.answered(&item.range);
        let wanted = |name: &str| item.range.ref_name.is_empty() || item.range.ref_name == name;
        let (head, list) = (references.head, references.list.into_iter());
        let mut found: Vec<_> = list.filter(|(name, _)| wanted(name)).collect();
        // First what most of the others are made from, so that they add little to it.
        found.sort_by_key(|(name, _)| head.as_ref() != Some(name));
        let end = if found.is_empty() {
            gone(
                &item,
                "the repository does not have these references any more",
            )
        } else {
            End::Done(Done {
                fetched: Fetched {
                    truncated: references.cut || found.len() > MAX_REFERENCES,
                    ..Fetched::default()
                },
                more: (0..MAX_REFERENCES)
                    .zip(found)
                    .map(|(at, (name, id))| self.listed(&item, at, &name, id))
                    .collect(),
                ..Done::default()
            })
        };
        Tried::ended(item, end)
    }

    /// A reference that was listed, as a range.
    fn listed(&self, item: &WorkItem, at: usize, name: &str, id: ObjectId) -> Descendant {
        let range = &item.range;
        let priority = if at < URGENT_REFERENCES {
            range.priority
        } else {
            Priority::Backfill
        };
        Descendant {
            range: NewWorkItem {
                kind: WorkKind::Range,
                ref_name: self.words_of(name),
                before: ObjectId::null(id.kind()).to_string(),
                after: id.to_string(),
                priority,
                ..range.clone()
            },
            is_part: false,
            lineage: lineage::of_reference(item, self.parts.fetcher.limits().max_fetch_bytes),
        }
    }

    /// Scans everything that was fetched. Blocks the thread.
    fn scan(
        &self,
        fetched: crate::fetch::Fetched,
        places: &Places,
        actor: &str,
        runtime: &Handle,
    ) -> Scanned {
        let WorkerParts {
            engine,
            responder,
            clock,
            ..
        } = &self.parts;
        let reporter = Reporter {
            responder,
            actor,
            runtime,
        };
        let received = fetched.bytes() as u64;
        let mut findings = Findings::new(engine, &self.clean, places, reporter, clock.now());
        let visited = fetched.visit(|text| findings.look_at(&text));
        Scanned {
            found: findings.finish(),
            clean_blobs: std::mem::take(&mut findings.clean_blobs),
            known_blobs: findings.known_blobs,
            bytes: findings.bytes,
            blobs: findings.blobs,
            received,
            visited,
        }
    }

    fn after_scan(&self, item: WorkItem, scanned: Scanned) -> Tried {
        let Outcome {
            sightings,
            not_looked_up,
            reported,
        } = scanned.found;
        let end = match (scanned.visited, reported) {
            (_, Err(error)) => End::Failed(self.words(&error)),
            (Err(error @ FetchError::Busy), _) => {
                let why = self.words(&error);
                match item.lane {
                    // It gives its place back, and is fetched again when it has its turn.
                    Lane::Ordinary => End::Large(why),
                    Lane::Large | Lane::Alone => End::Later { wait: BUSY, why },
                }
            }
            (Err(error), _) => End::Failed(self.words(&error)),
            (Ok(visited), Ok(())) => {
                let most = self.parts.fetcher.limits().max_fetch_bytes;
                let more = lineage::halves(&item, visited.middle, scanned.received, most);
                tell_left_out(&item, visited, not_looked_up, !more.is_empty());
                let is_whole = visited.left_out.is_nothing() && not_looked_up == 0;
                End::Done(Done {
                    fetched: Fetched {
                        truncated: !is_whole,
                        bytes: scanned.bytes,
                        blobs: scanned.blobs,
                        gone: false,
                    },
                    known_blobs: scanned.known_blobs,
                    more,
                })
            }
        };
        Tried {
            item,
            sightings,
            clean_blobs: scanned.clean_blobs,
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
            FetchError::Busy => End::Large(why),
            FetchError::Network(_)
            | FetchError::Stalled { .. }
            | FetchError::TooSlow { .. }
            | FetchError::Unauthorized { status: 403 }
            | FetchError::Server { status: 500.. } => {
                return self.without_answer(item, why);
            }
            _ => End::Failed(why),
        };
        self.pauses.answered(&item.range);
        Tried::ended(item, end)
    }

    /// What becomes of an item whose host did not answer in good health. When others have no luck with it
    /// either, it is the host's trouble, and no try of the item's: an hour without a network must not put
    /// everything aside.
    fn without_answer(&self, item: WorkItem, why: String) -> Tried {
        let age = self.parts.clock.now().duration_since(item.created_at);
        let patient = Duration::try_from(age).is_ok_and(|age| age < HOST_PATIENCE);
        let end = match self.pauses.failed(item.id, &item.range) {
            Some(wait) if patient => End::Later { wait, why },
            _ => End::Failed(why),
        };
        Tried::ended(item, end)
    }

    /// An error's text as it may be kept.
    pub(super) fn words(&self, error: &dyn std::error::Error) -> String {
        self.words_of(&error.to_string())
    }

    fn words_of(&self, text: &str) -> String {
        self.parts.responder.redactor().redact(text).into_owned()
    }
}

struct Scanned {
    found: Outcome,
    clean_blobs: Vec<ObjectId>,
    known_blobs: u64,
    bytes: u64,
    blobs: u64,
    /// Bytes of the packs.
    received: u64,
    visited: Result<Visited, FetchError>,
}

impl Tried {
    fn ended(item: WorkItem, end: End) -> Self {
        Self {
            item,
            sightings: Vec::new(),
            clean_blobs: Vec::new(),
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

    pub(super) fn panicked(item: WorkItem) -> Self {
        Self::failed(item, "reading it panicked".to_owned())
    }
}

/// Who acts, for the revocation log. What webhooks tell of is found in their own name.
pub(super) fn actor(source: &str) -> String {
    if source.starts_with("webhook:") {
        return source.to_owned();
    }
    format!("source:{source}")
}

/// Where an item is fetched from: its own address, or what the configuration says of its host. A token is
/// sent to no other server than the one it is configured for.
fn plan(range: &NewWorkItem, origin: Option<&Origin>) -> Result<Plan, String> {
    let clone_url = match (&range.clone_url, origin) {
        (Some(url), _) => {
            Url::parse(url).map_err(|_| "its clone address is not a URL".to_owned())?
        }
        (None, Some(origin)) => RepositoryName::parse(&range.repository)
            .and_then(|name| name.clone_url(&origin.clone_url))
            .map_err(|_| "its repository's name is not OWNER/NAME".to_owned())?,
        (None, None) => {
            return Err(format!(
                "no source is configured for the host {}: add one, or name the host in \
                 `webhooks.<forge>.clone_hosts`; else the item is put aside",
                range.host
            ));
        }
    };
    let origin = origin.filter(|origin| origin.clone_url.origin() == clone_url.origin());
    Ok(Plan {
        clone_url,
        token: origin.and_then(|origin| origin.token.clone()),
        app: origin.and_then(|origin| origin.app.clone()),
    })
}

fn request(range: &NewWorkItem, plan: Plan) -> Result<RangeRequest, &'static str> {
    Ok(RangeRequest {
        clone_url: plan.clone_url,
        token: plan.token,
        reference: range.ref_name.clone(),
        before: object_id(&range.before)?,
        after: object_id(&range.after)?,
    })
}

/// Where an item is fetched, and how much of it.
fn bounds(item: &WorkItem, limits: &FetchLimits) -> (FetchLane, Arc<FetchLimits>) {
    let lane = match item.lane {
        Lane::Ordinary => FetchLane::Ordinary,
        Lane::Large | Lane::Alone => FetchLane::Large,
    };
    let mut limits = limits.tightened(item.deaths);
    if let Some(lineage) = item.lineage {
        limits.max_fetch_bytes = limits.max_fetch_bytes.min(lineage.bytes_left);
    }
    (lane, Arc::new(limits))
}

fn object_id(hex: &str) -> Result<ObjectId, &'static str> {
    ObjectId::from_hex(hex.as_bytes())
        .map_err(|_| "its before or after is no object id of 40 digits")
}

fn gone(item: &WorkItem, why: &str) -> End {
    tracing::info!(item = %item.id, repository = item.range.repository, why, "nothing left to read");
    End::Done(Done {
        fetched: Fetched {
            gone: true,
            ..Fetched::default()
        },
        ..Done::default()
    })
}

fn tell_left_out(item: &WorkItem, visited: Visited, not_looked_up: u64, halved: bool) {
    let left_out = visited.left_out;
    if !left_out.is_nothing() || not_looked_up > 0 {
        tracing::warn!(
            item = %item.id, repository = item.range.repository, cut = left_out.cut,
            too_big = left_out.too_big, without_base = left_out.without_base,
            over_budget = left_out.over_budget, not_looked_up, halved, "not everything of a push was read"
        );
    }
}
