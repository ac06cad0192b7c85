//! Tests of the pack reader with packs that servers write, and with others.

mod build;

use proptest::prelude::*;

use super::*;
use crate::fetch::FetchLimits;
use crate::fetch::budget::Seat;
use crate::fuzzing::fuzz;
use build::{
    BLOB, Builder, COMMIT, OFFSET_DELTA, REF_DELTA, blob_id, blob_id_by, delta, sample, seal,
};

fn limits() -> FetchLimits {
    FetchLimits::default()
}

#[derive(Debug, Default)]
struct Walked {
    objects: Vec<Vec<u8>>,
    skipped: objects::Skipped,
}

fn walk(pack: &Pack, limits: &FetchLimits) -> Result<(Walked, bool), FetchError> {
    let received = pack.bytes().len() as u64;
    let weight = &mut Weight::new(&Seat::alone());
    let list = ListLimits {
        objects: limits.max_objects,
        inflated: limits.listed(received),
    };
    let listing = pack.list(list, weight)?;
    let allowed = Allowed {
        object: limits.max_blob_bytes,
        total: limits.allowance(received),
    };
    let mut objects = Objects::new(pack.bytes(), &listing, allowed, weight)?;
    let mut walked = Walked::default();
    objects.walk(|_| true, weight, &mut |object, _| {
        walked.objects.push(object.data.to_vec());
        Ok(())
    })?;
    walked.skipped = objects.skipped();
    walked.objects.sort();
    Ok((walked, listing.is_cut()))
}

fn packed(bytes: Vec<u8>, whole: bool) -> Pack {
    Pack::new(HashKind::Sha1, bytes, whole)
}

fn read(bytes: Vec<u8>, limits: &FetchLimits) -> Result<Walked, FetchError> {
    walk(&packed(bytes, true), limits).map(|(walked, _)| walked)
}

#[test]
fn reads_whole_objects_and_deltas_of_both_kinds() {
    let mut pack = Builder::new();
    let base = pack.object(BLOB, b"base");
    let middle = pack.offset_delta(base, &delta(4, b"middle", 0));
    pack.offset_delta(middle, &delta(6, b"leaf", 0));
    let by_id = delta(4, b"by id", 0);
    pack.raw(REF_DELTA, by_id.len() as u64, &blob_id(b"leaf"), &by_id);
    pack.object(COMMIT, b"");
    let walked = read(pack.finish(), &limits()).unwrap();
    let expected: [&[u8]; 5] = [b"", b"base", b"by id", b"leaf", b"middle"];
    assert_eq!(walked.objects, expected);
    assert_eq!(walked.skipped, objects::Skipped::default());
}

#[test]
fn reads_packs_whose_objects_are_named_by_sha_256() {
    let hash = HashKind::Sha256;
    let mut pack = Builder::new();
    let base = pack.object(BLOB, b"base");
    pack.offset_delta(base, &delta(4, b"leaf", 0));
    let by_id = delta(4, b"by id", 0);
    let id = blob_id_by(hash, b"leaf");
    pack.raw(REF_DELTA, by_id.len() as u64, &id, &by_id);
    let sound = pack.finish_by(hash);
    let read = |bytes: &[u8]| walk(&Pack::new(hash, bytes.to_vec(), true), &limits());
    let (walked, _) = read(&sound).unwrap();
    assert_eq!(walked.objects, [&b"base"[..], b"by id", b"leaf"]);
    for at in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[at] ^= 1;
        assert!(read(&damaged).unwrap_err().to_string().contains("checksum"));
        assert!(read(&sound[..at]).is_err());
    }
}

#[test]
fn a_delta_by_id_may_stand_before_its_base() {
    let mut pack = Builder::new();
    let first = delta(4, b"first", 0);
    pack.raw(REF_DELTA, first.len() as u64, &blob_id(b"base"), &first);
    pack.object(BLOB, b"base");
    let walked = read(pack.finish(), &limits()).unwrap();
    assert_eq!(walked.objects, [b"base".as_slice(), b"first"]);
}

