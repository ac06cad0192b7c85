//! The order in which transactions lock rows.

use super::Tx;

/// What a transaction locks, in the order in which every transaction has to: two that lock the same rows in
/// different orders wait for each other until the database undoes one of them.
///
/// A transaction may leave classes out, but never goes back. Within a class rows are locked in the order of
/// their identity, whatever the order in which they came; keys are locked by one call per transaction, since
/// two calls would be two orders. The head of the log is what everybody needs, so it comes last and is held
/// for the shortest time. Debug builds check this: see [`Tx::locks`].
///
/// Foreign keys lock, too, but only against the change of a row's identity, which never happens here, and
/// for the same reason keys are locked `FOR NO KEY UPDATE`. Rows of `projects` are only ever added, before a
/// key or an access token of theirs.
///
/// What is left can be undone by the database all the same: a worker that ends an item and adds others meets
/// one that adds the same and raises that item; the text of a statement does not always decide the order in
/// which its rows are visited. Therefore whoever begins a transaction runs it in
/// [`retried`](super::retried).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Locks {
    /// `webhook_deliveries`, by source and name of the delivery.
    Deliveries,
    /// `work_items`: a worker's own by `id`; new ones by their range; those that are raised by `id`.
    WorkItems,
    /// `sources` and `source_work`, by name.
    Sources,
    /// `scanned_blobs`, by object id.
    Blobs,
    /// `sender_key`, or `senders` by digest.
    Senders,
    /// `tokens`, by `id`.
    Tokens,
    /// `keys`: existing ones by `id`; new ones, and those whose digest is rewritten, by digest and project.
    Keys,
    /// `incidents`, by key, then `occurrences` of keys that are locked, and `uses_after_exposure`.
    Incidents,
    /// `log_head`, and what is appended.
    LogHead,
}

impl Tx {
    /// Notes what is locked next.
    ///
    /// # Panics
    /// In debug builds, when something that comes later in the order is locked already.
    pub(super) fn locks(&mut self, next: Locks) {
        debug_assert!(
            self.locked <= Some(next),
            "{next:?} are locked after {:?}: two such transactions can wait for each other for ever",
            self.locked
        );
        self.locked = Some(next);
    }

    /// As [`Tx::locks`], for what is to be locked by one call.
    pub(super) fn locks_once(&mut self, next: Locks) {
        debug_assert!(
            self.locked < Some(next),
            "{next:?} are locked by a second call: collect them, and lock them in one order"
        );
        self.locks(next);
    }
}
