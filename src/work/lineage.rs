//! Descendants of a work item: the parts of a range that was too large, and the references of a list.
//!
//! The server decides how much there is to read, and in how many commits. To keep it from creating work without end,
//! all descendants of an item share one budget: each half of a range gets half of it.

use crate::fetch::Visited;
use crate::forge::NO_COMMIT;
use crate::store::{Descendant, Lineage, NewWorkItem, Part, Priority, WorkItem};

/// Maximum number of direct and indirect descendants of one range: seven generations of halves.
const PARTS_MAX: u32 = 254;

/// Maximum number of generations from a range to its smallest parts.
const GENERATIONS_MAX: u32 = 12;

/// Maximum number of bytes received for a range and all its parts, in multiples of the largest fetch.
const FETCHES_MAX: u64 = 16;

/// Returns the two halves of a range that was too large to be read whole, to be read when nothing else waits. Returns
/// none if the range has no middle or its origin has used up its budget; the range stays truncated then.
///
/// The second half lacks what the first one has, and also what came before both: a branch that was merged leads around
/// either.
pub(super) fn halves(
    item: &WorkItem,
    visited: &Visited,
    received: u64,
    max_fetch_bytes: u64,
) -> Vec<Descendant> {
    let Some(middle) = middle(item, visited) else {
        return Vec::new();
    };
    let range = &item.range;
    let lineage = budget(item, visited, max_fetch_bytes);
    let bytes_left = lineage.bytes_left.saturating_sub(received);
    let parts_left = lineage.parts_left.checked_sub(2);
    let (Some(parts_left), 1..) = (parts_left, bytes_left) else {
        return Vec::new();
    };
    let before = if visited.is_new {
        NO_COMMIT.to_owned()
    } else {
        range.before.clone()
    };
    let mut haves = item.part.haves.clone();
    haves.push(before.clone());
    let half = |before: String, after: &String, haves: Vec<String>| Descendant {
        parent: item.id,
        range: NewWorkItem {
            before,
            after: after.clone(),
            priority: of_half(range.priority),
            ..range.clone()
        },
        part: Some(Part {
            haves,
            ..item.part.clone()
        }),
        lineage: Lineage {
            origin: lineage.origin,
            generation: lineage.generation + 1,
            parts_left: parts_left / 2,
            bytes_left: bytes_left / 2,
        },
    };
    vec![
        half(before, &middle, item.part.haves.clone()),
        half(middle.clone(), &range.after, haves),
    ]
}

/// Returns whether a range that was too large, and of which no halves follow, would have some with a further budget.
pub(super) fn is_unread(item: &WorkItem, visited: &Visited) -> bool {
    middle(item, visited).is_some()
}

/// Returns the commit at which a range that was too large can be halved.
fn middle(item: &WorkItem, visited: &Visited) -> Option<String> {
    let generation = item.lineage.map_or(0, |lineage| lineage.generation);
    let middle = visited.middle?.to_string();
    let is_between = middle != item.range.before && middle != item.range.after;
    (is_between && generation < GENERATIONS_MAX).then_some(middle)
}

/// Returns the priority of a half. What was told of a push goes before a public feed, of which there may always be more
/// than is read.
fn of_half(whole: Priority) -> Priority {
    if whole <= Priority::Watched {
        Priority::Watched
    } else {
        Priority::Backfill
    }
}

/// Returns the commits that a push dropped, to be read by themselves: whether its server still has them says nothing of
/// what it brought. A part of a range leads back to where the range begins, if not to the part before it.
pub(super) fn dropped(
    item: &WorkItem,
    visited: &Visited,
    max_fetch_bytes: u64,
) -> Option<Descendant> {
    if !visited.dropped || item.lineage.is_some() {
        return None;
    }
    let range = &item.range;
    let of_both = budget(item, visited, max_fetch_bytes);
    Some(Descendant {
        parent: item.id,
        range: NewWorkItem {
            before: range.after.clone(),
            after: range.before.clone(),
            ..range.clone()
        },
        part: Some(Part {
            is_dropped: true,
            ..Part::default()
        }),
        lineage: Lineage {
            generation: 1,
            ..of_both
        },
    })
}

/// Returns the budget of what comes of a range: half of the usual one each for what a forced push brought and for what
/// it dropped. What is read again because it used up its budget has one of its own, which is no larger.
fn budget(item: &WorkItem, visited: &Visited, max_fetch_bytes: u64) -> Lineage {
    let (parts, fetches) = if visited.dropped {
        (PARTS_MAX / 2 - 1, FETCHES_MAX / 2)
    } else {
        (PARTS_MAX, FETCHES_MAX)
    };
    let Some(lineage) = item.lineage else {
        return Lineage {
            origin: item.id,
            generation: 0,
            parts_left: parts,
            bytes_left: max_fetch_bytes.saturating_mul(fetches),
        };
    };
    let bytes_max = max_fetch_bytes.saturating_mul(FETCHES_MAX);
    Lineage {
        parts_left: lineage.parts_left.min(PARTS_MAX),
        bytes_left: lineage.bytes_left.min(bytes_max),
        ..lineage
    }
}

