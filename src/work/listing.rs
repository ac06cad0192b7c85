//! Lists of references: a few become ranges at once, the others when nothing else waits.
//!
//! A list may be long, and whoever makes a repository public decides how long. What it yields is therefore added in
//! pieces, each in the transaction that completes the item: the first one with the list itself, each further one with
//! an item of its own, which lists the references again and goes on after the last one that was added. Nothing of a
//! list is held in between.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use super::ends::{Done, End, Tried, absent};
use super::findings::{Findings, Reporter};
use super::listed::{ListRest, Listed};
use super::place::Places;
use super::plan::Plan;
use super::{Shared, WorkerParts, lineage};
use crate::fetch::{Breath, FetchPlace, HEAD, ObjectId, References, Text, TextKind};
use crate::forge::{actor_of, is_to_the_letter, kept_reference};
use crate::respond::CleanSightings;
use crate::store::{Fetched, Lineage, NewWorkItem, Priority, StoreError, WorkItem};

/// Maximum number of references of one repository that become items. The rest is left out and counted as truncated.
const MAX_REFERENCES: u32 = 10_000;

/// Number of references that are read soon. The rest is read when nothing else waits.
const URGENT_REFERENCES: usize = 64;

/// Maximum number of references that are added at a time.
const PIECE: usize = 500;

/// Maximum size of the names that are added at a time, in bytes, beyond the first one.
const PIECE_BYTES: usize = 256 << 10;

/// Maximum number of pieces of a list.
const PIECES_MAX: u32 = 64;

/// Delay of the next piece while too much of what was added before is still waiting.
const NO_ROOM: Duration = Duration::from_mins(1);

impl Shared {
    /// Lists references. Some of them become ranges.
    pub(super) async fn list(
        self: Arc<Self>,
        plan: Plan,
        place: FetchPlace,
        item: WorkItem,
    ) -> Tried {
        if item.lineage.is_some() && !self.has_room_for_rest(&item.range).await {
            let why = "much of its repository, its owner or its host waits to be read".to_owned();
            return Tried::ended(item, End::Later { wait: NO_ROOM, why });
        }
        let places = Places::new(
            &item.range,
            &plan.clone_url,
            self.parts.responder.redactor(),
        );
        let Plan {
            clone_url, token, ..
        } = plan;
        let fetcher = &self.parts.fetcher;
        let listing = fetcher.references_from(&clone_url, token.as_ref(), place);
        let (references, long) = match listing.await {
            Ok(listed) => listed,
            Err(error) => return self.end_of(item, token.is_some(), &error),
        };
        self.pauses.answered(&item.range);
        let (runtime, listed) = (Handle::current(), item.clone());
        let ending = tokio::task::spawn_blocking(move || {
            let _long = long;
            let found = self.in_names(&listed, &places, &references.list, &runtime);
            let (sightings, end) = match found {
                Ok(sightings) => (sightings, self.end_of_list(&listed, references)),
                Err(error) => (CleanSightings::default(), End::Failed(self.words(&error))),
            };
            Tried {
                sightings,
                ..Tried::ended(listed, end)
            }
        });
        // The panic itself was logged where it happened.
        ending.await.unwrap_or_else(|_| Tried::panicked(item))
    }

    /// Scans the names of references for keys, unless they were scanned before: this is the rest of a list, or a source
    /// told the only name that matters. Blocks the thread.
    fn in_names(
        &self,
        item: &WorkItem,
        places: &Places,
        list: &[(String, ObjectId)],
        runtime: &Handle,
    ) -> Result<CleanSightings, StoreError> {
        if item.lineage.is_some() || !item.range.ref_name.is_empty() {
            return Ok(CleanSightings::default());
        }
        let WorkerParts {
            engine,
            responder,
            clock,
            ..
        } = &self.parts;
        let actor = actor_of(&item.range.source);
        let reporter = Reporter {
            responder,
            actor: &actor,
            runtime,
        };
        let mut findings = Findings::new(engine, &self.clean, places, reporter, clock.now());
        for (name, id) in list {
            findings.look_at(&Text {
                kind: TextKind::Tag,
                id: *id,
                commit: Some(*id),
                path: None,
                path_is_cut: false,
                data: name.as_bytes(),
                breath: Breath::default(),
            });
        }
        let found = findings.finish();
        found.reported.map(|()| found.sightings)
    }

    async fn has_room_for_rest(&self, list: &NewWorkItem) -> bool {
        let found = self.parts.store.has_room_for_rest(list).await;
        found.unwrap_or_else(|error| {
            tracing::warn!(%error, "counting the waiting work items failed: the rest of a list of references waits");
            false
        })
    }

    fn end_of_list(&self, item: &WorkItem, references: References) -> End {
        let unnamed_head = references.unnamed_head();
        let References {
            mut list,
            head,
            cut,
            malformed,
            ..
        } = references;
        list.extend(unnamed_head.map(|id| (HEAD.to_owned(), id)));
        if malformed > 0 {
            let repository = &item.range.repository;
            tracing::warn!(
                repository,
                lines = malformed,
                "a list of references has malformed lines"
            );
        }
        self.retain(&mut list, &item.range.ref_name);
        let count = u32::try_from(list.len()).unwrap_or(u32::MAX);
        if list.is_empty() && item.lineage.is_none() {
            let why = "the repository does not have these references any more";
            return absent(item, why.to_owned());
        }
        let (listed, truncated) = match item.lineage {
            None => (
                self.first_of(item, list, head.as_deref()),
                cut || malformed > 0 || count > MAX_REFERENCES,
            ),
            Some(of_rest) => self.next_of(item, of_rest, list),
        };
        let why = if malformed > 0 {
            "its list of references has malformed lines"
        } else {
            "it has more references than are read"
        };
        End::Done(Done {
            unread: truncated.then(|| why.to_owned()),
            fetched: Fetched {
                truncated,
                ..Fetched::default()
            },
            listed: Some(listed),
            ..Done::default()
        })
    }

