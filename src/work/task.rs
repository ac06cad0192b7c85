//! Processing of one work item: fetching, scanning, and deciding its outcome.

use std::cell::RefCell;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::ends::{Done, End, SLOW_DOWN, Tried, put_off};
use super::findings::{Findings, Outcome, Reporter};
use super::place::Places;
use super::plan::{NoToken, NoTokenKind, Plan, Unplanned, plan, request};
use super::{Origin, Shared, WorkerParts, lineage};
use crate::fetch::{
    FetchError, FetchLane, FetchLimits, FetchPlace, FetchedPack, Has, LeftOut, ObjectId, Payer,
    RangeRequest, Visited,
};
use crate::forge::{actor_of, is_to_the_letter, kept_reference, object_id, redact_message};
use crate::respond::CleanSightings;
use crate::store::{
    Fetched, HOST_LEFT_ALONE, Lane, ReadTo, Reason, StoreError, TRIED_AGAIN, WorkItem, WorkKind,
};

impl Shared {
    /// Processes one item. A probe shows whether its host is well again, and is sent whatever others found out about
    /// the host since it was claimed, such as the one that was claimed beside it.
    pub(super) async fn work_on(
        self: Arc<Self>,
        origin: Option<Origin>,
        item: WorkItem,
        is_probe: bool,
    ) -> Tried {
        let range = &item.range;
        let is_known = origin.is_some();
        let plan = match plan(range, origin.as_ref()) {
            Ok(plan) => plan,
            Err(Unplanned::Elsewhere(why)) => return self.left_to_others(item, &why),
            Err(Unplanned::Wrong(wrong)) => return Tried::failed(item, wrong.to_owned()),
        };
        let of_repository = self.pauses.left_of_repository(&range.host, &range.remote());
        let of_host = self.pauses.left_of_host(&range.host);
        if let Some(wait) = of_repository.max(of_host.filter(|_| !is_probe)) {
            let why = match self.pauses.why(&range.host) {
                Some(why) => format!("{HOST_LEFT_ALONE}{why}"),
                None => format!("{TRIED_AGAIN}its repository is left alone for a while"),
            };
            return Tried::ended(item, End::Later { wait, why });
        }
        if item.lane == Lane::Ordinary && self.slow.is_slow(range) {
            let (lane, why) = (Lane::Medium, "it was slow a while ago".to_owned());
            return Tried::ended(item, End::Moved { lane, why });
        }
        match (plan.with_token().await, range.kind) {
            (Err(without), _) => self.without_token(item, &without),
            (Ok(plan), WorkKind::Range) => self.read(plan, is_known, item).await,
            (Ok(plan), WorkKind::References) => {
                let place = self.place(&item, is_known);
                self.list(plan, place, item).await
            }
        }
    }

    /// Returns the outcome for an item for which its host's own API issued no token.
    fn without_token(&self, item: WorkItem, without: &NoToken) -> Tried {
        let why = self.words_of(&without.why);
        match without.kind {
            NoTokenKind::Failed(failure) => self.without_answer(item, why, failure),
            NoTokenKind::Throttled(wait) => {
                let wait = wait.unwrap_or(SLOW_DOWN);
                let judged = self.pauses.host_asked(&item.range.host, wait, &why);
                put_off(item, judged, &why)
            }
        }
    }

    /// Returns the place in which an item is fetched.
    pub(super) fn place(&self, item: &WorkItem, is_known: bool) -> FetchPlace {
        let outpaced = self.slow.outpaced(item.id);
        let host = if is_known { &*item.range.host } else { "" };
        let owner = item.range.owner();
        FetchPlace {
            lane: match item.lane {
                Lane::Ordinary => FetchLane::Ordinary,
                Lane::Medium => FetchLane::Medium,
                // Few of the items that were in flight when a worker died are heavy.
                Lane::Alone if item.deaths < 2 && outpaced == 0 => FetchLane::Ordinary,
                Lane::Large | Lane::Alone => FetchLane::Large,
            },
            demand: Arc::clone(self.demands.of(item.lane, is_known)),
            is_apart: item.lane == Lane::Alone,
            own: self.demands.of_own(item),
            others: self.demands.of_others(&item.range.host),
            usual: self.usual.patience(&item.range.host),
            payer: Payer::new(host, &item.range.host, &owner, &item.range.remote()),
            outpaced,
            kept: self.slow.keep(item.id, host),
        }
    }

