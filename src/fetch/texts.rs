//! The pack of a pushed range, and visits of their texts.

use std::sync::Arc;

use gix_hash::ObjectId;

use super::budget::{Admission, Seat};
use super::history::History;
use super::pack::{Allowed, ListLimits, Listing, Objects, Pack};
use super::pack_rest::{PackRest, Progress};
use super::shown::{LeftOut, Shown, Text, read_history};
use super::weight::Weight;
use super::{FetchError, FetchLimits};

/// Result of a visit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Visited {
    /// Parts that were not shown.
    pub left_out: LeftOut,
    /// A commit in the middle of a range that the limits cut. The two halves of the range can be fetched
    /// separately. `None` if the range is a single commit.
    pub middle: Option<ObjectId>,
    /// `true` if the push dropped commits: its new ones do not lead back to the one before. Those that were dropped
    /// can be fetched separately.
    pub dropped: bool,
    /// `true` if the server does not know the commit before, or there was none: only what the default branch has
    /// counts as read.
    pub is_new: bool,
}

/// Relation of a pack to the range that was requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PackOrigin {
    /// The pack holds the commits since the one before.
    Range,
    /// The same, and the commits do not lead back to that one.
    Forced,
    /// The pack holds what the default branch does not have.
    New,
}

/// The pack of one pushed range, in memory until dropped. If it is too large, only its beginning is in memory.
#[derive(Debug)]
pub struct FetchedPack {
    pack: Option<Pack>,
    origin: PackOrigin,
    limits: Arc<FetchLimits>,
    seat: Seat,
    rest: Option<PackRest>,
    has_others: bool,
    _admission: Option<Admission>,
}

impl FetchedPack {
    pub(super) fn new(
        pack: Option<Pack>,
        origin: PackOrigin,
        limits: Arc<FetchLimits>,
        seat: Seat,
    ) -> Self {
        Self {
            pack,
            origin,
            limits,
            seat,
            rest: None,
            has_others: true,
            _admission: None,
        }
    }

    /// Adds the remainder of the pack, and the admission that both are held with.
    pub(super) fn with_rest(self, admission: Admission, rest: Option<PackRest>) -> Self {
        Self {
            rest,
            _admission: Some(admission),
            ..self
        }
    }

    /// Records whether it has what further references bring that were asked for.
    pub(super) fn with_others(self, has_others: bool) -> Self {
        Self { has_others, ..self }
    }

    /// Returns whether it has what the further references bring that were asked for: not if the pushed branch is the
    /// default one, which brings enough.
    pub fn has_others(&self) -> bool {
        self.has_others
    }

    /// Returns the number of bytes of pack data received.
    pub fn bytes(&self) -> usize {
        self.pack.as_ref().map_or(0, |pack| pack.bytes().len())
    }

    /// Calls `each` with every text: commits and tags, then trees, then blobs.
    ///
    /// This is pure computation, which may wait for memory and, for a single commit in a very large pack,
    /// for the server. It blocks the thread and, in a runtime, belongs on a thread that may block.
    ///
    /// # Errors
    /// Returns [`FetchError::Corrupt`] if an object cannot be decoded, and [`FetchError::Busy`] if the
    /// range is large and too many large ranges are waiting. Texts that were already shown remain valid.
    pub fn visit(self, each: impl FnMut(Text<'_>)) -> Result<Visited, FetchError> {
        self.visit_with_pauses(each, || {})
    }

    /// Calls `each` with every text like [`visit`](Self::visit), and `pause` whenever the server is waited for next.
    ///
    /// # Errors
    /// As for [`visit`](Self::visit).
    pub fn visit_with_pauses(
        self,
        mut each: impl FnMut(Text<'_>),
        mut pause: impl FnMut(),
    ) -> Result<Visited, FetchError> {
        let mut visited = Visited {
            dropped: self.origin == PackOrigin::Forced,
            is_new: self.origin == PackOrigin::New,
            ..Visited::default()
        };
        if let Some(pack) = self.pack {
            let visit = Visit {
                limits: &self.limits,
                seat: &self.seat,
                visited: &mut visited,
                each: &mut each,
                pause: &mut pause,
            };
            visit.pack(pack, self.rest)?;
        }
        Ok(visited)
    }
}

impl FetchLimits {
    fn list(&self, pack: &Pack) -> ListLimits {
        ListLimits {
            objects: self.max_objects,
            inflated: self.listed(pack.bytes().len() as u64),
        }
    }

    fn allowed(&self, pack: &Pack) -> Allowed {
        Allowed {
            object: self.max_blob_bytes,
            total: self.allowance(pack.bytes().len() as u64),
        }
    }
}

/// Visit of a pack.
struct Visit<'v> {
    limits: &'v FetchLimits,
    seat: &'v Seat,
    visited: &'v mut Visited,
    each: &'v mut dyn FnMut(Text<'_>),
    pause: &'v mut dyn FnMut(),
}

