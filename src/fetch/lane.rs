//! Lanes in which pushes are fetched, by what a pack weighs.

use crate::memory;

/// Size of the largest pack in an ordinary place, in bytes.
pub(super) const SMALL_PACK: usize = memory::SMALL_PACK;

/// Size of the largest pack in the medium lane, in bytes.
pub(super) const MEDIUM_PACK: usize = memory::MEDIUM_PACK;

/// The lane in which a push is fetched. When it turns out to be larger than its lane allows, it takes a place of
/// another lane if one is free, and else ends with [`Busy`](super::FetchError::Busy) or
/// [`LargeBusy`](super::FetchError::LargeBusy), to be fetched again when it has its turn there: it keeps nobody waiting
/// meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum FetchLane {
    /// Many places, each for up to 1 MiB of pack.
    #[default]
    Ordinary,
    /// Few places, each for up to 8 MiB of pack.
    Medium,
    /// A single place, for as much as is held of any pack.
    Large,
}

impl FetchLane {
    /// Returns the first lane in which a pack of `bytes` may be held.
    pub(super) fn for_bytes(bytes: usize) -> Self {
        if bytes <= SMALL_PACK {
            Self::Ordinary
        } else if bytes <= MEDIUM_PACK {
            Self::Medium
        } else {
            Self::Large
        }
    }
}
