//! References of a repository and their targets.

mod line;
mod one;

use gix_hash::ObjectId;

use super::Version;
use crate::fetch::FetchError;
use crate::memory;
use line::{Item, Items};
pub(in crate::fetch) use one::{HeadAnswer, TipAnswer};

/// Maximum number of references of a list that are kept.
const MAX_KEPT: usize = 50_000;

/// Maximum size of their names, in bytes.
const MAX_KEPT_BYTES: usize = memory::REFERENCES;

/// Name of the reference to what is checked out. It is read as a branch where no other reference leads to its commit.
pub const HEAD: &str = "HEAD";

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

const CUT_SHORT: FetchError = FetchError::Protocol("the list of references is cut short");

/// Memory of a reference in addition to its name, in bytes: its place in the list, and the overhead of
/// allocating the name.
const REFERENCE_BYTES: usize = 80;

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
    /// Commit of `HEAD`. `None` if the repository is empty.
    pub head_id: Option<ObjectId>,
    /// `true` if there are more than 50,000 references, or their names exceed 4 MiB. The rest is omitted.
    pub cut: bool,
}

impl References {
    /// Returns the commit of `HEAD` if no branch or tag of the list has it, as where a deployment is checked out.
    pub fn unnamed_head(&self) -> Option<ObjectId> {
        let head = self.head_id?;
        self.list.iter().all(|(_, id)| *id != head).then_some(head)
    }
}

/// Parser of a list of all references.
#[derive(Debug)]
pub(in crate::fetch) struct ReferencesAnswer {
    items: Items,
    references: References,
    name_bytes: usize,
    ended: bool,
}

impl ReferencesAnswer {
    pub(in crate::fetch) fn new(version: Version) -> Self {
        Self {
            items: Items::new(version),
            references: References::default(),
            name_bytes: 0,
            ended: false,
        }
    }

    pub(in crate::fetch) fn feed(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        let Self {
            items,
            references,
            name_bytes,
            ended,
        } = self;
        items.feed(bytes, |item| match item {
            _ if *ended => {}
            Item::End => *ended = true,
            Item::Head(head) => {
                references.head = head.branch;
                references.head_id = Some(head.id);
            }
            // Pull requests, notes and the like, which nobody asked for.
            Item::Reference(name, _) if !is_listed(&name) => {}
            Item::Reference(name, id) => {
                *name_bytes += name.len();
                let is_full = references.list.len() >= MAX_KEPT;
                if is_full || *name_bytes > MAX_KEPT_BYTES {
                    references.cut = true;
                } else {
                    references.list.push((name.into_owned(), id));
                }
            }
            Item::Malformed => references.malformed += 1,
            Item::Other => {}
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
            Err(CUT_SHORT)
        }
    }
}

fn is_listed(name: &str) -> bool {
    name.starts_with("refs/heads/") || name.starts_with("refs/tags/")
}

#[cfg(test)]
mod tests {
    use super::super::dialect::Offers;
    use super::super::tests::{answer, id, packet};
    use super::*;

    #[test]
    fn a_list_of_references_is_kept_up_to_a_limit() {
        let mut answer = ReferencesAnswer::new(Version::Two);
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
        let mut listed = ReferencesAnswer::new(Version::Two);
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
        assert_eq!(
            (references.head_id, references.unnamed_head()),
            (Some(one), None)
        );
        assert_eq!(references.malformed, 2);
    }

    #[test]
    fn a_list_of_version_0_has_branches_and_tags_only() {
        let (one, other) = ("a".repeat(64), "b".repeat(64));
        let lines = [
            "# service=git-upload-pack\n".to_owned(),
            "0000".to_owned(),
            format!("{one} HEAD\0multi_ack symref=HEAD:refs/heads/main object-format=sha256\n"),
            format!("{one} refs/heads/main\n"),
            format!("{one} refs/pull/7/head\n"),
            format!("{other} refs/tags/v1\n"),
            format!("{one} refs/tags/v1^{{}}\n"),
            "nonsense\n".to_owned(),
            "0000".to_owned(),
        ];
        let bytes = answer(&lines.each_ref().map(String::as_bytes));
        let old = Version::Old(Offers::default());
        let mut listed = ReferencesAnswer::new(old);
        listed.feed(&bytes).unwrap();
        let references = listed.finish().unwrap();
        let id = |digits: &str| ObjectId::from_hex(digits.as_bytes()).unwrap();
        let expected = [("refs/heads/main", id(&one)), ("refs/tags/v1", id(&other))];
        let expected = expected.map(|(name, id)| (name.to_owned(), id));
        assert_eq!(references.list, expected);
        assert_eq!(references.head.as_deref(), Some("refs/heads/main"));
        assert_eq!(references.malformed, 1);

        let mut head = HeadAnswer::new(old);
        head.feed(&bytes).unwrap();
        let head = head.finish().unwrap().unwrap();
        assert_eq!((head.id, head.branch), (id(&one), references.head));
        let mut tip = TipAnswer::new(old, "refs/tags/v1");
        tip.feed(&bytes).unwrap();
        assert_eq!(tip.tip(), Some(id(&other)));
        let mut tip = TipAnswer::new(old, HEAD);
        tip.feed(&bytes).unwrap();
        assert_eq!(tip.tip(), Some(id(&one)));

        let none = format!(
            "{} capabilities^{{}}\0symref=HEAD:refs/heads/main\n",
            "0".repeat(40)
        );
        let empty = answer(&[
            b"# service=git-upload-pack\n",
            b"0000",
            none.as_bytes(),
            b"0000",
        ]);
        let mut listed = ReferencesAnswer::new(old);
        listed.feed(&empty).unwrap();
        assert_eq!(listed.finish().unwrap(), References::default());
        let mut head = HeadAnswer::new(old);
        head.feed(&empty).unwrap();
        assert_eq!(head.finish().unwrap(), None);
    }

    #[test]
    fn reads_where_head_points_to() {
        let line = format!("{} HEAD symref-target:refs/heads/main\n", id('c'));
        let mut symbolic = HeadAnswer::new(Version::Two);
        symbolic.feed(&answer(&[line.as_bytes(), b"0000"])).unwrap();
        let head = symbolic.finish().unwrap().unwrap();
        assert_eq!(head.id, id('c'));
        assert_eq!(head.branch.as_deref(), Some("refs/heads/main"));

        let mut empty = HeadAnswer::new(Version::Two);
        empty.feed(b"0000").unwrap();
        assert_eq!(empty.finish().unwrap(), None);

        let mut cut = HeadAnswer::new(Version::Two);
        cut.feed(&packet(line.as_bytes())).unwrap();
        assert!(cut.finish().is_err());
    }
}