impl Visit<'_> {
    /// Shows the texts of a pack and of its remainder.
    fn pack(self, mut pack: Pack, rest: Option<PackRest>) -> Result<(), FetchError> {
        let (listing, mut weight) = if let Some(known) = pack.take_known() {
            known
        } else {
            let mut weight = Weight::new(self.seat);
            let listing = pack.list(self.limits.list(&pack), &mut weight)?;
            (listing, weight)
        };
        let weight = &mut weight;
        let allowed = self.limits.allowed(&pack);
        let mut objects = Objects::new(pack.bytes(), &listing, allowed, weight)?;
        let mut shown = Shown::new(&mut self.visited.left_out, self.each);
        shown.visit(&mut objects, weight)?;

        let skipped = objects.skipped();
        let mut is_cut = listing.is_cut() || shown.history.is_incomplete();
        let is_part = is_cut || skipped.over_budget > 0 || skipped.for_others > 0;
        let middle = is_part.then(|| shown.history.middle()).flatten();
        shown.skip(skipped);
        let shallow = std::mem::take(&mut pack.shallow);
        let goes_on = middle.is_none() && !listing.is_at_a_limit();
        if let (Some(rest), Some(stated)) = (rest.filter(|_| goes_on), pack.stated_count()) {
            let (count, end) = (listing.count(), listing.end());
            shown.paths.shrink();
            drop(listing);
            let hash = pack.hash();
            let mut progress = Progress {
                hash,
                held: pack.into_bytes(),
                gone: 0,
                count: stated.saturating_sub(count),
                read: count,
                hasher: gix_hash::hasher(hash),
            };
            progress.pass(end);
            weight.end();
            is_cut = progress.go_on(rest, self.limits, self.seat, &mut shown, self.pause)?
                || shown.history.is_incomplete();
        }
        self.visited.middle = middle;
        self.visited.left_out.cut = is_cut || shown.history.is_cut_by(&shallow);
        Ok(())
    }
}

/// Returns `true` if the commits of `pack` lead from `tip` back to `ancestor`. A pack that is not listed
/// completely, or that the server cut, does not allow an answer and counts as connected.
pub(super) fn connects(
    pack: &mut Pack,
    tip: ObjectId,
    ancestor: ObjectId,
    limits: &FetchLimits,
    seat: &Seat,
) -> Result<bool, FetchError> {
    let mut weight = Weight::new(seat);
    let listing = pack.list(limits.list(pack), &mut weight)?;
    let mut connected = true;
    if !listing.is_cut() {
        let history = history_of(pack, &listing, limits, &mut weight)?;
        connected = history.connects(tip, ancestor) || history.is_cut_by(&pack.shallow);
    }
    pack.remember(listing, weight);
    Ok(connected)
}

/// Returns `true` if commits of `pack` have parents that are neither in it nor among `known`. A pack that is not listed
/// completely does not allow an answer and counts as one of which that is so.
pub(super) fn lacks_parents(
    pack: &Pack,
    known: &[ObjectId],
    limits: &FetchLimits,
    seat: &Seat,
) -> Result<bool, FetchError> {
    if !pack.is_whole() {
        return Ok(true);
    }
    let history = history(pack, limits, seat)?;
    let is_known = |parent: &ObjectId| known.contains(parent);
    Ok(history.is_incomplete() || !history.before().iter().all(is_known))
}

/// Returns the commits of `pack` and their links.
pub(super) fn history(
    pack: &Pack,
    limits: &FetchLimits,
    seat: &Seat,
) -> Result<History, FetchError> {
    let mut weight = Weight::new(seat);
    let listing = pack.list(limits.list(pack), &mut weight)?;
    history_of(pack, &listing, limits, &mut weight)
}

fn history_of(
    pack: &Pack,
    listing: &Listing,
    limits: &FetchLimits,
    weight: &mut Weight,
) -> Result<History, FetchError> {
    let mut objects = Objects::new(pack.bytes(), listing, limits.allowed(pack), weight)?;
    let mut history = History::default();
    read_history(&mut objects, weight, &mut history, &mut |_| {})?;
    Ok(history)
}