    /// Retains the wanted reference, or all if none is named. The wanted name was stored, so it stands for all names
    /// whose stored form it is.
    fn retain(&self, list: &mut Vec<(String, ObjectId)>, wanted: &str) {
        if wanted.is_empty() {
            return;
        }
        let is_to_the_letter = is_to_the_letter(wanted);
        let redactor = self.parts.responder.redactor();
        list.retain(|(name, _)| {
            name == wanted || (!is_to_the_letter && kept_reference(redactor, name) == wanted)
        });
    }

    /// Returns what is added of a list at first.
    fn first_of(
        &self,
        item: &WorkItem,
        mut list: Vec<(String, ObjectId)>,
        head: Option<&str>,
    ) -> Listed {
        // The default branch first: most other branches derive from it, so they add little once it has been read.
        list.sort_by_key(|(name, _)| head != Some(name));
        let taken = piece(list.iter().map(|(name, _)| name), URGENT_REFERENCES);
        let rest = (taken < list.len()).then(|| ListRest {
            after: String::new(),
            lineage: Lineage {
                parts_left: MAX_REFERENCES,
                ..self.of_reference(item)
            },
        });
        // Nobody waits for them as for a push, and there may be many of them.
        let priority = match item.range.priority {
            Priority::Partner | Priority::Webhook => Priority::Watched,
            other => other,
        };
        self.listed(item, list.into_iter().take(taken), priority, rest)
    }

    /// Returns what is added next of the rest of a list, and whether more is left out than the first piece told.
    fn next_of(
        &self,
        item: &WorkItem,
        of_rest: Lineage,
        list: Vec<(String, ObjectId)>,
    ) -> (Listed, bool) {
        let after = &item.range.before;
        let numbered = list.into_iter();
        let numbered = numbered.map(|(name, id)| (number(&name, id), name, id));
        let mut left: Vec<_> = numbered.filter(|(number, ..)| number > after).collect();
        left.sort_unstable();
        left.dedup_by(|a, b| a.0 == b.0);
        let most = usize::try_from(of_rest.parts_left).unwrap_or(usize::MAX);
        let taken = piece(left.iter().map(|(_, name, _)| name), PIECE.min(most));
        let parts_left = u32::try_from(most - taken).unwrap_or(u32::MAX);
        let is_more = taken < left.len() && parts_left > 0;
        let is_cut = is_more && of_rest.generation >= PIECES_MAX;
        let is_more = is_more && !is_cut;
        let end = left[..taken].last().filter(|_| is_more);
        let rest = end.map(|(number, ..)| ListRest {
            after: number.clone(),
            lineage: Lineage {
                generation: of_rest.generation + 1,
                parts_left,
                ..of_rest
            },
        });
        let taken = left.into_iter().take(taken).map(|(_, name, id)| (name, id));
        (self.listed(item, taken, Priority::Backfill, rest), is_cut)
    }

    fn listed(
        &self,
        item: &WorkItem,
        references: impl Iterator<Item = (String, ObjectId)>,
        priority: Priority,
        rest: Option<ListRest>,
    ) -> Listed {
        let redactor = self.parts.responder.redactor();
        // It would be stored with the item, and be fetched by no digest.
        let is_key = |id: &ObjectId| redactor.holds_key(id.to_string());
        let (with_key, references): (Vec<_>, Vec<_>) = references.partition(|(_, id)| is_key(id));
        if !with_key.is_empty() {
            let (repository, references) = (&item.range.repository, with_key.len());
            tracing::warn!(
                repository,
                references,
                "references have a key in place of a commit; they are not read"
            );
        }
        Listed {
            references: references
                .into_iter()
                .map(|(name, id)| (kept_reference(redactor, &name), id))
                .collect(),
            priority,
            lineage: self.of_reference(item),
            rest,
        }
    }

    fn of_reference(&self, item: &WorkItem) -> Lineage {
        lineage::of_reference(item, self.parts.fetcher.limits().max_fetch_bytes)
    }
}

/// Returns the place of a name in the order in which the rest of a list is added, which is not that of the names, since
/// those may hold keys.
fn number(name: &str, id: ObjectId) -> String {
    let mut digest = Sha256::new_with_prefix(name);
    if name.contains('\u{fffd}') {
        // Several names may come out like this.
        digest.update(id.as_bytes());
    }
    hex::encode(&digest.finalize()[..16])
}

/// Returns the number of names that make up a piece of at most `most`.
fn piece<'n>(names: impl Iterator<Item = &'n String>, most: usize) -> usize {
    let mut bytes = 0;
    let fits = names.take(most).enumerate().take_while(|(at, name)| {
        bytes += name.len();
        *at == 0 || bytes <= PIECE_BYTES
    });
    fits.count()
}
