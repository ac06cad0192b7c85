//! References of a repository and their targets.

use std::borrow::Cow;

use gix_hash::ObjectId;

use super::{Line, Lines, refuse_error};
use crate::fetch::FetchError;
use crate::memory;

/// Maximum number of references of a list that are kept.
const MAX_KEPT: usize = 50_000;

/// Maximum size of their names, in bytes.
const MAX_KEPT_BYTES: usize = memory::REFERENCES;

/// `HEAD` of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::fetch) struct Head {
    /// Id of the commit.
    pub(in crate::fetch) id: ObjectId,
    /// Full name of the branch, `refs/heads/…`; `None` if `HEAD` is detached.
    pub(in crate::fetch) branch: Option<String>,
}

impl Head {
    /// Returns the commit if its history is read as that of a branch other than `pushed`. Nobody reads a detached
    /// `HEAD`, nor one that is no branch, and a branch that may be the pushed one is not another. An empty `pushed` may
    /// be any.
    pub(in crate::fetch) fn of_another(&self, pushed: &str) -> Option<ObjectId> {
        let branch = self.branch.as_deref().unwrap_or_default();
        let is_other = branch.starts_with("refs/heads/") && branch != pushed;
        (is_other && !pushed.is_empty()).then_some(self.id)
    }
}

/// Parser of the response to [`ls_head`](super::ls_head), which contains nothing if the repository is
/// empty.
#[derive(Debug, Default)]
pub(in crate::fetch) struct HeadAnswer {
    lines: Lines,
    head: Option<Head>,
    ended: bool,
}

impl HeadAnswer {
    pub(in crate::fetch) fn feed(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        let Self { lines, head, ended } = self;
        lines.feed(bytes, |line| {
            match line {
                _ if *ended => {}
                Line::Flush => *ended = true,
                Line::Delimiter => {}
                Line::Data(data) => {
                    refuse_error(data)?;
                    refuse_sha256(data)?;
                    // A server may ignore `ref-prefix`, and go on with all other references.
                    *ended = head.is_some();
                    *head = head.take().or(parse_head(data));
                }
            }
            Ok(())
        })
    }

    /// Returns whether nothing more of the answer is needed.
    pub(in crate::fetch) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(in crate::fetch) fn finish(self) -> Result<Option<Head>, FetchError> {
        if self.ended {
            Ok(self.head)
        } else {
            Err(FetchError::Protocol("the list of references is cut short"))
        }
    }
}

/// Memory of a reference in addition to its name, in bytes: its place in the list, and the overhead of
/// allocating the name.
const REFERENCE_BYTES: usize = 64;

/// Branches and tags of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Full names, `refs/heads/…` and `refs/tags/…`, and their targets. What is not UTF-8 in a name is U+FFFD:
    /// targets are requested by their ids.
    pub list: Vec<(String, ObjectId)>,
    /// Number of lines that name no reference.
    pub malformed: u64,
    /// Target of `HEAD`, as a full name. `None` if it is detached or the repository is empty.
    pub head: Option<String>,
    /// `true` if there are more than 50,000 references, or their names exceed 4 MiB. The rest is omitted.
    pub cut: bool,
}

/// Parser of the response to [`ls_all`](super::ls_all).
#[derive(Debug, Default)]
pub(in crate::fetch) struct ReferencesAnswer {
    lines: Lines,
    references: References,
    name_bytes: usize,
    ended: bool,
}

impl ReferencesAnswer {
    pub(in crate::fetch) fn feed(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        let Self {
            lines,
            references,
            name_bytes,
            ended,
        } = self;
        lines.feed(bytes, |line| {
            match line {
                _ if *ended => {}
                Line::Flush => *ended = true,
                Line::Delimiter => {}
                Line::Data(data) => {
                    refuse_error(data)?;
                    refuse_sha256(data)?;
                    if let Some(head) = parse_head(data) {
                        references.head = head.branch;
                    } else if let Some((name, id)) = parse_reference(data) {
                        *name_bytes += name.len();
                        let is_full = references.list.len() >= MAX_KEPT;
                        if is_full || *name_bytes > MAX_KEPT_BYTES {
                            references.cut = true;
                        } else {
                            references.list.push((name.into_owned(), id));
                        }
                    } else if !data.is_empty() {
                        references.malformed += 1;
                    }
                }
            }
            Ok(())
        })
    }

    /// Returns the memory held, in bytes.
    pub(in crate::fetch) fn held(&self) -> usize {
        self.name_bytes.min(MAX_KEPT_BYTES) + self.references.list.len() * REFERENCE_BYTES
    }