#[test]
fn a_delta_without_its_base_is_counted() {
    let mut pack = Builder::new();
    pack.object(BLOB, b"here");
    let thin = delta(4, b"thin", 0);
    let start = pack.raw(REF_DELTA, thin.len() as u64, &[9; 20], &thin);
    pack.offset_delta(start, &delta(4, b"on top", 0));
    let walked = read(pack.finish(), &limits()).unwrap();
    assert_eq!(walked.objects, [b"here"]);
    assert_eq!(walked.skipped.without_base, 2);
}

/// Lists a part of a large pack whose preceding bytes are no longer held.
#[test]
fn a_delta_whose_base_went_by_is_counted() {
    let mut pack = Builder::new();
    let base = pack.object(BLOB, b"base");
    let end = pack.bytes.len();
    pack.offset_delta(base, &delta(4, b"leaf", 0));
    pack.object(BLOB, b"here");
    let part = &pack.bytes[end..];
    let stretch = |gone| Stretch {
        bytes: part,
        gone,
        hash: HashKind::Sha1,
    };
    let weight = &mut Weight::new(&Seat::alone());
    let list = ListLimits {
        objects: 10,
        inflated: 1 << 20,
    };
    let listing = Listing::of_part(stretch(end as u64), 2, list, weight).unwrap();
    assert_eq!((listing.count(), listing.end()), (2, part.len()));
    let allowed = Allowed {
        object: 1 << 20,
        total: 1 << 20,
    };
    let mut objects = Objects::new(part, &listing, allowed, weight).unwrap();
    let mut seen = Vec::new();
    objects
        .walk(|_| true, weight, &mut |object, _| {
            seen.push(object.data.to_vec());
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, [b"here"]);
    assert_eq!(objects.skipped().without_base, 1);
    // Nothing precedes the beginning of a pack.
    let wrong = Listing::of_part(stretch(0), 2, list, weight);
    assert!(matches!(wrong, Err(FetchError::Corrupt(_))));
}

#[test]
fn two_deltas_to_each_other_are_counted_too() {
    let mut pack = Builder::new();
    for (own, other) in [(b"one", b"two"), (b"two", b"one")] {
        let bytes = delta(3, own, 0);
        pack.raw(REF_DELTA, bytes.len() as u64, &blob_id(other), &bytes);
    }
    let walked = read(pack.finish(), &limits()).unwrap();
    assert!(walked.objects.is_empty());
    assert_eq!(walked.skipped.without_base, 2);
}

#[test]
fn a_wide_and_deep_family_is_walked() {
    let mut pack = Builder::new();
    let root = pack.object(BLOB, b"root");
    let mut tip = root;
    let mut size = 4;
    for n in 0..300u32 {
        let text = format!("chain {n}");
        tip = pack.offset_delta(tip, &delta(size, text.as_bytes(), 0));
        size = text.len() as u64;
        pack.offset_delta(root, &delta(4, format!("fan {n}").as_bytes(), 0));
    }
    let walked = read(pack.finish(), &limits()).unwrap();
    assert_eq!(walked.objects.len(), 601);
}

#[test]
fn a_chain_deeper_than_git_writes_is_cut_and_counted() {
    let mut pack = Builder::new();
    let mut tip = pack.object(BLOB, b"root");
    for _ in 0..5000 {
        tip = pack.offset_delta(tip, &delta(4, b"next", 0));
    }
    let walked = read(pack.finish(), &limits()).unwrap();
    assert_eq!(walked.objects.len(), 4096);
    assert_eq!(walked.skipped.too_big, 905);
}

/// Each level consists of sixteen copies of 64 KiB: a few bytes in the pack, 14 MiB outside.
#[test]
fn a_delta_bomb_stops_at_the_size_limit() {
    let mut pack = Builder::new();
    let mut tip = pack.object(BLOB, &vec![b'x'; 0x10000]);
    let mut size = 0x10000u64;
    for _ in 0..14 {
        tip = pack.offset_delta(tip, &delta(size, b"", 16));
        size = 16 * 0x10000;
    }
    // The size limit admits every level, but the limit on all bytes does not.
    let tight = FetchLimits {
        max_inflated_bytes: 5 << 20,
        ..limits()
    };
    let bytes = pack.finish();
    let walked = read(bytes.clone(), &tight).unwrap();
    assert_eq!(walked.objects.len(), 5);
    assert_eq!(walked.skipped.over_budget, 10);
    let small = FetchLimits {
        max_blob_bytes: 0x10000,
        ..limits()
    };
    let walked = read(bytes, &small).unwrap();
    assert_eq!(walked.objects.len(), 1);
    assert_eq!(walked.skipped.too_big, 14);
}

#[test]
fn a_compression_bomb_stops_at_the_limit() {
    let mut pack = Builder::new();
    pack.object(BLOB, b"before");
    pack.object(BLOB, &vec![0; 3 << 20]);
    pack.object(BLOB, b"after");
    let tight = FetchLimits {
        max_inflated_bytes: 1 << 20,
        ..limits()
    };
    let (walked, cut) = walk(&packed(pack.finish(), true), &tight).unwrap();
    assert!(cut);
    assert_eq!(walked.objects, [b"before"]);
}

/// A pack of 70 kB.
#[test]
fn what_is_too_large_to_be_kept_hides_nothing_behind_it() {
    let mut pack = Builder::new();
    pack.level = flate2::Compression::best();
    pack.object(BLOB, &vec![0; 70 << 20]);
    pack.object(BLOB, b"after");
    let walked = read(pack.finish(), &limits()).unwrap();
    assert_eq!(walked.objects, [b"after"]);
    assert_eq!((walked.skipped.too_big, walked.skipped.for_others), (1, 0));
}

#[test]
fn a_small_delta_to_what_is_too_large_is_made_without_holding_that() {
    let large: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[1]).collect();
    let mut pack = Builder::new();
    let base = pack.object(BLOB, &large);
    // 9 bytes from offset 200,000, 2 of its own, 4 from the beginning, 3 from the end.
    let text = b"\x97\x40\x0d\x03\x09\x02xy\x90\x04\x97\xdd\x93\x04\x03";
    let picked = [&build::varint(300_000)[..], &build::varint(18), text].concat();
    let made = [
        &large[200_000..200_009],
        b"xy",
        &large[..4],
        &large[299_997..],
    ]
    .concat();
    let child = pack.offset_delta(base, &picked);
    pack.offset_delta(child, &delta(18, b"grandchild", 0));
    // A copy of it that is too large as well, and a delta to that.
    let copy = pack.offset_delta(base, &delta(300_000, b"", 4));
    pack.offset_delta(copy, &delta(4 << 16, b"lost", 0));
    pack.offset_delta(copy, &delta(4 << 16, b"", 4));
    pack.offset_delta(base, &picked);
    let bytes = pack.finish();
    let tight = FetchLimits {
        max_blob_bytes: 100_000,
        ..limits()
    };
    let walked = read(bytes.clone(), &tight).unwrap();
    let mut expected = [b"grandchild".to_vec(), made.clone(), made];
    expected.sort();
    assert_eq!(walked.objects, expected);
    assert_eq!((walked.skipped.too_big, walked.skipped.for_others), (4, 1));
    // Each time that the large one is inflated counts.
    let tight = FetchLimits {
        max_inflated_bytes: 310_000,
        ..tight
    };
    let walked = read(bytes, &tight).unwrap();
    assert_eq!(walked.objects.len(), 2);
    assert_eq!(walked.skipped.over_budget, 1);
}

