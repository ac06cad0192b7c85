//! How a try of a work item ends, and what becomes of the item.

use std::time::Duration;

use super::Shared;
use super::pauses::Failure;
use crate::fetch::{FetchError, ObjectId, Place};
use crate::respond::Sighting;
use crate::store::{Descendant, Fetched, HOST_LEFT_ALONE, Lane, WorkItem};

/// The wait when visits that are heavy keep others waiting.
const BUSY: Duration = Duration::from_secs(5);

/// The wait when a server asks to slow down and does not say for how long.
const SLOW_DOWN: Duration = Duration::from_mins(1);

/// The longest time that an item waits for a host in trouble without its tries being counted.
const HOST_PATIENCE: Duration = Duration::from_hours(24);

/// The outcome of one try of a work item.
pub(super) struct Tried {
    pub(super) item: WorkItem,
    /// What was found and is not reported yet, whatever the end.
    pub(super) sightings: Vec<Sighting>,
    /// Blobs that hold nothing.
    pub(super) clean_blobs: Vec<ObjectId>,
    pub(super) end: End,
}

/// The future of the item.
pub(super) enum End {
    /// It is done.
    Done(Done),
    /// It is taken again later; the try does not count.
    Later { wait: Duration, why: String },
    /// It is taken again when it has its turn in another lane; the try does not count.
    Moved { lane: Lane, why: String },
    /// It is tried again, unless that was the last try.
    Failed(String),
}

/// The work that was done about an item.
#[derive(Default)]
pub(super) struct Done {
    pub(super) fetched: Fetched,
    pub(super) known_blobs: u64,
    /// What is to be fetched instead, or besides.
    pub(super) more: Vec<Descendant>,
}

impl Tried {
    pub(super) fn ended(item: WorkItem, end: End) -> Self {
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

    pub(super) fn failed(item: WorkItem, why: String) -> Self {
        Self::ended(item, End::Failed(why))
    }

    pub(super) fn panicked(item: WorkItem) -> Self {
        Self::failed(item, "reading it panicked".to_owned())
    }
}

impl Shared {
    /// Returns what becomes of an item that could not be fetched.
    pub(super) fn end_of(&self, item: WorkItem, has_token: bool, error: &FetchError) -> Tried {
        let why = self.words(error);
        let end = match error {
            FetchError::Gone { .. } | FetchError::CommitGone => gone(&item, &why),
            // What is public needs no credentials, so it is not public any more.
            FetchError::Unauthorized { status: 401 } if !has_token => gone(&item, &why),
            FetchError::RateLimited { retry_after, .. } => {
                let wait = retry_after.unwrap_or(SLOW_DOWN);
                self.pauses.pause(&item.range.host, wait, &why);
                let why = format!("{HOST_LEFT_ALONE}{why}");
                End::Later { wait, why }
            }
            FetchError::Busy | FetchError::LargeBusy | FetchError::Outpaced { .. } => {
                let end = self.moved(&item, error);
                return Tried::ended(item, end);
            }
            FetchError::Unreachable(_) => {
                return self.without_answer(item, why, Failure::Unreachable);
            }
            FetchError::Stalled { .. } | FetchError::TooSlow { .. } => {
                self.slow.note(&item.range);
                return self.without_answer(item, why, Failure::Answerless);
            }
            FetchError::Network(_)
            | FetchError::Unauthorized { status: 403 }
            | FetchError::Server { status: 500.. } => {
                return self.without_answer(item, why, Failure::Answerless);
            }
            _ => End::Failed(why),
        };
        self.pauses.answered(&item.range);
        Tried::ended(item, end)
    }

    /// Returns what becomes of an item that is larger, or slower, than its lane allows: it gives its place back and goes on
    /// in the next one. From the last one it keeps away for a while, so that others have their turn.
    pub(super) fn moved(&self, item: &WorkItem, error: &FetchError) -> End {
        let why = self.words(error);
        let is_slow = matches!(error, FetchError::Outpaced { .. });
        if is_slow {
            self.slow.note(&item.range);
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
                    // It is fetched as a large one then.
                    self.slow.note_outpaced(item.id);
                }
                End::Later { wait: BUSY, why }
            }
            Lane::Large | Lane::Alone if !self.is_patient(item) => End::Failed(why),
            Lane::Large | Lane::Alone => {
                let wait = Place::rest();
                self.slow.note_outpaced(item.id);
                End::Later { wait, why }
            }
        }
    }

    /// Returns what becomes of an item of which nothing good came. When that is its repository's trouble, or its whole
    /// host's, it is no try of the item's: an hour without a network must not put everything aside.
    pub(super) fn without_answer(&self, item: WorkItem, why: String, failure: Failure) -> Tried {
        let wait = self.pauses.failed(item.id, &item.range, failure, &why);
        let is_hosts = failure == Failure::Unreachable && self.pauses.blames(&item.range.host);
        let why = if is_hosts {
            format!("{HOST_LEFT_ALONE}{why}")
        } else {
            why
        };
        let end = match wait {
            Some(wait) if self.is_patient(&item) => End::Later { wait, why },
            _ => End::Failed(why),
        };
        Tried::ended(item, end)
    }

    /// Returns whether an item is not so old yet that each try counts.
    fn is_patient(&self, item: &WorkItem) -> bool {
        let age = self.parts.clock.now().duration_since(item.created_at);
        Duration::try_from(age).is_ok_and(|age| age < HOST_PATIENCE)
    }
}

/// The end of an item of which there is nothing any more.
pub(super) fn gone(item: &WorkItem, why: &str) -> End {
    tracing::info!(item = %item.id, repository = item.range.repository, why, "nothing left to read");
    End::Done(Done {
        fetched: Fetched {
            gone: true,
            ..Fetched::default()
        },
        ..Done::default()
    })
}
