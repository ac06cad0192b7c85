//! Lists of which one reference matters.

use gix_hash::ObjectId;

use super::super::Version;
use super::line::{Item, Items};
use super::{CUT_SHORT, HEAD, Head};
use crate::fetch::FetchError;

/// Parser of a list of which nothing but `HEAD` matters. It contains nothing if the repository is empty.
#[derive(Debug)]
pub(in crate::fetch) struct HeadAnswer {
    items: Items,
    head: Option<Head>,
    ended: bool,
}

impl HeadAnswer {
    pub(in crate::fetch) fn new(version: Version) -> Self {
        Self {
            items: Items::new(version),
            head: None,
            ended: false,
        }
    }

    pub(in crate::fetch) fn feed(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        let Self { items, head, ended } = self;
        let is_old = items.is_old;
        items.feed(bytes, |item| match item {
            _ if *ended => {}
            Item::End => *ended = true,
            Item::Other => {}
            // In version 0 it stands before all others, if it leads anywhere.
            Item::Head(found) if is_old => (*head, *ended) = (Some(found), true),
            Item::Reference(..) if is_old => *ended = true,
            item => {
                // A server may ignore `ref-prefix`, and go on with all other references.
                *ended = head.is_some();
                if let (Item::Head(found), None) = (item, &head) {
                    *head = Some(found);
                }
            }
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
            Err(CUT_SHORT)
        }
    }
}

/// Parser of a list of which nothing but one reference matters.
#[derive(Debug)]
pub(in crate::fetch) struct TipAnswer {
    items: Items,
    wanted: String,
    tip: Option<ObjectId>,
    ended: bool,
}

impl TipAnswer {
    /// Creates a parser that looks for the reference `wanted`, a full name.
    pub(in crate::fetch) fn new(version: Version, wanted: &str) -> Self {
        Self {
            items: Items::new(version),
            wanted: wanted.to_owned(),
            tip: None,
            ended: false,
        }
    }

    pub(in crate::fetch) fn feed(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        let Self {
            items,
            wanted,
            tip,
            ended,
        } = self;
        items.feed(bytes, |item| match item {
            Item::End => *ended = true,
            Item::Head(head) if wanted == HEAD => *tip = Some(head.id),
            Item::Reference(name, id) if name == *wanted => *tip = Some(id),
            _ => {}
        })
    }

    /// Returns whether nothing more of the answer is needed.
    pub(in crate::fetch) fn has_ended(&self) -> bool {
        self.ended || self.tip.is_some()
    }

    /// Returns the present target of the reference.
    pub(in crate::fetch) fn tip(&self) -> Option<ObjectId> {
        self.tip
    }
}
