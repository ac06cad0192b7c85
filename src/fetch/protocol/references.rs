//! References of a repository and their targets.

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
    /// `HEAD`, nor one that is no branch, and a branch that may be the pushed one is not another. An empty `pushed` may be any.
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
                    *head = head.take().or(parse_head(data));
                }
            }
            Ok(())
        })
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
    /// Full names, `refs/heads/…` and `refs/tags/…`, and their targets.
    pub list: Vec<(String, ObjectId)>,
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
                    if let Some(head) = parse_head(data) {
                        references.head = head.branch;
                    } else if let Some((name, id)) = parse_reference(data) {
                        *name_bytes += name.len();
                        let is_full = references.list.len() >= MAX_KEPT;
                        if is_full || *name_bytes > MAX_KEPT_BYTES {
                            references.cut = true;
                        } else {
                            references.list.push((name.to_owned(), id));
                        }
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

/// Parses `<id> refs/…`. Names that are not UTF-8 cannot be requested and are skipped.
fn parse_reference(line: &[u8]) -> Option<(&str, ObjectId)> {
    let line = std::str::from_utf8(line).ok()?;
    let (id, rest) = line.trim_end().split_once(' ')?;
    let name = rest.split(' ').next()?;
    let id = ObjectId::from_hex(id.as_bytes()).ok()?;
    name.starts_with("refs/").then_some((name, id))
}

/// Parses `<id> HEAD symref-target:<branch>`.
fn parse_head(line: &[u8]) -> Option<Head> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.trim_end().split(' ');
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
