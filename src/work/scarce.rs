//! Selection of the next item in a lane with few places.

use std::collections::HashMap;

use uuid::Uuid;

use crate::fetch::{Payer, Used};
use crate::store::{Lane, NewWorkItem, Priority, WorkItem};

/// An item that may be claimed next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contender {
    pub(super) id: Uuid,
    pub(super) priority: Priority,
    pub(super) host: String,
    /// Remote of its repository.
    pub(super) remote: String,
    /// Owner of the repository.
    pub(super) owner: String,
    /// Number of workers that died while they held it.
    pub(super) deaths: u32,
    /// Number of times it had to leave the large lane because others were waiting.
    pub(super) outpaced: u32,
    /// Account that is charged for its time.
    pub(super) payer: Payer,
    /// Lane time that this account used recently.
    pub(super) used: Used,
    /// `true` if it is known to fit the places of the lane.
    pub(super) is_sized: bool,
    /// `true` if it takes precedence: of the items that had to leave, it has waited the longest.
    pub(super) is_due: bool,
}

/// Turn of a lane, by which some contenders take precedence. None of them does in all turns, so that what does not is
/// read however many of these come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LaneTurn {
    /// `true` if the most urgent ones come first.
    pub(super) is_by_priority: bool,
    /// `true` if of an owner those come first that are known to fit.
    pub(super) is_by_size: bool,
}

impl LaneTurn {
    /// Returns the turn after so many.
    pub(super) fn after(turns: usize) -> Self {
        Self {
            is_by_priority: turns % 3 < 2,
            is_by_size: turns.is_multiple_of(2),
        }
    }
}

/// Returns whether an item with this many deaths is read strictly alone. One death may be the fault of any item that
/// was in flight; after a second one, among few items, this item is likely the cause, and must not count against
/// others again.
fn is_deadly(deaths: u32) -> bool {
    deaths >= 2
}

/// Places of a lane with few of them, and their holders.
#[derive(Debug)]
pub(super) struct Scarce<'h> {
    pub(super) lane: Lane,
    free: usize,
    held: Vec<&'h NewWorkItem>,
    /// Number of places that are taken.
    taken: usize,
    /// `true` if one of the holders must be alone.
    is_closed: bool,
    hosts: HashMap<String, usize>,
    owners: HashMap<(String, String), usize>,
    repositories: HashMap<(String, String), usize>,
}

impl<'h> Scarce<'h> {
    pub(super) fn new(lane: Lane, places: usize, held: &[&'h WorkItem]) -> Self {
        let mut scarce = Self {
            lane,
            free: places.saturating_sub(held.len()),
            held: held.iter().map(|item| &item.range).collect(),
            taken: held.len(),
            is_closed: held.iter().any(|item| is_deadly(item.deaths)),
            hosts: HashMap::new(),
            owners: HashMap::new(),
            repositories: HashMap::new(),
        };
        for WorkItem { range, .. } in held {
            scarce.count(&range.host, &range.owner(), &range.remote());
        }
        scarce
    }

    fn count(&mut self, host: &str, owner: &str, repository: &str) {
        let of = |name: &str| (host.to_owned(), name.to_owned());
        *self.hosts.entry(host.to_owned()).or_default() += 1;
        *self.owners.entry(of(owner)).or_default() += 1;
        *self.repositories.entry(of(repository)).or_default() += 1;
    }

    /// Returns the number of places of a host.
    pub(super) fn of_host(&self, host: &str) -> usize {
        self.hosts.get(host).copied().unwrap_or_default()
    }

    /// Returns whether a repository has a place. It may not have another one then.
    pub(super) fn has_repository(&self, host: &str, repository: &str) -> bool {
        let name = (host.to_owned(), repository.to_owned());
        self.repositories.contains_key(&name)
    }

    /// Returns the next contender of a turn: the most urgent one; among equals, the one whose owner and host hold the fewest
    /// places and used the least of the lane's time recently; among those, one that is due, then one that is known to
    /// fit, one that had to leave the fewest times, one whose repository used the least, and one whose host has gone
    /// longest without a place, according to `served`. Candidates that must be alone come last: the others are likely
    /// not the cause of any death. In the lane of these, those that had to leave the fewest times come before anything
    /// else, or what never answers would come before what must be alone time after time.
    pub(super) fn next<'c>(
        &self,
        contenders: &'c [Contender],
        turn: LaneTurn,
        served: impl Fn(&str) -> Option<usize>,
    ) -> Option<&'c Contender> {
        let may = |next: &&Contender| !self.has_repository(&next.host, &next.remote);
        contenders.iter().filter(may).min_by_key(|next| {
            let name = (next.host.clone(), next.owner.clone());
            let of_owner = self.owners.get(&name).copied().unwrap_or_default();
            let of_host = self.of_host(&next.host);
            let left_apart = match self.lane {
                Lane::Alone => next.outpaced,
                _ => 0,
            };
            (
                left_apart,
                is_deadly(next.deaths),
                turn.is_by_priority.then_some(next.priority),
                of_owner,
                of_host,
                next.used.of_owner(),
                !next.is_due,
                turn.is_by_size && !next.is_sized,
                next.outpaced,
                next.used,
                served(&next.host),
            )
        })
    }

    /// Returns whether there is a place for a contender now.
    pub(super) fn has_place_for(&self, next: &Contender) -> bool {
        let is_crowded = is_deadly(next.deaths) && self.taken > 0;
        self.free > 0 && !self.is_closed && !is_crowded
    }

    /// Gives a contender a place.
    pub(super) fn take(&mut self, next: &Contender) {
        self.free = self.free.saturating_sub(1);
        self.taken += 1;
        self.is_closed |= is_deadly(next.deaths);
        self.count(&next.host, &next.owner, &next.remote);
    }

    /// Returns whether the holders of places should make room for a contender: none does for one that is less urgent
    /// than all of them.
    pub(super) fn is_wanted_by(&self, next: &Contender) -> bool {
        let mut held = self.held.iter();
        held.any(|item| next.priority <= item.priority)
    }

    /// Returns the contenders that may hurry the holders of places, provided that they used less of the lane's time. A
    /// host that is not configured never hurries one that is.
    pub(super) fn hurrying<'c>(
        &self,
        contenders: &'c [Contender],
        knows: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = &'c Contender> {
        let is_of_known = self.held.iter().all(|item| knows(&item.host));
        contenders.iter().filter(move |next| {
            self.is_wanted_by(next)
                && !self.has_repository(&next.host, &next.remote)
                && (!is_of_known || knows(&next.host))
        })
    }
}

