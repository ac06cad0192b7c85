//! Order in which transactions lock rows.

/// Classes of rows that a transaction locks, in the order that every transaction has to follow: two that lock the same
/// rows in different orders wait for each other until the database aborts one of them.
///
/// A transaction may skip classes, but never goes back. Within a class, rows are locked in the order of their identity,
/// whatever the order in which they arrived; keys are locked by one call per transaction, since two calls would be two
/// orders. The head of the log is needed by everyone, so it comes last and is held for the shortest time. Debug builds
/// check this: see [`Locked`].
///
/// Foreign keys take locks as well, but these only conflict with a change of a row's identity, which never happens
/// here; for the same reason keys are locked `FOR NO KEY UPDATE`. Rows of `projects` are only ever added, before a key
/// or an access token that refers to them.
///
/// The remaining conflicts can still make the database abort a transaction: a worker that ends an item and adds others
/// meets one that adds the same and raises that item; the text of a statement does not always determine the order in
/// which its rows are visited. Therefore, every transaction is run in [`retried`](super::super::retried): a test reads
/// the sources for it. Debug builds check that a transaction says what it locks before it changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) enum Locks {
    /// `webhook_deliveries`, by source and identifier of the delivery.
    Deliveries,
    /// `work_items`: a worker's own by `id`, new ones by their range, and those that are raised or reopened by `id`.
    WorkItems,
    /// `sources` and `source_work`, by name.
    Sources,
    /// `scanned_blobs`, by object id.
    Blobs,
    /// `sender_key`, or `senders` by digest.
    Senders,
    /// `idempotent_requests`: one of a transaction.
    Requests,
    /// The own row of `hunters`, or those that are gone.
    Hunters,
    /// `tokens`, by `id`.
    Tokens,
    /// `keys`: existing ones by `id`; new ones, and those whose digest is rewritten, by digest and project.
    Keys,
    /// `incidents` by key, then `occurrences` of keys that are locked, and `uses_after_exposure`.
    Incidents,
    /// `log_head`, and entries that are appended.
    LogHead,
}

/// Tables that a transaction has locked so far.
#[derive(Debug, Default)]
pub(super) struct Locked(Option<Locks>);

impl Locked {
    /// Records what is locked next.
    ///
    /// # Panics
    /// Panics in debug builds if something that comes later in the order is locked already.
    pub(super) fn next(&mut self, next: Locks) {
        debug_assert!(
            self.0 <= Some(next),
            "{next:?} are locked after {:?}: two such transactions can wait for each other for ever",
            self.0
        );
        self.0 = Some(next);
    }

    /// Like [`next`](Self::next), for rows that have to be locked by a single call.
    pub(super) fn once(&mut self, next: Locks) {
        debug_assert!(
            self.0 < Some(next),
            "{next:?} are locked by a second call: collect them, and lock them in one order"
        );
        self.next(next);
    }

    /// Records that what is changed next are rows that are only ever added, for which the order does not matter.
    pub(super) fn only_adds(&mut self) {
        self.0.get_or_insert(Locks::Deliveries);
    }

    /// Checks that it was recorded what is locked, before a change.
    ///
    /// # Panics
    /// Panics in debug builds if nothing was recorded.
    pub(super) fn may_change(&self) {
        debug_assert!(
            self.0.is_some(),
            "a transaction changes rows without having said which it locks"
        );
    }
}
