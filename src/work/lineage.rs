//! Descendants of a work item: the parts of a range that was too large, and the references of a list.
//!
//! The server decides how much there is to read, and in how many commits. To keep it from creating work without end,
//! all descendants of an item share one budget: each half of a range gets half of it.

use crate::fetch::ObjectId;
use crate::store::{Descendant, Lineage, NewWorkItem, Priority, WorkItem};

/// Maximum number of direct and indirect descendants of one range: seven generations of halves.
const PARTS_MAX: u32 = 254;

/// Like [`PARTS_MAX`], for a range that was listed rather than pushed: two generations.
const LISTED_PARTS_MAX: u32 = 6;

/// Maximum number of generations from a range to its smallest parts.
const GENERATIONS_MAX: u32 = 12;

/// Maximum number of bytes received for a range and all its parts, in multiples of the largest fetch.
const FETCHES_MAX: u64 = 16;

/// Like [`FETCHES_MAX`], for a range that was listed.
const LISTED_FETCHES_MAX: u64 = 4;

/// Returns the two halves of a range that was too large to be read whole, to be read when nothing else waits. Returns
/// none if the range has no middle or its origin has used up its budget; the range stays truncated then.
pub(super) fn halves(
    item: &WorkItem,
    middle: Option<ObjectId>,
    received: u64,
    max_fetch_bytes: u64,
) -> Vec<Descendant> {
    let Some(middle) = middle.map(|id| id.to_string()) else {
        return Vec::new();
    };
    let range = &item.range;
    let lineage = item.lineage.unwrap_or(Lineage {
        origin: item.id,
        generation: 0,
        parts_left: PARTS_MAX,
        bytes_left: max_fetch_bytes.saturating_mul(FETCHES_MAX),
    });
    let is_between = middle != range.before && middle != range.after;
    let bytes_left = lineage.bytes_left.saturating_sub(received);
    let parts_left = lineage.parts_left.checked_sub(2);
    let (Some(parts_left), 1.., true) = (parts_left, bytes_left, is_between) else {
        return Vec::new();
    };
    if lineage.generation >= GENERATIONS_MAX {
        return Vec::new();
    }
    let half = |before: &String, after: &String| Descendant {
        range: NewWorkItem {
            before: before.clone(),
            after: after.clone(),
            priority: Priority::Backfill,
            ..range.clone()
        },
        is_part: true,
        lineage: Lineage {
            origin: lineage.origin,
            generation: lineage.generation + 1,
            parts_left: parts_left / 2,
            bytes_left: bytes_left / 2,
        },
    };
    vec![half(&range.before, &middle), half(&middle, &range.after)]
}

/// Returns the budget of a reference that was listed.
pub(super) fn of_reference(item: &WorkItem, max_fetch_bytes: u64) -> Lineage {
    Lineage {
        // What is left of a list belongs to the list that a source named.
        origin: item.lineage.map_or(item.id, |lineage| lineage.origin),
        generation: 1,
        parts_left: LISTED_PARTS_MAX,
        bytes_left: max_fetch_bytes.saturating_mul(LISTED_FETCHES_MAX),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::store::{Lane, WorkKind};

    const MAX: u64 = 256 << 20;

    fn item(range: NewWorkItem, lineage: Option<Lineage>) -> WorkItem {
        WorkItem {
            id: Uuid::now_v7(),
            range,
            lane: Lane::Ordinary,
            deaths: 0,
            lineage,
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

    /// Returns the number of descendants of an item whose parts are all too large, and the number of bytes received.
    fn all_of(first: WorkItem, received: u64) -> (u64, u64) {
        let (mut open, mut count, mut bytes) = (VecDeque::from([first]), 0, 0);
        while let Some(item) = open.pop_front() {
            let most = item
                .lineage
                .map_or(MAX, |lineage| lineage.bytes_left.min(MAX));
            let got = received.min(most);
            bytes += got;
            let halves = halves(&item, Some(commit(count + 1)), got, MAX);
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
        assert!(count <= u64::from(LISTED_PARTS_MAX) && bytes <= LISTED_FETCHES_MAX * MAX);
    }

    #[test]
    fn a_middle_at_an_end_is_no_middle() {
        let item = item(range(), None);
        for end in [&item.range.before, &item.range.after] {
            let end = ObjectId::from_hex(end.as_bytes()).unwrap();
            assert_eq!(halves(&item, Some(end), 1, MAX), []);
        }
        let [first, second] = &halves(&item, Some(commit(1)), 1, MAX)[..] else {
            panic!("no halves");
        };
        assert_eq!(first.range.after, second.range.before);
        assert!(first.is_part && second.is_part);
    }
}
