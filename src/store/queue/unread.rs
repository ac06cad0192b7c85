//! Contents of a branch that were not read, and are read again when something rests on it.
//!
//! A push is read without what its branch had before, and a new branch without what that of `HEAD` has. What failed
//! there for good, was gone, or was cut by a budget, would be read by nobody then. So whoever rests on a branch puts
//! some of that back into the queue, those first that ended longest ago: each push is as good a moment as any for
//! another try, and what fails again takes its time for that. What workers died of stays where it is: it is for
//! somebody to look at.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::super::db::order::Locks;
use super::super::db::retry::retried;
use super::super::db::sql::{Arg, ROWS_MAX, args, one, runs, statements};
use super::super::{Read, Store, StoreError, Tx};
use super::again::DEATHS_MAX;
use super::item::{NewWorkItem, Priority, WorkKind};
use super::rests::Branch;

/// Maximum number of items of a branch that one push puts back into the queue.
const REOPENED_MAX: usize = 4;

/// Condition by which the databases know the index of these items, and what of them can be read again. A server need not
/// have what a forced push dropped.
macro_rules! unread {
    () => {
        "(item.state = 'dead' OR item.gone OR item.unread) AND item.state <> 'waiting'
            AND NOT (item.gone AND item.dropped)"
    };
}

statements! {
    WITH_UNREAD = concat!(
        "SELECT named.column1 AS host, named.column2 AS remote, named.column3 AS ref_name
        FROM (VALUES {rows:3}) AS named WHERE EXISTS (SELECT 1 FROM work_items AS item
            WHERE item.host = named.column1 AND item.remote = named.column2 AND item.ref_name = named.column3
                AND ", unread!(), ")"
    );
    /// The number of deaths may be its complement: see `row`.
    UNREAD = concat!(
        "SELECT item.id FROM work_items AS item
        WHERE item.host = $1 AND item.remote = $2 AND item.ref_name = $3 AND item.deaths BETWEEN $4 AND $5
            AND ", unread!(), "
        ORDER BY item.finished_at LIMIT $6"
    );
}

impl Branch {
    /// Returns the items of it that are to be read again.
    async fn unread(&self, read: &mut impl Read) -> Result<Vec<Uuid>, StoreError> {
        let Self { host, remote, name } = self;
        let deaths = i64::from(DEATHS_MAX);
        let (excused, limit) = (-deaths, REOPENED_MAX as u64);
        let args = args![host, remote, name, excused, deaths - 1, limit];
        let unread = read.fetch(UNREAD, args, one::uuid).await?;
        if !unread.is_empty() {
            let items = unread.len();
            tracing::info!(
                host,
                branch = name,
                items,
                "what was not read of a branch is read again: something rests on it"
            );
        }
        Ok(unread)
    }
}

impl Tx {
    /// Returns what was not read before these pushes, which are read without it, with the priorities of the pushes.
    pub(in crate::store) async fn unread_before(
        &mut self,
        pushes: impl Iterator<Item = &NewWorkItem>,
    ) -> Result<Vec<(Uuid, Priority)>, StoreError> {
        let mut branches: BTreeMap<Branch, Priority> = BTreeMap::new();
        // Feeds repeat themselves, and show but a part.
        let pushes = pushes
            .filter(|push| push.kind == WorkKind::Range && push.priority < Priority::Firehose);
        for push in pushes {
            let priority = branches
                .entry(Branch::pushed(push))
                .or_insert(push.priority);
            *priority = push.priority.min(*priority);
        }
        let names: Vec<&Branch> = branches.keys().collect();
        let mut with_unread = BTreeSet::new();
        for run in runs(names.len(), ROWS_MAX) {
            let rows = &names[run];
            let values = rows
                .iter()
                .flat_map(|branch| args![&branch.host, &branch.remote, &branch.name]);
            let values: Vec<Arg> = values.collect();
            let found = self.fetch(WITH_UNREAD.of(rows.len()), values, Branch::of);
            with_unread.extend(found.await?);
        }
        let mut unread = Vec::new();
        for branch in with_unread {
            let Some(priority) = branches.get(&branch).copied() else {
                continue;
            };
            let items = branch.unread(self).await?;
            unread.extend(items.into_iter().map(|id| (id, priority)));
        }
        Ok(unread)
    }
}

impl Store {
    /// Puts what was not read of the branch `head` back into the queue, since `range`, of the same repository, is read
    /// without it.
    pub(super) async fn reopen_unread(
        &self,
        range: &NewWorkItem,
        head: &str,
    ) -> Result<(), StoreError> {
        if range.priority >= Priority::Firehose {
            return Ok(());
        }
        let branch = Branch {
            name: head.to_owned(),
            ..Branch::pushed(range)
        };
        let mut read = self;
        let unread = branch.unread(&mut read).await?;
        if unread.is_empty() {
            return Ok(());
        }
        retried(|| async {
            let mut tx = self.begin().await?;
            tx.locks(Locks::WorkItems);
            let unread = unread.iter().map(|id| (*id, range.priority));
            tx.raise(unread.collect()).await?;
            tx.commit().await
        })
        .await
    }
}
