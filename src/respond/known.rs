//! The one answer to which of the values that were seen are ours.
//!
//! Pushes, feeds, archives, webhooks, partners and strangers with a key: whatever they name is looked up here, before
//! anything is locked. Most values are nobody's, whoever names them determines how many there are, and nothing else is
//! done with those.
//!
//! Two others look keys up for themselves: the check of single keys, which joins those who ask at the same time
//! ([`Lookup`]), and the command line, which tells whose keys are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::keyformat::Sha256Digest;
use crate::store::{Lookup, Store, StoreError, Token};

/// Number of values that are looked up at a time.
const VALUES_AT_ONCE: usize = 1_000;

/// Count of a value that was looked up and is nobody's.
const NOBODYS: u32 = u32::MAX;

/// Keys and access tokens among the values that were looked up.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Digests of keys, and whether a leak of each would do harm.
    keys: HashMap<Sha256Digest, bool>,
    /// Access tokens of Rescind itself.
    tokens: HashMap<Sha256Digest, Arc<Token>>,
}

impl Known {
    /// Looks up which values are keys or access tokens, each once, however often it is named.
    ///
    /// # Errors
    /// Returns [`StoreError::UnknownPepper`] if one was not found and there are keys that would not be, and any
    /// [`StoreError`] of a read.
    pub async fn of(
        store: &Store,
        values: impl IntoIterator<Item = Sha256Digest>,
    ) -> Result<Self, StoreError> {
        let values = distinct(values);
        if values.is_empty() {
            return Ok(Self::default());
        }
        let mut known = Self::default();
        for values in values.chunks(VALUES_AT_ONCE) {
            known.keys.extend(store.known_keys(values).await?);
            let tokens = store.find_tokens(values).await?.into_iter();
            known
                .tokens
                .extend(tokens.map(|(value, token)| (value, Arc::new(token))));
        }
        if !values.iter().all(|value| known.contains(value)) {
            // Whose a value is cannot be told then, and nobody asks again.
            store.check_peppers().await?;
        }
        Ok(known)
    }

    /// Looks up whether one value is a key or an access token, together with those that others look up at the same
    /// time.
    ///
    /// # Errors
    /// Returns [`StoreError::UnknownPepper`] if it was not found and there are keys that would not be, and the other errors
    /// of [`Lookup::key`].
    pub async fn of_one(lookup: &Lookup, value: Sha256Digest) -> Result<Self, Arc<StoreError>> {
        let (is_key, token) = tokio::join!(lookup.is_key(value), lookup.token(value));
        // It is seldom both: that the other kind of it might not be found is no reason to leave alone what was.
        let is_key = unless_found(is_key, matches!(token, Ok(Some(_))))?;
        let token = unless_found(token, is_key)?;
        Ok(Self {
            keys: is_key.then_some((value, true)).into_iter().collect(),
            tokens: token
                .map(|token| (value, Arc::new(token)))
                .into_iter()
                .collect(),
        })
    }

    /// Returns whether a value is a key or an access token.
    pub fn contains(&self, value: &Sha256Digest) -> bool {
        self.keys.contains_key(value) || self.tokens.contains_key(value)
    }

    /// Returns whether a value is one of which a leak would do harm, as far as was known when it was looked up: it is
    /// secret, and not revoked.
    pub fn is_at_risk(&self, value: &Sha256Digest) -> bool {
        let token = self.tokens.get(value);
        self.keys.get(value) == Some(&true) || token.is_some_and(|token| token.revoked_at.is_none())
    }

    /// Returns the access token with this value, as it was when it was looked up.
    pub(super) fn token(&self, value: &Sha256Digest) -> Option<&Arc<Token>> {
        self.tokens.get(value)
    }

    /// Returns what is known if these are all keys that there are.
    #[cfg(test)]
    pub(crate) fn these(keys: impl IntoIterator<Item = Sha256Digest>) -> Self {
        Self {
            keys: keys.into_iter().map(|key| (key, true)).collect(),
            tokens: HashMap::new(),
        }
    }
}

/// Returns a result, or nothing if it is unknown under a pepper that is not configured, and `is_found` otherwise.
fn unless_found<T: Default>(
    result: Result<T, Arc<StoreError>>,
    is_found: bool,
) -> Result<T, Arc<StoreError>> {
    match result {
        Err(error) if is_found && matches!(*error, StoreError::UnknownPepper { .. }) => {
            Ok(T::default())
        }
        result => result,
    }
}

/// Returns each value once, in the order of their first occurrences.
pub(super) fn distinct(values: impl IntoIterator<Item = Sha256Digest>) -> Vec<Sha256Digest> {
    let mut seen = HashSet::new();
    let values = values.into_iter();
    values.filter(|value| seen.insert(*value)).collect()
}

/// Bound on the places of one value. Further ones add no information, and a file with a million copies must not become
/// a million rows.
#[derive(Debug)]
pub struct PlacesPerValue {
    max: u32,
    distinct_max: usize,
    counts: HashMap<Sha256Digest, u32>,
}

impl PlacesPerValue {
    /// Creates a bound of `max` places per value. Beyond `distinct_max` values, all counts are reset: values that were
    /// not looked up are as many as strangers like.
    pub fn new(max: u32, distinct_max: usize) -> Self {
        Self {
            max,
            distinct_max,
            counts: HashMap::new(),
        }
    }

    /// Counts one more place of a value. Returns whether it is within the bound.
    pub fn admits(&mut self, value: Sha256Digest) -> bool {
        if self.counts.len() >= self.distinct_max && !self.counts.contains_key(&value) {
            self.counts.clear();
        }
        let count = self.counts.entry(value).or_default();
        let is_wanted = *count < self.max;
        if is_wanted {
            *count += 1;
        }
        is_wanted
    }

    /// Admits no more places of a value that is nobody's.
    pub(super) fn exclude(&mut self, value: &Sha256Digest) {
        if let Some(count) = self.counts.get_mut(value) {
            *count = NOBODYS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_a_bound_of_the_places_of_a_value_is_admitted_and_none_of_nobodys() {
        let value = |number: u32| Sha256Digest::of(&number.to_be_bytes());
        let mut places = PlacesPerValue::new(2, 3);
        let admitted = |places: &mut PlacesPerValue, number: u32| {
            (0..9).filter(|_| places.admits(value(number))).count()
        };
        assert_eq!(admitted(&mut places, 1), 2);
        assert!(places.admits(value(2)));
        places.exclude(&value(2));
        assert_eq!(admitted(&mut places, 2), 0);
        // What was never counted is not excluded: it takes no room.
        places.exclude(&value(3));
        assert_eq!(admitted(&mut places, 3), 2);
        assert_eq!(admitted(&mut places, 1), 0);
        // All counts are reset by one value more, so that those of strangers take no more room than that.
        assert_eq!(admitted(&mut places, 4), 2);
        assert_eq!(admitted(&mut places, 1), 2);
    }
}
