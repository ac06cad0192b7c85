//! Sightings in the form in which they are stored.
//!
//! Whoever reports keys decides how many places there are and how much effort their texts take to be searched for keys
//! in every encoding. So that is done once per text, in turns with others, up to a bound per message, for keys of
//! ours only, and before anything is locked.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::known::Known;
use super::redact::{COMMIT_MAX, PATH_MAX, REPOSITORY_MAX, SOURCE_MAX, URL_MAX};
use super::redact::{bounded, clean};
use super::{Responder, Sighting};
use crate::keyformat::{KeyValue, Sha256Digest};
use crate::offload::{self, PIECE};
use crate::scan::Redactor;
use crate::store::{Place, Token};

/// Maximum size of the distinct texts of one message that are searched for keys, in bytes: some ten thousand places.
pub(super) const LOOKED_AT_MAX: usize = 2 << 20;

/// Replacement of a text that was not searched for keys.
pub(super) const NOT_LOOKED_AT: &str = "…";

/// Sighting whose place is in the form in which it is stored: without keys and control characters, and with bounded
/// length.
#[derive(Debug, Clone)]
pub struct CleanSighting {
    /// Value that was seen.
    pub value: KeyValue,
    /// Place, which thousands of sightings may share.
    pub place: Arc<Place>,
    /// Time of the sighting.
    pub detected_at: Timestamp,
    /// Digest of the value, computed before anything is locked.
    digest: Sha256Digest,
    /// Access token of Rescind itself that was seen, if it is one, as it was when it was looked up.
    token: Option<Arc<Token>>,
    /// `true` if a leak of the value would do harm, as far as was known when it was looked up.
    is_at_risk: bool,
}

impl CleanSighting {
    pub(super) fn new(value: KeyValue, place: Arc<Place>, detected_at: Timestamp) -> Self {
        Self {
            digest: value.sha256(),
            value,
            place,
            detected_at,
            token: None,
            is_at_risk: true,
        }
    }

    /// Adds what is known of the value.
    pub(super) fn of(self, known: &Known) -> Self {
        Self {
            token: known.token(&self.digest).cloned(),
            is_at_risk: known.is_at_risk(&self.digest),
            ..self
        }
    }

    pub(super) fn digest(&self) -> Sha256Digest {
        self.digest
    }

    pub(super) fn token(&self) -> Option<&Arc<Token>> {
        self.token.as_ref()
    }
}

/// Sightings whose places are in the form in which they are stored.
#[derive(Debug, Clone, Default)]
pub struct CleanSightings(pub(super) Vec<CleanSighting>);

impl CleanSightings {
    /// Returns the number of sightings.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no sightings.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns an iterator over the sightings.
    pub fn iter(&self) -> std::slice::Iter<'_, CleanSighting> {
        self.0.iter()
    }

    /// Returns the repository of the first sighting, if it has one.
    pub fn repository(&self) -> Option<&str> {
        self.0.first()?.place.repository.as_deref()
    }

    /// Adds a sighting.
    pub fn push(&mut self, sighting: CleanSighting) {
        self.0.push(sighting);
    }

    /// Divides the sightings into pieces of at most `max`. There is at least one piece.
    pub fn in_pieces(mut self, max: usize) -> Vec<Self> {
        let mut pieces = Vec::new();
        while self.len() > max {
            let rest = self.0.split_off(max);
            pieces.push(std::mem::replace(&mut self, Self(rest)));
        }
        pieces.push(self);
        pieces
    }

    /// Removes and returns the first sighting of each value of which a leak would do harm, `most` of them. A message may
    /// name a few keys very often, or many that are revoked already, but what leaked is to be revoked at once.
    #[must_use]
    pub fn take_first(&mut self, most: usize) -> Self {
        let mut seen = HashSet::new();
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for sighting in std::mem::take(&mut self.0) {
            let is_first =
                sighting.is_at_risk && first.len() < most && seen.insert(sighting.digest);
            if is_first { &mut first } else { &mut rest }.push(sighting);
        }
        self.0 = rest;
        Self(first)
    }

    /// Removes all sightings.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl FromIterator<CleanSighting> for CleanSightings {
    fn from_iter<I: IntoIterator<Item = CleanSighting>>(sightings: I) -> Self {
        Self(sightings.into_iter().collect())
    }
}