    /// Fetches and scans a range. One of which workers died is read within tighter limits first, and all of it only if
    /// these leave something out: keys that they show are revoked even if the rest takes this worker along, too.
    async fn read(self: Arc<Self>, plan: Plan, is_known: bool, item: WorkItem) -> Tried {
        let redactor = self.parts.responder.redactor();
        let places = Places::new(&item.range, &plan.clone_url, redactor);
        let has_token = plan.token.is_some();
        let reading = Reading {
            request: match request(&item, plan) {
                Ok(request) => request,
                Err(wrong) => return Tried::failed(item, wrong.to_owned()),
            },
            places: Arc::new(places),
            is_known,
            has_token,
        };
        if let Some(tried) = self.read_together(&reading, &item).await {
            return tried;
        }
        let limits = self.parts.fetcher.limits();
        if item.deaths > 0 {
            let tightened = limits.tightened(item.deaths);
            match self.pass(&reading, &item, &tightened).await {
                Ok(scanned) if !scanned.is_cut() => return self.after_scan(item, scanned),
                Ok(scanned) => {
                    if let Err(error) = self.report(&item, scanned.found.sightings).await {
                        let why = self.words(&error);
                        return Tried::failed(item, why);
                    }
                }
                Err(ended) => return *ended,
            }
        }
        match self.pass(&reading, &item, limits).await {
            Ok(scanned) => self.after_scan(item, scanned),
            Err(ended) => *ended,
        }
    }

    /// Fetches and scans a range within `limits`. Returns the outcome if that fails.
    async fn pass(
        self: &Arc<Self>,
        reading: &Reading,
        item: &WorkItem,
        limits: &FetchLimits,
    ) -> Result<Scanned, Box<Tried>> {
        let limits = bounds(item, limits);
        match self.fetch(&reading.request, reading, item, limits).await {
            Ok(fetched) => self.scanned(fetched, reading, item).await,
            Err(error) => {
                if item.lane == Lane::Ordinary && matches!(error, FetchError::Outpaced { .. }) {
                    self.usual.note_left(&item.range.host);
                }
                let ended = self.end_of(item.clone(), reading.has_token, &error);
                Err(Box::new(ended))
            }
        }
    }

    pub(super) async fn fetch(
        &self,
        request: &RangeRequest,
        reading: &Reading,
        item: &WorkItem,
        limits: Arc<FetchLimits>,
    ) -> Result<FetchedPack, FetchError> {
        let place = self.place(item, reading.is_known);
        let as_read = |head: String| async move { self.counts_as_read(item, &head).await }.boxed();
        let parts = &self.parts;
        let fetching = parts.fetcher.fetch_within(request, place, limits, &as_read);
        let begun = Instant::now();
        let fetched = fetching.await?;
        self.pauses.answered(&item.range);
        if item.lane == Lane::Ordinary {
            let host = &item.range.host;
            self.usual.note(host, begun.elapsed(), fetched.bytes());
        }
        Ok(fetched)
    }

    /// Scans what was fetched. Returns the outcome if that panics.
    pub(super) async fn scanned(
        self: &Arc<Self>,
        fetched: FetchedPack,
        reading: &Reading,
        item: &WorkItem,
    ) -> Result<Scanned, Box<Tried>> {
        let runtime = Handle::current();
        let (shared, places) = (Arc::clone(self), Arc::clone(&reading.places));
        let actor = actor_of(&item.range.source);
        let scanned =
            tokio::task::spawn_blocking(move || shared.scan(fetched, &places, &actor, &runtime));
        scanned.await.map_err(|_| {
            // The panic itself was logged where it happened.
            let why = "reading its contents panicked".to_owned();
            Box::new(Tried::failed(item.clone(), why))
        })
    }

    /// Returns up to which commit the branch of `HEAD` counts as read when an item of another branch is read, and records
    /// that it does.
    async fn counts_as_read(&self, item: &WorkItem, head: &str) -> Result<Option<Has>, FetchError> {
        let head = kept_reference(self.parts.responder.redactor(), head);
        if !is_to_the_letter(&head) {
            // Items of others may have the same name.
            return Ok(None);
        }
        let read_to = self.parts.store.rest_on(item, &head).await;
        let read_to = read_to.map_err(|error| FetchError::Undecided(error.to_string()))?;
        Ok(read_to.and_then(|read_to| match read_to {
            ReadTo::Present => Some(Has::Present),
            ReadTo::Commit(id) => object_id(&id).ok().map(Has::Commit),
        }))
    }

    /// Responds to findings before their item has ended.
    pub(super) async fn report(
        &self,
        item: &WorkItem,
        found: CleanSightings,
    ) -> Result<(), StoreError> {
        if found.is_empty() {
            return Ok(());
        }
        let actor = actor_of(&item.range.source);
        let responder = &self.parts.responder;
        responder
            .report_clean(found, Reason::Leaked, &actor)
            .await?;
        Ok(())
    }

