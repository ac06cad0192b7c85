//! Who waits for the places of a worker, as those that have them are told.

use std::sync::Arc;

use crate::fetch::Demand;
use crate::store::Lane;

/// The demand for the places of this worker.
#[derive(Debug, Default)]
pub(super) struct Demands {
    /// For ordinary places, of hosts that the configuration names.
    known: Arc<Demand>,
    /// The same of all other hosts, which have but a few of them.
    strangers: Arc<Demand>,
    alone: Arc<Demand>,
    /// For places in which time is accounted for instead.
    none: Arc<Demand>,
}

impl Demands {
    /// Returns who waits for a place like the one of an item in this lane.
    pub(super) fn of(&self, lane: Lane, is_known: bool) -> &Arc<Demand> {
        match lane {
            Lane::Ordinary if is_known => &self.known,
            Lane::Ordinary => &self.strangers,
            Lane::Medium | Lane::Large => &self.none,
            Lane::Alone => &self.alone,
        }
    }
}
