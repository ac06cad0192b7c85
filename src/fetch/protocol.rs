//! Git protocol v2, as far as fetching ranges requires it: `ls-refs` and `fetch`.
//!
//! Source: `Documentation/gitprotocol-v2.adoc` and `gitprotocol-common.adoc` of git.

mod capabilities;
mod references;
mod shallow;

use gix_hash::ObjectId;
use gix_packetline::PacketLineRef;
use gix_packetline::decode::{self, Stream};

use super::FetchError;
use super::error::CUT;
pub(super) use capabilities::{Features, features, reason_for_nothing};
pub use references::References;
pub(super) use references::{Head, HeadAnswer, ReferencesAnswer};
pub(super) use shallow::Shallow;

const FLUSH: &str = "0000";
const DELIMITER: &str = "0001";

/// Maximum length of a server's own error message that is kept, in characters. Half of one that is longer is shown.
const MAX_MESSAGE: usize = 400;

fn line(text: &str) -> String {
    format!("{:04x}{text}\n", text.len() + 5)
}

fn request(command: &str, arguments: impl Iterator<Item = String>) -> Vec<u8> {
    let mut body = line(&format!("command={command}"));
    body += &line(concat!("agent=rescind/", env!("CARGO_PKG_VERSION")));
    // No `object-format`: SHA-1 is what holds without it, and git before 2.28 refuses what it does not know.
    body += DELIMITER;
    body.extend(arguments.map(|argument| line(&argument)));
    body += FLUSH;
    body.into_bytes()
}

/// Builds the request for the target of `HEAD`.
pub(super) fn ls_head() -> Vec<u8> {
    let arguments = ["symrefs", "ref-prefix HEAD"].map(str::to_owned);
    request("ls-refs", arguments.into_iter())
}

/// Builds the request for all branches and tags, and for the target of `HEAD`.
pub(super) fn ls_all() -> Vec<u8> {
    let arguments = [
        "symrefs",
        "ref-prefix HEAD",
        "ref-prefix refs/heads/",
        "ref-prefix refs/tags/",
    ];
    request("ls-refs", arguments.map(str::to_owned).into_iter())
}

/// Builds the request for `want` and everything reachable from it, except what is reachable from `haves`.
///
/// With `done` the server sends a pack in any case, with all of history if it knows none of `haves`.
/// Without it the server first states which of them it knows, and sends the pack in the same answer if
/// they are related.
///
/// No `thin-pack`, so that the base of every delta is included. No `include-tag`, so that only what was
/// requested is sent.
pub(super) fn fetch(want: &ObjectId, haves: &[ObjectId], done: bool) -> Vec<u8> {
    let arguments = ["no-progress".to_owned(), "ofs-delta".to_owned()]
        .into_iter()
        .chain([format!("want {want}")])
        .chain(haves.iter().map(|have| format!("have {have}")))
        .chain(done.then(|| "done".to_owned()));
    request("fetch", arguments)
}

/// Builds the request for `want` and as many commits in a row before it, `count` in all. With `filter`, which not every
/// server takes, without what is in them.
pub(super) fn fetch_latest(want: &ObjectId, count: u32, filter: bool) -> Vec<u8> {
    let arguments = ["no-progress".to_owned(), "ofs-delta".to_owned()]
        .into_iter()
        .chain([format!("want {want}"), format!("deepen {count}")])
        .chain(filter.then(|| "filter tree:0".to_owned()))
        .chain(["done".to_owned()]);
    request("fetch", arguments)
}

/// A line of a protocol v2 response.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Data(&'a [u8]),
    Delimiter,
    Flush,
}

/// Splits the bytes of a response, in pieces of any size, into lines.
#[derive(Debug, Default)]
struct Lines {
    held: Vec<u8>,
}

impl Lines {
    /// Calls `each` with every line that `bytes` completes.
    fn feed(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Line<'_>) -> Result<(), FetchError>,
    ) -> Result<(), FetchError> {
        // The held remainder is shorter than one line; the copy spares a second code path.
        self.held.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let rest = &self.held[at..];
            // Git itself accepts a line of length 4 as an empty one; the decoder would report an error.
            if rest.starts_with(b"0004") {
                each(Line::Data(b""))?;
                at += 4;
                continue;
            }
            match decode::streaming(rest) {
                Ok(Stream::Complete {
                    line,
                    bytes_consumed,
                }) => {
                    each(match line {
                        PacketLineRef::Data(data) => Line::Data(data),
                        PacketLineRef::Delimiter => Line::Delimiter,
                        PacketLineRef::Flush | PacketLineRef::ResponseEnd => Line::Flush,
                    })?;
                    at += bytes_consumed;
                }
                Ok(Stream::Incomplete { .. }) => break,
                Err(_) => return Err(FetchError::Protocol("a line has no valid length")),
            }
        }
        self.held.drain(..at);
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Header,
    Acknowledgments,
    Packfile,
    Shallow,
    Skipped,
    Ended,
}