#[test]
fn claims_of_size_are_not_believed() {
    for claimed in [0, 4, 6, 1 << 20] {
        let mut pack = Builder::new();
        pack.raw(BLOB, claimed, b"", b"hello");
        let error = read(pack.finish(), &limits()).unwrap_err();
        assert!(error.to_string().contains("size"), "{claimed}: {error}");
    }
    let mut huge = Builder::new();
    huge.raw(BLOB, 1 << 56, b"", b"hello");
    let (walked, cut) = walk(&packed(huge.finish(), true), &limits()).unwrap();
    assert!(cut && walked.objects.is_empty());
}

#[test]
fn claims_of_number_are_not_believed() {
    for count in [0u32, 1, 3, u32::MAX] {
        let mut pack = Builder::new();
        pack.object(BLOB, b"one");
        pack.object(BLOB, b"two");
        pack.count = count;
        assert!(read(pack.finish(), &limits()).is_err(), "{count}");
    }
}

#[test]
fn deltas_that_do_not_fit_their_base_are_errors() {
    for wrong in [
        delta(5, b"other size", 0),
        delta(4, b"", 1),
        b"\x04\x09\x02ab".to_vec(),
        b"\x04".to_vec(),
        Vec::new(),
    ] {
        let mut pack = Builder::new();
        let base = pack.object(BLOB, b"base");
        pack.offset_delta(base, &wrong);
        assert!(read(pack.finish(), &limits()).is_err(), "{wrong:?}");
    }
    for distance in [0u8, 1, 0x7f] {
        let mut pack = Builder::new();
        pack.object(BLOB, b"base");
        let bytes = delta(4, b"x", 0);
        pack.raw(OFFSET_DELTA, bytes.len() as u64, &[distance], &bytes);
        assert!(read(pack.finish(), &limits()).is_err(), "{distance}");
    }
}

