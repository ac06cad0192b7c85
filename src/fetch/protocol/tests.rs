//! Tests of what servers answer, in either version.

use proptest::prelude::*;

use gix_hash::ObjectId;

use super::*;
use crate::fuzzing::fuzz;

pub(super) fn id(digit: char) -> ObjectId {
    ObjectId::from_hex(digit.to_string().repeat(40).as_bytes()).unwrap()
}

pub(super) fn packet(data: &[u8]) -> Vec<u8> {
    [format!("{:04x}", data.len() + 4).as_bytes(), data].concat()
}

pub(super) fn answer(lines: &[&[u8]]) -> Vec<u8> {
    lines
        .iter()
        .flat_map(|line| match *line {
            b"0000" | b"0001" | b"0002" => line.to_vec(),
            data => packet(data),
        })
        .collect()
}

fn read(bytes: &[u8], step: usize) -> Result<(FetchAnswer, Vec<u8>), FetchError> {
    read_in(Version::Two, bytes, step)
}

fn read_old(bytes: &[u8], step: usize) -> Result<(FetchAnswer, Vec<u8>), FetchError> {
    read_in(Version::Old(Offers::default()), bytes, step)
}

fn read_in(
    version: Version,
    bytes: &[u8],
    step: usize,
) -> Result<(FetchAnswer, Vec<u8>), FetchError> {
    let mut answer = FetchAnswer::new(version);
    let mut pack = Vec::new();
    for piece in bytes.chunks(step) {
        answer.feed(piece, &mut pack)?;
    }
    answer.finish()?;
    Ok((answer, pack))
}

#[test]
fn reads_an_answer_in_pieces_of_any_size() {
    let ack = format!("ACK {}\n", id('b'));
    let bytes = answer(&[
        b"acknowledgments\n",
        ack.as_bytes(),
        b"ready\n",
        b"0001",
        b"packfile\n",
        b"\x02Counting objects\n",
        b"\x01PA",
        b"\x01",
        b"\x01CK",
        b"0000",
    ]);
    for step in 1..=bytes.len() {
        let (answer, pack) = read(&bytes, step).unwrap();
        assert!(answer.acknowledged && answer.has_pack);
        assert_eq!(pack, b"PACK");
    }
}

#[test]
fn reads_an_answer_of_version_0_in_pieces_of_any_size() {
    let common = format!("ACK {} common\n", id('b'));
    let ready = format!("ACK {}\n", id('b'));
    let shallow = format!("shallow {}\n", id('c'));
    let with_pack = answer(&[
        shallow.as_bytes(),
        b"0000",
        common.as_bytes(),
        b"NAK\n",
        ready.as_bytes(),
        b"\x02Counting\n",
        b"\x01PA",
        b"",
        b"\x01CK",
        b"0000",
    ]);
    let known = answer(&[common.as_bytes(), b"NAK\n"]);
    let unknown = answer(&[b"NAK\n"]);
    for (bytes, acknowledged, pack) in [
        (&with_pack, true, &b"PACK"[..]),
        (&known, true, b""),
        (&unknown, false, b""),
    ] {
        for step in 1..=bytes.len() {
            let (answer, read) = read_old(bytes, step).unwrap();
            assert_eq!(answer.acknowledged, acknowledged);
            assert_eq!((answer.has_pack, &*read), (!pack.is_empty(), pack));
        }
    }
    // Where the lines about what is known end, there may be no pack.
    let mut known_ends = vec![shallow.len() + 8 + common.len() + 4];
    for more in ["NAK\n".len(), ready.len(), "_Counting\n".len()] {
        known_ends.push(known_ends[known_ends.len() - 1] + more + 4);
    }
    for end in 0..with_pack.len() {
        let is_read = read_old(&with_pack[..end], 99).is_ok();
        assert_eq!(is_read, known_ends.contains(&end), "cut at {end}");
    }
    let error = read_old(&answer(&[b"ERR upload-pack: not our ref aaaa"]), 9);
    assert!(matches!(error, Err(FetchError::CommitGone)));
    let fatal = read_old(&answer(&[b"NAK\n", b"\x03out of cheese\n", b"0000"]), 9);
    assert!(matches!(fatal, Err(FetchError::Refused(_))));
}

#[test]
fn an_unknown_have_is_no_acknowledgment() {
    let bytes = answer(&[b"acknowledgments\n", b"NAK\n", b"0000"]);
    let (answer, pack) = read(&bytes, 7).unwrap();
    assert!(!answer.acknowledged && !answer.has_pack && pack.is_empty());
}

#[test]
fn names_the_servers_own_errors() {
    let fatal = answer(&[b"packfile\n", b"\x03out of\x07 cheese\n", b"0000"]);
    let error = read(&fatal, 5).unwrap_err();
    assert_eq!(error.to_string(), "the git server reports: out of cheese");
    for gone in ["upload-pack: not our ref aaaa", "want aaaa not valid\n"] {
        let gone = answer(&[format!("ERR {gone}").as_bytes()]);
        assert!(matches!(read(&gone, 99), Err(FetchError::CommitGone)));
    }
}

#[test]
fn a_cut_answer_is_an_error() {
    let bytes = answer(&[b"packfile\n", b"\x01PACK", b"0000"]);
    for end in 0..bytes.len() {
        assert!(read(&bytes[..end], 99).is_err(), "cut at {end}");
    }
}

proptest! {
    #[test]
    fn survives_arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400), step in 1usize..64) {
        let _ = (read(&bytes, step), read_old(&bytes, step), Dialect::of(&bytes));
        let mut head = HeadAnswer::new(Version::Two);
        let _ = head.feed(&bytes).and_then(|()| head.finish().map(|_| ()));
    }

    #[test]
    fn survives_arbitrary_lines(
        lines in proptest::collection::vec(
            prop_oneof![
                Just(b"0000".to_vec()), Just(b"0001".to_vec()), Just(b"0004".to_vec()),
                Just(packet(b"packfile\n")), Just(packet(b"acknowledgments\n")),
                proptest::collection::vec(any::<u8>(), 1..40).prop_map(|data| packet(&data)),
            ],
            0..20,
        ),
        step in 1usize..64,
    ) {
        let _ = (read(&lines.concat(), step), read_old(&lines.concat(), step));
    }
}

#[test]
fn fuzz_pkt_lines() {
    let words: &[&[u8]] = &[b"0009\x01PACK", b"000dpackfile\n", b"0014acknowledgments\n"];
    fuzz("pkt_lines", words, |bytes| {
        // How an answer is cut into pieces makes no difference.
        let seen = |step| {
            let read = read(bytes, step);
            read.map(|(answer, pack)| (answer.acknowledged, answer.has_pack, pack))
                .map_err(|error| error.to_string())
        };
        let whole = seen(bytes.len().max(1));
        for step in [1, 7] {
            assert_eq!(seen(step), whole);
        }
        let _ = (read_old(bytes, 7), Dialect::of(bytes));
        for version in [Version::Two, Version::Old(Offers::default())] {
            let mut head = HeadAnswer::new(version);
            let _ = head.feed(bytes).and_then(|()| head.finish().map(drop));
            let mut references = ReferencesAnswer::new(version);
            if references.feed(bytes).is_ok() {
                assert!(references.held() <= 4 * bytes.len() + 1024);
                let _ = references.finish();
            }
        }
    });
}