#[cfg(test)]
mod tests {
    use Priority::{Backfill, Webhook};

    use jiff::Timestamp;

    use super::super::pauses::tests::item;
    use super::*;
    use crate::fetch::Ledger;
    use crate::store::Part;

    fn contender(host: &str, owner: &str, repository: &str, priority: Priority) -> Contender {
        Contender {
            id: Uuid::now_v7(),
            priority,
            host: host.to_owned(),
            remote: item(host, repository).remote(),
            owner: owner.to_owned(),
            deaths: 0,
            outpaced: 0,
            payer: Payer::new(host, host, owner, repository),
            used: Used::default(),
            is_sized: false,
            is_due: false,
        }
    }

    fn held(lane: Lane, host: &str, repository: &str, deaths: u32) -> WorkItem {
        WorkItem {
            id: Uuid::now_v7(),
            range: item(host, repository),
            lane,
            deaths,
            lineage: None,
            part: Part::default(),
            created_at: Timestamp::UNIX_EPOCH,
            tries: 1,
            denials: 0,
        }
    }

    /// Has the first contender use some of the lane's time.
    fn charge_first(contenders: &mut [Contender]) {
        let ledger = Ledger::default();
        ledger.charge(&contenders[0].payer, 3.0);
        let now = std::time::Instant::now();
        for next in contenders {
            next.used = ledger.used(&next.payer, now);
        }
    }

    /// Returns the identifiers of the repositories of the items that get places, in order.
    fn taken<'c>(mut lane: Scarce<'_>, contenders: &'c [Contender]) -> Vec<&'c str> {
        let mut taken = Vec::new();
        while let Some(next) = lane.next(contenders, LaneTurn::after(0), |_| None)
            && lane.has_place_for(next)
        {
            lane.take(next);
            taken.extend(next.remote.rsplit(' ').next());
        }
        taken
    }

    #[test]
    fn no_owner_and_no_host_has_all_places_while_others_want_one() {
        let contenders = [
            contender("a", "mallory", "1", Webhook),
            contender("a", "mallory", "1", Webhook),
            contender("a", "mallory", "2", Webhook),
            contender("a", "alice", "3", Webhook),
            contender("b", "bob", "4", Webhook),
            contender("c", "carol", "5", Backfill),
        ];
        let lane = |places| Scarce::new(Lane::Medium, places, &[]);
        assert_eq!(taken(lane(2), &contenders), ["1", "4"]);
        assert_eq!(taken(lane(3), &contenders), ["1", "4", "3"]);
        assert_eq!(taken(lane(9), &contenders), ["1", "4", "3", "2", "5"]);
        // A single owner gets all there is, but never two places for one repository.
        assert_eq!(taken(lane(2), &contenders[..3]), ["1", "2"]);
        let held = held(Lane::Medium, "b", "4", 0);
        let one = Scarce::new(Lane::Medium, 2, &[&held]);
        assert_eq!(taken(one, &contenders[4..]), ["5"]);
    }

    #[test]
    fn whoever_has_a_place_makes_room_for_nothing_less_urgent() {
        let held = held(Lane::Large, "a", "1", 0);
        assert_eq!(held.range.priority, Webhook);
        let lane = Scarce::new(Lane::Large, 1, &[&held]);
        assert!(lane.is_wanted_by(&contender("b", "bob", "2", Webhook)));
        assert!(!lane.is_wanted_by(&contender("b", "bob", "2", Backfill)));
        let none = Scarce::new(Lane::Large, 1, &[]);
        assert!(!none.is_wanted_by(&contender("b", "bob", "2", Webhook)));
    }

