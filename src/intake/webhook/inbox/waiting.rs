//! Order in which deliveries are committed.

use std::collections::HashMap;

use tokio::sync::mpsc;

use super::{Entry, WAITING_MAX};
use crate::respond::owner_of;

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

    /// Removes the deliveries that are committed next. Owners of repositories get as much each, and of an owner the
    /// repositories; the first delivery of each owner is passed by none that arrived later.
    pub(super) fn next_group(&mut self) -> Vec<Entry> {
        let waiting = self.0.iter();
        let waiting = waiting.map(|entry| (entry.repository(), 1 + entry.weight()));
        let places = fair_places(&waiting.collect::<Vec<_>>());
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
/// Of an owner, that is what has the least of the same repository before it, or else came first.
fn fair_places(waiting: &[(&str, usize)]) -> Vec<usize> {
    let order: Vec<usize> = (0..waiting.len()).collect();
    let of_repository = places_of(waiting, &order, |repository| repository);
    let mut order = order;
    order.sort_by_key(|at| of_repository[*at]);
    places_of(waiting, &order, owner_of)
}

/// Returns, for each of those that wait, how much of what has the same name comes before it in this order.
fn places_of<'e>(
    waiting: &[(&'e str, usize)],
    order: &[usize],
    name: impl Fn(&'e str) -> &'e str,
) -> Vec<usize> {
    let mut before: HashMap<&str, usize> = HashMap::new();
    let mut places = vec![0; waiting.len()];
    for at in order {
        let (repository, cost) = waiting[*at];
        let own = before.entry(name(repository)).or_default();
        places[*at] = *own;
        *own += cost;
    }
    places
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
            ("a/x", 64),
            ("a/x", 64),
            ("a/x", 1),
            ("b/x", 64),
            ("b/x", 2),
            ("c/x", 1),
        ];
        assert_eq!(fair_places(&waiting), [0, 64, 128, 0, 64, 0]);
    }

    /// However many deliveries of another one of the same owner came before.
    #[test]
    fn repositories_of_an_owner_get_as_much_each() {
        let mut waiting = vec![("acme/loud", 65); 400];
        waiting.extend([("acme/quiet", 65), ("acme/small", 1), ("acme/quiet", 65)]);
        let places = fair_places(&waiting);
        assert_eq!(places[..3], [0, 131, 261]);
        assert_eq!(places[400..], [65, 130, 196]);
        // Deliveries that are about no repository are those of one owner.
        assert_eq!(fair_places(&[("", 2), ("", 2), ("a/x", 2)]), [0, 2, 0]);
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