#[test]
fn a_cut_pack_gives_the_objects_that_came_whole() {
    let mut pack = Builder::new();
    let ends: Vec<_> = (0..10)
        .map(|n| {
            pack.object(BLOB, format!("object {n}").as_bytes());
            pack.bytes.len()
        })
        .collect();
    let bytes = pack.finish();
    for end in 0..bytes.len() {
        let whole = ends.iter().filter(|at| **at <= end).count();
        let cut = packed(bytes[..end].to_vec(), false);
        let (walked, is_cut) = walk(&cut, &limits()).unwrap();
        assert!(is_cut);
        assert_eq!(walked.objects.len(), whole, "{end}");
        assert!(read(bytes[..end].to_vec(), &limits()).is_err());
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let sound = sample();
    assert_eq!(read(sound.clone(), &limits()).unwrap().objects.len(), 5);
    for at in 0..sound.len() * 8 {
        let mut damaged = sound.clone();
        damaged[at / 8] ^= 1 << (at % 8);
        let error = read(damaged, &limits()).unwrap_err();
        assert!(error.to_string().contains("checksum"), "{error}");
    }
}

/// Damage under a matching checksum: whatever the result, no panic, no hang, nothing out of bounds.
#[test]
fn damage_that_the_checksum_misses_is_survived() {
    let sound = sample();
    let body = &sound[..sound.len() - 20];
    for at in 0..body.len() * 8 {
        let mut damaged = body.to_vec();
        damaged[at / 8] ^= 1 << (at % 8);
        seal(&mut damaged);
        if let Ok(walked) = read(damaged, &limits()) {
            assert!(walked.objects.len() <= 5);
        }
    }
}

proptest! {
    #[test]
    fn survives_arbitrary_bytes(body in proptest::collection::vec(any::<u8>(), 0..300), whole in any::<bool>()) {
        let mut bytes = [b"PACK\0\0\0\x02\0\0\0\x05".as_slice(), &body].concat();
        seal(&mut bytes);
        let _ = walk(&packed(bytes, whole), &limits());
    }

    #[test]
    fn survives_arbitrary_entries(
        entries in proptest::collection::vec(
            (1u8..8, 0u64..40, proptest::collection::vec(any::<u8>(), 0..30), any::<bool>()),
            0..12,
        ),
    ) {
        let mut pack = Builder::new();
        for (kind, claimed, data, honest) in &entries {
            let size = if *honest { data.len() as u64 } else { *claimed };
            let base: &[u8] = match *kind {
                OFFSET_DELTA => &[12],
                REF_DELTA => &[0; 20],
                _ => b"",
            };
            pack.raw(*kind, size, base, data);
        }
        if let Ok(walked) = read(pack.finish(), &limits()) {
            prop_assert!(walked.objects.len() <= entries.len());
        }
    }
}

#[test]
fn fuzz_packs() {
    let tight = FetchLimits {
        max_blob_bytes: 64 << 10,
        max_inflated_bytes: 256 << 10,
        ..limits()
    };
    fuzz("packs", &[b"PACK\0\0\0\x02", b"\x78\x9c"], |body| {
        let mut bytes = body.to_vec();
        seal(&mut bytes);
        for whole in [true, false] {
            let count = body.get(8..12).map_or(0, |count| {
                u32::from_be_bytes(count.try_into().unwrap()) as usize
            });
            if let Ok((walked, _)) = walk(&packed(bytes.clone(), whole), &tight) {
                assert!(walked.objects.len() <= count);
                assert!(
                    walked
                        .objects
                        .iter()
                        .all(|object| object.len() as u64 <= 64 << 10)
                );
            }
        }
    });
}