    #[test]
    fn whoever_had_to_leave_is_behind_those_that_did_not_but_not_for_ever() {
        let of = |host: &str, repository: &str, outpaced| Contender {
            outpaced,
            ..contender(host, repository, repository, Webhook)
        };
        let mut contenders = [of("a", "1", 3), of("b", "2", 0), of("c", "3", 1)];
        let lane = || Scarce::new(Lane::Large, 9, &[]);
        assert_eq!(taken(lane(), &contenders), ["2", "3", "1"]);
        contenders[0].is_due = true;
        assert_eq!(taken(lane(), &contenders), ["1", "2", "3"]);
        let held = held(Lane::Large, "b", "9", 0);
        let one = Scarce::new(Lane::Large, 1, &[&held]);
        // Hosts that are not configured hurry only each other.
        let hurrying = |known: &str| {
            one.hurrying(&contenders, |host| known.contains(host))
                .count()
        };
        assert_eq!(["", "bc", "b", "abc"].map(hurrying), [3, 2, 1, 3]);
    }

    #[test]
    fn whoever_used_less_of_the_time_is_next_however_many_others_have_come() {
        let mut contenders = [
            contender("a", "mallory", "1", Webhook),
            contender("a", "alice", "2", Webhook),
            contender("b", "bob", "3", Webhook),
        ];
        contenders[0].is_due = true;
        contenders[2].outpaced = 9;
        charge_first(&mut contenders);
        let order = taken(Scarce::new(Lane::Large, 9, &[]), &contenders);
        assert_eq!(order, ["3", "2", "1"]);
    }

    #[test]
    fn of_an_owner_what_fits_and_what_is_of_a_quiet_repository_is_next() {
        let mut contenders =
            ["1", "2", "3"].map(|repository| contender("a", "acme", repository, Webhook));
        charge_first(&mut contenders);
        let lane = || Scarce::new(Lane::Medium, 9, &[]);
        assert_eq!(taken(lane(), &contenders), ["2", "3", "1"]);
        contenders[2].is_sized = true;
        assert_eq!(taken(lane(), &contenders), ["3", "2", "1"]);
        contenders[0].is_due = true;
        assert_eq!(taken(lane(), &contenders), ["1", "3", "2"]);
    }

    #[test]
    fn whoever_was_served_the_longest_ago_is_next() {
        let contenders = [
            contender("a", "x", "1", Webhook),
            contender("b", "y", "2", Webhook),
        ];
        let lane = Scarce::new(Lane::Large, 1, &[]);
        let served = |host: &str| (host == "a").then_some(0);
        let next = lane.next(&contenders, LaneTurn::after(0), served);
        assert_eq!(next.unwrap().host, "b");
    }

    #[test]
    fn what_is_less_urgent_or_not_known_to_fit_has_turns_too() {
        let mut contenders = [
            contender("a", "acme", "1", Webhook),
            contender("a", "acme", "2", Webhook),
            contender("b", "bob", "3", Backfill),
        ];
        contenders[0].is_sized = true;
        contenders[0].outpaced = 1;
        charge_first(&mut contenders);
        let lane = Scarce::new(Lane::Medium, 1, &[]);
        let order = (0..6).map(|turns| {
            let next = lane.next(&contenders, LaneTurn::after(turns), |_| None);
            next.unwrap().remote.rsplit(' ').next().unwrap().to_owned()
        });
        assert_eq!(order.collect::<Vec<_>>(), ["1", "2", "3", "2", "1", "3"]);
    }

    #[test]
    fn of_what_workers_died_of_few_are_together_and_the_likely_reason_is_alone() {
        let of = |repository: &str, deaths| Contender {
            deaths,
            ..contender("a", repository, repository, Webhook)
        };
        let mut contenders = [of("2", 2), of("1", 1)].to_vec();
        contenders.extend(["3", "4", "5", "6"].map(|repository| of(repository, 1)));
        let alone = |held: &[&WorkItem]| -> Vec<String> {
            let lane = Scarce::new(Lane::Alone, 4, held);
            let taken = taken(lane, &contenders);
            taken.into_iter().map(str::to_owned).collect()
        };
        // Even if more urgent: the others are likely innocent.
        assert_eq!(alone(&[]), ["1", "3", "4", "5"]);
        let beside = held(Lane::Alone, "b", "9", 1);
        assert_eq!(alone(&[&beside, &beside]), ["1", "3"]);
        let deadly = held(Lane::Alone, "b", "9", 2);
        assert_eq!(alone(&[&deadly]), [""; 0]);
        // What had to leave comes after what did not, so that what is silent does not keep it waiting.
        let mut left = contenders.clone();
        for next in &mut left[1..] {
            next.outpaced = 1;
        }
        assert_eq!(taken(Scarce::new(Lane::Alone, 4, &[]), &left), ["2"]);
        // It waits until it is alone, and then nothing joins it.
        let deadly = [of("2", 2), of("7", 2)];
        let taken_of = |held: &[&WorkItem]| taken(Scarce::new(Lane::Alone, 4, held), &deadly).len();
        assert_eq!((taken_of(&[&beside]), taken_of(&[])), (0, 1));
    }
}
