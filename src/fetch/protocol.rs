//! Git's protocol, as far as fetching ranges requires it: lists of references and packs, in version 2, and in versions 0
//! and 1 from servers that know no other.
//!
//! Source: `Documentation/gitprotocol-v2.adoc`, `gitprotocol-pack.adoc` and `gitprotocol-common.adoc` of git.

mod capabilities;
mod dialect;
mod references;
mod request;
mod shallow;
#[cfg(test)]
pub(super) mod tests;

use gix_packetline::PacketLineRef;
use gix_packetline::decode::{self, Stream};

use super::FetchError;
use super::error::CUT;
pub(super) use capabilities::{Features, features};
#[cfg(test)]
pub(super) use dialect::Offers;
pub(super) use dialect::{Dialect, Version};
pub use references::{HEAD, References};
pub(super) use references::{Head, HeadAnswer, ReferencesAnswer, TipAnswer};
pub(super) use request::{List, Request, fetch, fetch_latest};
pub(super) use shallow::{CutAnswer, Shallow};

/// Maximum length of a server's own error message that is kept, in characters. Half of one that is longer is shown.
const MAX_MESSAGE: usize = 400;

/// A line of a response.
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

/// Incremental parser of the response to a [`Request`].
#[derive(Debug)]
pub(super) struct FetchAnswer {
    lines: Lines,
    section: Section,
    is_old: bool,
    /// `true` if the server knows one of the commits that were named as `haves`.
    pub(super) acknowledged: bool,
    /// `true` if a pack has begun.
    pub(super) has_pack: bool,
    /// Commits at which the server cut the history. They come before the pack.
    pub(super) shallow: Shallow,
}

impl FetchAnswer {
    pub(super) fn new(version: Version) -> Self {
        let is_old = version != Version::Two;
        Self {
            lines: Lines::default(),
            section: Section::Header,
            is_old,
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
            is_old,
            acknowledged,
            has_pack,
            shallow,
        } = self;
        lines.feed(bytes, |line| {
            if *is_old {
                let seen = in_version_0(*section, line, pack, shallow)?;
                *acknowledged |= seen == Seen::Acknowledged;
                *has_pack |= seen == Seen::Pack;
                *section = seen.section(*section);
                return Ok(());
            }
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
        // Without a pack, an answer of version 0 ends after the last line about what is known.
        let may_end = self.is_old && self.section == Section::Acknowledgments;
        let has_ended = self.section == Section::Ended || may_end;
        if has_ended && self.lines.is_empty() {
            Ok(())
        } else {
            Err(FetchError::Network("the answer is cut short".to_owned()))
        }
    }
}

/// Meaning of a line of version 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The server knows a commit that was named.
    Acknowledged,
    /// The server knows none of those that were named so far.
    Unknown,
    /// A part of the pack.
    Pack,
    /// Progress, or limits of history.
    Nothing,
    End,
}

impl Seen {
    fn section(self, before: Section) -> Section {
        match self {
            Self::Acknowledged | Self::Unknown => Section::Acknowledgments,
            Self::Pack => Section::Packfile,
            Self::Nothing => before,
            Self::End => Section::Ended,
        }
    }
}

/// Parses a line of a response of version 0, in which nothing but the lines themselves tell where one section ends and
/// the next one begins. Appends the pack data in it to `pack`, and a commit at which the history is cut to `shallow`.
fn in_version_0(
    section: Section,
    line: Line<'_>,
    pack: &mut Vec<u8>,
    shallow: &mut Shallow,
) -> Result<Seen, FetchError> {
    match (section, line) {
        (Section::Packfile | Section::Ended, Line::Flush) => Ok(Seen::End),
        (Section::Ended, _) | (_, Line::Flush | Line::Delimiter) => Ok(Seen::Nothing),
        (_, Line::Data(data)) if data.first().is_none_or(|first| *first < b' ') => {
            demultiplex(data, pack)?;
            let is_pack = data.first() == Some(&1);
            Ok(if is_pack { Seen::Pack } else { Seen::Nothing })
        }
        (_, Line::Data(data)) => {
            refuse_error(data)?;
            let text = data.trim_ascii_end();
            match text.split(|byte| *byte == b' ').next() {
                Some(b"ACK") => Ok(Seen::Acknowledged),
                Some(b"NAK") => Ok(Seen::Unknown),
                Some(b"shallow" | b"unshallow") => {
                    shallow.add(text);
                    Ok(Seen::Nothing)
                }
                _ => Err(FetchError::Protocol("an unknown line in the answer")),
            }
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