/// Returns the budget of a reference that was listed: that of a push. The push that a source names later on is the same
/// item, unless all references of a repository were announced.
pub(super) fn of_reference(item: &WorkItem, max_fetch_bytes: u64) -> Lineage {
    Lineage {
        // What is left of a list belongs to the list that a source named.
        origin: item.lineage.map_or(item.id, |lineage| lineage.origin),
        generation: 1,
        parts_left: PARTS_MAX,
        bytes_left: max_fetch_bytes.saturating_mul(FETCHES_MAX),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::fetch::ObjectId;
    use crate::store::{Lane, WorkKind};

    const MAX: u64 = 256 << 20;

    fn item(range: NewWorkItem, lineage: Option<Lineage>) -> WorkItem {
        WorkItem {
            id: Uuid::now_v7(),
            range,
            lane: Lane::Ordinary,
            deaths: 0,
            lineage,
            part: Part::default(),
            created_at: Timestamp::UNIX_EPOCH,
            tries: 1,
            denials: 0,
        }
    }

    fn range() -> NewWorkItem {
        NewWorkItem {
            kind: WorkKind::Range,
            host: "git.example".to_owned(),
            repository_id: "7".to_owned(),
            repository: "acme/shop".to_owned(),
            clone_url: None,
            ref_name: "refs/heads/main".to_owned(),
            before: "0".repeat(40),
            after: "f".repeat(40),
            source: "feed".to_owned(),
            priority: Priority::Webhook,
            event_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn commit(n: u64) -> ObjectId {
        ObjectId::from_hex(format!("{n:040x}").as_bytes()).unwrap()
    }

    fn cut_at(middle: ObjectId) -> Visited {
        Visited {
            middle: Some(middle),
            ..Visited::default()
        }
    }

    /// Returns the number of descendants of an item whose parts are all too large, and the number of bytes received.
    fn all_of(first: WorkItem, received: u64) -> (u64, u64) {
        let (mut open, mut count, mut bytes) = (VecDeque::from([first]), 0, 0);
        while let Some(item) = open.pop_front() {
            let most = item
                .lineage
                .map_or(MAX, |lineage| lineage.bytes_left.min(MAX));
            let got = received.min(most);
            bytes += got;
            let halves = halves(&item, &cut_at(commit(count + 1)), got, MAX);
            count += halves.len() as u64;
            let items = halves
                .into_iter()
                .map(|half| super::tests::item(half.range, Some(half.lineage)));
            open.extend(items);
        }
        (count, bytes)
    }

    #[test]
    fn whatever_a_server_makes_up_has_an_end() {
        assert_eq!(all_of(item(range(), None), 1).0, u64::from(PARTS_MAX));
        let (count, bytes) = all_of(item(range(), None), u64::MAX);
        assert!(
            count <= u64::from(PARTS_MAX) && bytes <= FETCHES_MAX * MAX,
            "{count} {bytes}"
        );
        assert!(count >= 14, "what is honest is read in parts: {count}");
        let listed = of_reference(&item(range(), None), MAX);
        let (count, bytes) = all_of(item(range(), Some(listed)), u64::MAX);
        assert!(count <= u64::from(PARTS_MAX) && bytes <= FETCHES_MAX * MAX);
    }

    #[test]
    fn a_middle_at_an_end_is_no_middle() {
        let item = item(range(), None);
        for end in [&item.range.before, &item.range.after] {
            let end = ObjectId::from_hex(end.as_bytes()).unwrap();
            assert_eq!(halves(&item, &cut_at(end), 1, MAX), []);
        }
        let [first, second] = &halves(&item, &cut_at(commit(1)), 1, MAX)[..] else {
            panic!("no halves");
        };
        assert_eq!(first.range.after, second.range.before);
        assert!(first.part.is_some() && second.part.is_some());
    }

    /// A branch that was merged leads around the middle, and around the commit before.
    #[test]
    fn a_part_never_holds_what_comes_before_another() {
        let range = NewWorkItem {
            before: "b".repeat(40),
            ..range()
        };
        let whole = item(range, None);
        let part = |of: &Descendant| WorkItem {
            part: of.part.clone().unwrap(),
            ..item(of.range.clone(), Some(of.lineage))
        };
        let ends = |of: &Descendant| {
            let haves = of.part.as_ref().unwrap().haves.clone();
            (of.range.before.clone(), of.range.after.clone(), haves)
        };
        let [m, n] = [commit(1), commit(2)].map(|id| id.to_string());
        let (before, after) = (whole.range.before.clone(), whole.range.after.clone());
        let [first, second] = &halves(&whole, &cut_at(commit(1)), 1, MAX)[..] else {
            panic!("no halves");
        };
        assert_eq!(ends(first), (before.clone(), m.clone(), vec![]));
        assert_eq!(
            ends(second),
            (m.clone(), after.clone(), vec![before.clone()])
        );
        let [third, fourth] = &halves(&part(second), &cut_at(commit(2)), 1, MAX)[..] else {
            panic!("no halves");
        };
        assert_eq!(ends(third), (m.clone(), n.clone(), vec![before.clone()]));
        assert_eq!(ends(fourth), (n, after, vec![before, m]));
    }

    #[test]
    fn what_a_push_brought_and_dropped_share_its_budget() {
        let whole = item(range(), None);
        let visited = Visited {
            dropped: true,
            ..cut_at(commit(1))
        };
        let dropped = dropped(&whole, &visited, MAX).unwrap();
        assert!(dropped.part.unwrap().is_dropped);
        assert_eq!(dropped.range.before, whole.range.after);
        let [first, second] = &halves(&whole, &visited, 1, MAX)[..] else {
            panic!("no halves");
        };
        let parts = [first, second].map(|half| half.lineage.parts_left + 1);
        let parts = parts.iter().sum::<u32>() + dropped.lineage.parts_left + 1;
        assert!(parts <= PARTS_MAX, "{parts}");
        let of_part = item(range(), Some(dropped.lineage));
        assert_eq!(super::dropped(&of_part, &visited, MAX), None);
    }
}
