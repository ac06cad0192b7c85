//! Outcomes of a try, and their consequences for the work item.

use std::time::Duration;

use uuid::Uuid;

use super::Shared;
use super::listed::Listed;
use super::pauses::{Condition, Failure, Judged};
use crate::fetch::{FetchError, FetchPlace, ObjectId};
use crate::respond::CleanSightings;
use crate::store::{Descendant, Fetched, HOST_LEFT_ALONE, Lane, Priority, TRIED_AGAIN, WorkItem};

/// Delay of an item while heavy visits occupy the lane.
const BUSY: Duration = Duration::from_secs(5);

/// Backoff when a server throttles without a `Retry-After`.
pub(super) const SLOW_DOWN: Duration = Duration::from_mins(1);

/// Age up to which failures of an item's host or repository do not count as tries of the item, and time for which these
/// have to last.
const HOST_PATIENCE: Duration = Duration::from_hours(24);

/// Pause of a host that the configuration does not name, and whose items another process may read. Shorter than the
/// time for which the state of a source tells what its items wait for.
const ELSEWHERE: Duration = Duration::from_secs(10);

/// Delays after each answer by which there is nothing to read. Only the one after the last is believed: a gateway
/// without its servers, a token that lost its access and a replica that lags behind say the same, and pass.
const DOUBTS: [Duration; 6] = [
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(5),
    Duration::from_mins(7),
];

/// The same for public events, of which some are gone whenever they are read. In total longer than the time in which a
/// host that has answered before is not suspected.
const FIREHOSE_DOUBTS: [Duration; 3] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(1),
];

/// The same for what an archive names, which happened long ago.
const BACKFILL_DOUBTS: [Duration; 1] = [Duration::from_mins(2)];

/// Result of one try of a work item.
pub(super) struct Tried {
    pub(super) item: WorkItem,
    /// Findings that are not reported yet, whatever the outcome.
    pub(super) sightings: CleanSightings,
    /// Blobs without candidates.
    pub(super) clean_blobs: Vec<ObjectId>,
    pub(super) end: End,
}

/// Outcome of a try.
pub(super) enum End {
    /// The item is complete.
    Done(Done),
    /// The item is postponed; the try does not count.
    Later { wait: Duration, why: String },
    /// There was nothing to read, which is not believed yet. The try does not count.
    Denied { wait: Duration, why: String },
    /// The item moves to another lane; the try does not count.
    Moved { lane: Lane, why: String },
    /// The try failed. The item is retried, unless that was its last try.
    Failed(String),
}

/// Result of a completed item.
#[derive(Default)]
pub(super) struct Done {
    pub(super) fetched: Fetched,
    pub(super) known_blobs: u64,
    /// Work items to be fetched instead of the item, or in addition to it.
    pub(super) more: Vec<Descendant>,
    /// Items that were read with this one.
    pub(super) beside: Vec<Uuid>,
    /// Contents that were left unread, in words that are safe to be stored, if anything was.
    pub(super) unread: Option<String>,
    /// References that are to be fetched, and what is left of their list.
    pub(super) listed: Option<Listed>,
}

impl Tried {
    /// Returns the number of work items that it adds, of ordinary size. They are as long as it is itself.
    pub(super) fn adds(&self) -> usize {
        let End::Done(done) = &self.end else {
            return 0;
        };
        let count = done.more.len() + done.listed.as_ref().map_or(0, Listed::len);
        count * self.item.range.weight()
    }

    /// Returns whether other items are done with this one.
    pub(super) fn ends_others(&self) -> bool {
        matches!(&self.end, End::Done(done) if !done.beside.is_empty())
    }

    /// Returns the item, if it is done, and those that are done with it.
    pub(super) fn ended_items(&self) -> impl Iterator<Item = Uuid> {
        let done = match &self.end {
            End::Done(done) => Some(done),
            _ => None,
        };
        let own = done.map(|_| self.item.id);
        let beside = done
            .into_iter()
            .flat_map(|done| done.beside.iter().copied());
        own.into_iter().chain(beside)
    }

    pub(super) fn ended(item: WorkItem, end: End) -> Self {
        Self {
            item,
            sightings: CleanSightings::default(),
            clean_blobs: Vec::new(),
            end,
        }
    }

    /// Turns the outcome into a failure and drops the sightings.
    pub(super) fn fail(&mut self, why: String) {
        self.sightings.clear();
        self.end = End::Failed(why);
    }

    pub(super) fn failed(item: WorkItem, why: String) -> Self {
        Self::ended(item, End::Failed(why))
    }

    pub(super) fn panicked(item: WorkItem) -> Self {
        Self::failed(item, "reading it panicked".to_owned())
    }
}

