use super::super::clean::{LOOKED_AT_MAX, NOT_LOOKED_AT};
use super::*;
use crate::store::Place;

fn place(path: &str) -> SharedPlace {
    SharedPlace {
        place: Place {
            url: Some(format!("https://git.example/{path}")),
            path: Some(path.to_owned()),
            ..Place::of_source("feed")
        },
        fragment: Some("#L"),
    }
}

#[test]
fn places_are_shared_and_repetitions_bounded() {
    let mut candidates = Candidates::new(Timestamp::UNIX_EPOCH, 200);
    let at = candidates.place(place("a"));
    for line in 1..=1000 {
        let line = Line {
            linked: line,
            recorded: Some(line),
        };
        candidates.add(KeyValue::new("same"), |_| at, Some(line));
    }
    assert_eq!(candidates.len(), 100);
    assert!(!candidates.is_full());
    let known = Known::these([KeyValue::new("same").sha256()]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let last = candidates.sightings(&known, runtime.handle());
    let last = last.last().unwrap();
    assert_eq!(
        last.place.url.as_deref().unwrap(),
        "https://git.example/a#L100"
    );
    assert_eq!(last.place.line, Some(100));
    // It is unknown, and not looked up again.
    candidates.clear(&Known::default());
    let at = candidates.place(place("b"));
    candidates.add(KeyValue::new("same"), |_| at, None);
    assert!(candidates.is_empty());
    candidates.add(KeyValue::new("other"), |_| at, None);
    assert_eq!(candidates.len(), 1);
}

/// Whoever pushes decides how long and how costly the names are.
#[test]
fn no_more_than_a_bound_of_the_places_of_a_push_is_looked_at() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut candidates = Candidates::new(Timestamp::UNIX_EPOCH, 1_000);
    let long = "x".repeat(10_000);
    let mut looked_at = 0;
    for push in 0..4 {
        let keys: Vec<_> = (0..100)
            .map(|n| KeyValue::new(format!("{push}-{n}")))
            .collect();
        for key in &keys {
            let at = candidates.place(place(&long));
            candidates.add(key.clone(), |_| at, None);
        }
        let known = Known::these(keys.iter().map(KeyValue::sha256));
        let seen: Vec<_> = candidates.sightings(&known, runtime.handle()).collect();
        assert_eq!(seen.len(), 100);
        let kept = |seen: &&CleanSighting| seen.place.url.as_deref() != Some(NOT_LOOKED_AT);
        looked_at += seen.iter().filter(kept).count() * long.len();
        candidates.clear(&known);
    }
    assert!(
        (LOOKED_AT_MAX / 3..=LOOKED_AT_MAX).contains(&looked_at),
        "{looked_at}"
    );
}

#[test]
fn long_places_fill_it_too() {
    let mut candidates = Candidates::new(Timestamp::UNIX_EPOCH, 100);
    candidates.place(place(&"x".repeat(10_000)));
    assert!(candidates.is_full() && candidates.is_empty());
}