impl<'s> IntoIterator for &'s CleanSightings {
    type Item = &'s CleanSighting;
    type IntoIter = std::slice::Iter<'s, CleanSighting>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Responder {
    /// Redacts keys in the places of `sightings`, and truncates texts that are too long. Beyond a bound, texts are left
    /// out.
    pub async fn clean(&self, sightings: Vec<Sighting>) -> CleanSightings {
        self.clean_and_complete(sightings, |_| {}).await
    }

    /// As [`clean`](Self::clean), with `complete` adding to each place what its texts tell.
    pub(super) async fn clean_and_complete(
        &self,
        sightings: Vec<Sighting>,
        complete: fn(&mut Place),
    ) -> CleanSightings {
        let mut cleaner = Cleaner::new(&self.redactor);
        let mut stored = Vec::with_capacity(sightings.len());
        let mut rest = sightings.into_iter().peekable();
        while rest.peek().is_some() {
            let mut bytes = 0;
            let piece: Vec<Sighting> = std::iter::from_fn(|| {
                let wanted = rest.next_if(|_| bytes < PIECE)?;
                bytes += bytes_of(&wanted.place);
                Some(wanted)
            })
            .collect();
            let each = |sighting| cleaner.clean(sighting, complete);
            let piece = offload::in_turn(bytes, || piece.into_iter().map(each).collect::<Vec<_>>());
            stored.append(&mut piece.await);
        }
        if cleaner.not_looked_at > 0 {
            tracing::warn!(
                texts = cleaner.not_looked_at,
                "a report names keys of ours in so many places that some are stored without their texts"
            );
        }
        CleanSightings(stored)
    }
}

/// Cleans the places of one message.
pub(crate) struct Cleaner<'r> {
    redactor: &'r Redactor,
    /// Texts that were searched for keys, without these. The digest is that of a value that was searched for, too.
    texts: HashMap<(Option<Sha256Digest>, String), String>,
    /// Searched values by digest: `true` for those of a format that is not loaded.
    foreign: HashMap<Sha256Digest, bool>,
    /// Number of bytes that may still be looked at.
    left: usize,
    not_looked_at: u64,
}

impl<'r> Cleaner<'r> {
    pub(crate) fn new(redactor: &'r Redactor) -> Self {
        Self {
            redactor,
            texts: HashMap::new(),
            foreign: HashMap::new(),
            left: LOOKED_AT_MAX,
            not_looked_at: 0,
        }
    }

    /// Returns a sighting in the form in which it is stored. Two sightings at the same place have the same form.
    /// `complete` adds to the place what its clean texts tell; parts of these may be more readable than the whole, so
    /// what it adds is cleaned as well.
    pub(crate) fn clean(&mut self, sighting: Sighting, complete: fn(&mut Place)) -> CleanSighting {
        let Sighting {
            value,
            place,
            detected_at,
        } = sighting;
        let foreign = self.is_foreign(&value).then_some(&value);
        let mut place = stored_form(&place, |text| self.text(text, foreign));
        complete(&mut place);
        // Texts that were there before are found among those that are clean.
        let place = stored_form(&place, |text| self.text(text, foreign));
        CleanSighting::new(value, Arc::new(place), detected_at)
    }

    /// Returns a text without keys, and without `value`, which may be of a format that is not loaded.
    fn text(&mut self, text: &str, value: Option<&KeyValue>) -> String {
        if text == NOT_LOOKED_AT {
            return text.to_owned();
        }
        let name = (value.map(KeyValue::sha256), text.to_owned());
        if let Some(known) = self.texts.get(&name) {
            return known.clone();
        }
        if text.len() > self.left {
            self.not_looked_at += 1;
            return NOT_LOOKED_AT.to_owned();
        }
        self.left -= text.len();
        let cleaned = clean(self.redactor, text, value);
        self.texts
            .insert((name.0, cleaned.clone()), cleaned.clone());
        self.texts.insert(name, cleaned.clone());
        cleaned
    }

