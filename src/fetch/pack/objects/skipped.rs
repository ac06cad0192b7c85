//! Counts of the objects that are left out.

use super::super::delta;
use super::{FetchError, Form, Objects, Weight};

/// Objects of a pack that were not walked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::fetch) struct Skipped {
    /// Number of objects over the size limit or that do not fit into memory, and of deltas to them.
    pub(in crate::fetch) too_big: u32,
    /// Number of those that are not over the size limit themselves, and may fit without the others of the pack.
    pub(in crate::fetch) for_others: u32,
    /// Number of deltas whose base is not in the pack.
    pub(in crate::fetch) without_base: u32,
    /// Number of objects beyond the limit on all inflated bytes.
    pub(in crate::fetch) over_budget: u32,
}

impl Skipped {
    /// Returns the counts of a single object that is too large.
    pub(in crate::fetch) fn large() -> Self {
        Self {
            too_big: 1,
            ..Self::default()
        }
    }
}

impl Objects<'_> {
    /// Returns the counts of skipped objects, once everything was walked.
    pub(in crate::fetch) fn skipped(&self) -> Skipped {
        let seen = self.walked + self.skipped.too_big + self.skipped.over_budget;
        let count = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        Skipped {
            without_base: count.saturating_sub(seen),
            ..self.skipped
        }
    }

    /// Counts the entry at `at` and its family as too big.
    pub(super) fn skip(&mut self, at: u32, weight: &mut Weight) -> Result<(), FetchError> {
        let mut family = vec![at];
        while let Some(at) = family.pop() {
            self.skipped.too_big += 1;
            if self.object_size(at, weight)? <= self.allowed.object {
                self.skipped.for_others += 1;
            }
            family.extend(self.children_by_entry(at));
        }
        Ok(())
    }

    /// Returns the size of the object in the entry at `at`, which a delta states at its beginning, in bytes.
    fn object_size(&mut self, at: u32, weight: &mut Weight) -> Result<u64, FetchError> {
        let entry = self.entry(at)?;
        if let Form::Full(_) = entry.form {
            return Ok(entry.size());
        }
        let mut beginning = [0; delta::SIZES];
        weight.work(beginning.len() as u64)?;
        let data = self.bytes.get(entry.data()..).unwrap_or_default();
        let (sizes, _) = delta::sizes(self.inflater.beginning(data, &mut beginning)?)?;
        Ok(sizes.result)
    }
}
