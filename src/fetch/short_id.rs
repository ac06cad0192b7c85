//! Ids of objects in large tables.

use gix_hash::ObjectId;

/// First 20 bytes of an object id. No two objects share them, whatever the hash function, so a table of many objects
/// takes no more memory for ids of 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortId([u8; 20]);

impl From<&ObjectId> for ShortId {
    fn from(id: &ObjectId) -> Self {
        let mut short = [0; 20];
        // The shortest ids have as many.
        short.copy_from_slice(&id.as_slice()[..20]);
        Self(short)
    }
}
