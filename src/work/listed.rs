//! References that become work items, and what is left of their list.

use crate::fetch::ObjectId;
use crate::forge::NO_COMMIT;
use crate::store::{Descendant, Lineage, NewWorkItem, Part, Priority, WorkItem, WorkKind};

/// References of a list that become ranges, with no more of each than it has of its own.
pub(super) struct Listed {
    /// Names, in redacted text, and targets.
    pub(super) references: Vec<(String, ObjectId)>,
    pub(super) priority: Priority,
    pub(super) lineage: Lineage,
    /// Rest of the list, if there is one.
    pub(super) rest: Option<ListRest>,
}

/// Rest of a list.
pub(super) struct ListRest {
    /// Digest of the name of the last reference that was added. The others follow in the order of these.
    pub(super) after: String,
    pub(super) lineage: Lineage,
}

impl Listed {
    /// Returns the number of items that it adds.
    pub(super) fn len(&self) -> usize {
        self.references.len() + usize::from(self.rest.is_some())
    }

    /// Returns the items that it adds.
    pub(super) fn descendants<'d>(
        &'d self,
        list: &'d WorkItem,
    ) -> impl Iterator<Item = Descendant> + 'd {
        let range = &list.range;
        // A repository that became public is read whole. Its branches may have been announced before, and then only
        // that was read which another branch did not have, one of which nobody tells.
        let is_whole = range.ref_name.is_empty();
        let references = self.references.iter().map(move |(name, id)| Descendant {
            parent: list.id,
            range: NewWorkItem {
                kind: WorkKind::Range,
                ref_name: name.clone(),
                before: NO_COMMIT.to_owned(),
                after: id.to_string(),
                priority: self.priority,
                ..range.clone()
            },
            part: is_whole.then(Part::default),
            lineage: self.lineage,
        });
        let rest = self.rest.iter().map(|rest| Descendant {
            parent: list.id,
            range: NewWorkItem {
                before: rest.after.clone(),
                priority: Priority::Backfill,
                ..range.clone()
            },
            // Another announcement of the same list has a rest of its own.
            part: Some(Part::default()),
            lineage: rest.lineage,
        });
        references.chain(rest)
    }
}