    /// Scans everything that was fetched. Blocks the thread.
    fn scan(
        &self,
        fetched: FetchedPack,
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
        let findings = Findings::new(engine, &self.clean, places, reporter, clock.now());
        let findings = RefCell::new(findings);
        let visited = fetched.visit_with_pauses(
            |text| findings.borrow_mut().look_at(&text),
            || findings.borrow_mut().pause(),
        );
        let mut findings = findings.into_inner();
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

    pub(super) fn after_scan(&self, item: WorkItem, scanned: Scanned) -> Tried {
        let Outcome {
            sightings,
            not_looked_up,
            reported,
        } = scanned.found;
        let end = match (scanned.visited, reported) {
            (_, Err(error)) => End::Failed(self.words(&error)),
            (Err(error @ (FetchError::Busy | FetchError::Outpaced { .. })), _) => {
                self.moved(&item, &error)
            }
            (Err(error), _) => End::Failed(self.words(&error)),
            (Ok(visited), Ok(())) => {
                let most = self.parts.fetcher.limits().max_fetch_bytes;
                let halves = lineage::halves(&item, &visited, scanned.received, most);
                let unread = halves.is_empty() && lineage::is_unread(&item, &visited);
                tell_left_out(&item, visited, not_looked_up, !halves.is_empty());
                let mut more = halves;
                more.extend(lineage::dropped(&item, &visited, most));
                self.slow.ended(item.id);
                let is_whole = visited.left_out.is_nothing() && not_looked_up == 0;
                End::Done(Done {
                    unread: (!is_whole).then(|| left_out_in_words(visited.left_out, not_looked_up)),
                    fetched: Fetched {
                        truncated: !is_whole,
                        unread,
                        bytes: scanned.bytes,
                        blobs: scanned.blobs,
                        gone: false,
                    },
                    known_blobs: scanned.known_blobs,
                    more,
                    ..Done::default()
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

    /// Returns the text of an error with keys redacted, so that it can be stored.
    pub(super) fn words(&self, error: &dyn std::error::Error) -> String {
        self.words_of(&error.to_string())
    }

    pub(super) fn words_of(&self, text: &str) -> String {
        redact_message(self.parts.responder.redactor(), text)
    }
}

/// Range that is read, in one pass or two.
pub(super) struct Reading {
    pub(super) request: RangeRequest,
    places: Arc<Places>,
    /// `true` if its host is configured.
    pub(super) is_known: bool,
    pub(super) has_token: bool,
}

pub(super) struct Scanned {
    pub(super) found: Outcome,
    clean_blobs: Vec<ObjectId>,
    known_blobs: u64,
    bytes: u64,
    blobs: u64,
    /// Size of the packs, in bytes.
    received: u64,
    pub(super) visited: Result<Visited, FetchError>,
}

impl Scanned {
    /// Returns whether everything was read to its end.
    pub(super) fn is_whole(&self) -> bool {
        let whole = |visited: &Visited| visited.left_out.is_nothing();
        self.found.reported.is_ok()
            && self.found.not_looked_up == 0
            && self.visited.as_ref().is_ok_and(whole)
    }

    /// Returns whether it was read to its end, but not all of it.
    fn is_cut(&self) -> bool {
        let cut = |visited: &Visited| !visited.left_out.is_nothing();
        self.found.reported.is_ok() && self.visited.as_ref().is_ok_and(cut)
    }
}

/// Returns the limits for fetching an item.
pub(super) fn bounds(item: &WorkItem, limits: &FetchLimits) -> Arc<FetchLimits> {
    let mut limits = limits.clone();
    if let Some(lineage) = item.lineage {
        limits.max_fetch_bytes = limits.max_fetch_bytes.min(lineage.bytes_left);
    }
    Arc::new(limits)
}

/// Returns what was left out of a push, in words.
fn left_out_in_words(left_out: LeftOut, not_looked_up: u64) -> String {
    let counts = [
        (u64::from(left_out.too_big), "objects are too large"),
        (u64::from(left_out.without_base), "objects have no base"),
        (
            u64::from(left_out.over_budget),
            "objects are more than is inflated",
        ),
        (not_looked_up, "candidates are more than are looked up"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let mut words: Vec<String> = counts
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if left_out.cut {
        words.push("it has more than is fetched at a time".to_owned());
    }
    format!("read in part: {}", words.join(", "))
}

fn tell_left_out(item: &WorkItem, visited: Visited, not_looked_up: u64, halved: bool) {
    let left_out = visited.left_out;
    if !left_out.is_nothing() || not_looked_up > 0 {
        tracing::warn!(
            item = %item.id, repository = item.range.repository, cut = left_out.cut,
            too_big = left_out.too_big, without_base = left_out.without_base,
            over_budget = left_out.over_budget, not_looked_up, halved, "a push was read in part"
        );
    }
}