impl Shared {
    /// Returns the outcome for an item that could not be fetched.
    pub(super) fn end_of(&self, item: WorkItem, has_token: bool, error: &FetchError) -> Tried {
        let why = self.words(error);
        if item.part.is_dropped
            && is_answerless(error)
            && self.pauses.condition(&item.range.host) == Condition::Well
        {
            return dropped_are_lost(item, error, why);
        }
        let end = match error {
            FetchError::NotAdmitted(_) if !self.pauses.is_configured(&item.range.host) => {
                return self.left_to_others(item, &why);
            }
            FetchError::Gone { .. } | FetchError::Unauthorized { .. } => {
                return self.denied(item, has_token, error, why);
            }
            FetchError::CommitGone => absent(&item, why),
            FetchError::Protocol(_) => {
                return self.without_answer(item, why, Failure::Garbled);
            }
            FetchError::RateLimited { retry_after, .. } => {
                let wait = retry_after.unwrap_or(SLOW_DOWN);
                let judged = self.pauses.asked(&item.range, wait, &why);
                if judged.is_hosts || self.is_patient(&item, false) {
                    return put_off(item, judged, &why);
                }
                return Tried::failed(item, why);
            }
            FetchError::Busy
            | FetchError::SizedBusy
            | FetchError::LargeBusy
            | FetchError::Outpaced { .. } => {
                if !matches!(error, FetchError::Outpaced { .. }) {
                    // More of it came than its lane has room for.
                    self.pauses.answered(&item.range);
                }
                let end = self.moved(&item, error);
                return Tried::ended(item, end);
            }
            FetchError::Unreachable(_) | FetchError::NotAdmitted(_) => {
                return self.without_answer(item, why, Failure::Unreachable);
            }
            FetchError::Unanswered(_) | FetchError::Server { status: 502..=504 } => {
                return self.without_answer(item, why, Failure::Unanswered);
            }
            error if is_answerless(error) => {
                if matches!(
                    error,
                    FetchError::Stalled { .. } | FetchError::TooSlow { .. }
                ) {
                    self.slow.note(&item.range);
                }
                return self.without_answer(item, why, Failure::Answerless);
            }
            _ => End::Failed(why),
        };
        self.pauses.answered(&item.range);
        Tried::ended(item, end)
    }

    /// Returns the outcome for an item whose repository may not be read. If its host says so of all repositories, the
    /// item waits for the host.
    fn denied(&self, item: WorkItem, has_token: bool, error: &FetchError, why: String) -> Tried {
        let of_all = format!(
            "it gives none of the repositories that it was asked for, check its address and the token: {why}"
        );
        if let Some(judged) = self.pauses.denied(&item.range, &of_all) {
            if self.is_patient(&item, true) {
                return put_off(item, judged, &of_all);
            }
            return Tried::failed(item, of_all);
        }
        match error {
            FetchError::Unauthorized { status: 403 } => {
                self.without_answer(item, why, Failure::Answerless)
            }
            FetchError::Unauthorized { .. } if has_token => Tried::failed(item, why),
            // Public contents need no credentials, so without a token the repository is no longer public.
            _ => {
                let end = absent(&item, why);
                Tried::ended(item, end)
            }
        }
    }

    /// Returns the outcome for an item that is larger or slower than its lane allows: it gives up its place and moves
    /// to the next lane. In the last lane it is postponed, so that others have a turn.
    pub(super) fn moved(&self, item: &WorkItem, error: &FetchError) -> End {
        let why = self.words(error);
        let is_slow = matches!(error, FetchError::Outpaced { .. });
        // Those who wait in its own repository are read in the place that it leaves, not behind it in its next lane.
        let is_of_repository =
            item.lane == Lane::Ordinary && self.demands.is_of_repository_only(&item.range);
        if matches!(error, FetchError::SizedBusy) {
            self.slow.note_sized(item.id);
        }
        if is_slow && !item.part.is_dropped && !is_of_repository {
            self.slow.note(&item.range);
        }
        if item.lane == Lane::Ordinary && !is_of_repository {
            self.slow.note_left(&item.range);
        }
        match item.lane {
            Lane::Ordinary if !matches!(error, FetchError::LargeBusy) => End::Moved {
                lane: Lane::Medium,
                why,
            },
            Lane::Ordinary | Lane::Medium => End::Moved {
                lane: Lane::Large,
                why,
            },
            Lane::Large | Lane::Alone if !is_slow => {
                if item.lane == Lane::Alone {
                    // Fetched in the large lane from now on.
                    self.slow.note_outpaced(item.id);
                }
                End::Later { wait: BUSY, why }
            }
            Lane::Large | Lane::Alone if !self.is_patient(item, false) => End::Failed(why),
            Lane::Large | Lane::Alone => {
                let wait = FetchPlace::rest();
                self.slow.note_outpaced(item.id);
                End::Later { wait, why }
            }
        }
    }