/// Incremental parser of the response to [`fetch`].
#[derive(Debug)]
pub(super) struct FetchAnswer {
    lines: Lines,
    section: Section,
    /// `true` if the server knows one of the commits that were named as `haves`.
    pub(super) acknowledged: bool,
    /// `true` if a pack has begun.
    pub(super) has_pack: bool,
    /// Commits at which the server cut the history. They come before the pack.
    pub(super) shallow: Shallow,
}

impl FetchAnswer {
    pub(super) fn new() -> Self {
        Self {
            lines: Lines::default(),
            section: Section::Header,
            acknowledged: false,
            has_pack: false,
            shallow: Shallow::default(),
        }
    }

    /// Parses the next bytes of the response and appends the pack data in them to `pack`.
    pub(super) fn feed(&mut self, bytes: &[u8], pack: &mut Vec<u8>) -> Result<(), FetchError> {
        let Self {
            lines,
            section,
            acknowledged,
            has_pack,
            shallow,
        } = self;
        lines.feed(bytes, |line| {
            *section = match (*section, line) {
                (Section::Ended, _) | (_, Line::Flush) => Section::Ended,
                (_, Line::Delimiter) => Section::Header,
                (Section::Packfile, Line::Data(data)) => {
                    demultiplex(data, pack)?;
                    Section::Packfile
                }
                (current, Line::Data(data)) => {
                    refuse_error(data)?;
                    let text = data.trim_ascii_end();
                    match current {
                        Section::Header => {
                            let section = section_named(text)?;
                            *has_pack |= section == Section::Packfile;
                            section
                        }
                        Section::Acknowledgments => {
                            *acknowledged |= text.starts_with(b"ACK ") || text == b"ready";
                            Section::Acknowledgments
                        }
                        Section::Shallow => {
                            shallow.add(text);
                            Section::Shallow
                        }
                        other => other,
                    }
                }
            };
            Ok(())
        })
    }

    /// Checks that the response ended where it may.
    pub(super) fn finish(&self) -> Result<(), FetchError> {
        if self.section == Section::Ended && self.lines.is_empty() {
            Ok(())
        } else {
            Err(FetchError::Network("the answer is cut short".to_owned()))
        }
    }
}

fn section_named(text: &[u8]) -> Result<Section, FetchError> {
    match text {
        b"acknowledgments" => Ok(Section::Acknowledgments),
        b"packfile" => Ok(Section::Packfile),
        b"shallow-info" => Ok(Section::Shallow),
        b"wanted-refs" => Ok(Section::Skipped),
        _ => Err(FetchError::Protocol("an unknown section in the answer")),
    }
}

/// Demultiplexes the side bands: 1 is pack data, 2 progress, 3 a fatal error.
fn demultiplex(data: &[u8], pack: &mut Vec<u8>) -> Result<(), FetchError> {
    match data.split_first() {
        Some((1, data)) => pack.extend_from_slice(data),
        Some((3, message)) => return Err(refused(message)),
        // Unrequested progress, and keep-alives.
        Some((2, _)) | None => {}
        Some(_) => return Err(FetchError::Protocol("an unknown side band")),
    }
    Ok(())
}

fn refuse_error(line: &[u8]) -> Result<(), FetchError> {
    match line.strip_prefix(b"ERR ") {
        Some(message) => Err(refused(message)),
        None => Ok(()),
    }
}

fn refused(message: &[u8]) -> FetchError {
    let message = String::from_utf8_lossy(message);
    // Git's words, and JGit's: "want {0} not valid" (JGitText.properties, wantNotValid).
    let is_gone = message.contains("not our ref")
        || message.contains("want ") && message.trim_end().ends_with(" not valid");
    if is_gone {
        return FetchError::CommitGone;
    }
    // Removed rather than replaced: a key that they break in two must be recognized.
    let mut plain = message.trim().chars().filter(|c| !c.is_control());
    let mut kept: String = plain.by_ref().take(MAX_MESSAGE).collect();
    if plain.next().is_some() {
        kept.push_str(CUT);
    }
    FetchError::Refused(kept)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

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
        let mut answer = FetchAnswer::new();
        let mut pack = Vec::new();
        for piece in bytes.chunks(step) {
            answer.feed(piece, &mut pack)?;
        }
        answer.finish()?;
        Ok((answer, pack))
    }

    #[test]
    fn asks_in_one_request() {
        let body = String::from_utf8(fetch(&id('a'), &[id('b')], false)).unwrap();
        let want = format!("0032want {}\n", id('a'));
        let have = format!("0032have {}\n", id('b'));
        assert!(body.starts_with("0012command=fetch\n"), "{body}");
        assert!(body.contains(&want) && body.contains(&have), "{body}");
        assert!(
            !body.contains("thin-pack") && !body.contains("done"),
            "{body}"
        );
        assert!(body.ends_with("0000"), "{body}");
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
            let _ = read(&bytes, step);
            let mut head = HeadAnswer::default();
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
            let _ = read(&lines.concat(), step);
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
            let mut head = HeadAnswer::default();
            let _ = head.feed(bytes).and_then(|()| head.finish().map(drop));
            let mut references = ReferencesAnswer::default();
            if references.feed(bytes).is_ok() {
                assert!(references.held() <= 4 * bytes.len() + 1024);
                let _ = references.finish();
            }
        });
    }
}
