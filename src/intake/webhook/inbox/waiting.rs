//! Order in which deliveries are committed.

use std::collections::HashMap;

use tokio::sync::mpsc;

use super::{Entry, WAITING_MAX};

/// Maximum number of deliveries in one transaction.
const GROUP_MAX: usize = 128;

/// Weight, of all its deliveries, that ends a group: everybody else who writes waits for it. A key that is revoked takes
/// several statements, and so do some work items.
const GROUP_WEIGHT: usize = 256;

/// Deliveries that wait for the next transaction.
#[derive(Default)]
pub(super) struct Waiting(Vec<Entry>);

impl Waiting {
    /// Waits until there is a delivery, and takes in all others that have arrived by then. Returns `false` when there
    /// is none, and none comes any more.
    pub(super) async fn fill(&mut self, arriving: &mut mpsc::Receiver<Entry>) -> bool {
        if self.0.is_empty() {
            return arriving.recv_many(&mut self.0, WAITING_MAX).await > 0;
        }
        while self.0.len() < WAITING_MAX
            && let Ok(entry) = arriving.try_recv()
        {
            self.0.push(entry);
        }
        true
    }

    /// Removes the deliveries that are committed next. Owners of repositories get as much each; the first one of each
    /// owner is passed by nobody who arrived later.
    pub(super) fn next_group(&mut self) -> Vec<Entry> {
        let places = fair_places(
            self.0
                .iter()
                .map(|entry| (entry.owner(), 1 + entry.weight())),
        );
        let mut in_order: Vec<(usize, Entry)> = places.into_iter().zip(self.0.drain(..)).collect();
        // Equals stay in the order of their arrival.
        in_order.sort_by_key(|(place, _)| *place);
        let weights = in_order.iter().map(|(_, entry)| entry.weight());
        let count = first_of(weights.take(GROUP_MAX));
        self.0
            .extend(in_order.drain(count..).map(|(_, entry)| entry));
        in_order.into_iter().map(|(_, entry)| entry).collect()
    }
}

/// Returns, for each of those that wait, how much of the same owner comes before it. Whoever has the least comes first.
fn fair_places<'e>(waiting: impl Iterator<Item = (&'e str, usize)>) -> Vec<usize> {
    let mut before: HashMap<&str, usize> = HashMap::new();
    let places = waiting.map(|(owner, cost)| {
        let own = before.entry(owner).or_default();
        let place = *own;
        *own += cost;
        place
    });
    places.collect()
}

/// Returns how many of the deliveries, or work items, with these weights are committed together: at least one, and no
/// further ones that have more than [`GROUP_WEIGHT`] with those before.
pub(super) fn first_of(weights: impl Iterator<Item = usize>) -> usize {
    let mut sum = 0;
    let fits = weights.enumerate().take_while(|(at, weight)| {
        sum += weight;
        *at == 0 || sum <= GROUP_WEIGHT
    });
    fits.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_of_repositories_get_as_much_each() {
        let waiting = [
            ("a", 64),
            ("a", 64),
            ("a", 1),
            ("b", 64),
            ("b", 2),
            ("c", 1),
        ];
        let places = fair_places(waiting.into_iter());
        assert_eq!(places, [0, 64, 128, 0, 64, 0]);
    }

    #[test]
    fn a_group_ends_with_much_weight_and_each_delivery_is_in_one() {
        let first = |weights: &[usize]| first_of(weights.iter().copied());
        assert_eq!(first(&[]), 0);
        assert_eq!(first(&[0; GROUP_MAX]), GROUP_MAX);
        assert_eq!(first(&[GROUP_WEIGHT * 2, 0]), 1);
        assert_eq!(first(&[0, 200, 56, 1, 1]), 3);
        assert_eq!(first(&[GROUP_WEIGHT - 1; GROUP_MAX]), 1);
    }
}
