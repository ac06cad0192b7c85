//! The fetcher of pushed ranges, and what its clones share.

use std::sync::Arc;

use reqwest::Client;

use super::budget::{Budget, Seat};
use super::dialects::Dialects;
use super::ledger::Ledger;
use super::place::FetchPlace;
use super::{FetchLane, FetchLimits, Guard};

/// Fetcher of pushed ranges. Cheap to clone; clones share their memory budget, and what they know of servers.
#[derive(Debug, Clone)]
pub struct GitFetcher {
    pub(super) client: Client,
    pub(super) limits: Arc<FetchLimits>,
    pub(super) budget: Arc<Budget>,
    pub(super) guard: Guard,
    pub(super) dialects: Arc<Dialects>,
}

impl GitFetcher {
    /// Creates a fetcher that uses `client` (see [`super::http_client`]) within `limits`.
    pub fn new(client: Client, limits: FetchLimits) -> Self {
        Self {
            client,
            budget: Arc::new(Budget::new(limits.concurrent + limits.beside)),
            limits: Arc::new(limits),
            guard: Guard::operator(),
            dialects: Arc::default(),
        }
    }

    /// Restricts the fetcher for clone URLs that come from third parties: a URL that contains an IP
    /// address is requested only if `guard` admits it. The addresses that names resolve to are checked by
    /// the client's own guard.
    #[must_use]
    pub fn guarded_by(self, guard: Guard) -> Self {
        Self { guard, ..self }
    }

    /// Returns a fetcher that uses another client, within the same limits and the same memory budget.
    #[must_use]
    pub fn with_client(&self, client: Client) -> Self {
        Self {
            client,
            ..self.clone()
        }
    }

    /// Returns the accounts of those that fetch in a lane.
    pub fn ledger(&self, lane: FetchLane) -> &Ledger {
        self.budget.ledger(lane)
    }

    /// Returns the limits of the fetcher.
    pub fn limits(&self) -> &FetchLimits {
        &self.limits
    }

    pub(super) fn seat(&self, place: FetchPlace) -> Seat {
        Seat::new(&self.budget, place)
    }
}
