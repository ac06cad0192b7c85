//! Commits at which a server cut a history.

use gix_hash::ObjectId;

use super::{Line, Lines, refuse_error};
use crate::fetch::FetchError;

/// Maximum number of commits that are kept: one for each branch of a repository that was cut once.
const KEPT_MAX: usize = 1_024;

/// Commits of an answer whose parents the server does not send, because they were not asked for or it does not have
/// them.
#[derive(Debug, Default)]
pub(in crate::fetch) struct Shallow {
    commits: Vec<ObjectId>,
    /// Last commit, and number of commits in a row that were asked for. `None` for all of them.
    asked: Option<(ObjectId, u32)>,
    is_cut: bool,
}

impl Shallow {
    /// Adds a line of the section `shallow-info`.
    pub(super) fn add(&mut self, line: &[u8]) {
        let Some(id) = line.strip_prefix(b"shallow ") else {
            return;
        };
        match ObjectId::from_hex(id) {
            Ok(id) if self.commits.len() < KEPT_MAX => self.commits.push(id),
            _ => self.is_cut = true,
        }
    }

    /// Adds where the server's own history is cut.
    pub(in crate::fetch) fn join(&mut self, own: Self) {
        self.is_cut |= own.is_cut;
        for id in own.commits {
            if self.commits.len() < KEPT_MAX {
                self.commits.push(id);
            } else {
                self.is_cut = true;
            }
        }
    }

    /// Notes that only as many commits in a row were asked for, back from the last one.
    pub(in crate::fetch) fn asked(&mut self, last: ObjectId, count: u32) {
        self.asked = Some((last, count));
    }

    /// Notes that less was asked for than is wanted.
    pub(in crate::fetch) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// Returns whether the history is cut, wherever that is.
    pub(in crate::fetch) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Returns the commits without parents.
    pub(in crate::fetch) fn commits(&self) -> &[ObjectId] {
        &self.commits
    }

    /// Returns the last commit, and the number of commits in a row that were asked for, if not all were.
    pub(in crate::fetch) fn limit(&self) -> Option<(ObjectId, u32)> {
        self.asked
    }
}

/// Parser of what a server of version 0 or 1 says of itself, of which nothing but the end of its own history matters: it
/// says that nowhere else (`gitprotocol-pack`, "Reference Discovery").
#[derive(Debug, Default)]
pub(in crate::fetch) struct CutAnswer {
    lines: Lines,
    shallow: Shallow,
    has_ended: bool,
}

impl CutAnswer {
    pub(in crate::fetch) fn feed(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        let Self {
            lines,
            shallow,
            has_ended,
        } = self;
        lines.feed(bytes, |line| {
            // The name of the service is followed by one, too, so it is the last line that counts.
            *has_ended = line == Line::Flush;
            if let Line::Data(data) = line {
                refuse_error(data)?;
                shallow.add(data.trim_ascii_end());
            }
            Ok(())
        })
    }

    /// Returns where the history is cut. An answer that has not ended does not tell.
    pub(in crate::fetch) fn finish(mut self) -> Shallow {
        self.shallow.is_cut |= !self.has_ended;
        self.shallow
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, id, packet};
    use super::super::{FetchAnswer, Version};
    use super::*;

    #[test]
    fn an_answer_tells_where_it_was_cut() {
        let line = format!("shallow {}\n", id('c'));
        let lines: [&[u8]; 8] = [
            b"shallow-info\n",
            line.as_bytes(),
            b"unshallow \n",
            b"0001",
            b"packfile\n",
            b"\x01shallow ",
            b"\x01PACK",
            b"0000",
        ];
        let mut read = FetchAnswer::new(Version::Two);
        let mut pack = Vec::new();
        read.feed(&answer(&lines), &mut pack).unwrap();
        assert_eq!(pack, b"shallow PACK");
        assert_eq!(read.shallow.commits(), [id('c')]);
        assert!(!read.shallow.is_cut());
    }

    #[test]
    fn a_server_of_version_0_tells_it_after_its_references() {
        let lines = [
            "# service=git-upload-pack\n".to_owned(),
            "0000".to_owned(),
            format!("{} HEAD\0shallow agent=x\n", id('a')),
            format!("{} refs/heads/shallow\n", id('b')),
            format!("shallow {}\n", id('c')),
            "0000".to_owned(),
        ];
        let bytes = answer(&lines.each_ref().map(String::as_bytes));
        for (end, is_cut) in [(bytes.len(), false), (bytes.len() - 4, true)] {
            let mut read = CutAnswer::default();
            read.feed(&bytes[..end]).unwrap();
            let told = read.finish();
            assert_eq!((told.commits(), told.is_cut()), (&[id('c')][..], is_cut));
        }
    }

    #[test]
    fn what_is_not_kept_of_it_counts_as_cut() {
        let line = packet(format!("shallow {}\n", id('c')).as_bytes());
        for (lines, is_cut) in [(KEPT_MAX, false), (KEPT_MAX + 1, true)] {
            let mut read = FetchAnswer::new(Version::Two);
            read.feed(&packet(b"shallow-info\n"), &mut Vec::new())
                .unwrap();
            for _ in 0..lines {
                read.feed(&line, &mut Vec::new()).unwrap();
            }
            assert_eq!(read.shallow.commits().len(), KEPT_MAX);
            assert_eq!(read.shallow.is_cut(), is_cut);
        }
        let mut damaged = Shallow::default();
        damaged.add(b"shallow c");
        assert!(damaged.is_cut());
    }
}
