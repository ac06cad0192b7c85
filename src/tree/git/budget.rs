//! Budget for what a comparison reads or compares again.

/// Size of that for a start, in bytes.
const REREAD_MAX: i64 = 256 << 20;

/// Factor by which the size of an object that is read for the first time is added. An honest folder is compared with one or two that
/// are as large, which counts four times.
const REREAD_OF_EACH: i64 = 8;

/// Bytes that may still be read or compared again. They grow with what is read for the first time, so that no history is
/// too long, and no few objects are read without end. How much something takes is known once it was read, so that there
/// may be a debt: it has to be earned before anything else is read again.
#[derive(Debug)]
pub(super) struct Budget(i64);

impl Budget {
    pub(super) fn new() -> Self {
        Self(REREAD_MAX)
    }

    /// Adds what as many bytes earn that are read for the first time.
    pub(super) fn earn(&mut self, bytes: u64) {
        self.0 = self
            .0
            .saturating_add(signed(bytes).saturating_mul(REREAD_OF_EACH));
    }

    pub(super) fn spend(&mut self, bytes: u64) {
        self.0 = self.0.saturating_sub(signed(bytes));
    }

    /// Returns whether nothing is to be read again any more.
    pub(super) fn is_spent(&self) -> bool {
        self.0 <= 0
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_may_be_compared_several_times_and_what_is_not_has_an_end() {
        let mut budget = Budget::new();
        let (start, of_each) = (REREAD_MAX.unsigned_abs(), REREAD_OF_EACH.unsigned_abs());
        for _ in 0..1_000 {
            budget.earn(1 << 20);
            budget.spend(of_each << 20);
            assert!(!budget.is_spent());
        }
        budget.spend(start - 1);
        assert!(!budget.is_spent());
        // One thing may take more than is left, and then nothing does until that is earned.
        budget.spend(1 + 10 * of_each);
        budget.earn(10);
        assert!(budget.is_spent());
        budget.earn(1);
        assert!(!budget.is_spent());
    }
}
