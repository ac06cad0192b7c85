//! Lines of a list of references, in any version.

use std::borrow::Cow;

use gix_hash::ObjectId;

use super::super::{Line, Lines, Version, refuse_error};
use super::Head;
use crate::fetch::FetchError;

/// A line of a list.
pub(super) enum Item<'l> {
    Head(Head),
    Reference(Cow<'l, str>, ObjectId),
    Malformed,
    /// Nothing that matters.
    Other,
    End,
}

/// Parser of lists in either version.
#[derive(Debug)]
pub(super) struct Items {
    lines: Lines,
    pub(super) is_old: bool,
    /// `true` if the next flush is that after the name of the service, rather than the end.
    is_greeted: bool,
    /// Branch of `HEAD` by the capabilities of version 0, which stand after the first reference.
    branch: Option<String>,
}

impl Items {
    pub(super) fn new(version: Version) -> Self {
        Self {
            lines: Lines::default(),
            is_old: version != Version::Two,
            is_greeted: false,
            branch: None,
        }
    }

    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Item<'_>),
    ) -> Result<(), FetchError> {
        let Self {
            lines,
            is_old,
            is_greeted,
            branch,
        } = self;
        lines.feed(bytes, |line| {
            each(match line {
                Line::Flush if std::mem::take(is_greeted) => Item::Other,
                Line::Flush => Item::End,
                Line::Delimiter => Item::Other,
                Line::Data(data) => {
                    refuse_error(data)?;
                    if *is_old && data.starts_with(b"# service=") {
                        *is_greeted = true;
                        Item::Other
                    } else if *is_old {
                        in_version_0(data, branch)
                    } else {
                        in_version_2(data)
                    }
                }
            });
            Ok(())
        })
    }
}

fn in_version_2(data: &[u8]) -> Item<'_> {
    if let Some(head) = parse_head(data) {
        return Item::Head(head);
    }
    match parse_reference(data) {
        Some((name, id)) => Item::Reference(name, id),
        None if data.is_empty() => Item::Other,
        None => Item::Malformed,
    }
}

/// Parses a line of version 0, which lists `HEAD` first, and of annotated tags also the objects to which they lead, as
/// `NAME^{}`. Takes the branch of `HEAD` from the capabilities: `symref=HEAD:refs/heads/main`.
fn in_version_0<'l>(data: &'l [u8], branch: &mut Option<String>) -> Item<'l> {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let reference = parts.next().unwrap_or_default().trim_ascii_end();
    if let Some(capabilities) = parts.next() {
        let mut words = capabilities.split(u8::is_ascii_whitespace);
        let found = words.find_map(|word| word.strip_prefix(b"symref=HEAD:"));
        *branch = found.map(|name| String::from_utf8_lossy(name).into_owned());
    }
    if reference.ends_with(b"^{}")
        || reference.starts_with(b"shallow ")
        || reference == b"version 1"
    {
        return Item::Other;
    }
    match parse_head(reference) {
        Some(head) => Item::Head(Head {
            branch: branch.clone(),
            ..head
        }),
        None => in_version_2(reference),
    }
}

/// Parses `<id> refs/…`. Git bounds a name by nothing but the length of a line, and knows no encoding of it.
fn parse_reference(line: &[u8]) -> Option<(Cow<'_, str>, ObjectId)> {
    let mut words = line.trim_ascii_end().split(|byte| *byte == b' ');
    let id = ObjectId::from_hex(words.next()?).ok()?;
    let name = words.next().filter(|name| name.starts_with(b"refs/"))?;
    Some((String::from_utf8_lossy(name), id))
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
