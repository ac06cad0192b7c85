//! Events of a scan, and the channel through which its threads report them.

use std::path::PathBuf;
use std::sync::mpsc::SyncSender;

use crate::scan::{Counters, Disobeyed, Finding, LostObject, Unread};

/// Event of a scan.
#[derive(Debug)]
pub enum Event {
    /// A candidate was found.
    Found(Finding),
    /// Something could not be scanned, or not completely.
    Unread(Unread),
    /// An ignore file is not obeyed, so that more files are scanned.
    Disobeyed(Disobeyed),
}

/// Destination of the findings of a scan's threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outlet<'a> {
    pub(crate) counters: &'a Counters,
    pub(crate) events: &'a SyncSender<Event>,
}

/// The receiver of the events was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

impl Outlet<'_> {
    pub(crate) fn found(&self, finding: Finding) -> Result<(), Closed> {
        self.events.send(Event::Found(finding)).map_err(|_| Closed)
    }

    pub(crate) fn unread(
        &self,
        path: impl Into<PathBuf>,
        reason: impl Into<String>,
    ) -> Result<(), Closed> {
        self.tell(Unread {
            path: Some(path.into()),
            object: None,
            reason: reason.into(),
        })
    }

    /// Reports an ignore file that is not obeyed.
    pub(crate) fn disobeyed(
        &self,
        path: impl Into<PathBuf>,
        reason: impl Into<String>,
    ) -> Result<(), Closed> {
        let disobeyed = Disobeyed {
            path: path.into(),
            reason: reason.into(),
        };
        let sent = self.events.send(Event::Disobeyed(disobeyed));
        sent.map_err(|_| Closed)
    }

    /// Reports an object of a repository that could not be read, and that some commit has at `path`.
    pub(crate) fn lost(
        &self,
        object: LostObject,
        path: Option<PathBuf>,
        reason: impl Into<String>,
    ) -> Result<(), Closed> {
        self.tell(Unread {
            path,
            object: Some(object),
            reason: reason.into(),
        })
    }

    fn tell(&self, unread: Unread) -> Result<(), Closed> {
        Counters::count(&self.counters.unread);
        self.events.send(Event::Unread(unread)).map_err(|_| Closed)
    }
}
