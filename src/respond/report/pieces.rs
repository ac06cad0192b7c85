//! Division of the sightings of a message into those of one transaction each.

use std::collections::HashMap;

use super::super::clean::CleanSightings;
use crate::keyformat::Sha256Digest;

/// Maximum number of keys whose sightings are reported in one transaction: whoever owns very many keys, or knows them,
/// must not keep others from the log for long. A push takes some six turns of the database, each of which may wait for
/// one such transaction.
const KEYS_AT_ONCE: usize = 128;

/// Number of sightings from which on a transaction takes no further key: each may have been seen in very many places.
const SIGHTINGS_AT_ONCE: usize = 256;

/// Returns the elements in these rows, which are in ascending order.
pub(super) fn only<T>(all: Vec<T>, rows: &[usize]) -> Vec<T> {
    let mut rows = rows.iter().copied().peekable();
    let all = all.into_iter().enumerate();
    all.filter_map(|(at, one)| rows.next_if_eq(&at).map(|_| one))
        .collect()
}

/// Rows, and their sightings.
pub(super) type Piece = (Vec<usize>, CleanSightings);

/// Divides sightings, and their rows, into those of one transaction each. All sightings of a key are in the same piece.
pub(super) fn pieces(
    rows: &[usize],
    sightings: CleanSightings,
    digests: &[Sha256Digest],
) -> impl Iterator<Item = Piece> {
    let sightings = rows.iter().copied().zip(sightings.0);
    let pieces = divided_with(sightings, rows, digests).into_iter();
    pieces.map(|piece| {
        let (rows, sightings) = piece.into_iter().unzip();
        (rows, CleanSightings(sightings))
    })
}

/// Divides rows as their sightings are divided that are reported together: whoever reports very many need not hold all
/// sightings at once. A piece that is reported is not divided further.
pub fn divided(rows: &[usize], digests: &[Sha256Digest]) -> Vec<Vec<usize>> {
    divided_with(rows.iter().copied(), rows, digests)
}

/// Divides what belongs to rows as these are divided.
fn divided_with<T>(
    of_rows: impl Iterator<Item = T>,
    rows: &[usize],
    digests: &[Sha256Digest],
) -> Vec<Vec<T>> {
    let mut pieces: Vec<Vec<T>> = Vec::new();
    for (at, of_row) in numbers(rows, digests).zip(of_rows) {
        if at == pieces.len() {
            pieces.push(Vec::new());
        }
        pieces[at].push(of_row);
    }
    pieces
}

/// Returns the number of the piece of each row: none before those before it.
fn numbers(rows: &[usize], digests: &[Sha256Digest]) -> impl Iterator<Item = usize> {
    let mut sightings_of: HashMap<Sha256Digest, usize> = HashMap::new();
    for row in rows {
        *sightings_of.entry(digests[*row]).or_default() += 1;
    }
    let mut piece_of: HashMap<Sha256Digest, usize> = HashMap::new();
    let (mut piece, mut keys, mut sightings) = (0, 0, 0);
    rows.iter().map(move |row| {
        *piece_of.entry(digests[*row]).or_insert_with(|| {
            if keys == KEYS_AT_ONCE || sightings >= SIGHTINGS_AT_ONCE {
                piece += 1;
                (keys, sightings) = (0, 0);
            }
            keys += 1;
            sightings += sightings_of[&digests[*row]];
            piece
        })
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::super::clean::CleanSighting;
    use super::*;
    use crate::keyformat::KeyValue;
    use crate::store::Place;

    fn sighting(row: usize) -> CleanSighting {
        let place = Place::of_source("test").into();
        CleanSighting::new(KeyValue::new(row.to_string()), place, Timestamp::UNIX_EPOCH)
    }

    /// Else 128 keys in 200 places each would keep all others from the log for seconds.
    #[test]
    fn keys_in_many_places_are_divided_between_keys() {
        let keys = ["one", "two", "three"].map(|key| Sha256Digest::of(key.as_bytes()));
        let mut digests = vec![keys[0]; SIGHTINGS_AT_ONCE + 1];
        digests.extend([keys[1], keys[2], keys[0]]);
        let rows: Vec<usize> = (0..digests.len()).collect();
        let sightings = rows.iter().copied().map(sighting).collect();
        let pieces: Vec<_> = pieces(&rows, sightings, &digests).collect();
        let sizes: Vec<_> = pieces.iter().map(|(rows, _)| rows.len()).collect();
        assert_eq!(sizes, [SIGHTINGS_AT_ONCE + 2, 2]);
    }

    #[test]
    fn sightings_of_many_keys_are_divided_and_those_of_one_key_are_not() {
        let digests: Vec<Sha256Digest> = (0..2 * KEYS_AT_ONCE + 2)
            .map(|number| Sha256Digest::of(format!("{}", number / 2).as_bytes()))
            .collect();
        // The other row of each key comes after the first rows of all of them.
        let mut rows: Vec<usize> = (0..digests.len()).step_by(2).collect();
        rows.extend((0..digests.len()).skip(1).step_by(2));
        let sightings = rows.iter().copied().map(sighting).collect();
        let pieces: Vec<_> = pieces(&rows, sightings, &digests).collect();
        let sizes: Vec<_> = pieces.iter().map(|(rows, _)| rows.len()).collect();
        assert_eq!(sizes, [2 * KEYS_AT_ONCE, 2]);
        for (piece, sightings) in &pieces {
            for (row, sighting) in piece.iter().zip(sightings) {
                assert_eq!(sighting.value.expose(), row.to_string());
            }
            // Whoever divides rows has each piece reported as one.
            assert_eq!(divided(piece, &digests), std::slice::from_ref(piece));
        }
        let whole: Vec<_> = pieces.into_iter().map(|(piece, _)| piece).collect();
        assert_eq!(divided(&rows, &digests), whole);
    }
}