    /// Returns the outcome for an item that got no usable response. If the fault lies with its repository or its whole
    /// host, it does not count as a try of the item: an hour without a network must not dead-letter everything.
    pub(super) fn without_answer(&self, item: WorkItem, why: String, failure: Failure) -> Tried {
        let judged = self.pauses.failed(item.id, &item.range, failure, &why);
        if judged.wait.is_some() && self.is_patient(&item, judged.is_hosts) {
            return put_off(item, judged, &why);
        }
        Tried::failed(item, why)
    }

    /// Returns the outcome for an item that this configuration cannot read, though that of another process may. It can
    /// be taken at once there. Here its host is left alone for a while.
    pub(super) fn left_to_others(&self, item: WorkItem, why: &str) -> Tried {
        let host = &item.range.host;
        if self.lasting.note(host, "").is_zero() {
            tracing::warn!(host, why, "work items wait for another process");
        }
        self.pauses.host_asked(host, ELSEWHERE, why);
        if !self.is_patient(&item, true) {
            return Tried::failed(item, why.to_owned());
        }
        let judged = Judged {
            wait: None,
            is_hosts: true,
        };
        put_off(item, judged, why)
    }

    /// Records the failure of an item's host or repository, and returns whether it does not count as a try: the item is
    /// young, or such failures have not lasted for long. An item may be old because a clock was put forward, or because
    /// no process ran.
    fn is_patient(&self, item: &WorkItem, is_hosts: bool) -> bool {
        let range = &item.range;
        let remote = if is_hosts {
            String::new()
        } else {
            range.remote()
        };
        let lasts = self.lasting.note(&range.host, &remote);
        let age = self.parts.clock.now().duration_since(item.created_at);
        // Negative if the clock went back.
        let age = Duration::try_from(age).unwrap_or_default();
        lasts < HOST_PATIENCE || age < HOST_PATIENCE
    }
}

/// Returns whether a server says of itself with an error, or by its silence, that it cannot answer now.
fn is_answerless(error: &FetchError) -> bool {
    match error {
        FetchError::Server { status } => matches!(status, 408 | 423 | 425 | 500..=501 | 505..),
        FetchError::Network(_)
        | FetchError::Empty
        | FetchError::Refused(_)
        | FetchError::Stalled { .. }
        | FetchError::TooSlow { .. } => true,
        _ => false,
    }
}

/// Returns the outcome for commits that a forced push dropped, and that could not be read. No reference leads to them, so
/// that says nothing of the repository, of which everything else may well be read.
fn dropped_are_lost(item: WorkItem, error: &FetchError, why: String) -> Tried {
    match error {
        // There are as many words for what a server does not have any more as there are servers.
        FetchError::Refused(_) => {
            let end = absent(&item, why);
            Tried::ended(item, end)
        }
        _ => Tried::failed(item, why),
    }
}

/// Returns the outcome for an item that waits because of its repository or host.
pub(super) fn put_off(item: WorkItem, judged: Judged, why: &str) -> Tried {
    let why = if judged.is_hosts {
        format!("{HOST_LEFT_ALONE}{why}")
    } else {
        format!("{TRIED_AGAIN}{why}")
    };
    let wait = judged.wait.unwrap_or_default();
    Tried::ended(item, End::Later { wait, why })
}

/// Returns the outcome for an item of which its server says that there is nothing to read: it is asked again a few
/// times.
pub(super) fn absent(item: &WorkItem, why: String) -> End {
    let denials = usize::try_from(item.denials).unwrap_or(usize::MAX);
    match doubts(item).get(denials) {
        Some(wait) => End::Denied { wait: *wait, why },
        None => gone(item, &why),
    }
}

/// Returns the delays after which an item is asked for again. Much is read when nothing else waits that is not from long
/// ago: the parts of a push, and what a `git` source lists at first, which has an address of its own.
fn doubts(item: &WorkItem) -> &'static [Duration] {
    let is_part = item.lineage.is_some();
    match item.range.priority {
        Priority::Partner | Priority::Webhook | Priority::Watched => &DOUBTS,
        Priority::Firehose => &FIREHOSE_DOUBTS,
        Priority::Backfill if is_part || item.range.clone_url.is_some() => &DOUBTS,
        Priority::Backfill => &BACKFILL_DOUBTS,
    }
}

/// Returns the outcome for an item of which nothing is left to read.
fn gone(item: &WorkItem, why: &str) -> End {
    tracing::info!(item = %item.id, repository = item.range.repository, why, "nothing left to read");
    End::Done(Done {
        fetched: Fetched {
            gone: true,
            ..Fetched::default()
        },
        unread: Some(why.to_owned()),
        ..Done::default()
    })
}
