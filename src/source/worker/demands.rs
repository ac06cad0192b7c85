//! Demand for the places of a worker, as seen by the items that hold them.

use std::sync::Arc;

use crate::fetch::Demand;
use crate::store::Lane;

/// Demand for the places of a worker.
#[derive(Debug, Default)]
pub(super) struct Demands {
    /// Demand for ordinary places by hosts that the configuration names.
    known: Arc<Demand>,
    /// Demand for ordinary places by all other hosts, which share only a few of them.
    strangers: Arc<Demand>,
    alone: Arc<Demand>,
    /// Always empty: for lanes that account for time instead.
    none: Arc<Demand>,
}

impl Demands {
    /// Returns the demand for a place like the one of an item in this lane.
    pub(super) fn of(&self, lane: Lane, is_known: bool) -> &Arc<Demand> {
        match lane {
            Lane::Ordinary if is_known => &self.known,
            Lane::Ordinary => &self.strangers,
            Lane::Medium | Lane::Large => &self.none,
            Lane::Alone => &self.alone,
        }
    }
}