    pub(in crate::fetch) fn finish(self) -> Result<References, FetchError> {
        if self.ended {
            Ok(self.references)
        } else {
            Err(FetchError::Protocol("the list of references is cut short"))
        }
    }
}

/// Parses `<id> refs/…`. Git bounds a name by nothing but the length of a line, and knows no encoding of it.
fn parse_reference(line: &[u8]) -> Option<(Cow<'_, str>, ObjectId)> {
    let mut words = line.trim_ascii_end().split(|byte| *byte == b' ');
    let id = ObjectId::from_hex(words.next()?).ok()?;
    let name = words.next().filter(|name| name.starts_with(b"refs/"))?;
    Some((String::from_utf8_lossy(name), id))
}

/// Returns an error if the line begins with an object name of 64 digits.
fn refuse_sha256(line: &[u8]) -> Result<(), FetchError> {
    let id = line.split(u8::is_ascii_whitespace).next();
    let is_long = |id: &[u8]| id.len() == 64 && id.iter().all(u8::is_ascii_hexdigit);
    if id.is_some_and(is_long) {
        Err(FetchError::Sha256)
    } else {
        Ok(())
    }
}

/// Parses `<id> HEAD symref-target:<branch>`.
fn parse_head(line: &[u8]) -> Option<Head> {
    let line = String::from_utf8_lossy(line);
    let mut words = line.trim_ascii_end().split(' ');
    let id = ObjectId::from_hex(words.next()?.as_bytes()).ok()?;
    if words.next()? != "HEAD" {
        return None;
    }
    let branch = words
        .find_map(|word| word.strip_prefix("symref-target:"))
        .map(str::to_owned);
    Some(Head { id, branch })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, id, packet};
    use super::*;

    #[test]
    fn a_list_of_references_is_kept_up_to_a_limit() {
        let mut answer = ReferencesAnswer::default();
        for n in 0..=MAX_KEPT {
            let line = format!("{} refs/heads/{n}\n", id('a'));
            answer.feed(&packet(line.as_bytes())).unwrap();
        }
        answer.feed(b"0000").unwrap();
        let references = answer.finish().unwrap();
        assert_eq!((references.list.len(), references.cut), (MAX_KEPT, true));
    }

    #[test]
    fn names_are_read_in_any_encoding_and_other_lines_are_counted() {
        let one = id('a');
        let line = |name: &[u8]| [format!("{one} ").as_bytes(), name, b"\n"].concat();
        let mut listed = ReferencesAnswer::default();
        let lines = [
            &line(b"HEAD symref-target:refs/heads/\xe9")[..],
            &line(b"refs/heads/\xe9"),
            &line("refs/heads/a\u{85}".as_bytes()),
            &line(b"refs/tags/v1 peeled:0"),
            b"nonsense\n",
            &line(b"elsewhere"),
            b"0000",
        ];
        listed.feed(&answer(&lines)).unwrap();
        let references = listed.finish().unwrap();
        let names: Vec<_> = references.list.iter().map(|(name, _)| &**name).collect();
        let expected = ["refs/heads/\u{fffd}", "refs/heads/a\u{85}", "refs/tags/v1"];
        assert_eq!(names, expected);
        assert_eq!(references.head.as_deref(), Some("refs/heads/\u{fffd}"));
        assert_eq!(references.malformed, 2);

        let wide = format!("{} refs/heads/main\n", "a".repeat(64));
        let mut listed = ReferencesAnswer::default();
        let read = listed.feed(&packet(wide.as_bytes()));
        assert!(matches!(read, Err(FetchError::Sha256)));
    }

    #[test]
    fn reads_where_head_points_to() {
        let line = format!("{} HEAD symref-target:refs/heads/main\n", id('c'));
        let mut symbolic = HeadAnswer::default();
        symbolic.feed(&answer(&[line.as_bytes(), b"0000"])).unwrap();
        let head = symbolic.finish().unwrap().unwrap();
        assert_eq!(head.id, id('c'));
        assert_eq!(head.branch.as_deref(), Some("refs/heads/main"));

        let mut empty = HeadAnswer::default();
        empty.feed(b"0000").unwrap();
        assert_eq!(empty.finish().unwrap(), None);

        let mut cut = HeadAnswer::default();
        cut.feed(&packet(line.as_bytes())).unwrap();
        assert!(cut.finish().is_err());
    }
}