    /// Returns whether the redactor does not know `value` by itself. A value that is longer than any text that is
    /// looked at cannot be in one.
    fn is_foreign(&mut self, value: &KeyValue) -> bool {
        let text = value.expose();
        text.len() <= PATH_MAX
            && *self
                .foreign
                .entry(value.sha256())
                .or_insert_with(|| !self.redactor.holds_key(text))
    }
}

/// Returns the size of the texts of a place, in bytes, and something for looking at them.
fn bytes_of(place: &Place) -> usize {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let texts = [&place.url, &place.repository, &place.commit, &place.path];
    32 + place.source.len() + texts.into_iter().map(length).sum::<usize>()
}

/// Returns a place with bounded and printable texts, each as `clean` returns it.
pub(super) fn stored_form(place: &Place, mut clean: impl FnMut(&str) -> String) -> Place {
    let mut optional = |text: &Option<String>, max| {
        let text = text.as_deref().filter(|text| !text.is_empty());
        text.map(|text| bounded(&clean(text), max))
    };
    Place {
        url: optional(&place.url, URL_MAX),
        repository: optional(&place.repository, REPOSITORY_MAX),
        commit: optional(&place.commit, COMMIT_MAX),
        path: optional(&place.path, PATH_MAX),
        source: bounded(&clean(&place.source), SOURCE_MAX),
        // Canonical JSON represents integers exactly up to this value (RFC 8785, section 3.2.2.3).
        line: place.line.map(|line| line.min((1 << 53) - 1)),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::keyformat::FormatSet;

    fn sighting(value: &str, url: &str) -> Sighting {
        Sighting {
            value: KeyValue::new(value),
            place: Place {
                url: Some(url.to_owned()),
                ..Place::of_source("test")
            },
            detected_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_text_is_looked_at_once_and_no_more_than_a_bound_of_all() {
        let formats = FormatSet::builtin();
        let redactor = Redactor::new(&formats);
        let key = formats.get("rescind_secret").unwrap().mint().unwrap();
        let mut cleaner = Cleaner::new(&redactor);
        cleaner.left = 1_000;
        let url = |number: usize| format!("https://x.example/{number:0>100}");
        for _ in 0..50 {
            let clean = cleaner.clean(sighting(key.expose(), &url(0)), |_| {});
            assert_eq!(clean.place.url, Some(url(0)));
        }
        assert_eq!(cleaner.left, 1_000 - url(0).len() - "test".len());
        let urls = (1..20).map(|number| {
            let seen = sighting(key.expose(), &url(number));
            cleaner.clean(seen, |_| {}).place.url.clone()
        });
        let kept = urls.flatten().filter(|url| url != NOT_LOOKED_AT).count();
        assert_eq!(kept, 7);
        assert_eq!(cleaner.not_looked_at, 12);
        // What is known is known.
        let clean = cleaner.clean(sighting(key.expose(), &url(0)), |_| {});
        assert_eq!(clean.place.url, Some(url(0)));
    }

    /// Their own texts may name each other's values.
    #[test]
    fn values_of_unknown_formats_are_taken_out_of_their_own_places() {
        let redactor = Redactor::new(&FormatSet::builtin());
        let mut cleaner = Cleaner::new(&redactor);
        let url = "https://x.example/foreign-key-1/foreign-key-2";
        for (value, expected) in [
            ("foreign-key-1", "https://x.example/…/foreign-key-2"),
            ("foreign-key-2", "https://x.example/foreign-key-1/…"),
        ] {
            let clean = cleaner.clean(sighting(value, url), |_| {});
            assert_eq!(clean.place.url.as_deref(), Some(expected));
        }
    }
}
