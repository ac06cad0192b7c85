//! Connections: who may have one, for how long, and the pace that its client has to keep.

pub(super) mod entrance;
pub(super) mod finisher;
pub(super) mod guarded;
pub(super) mod head;
pub(super) mod places;
pub(super) mod pulse;
pub(super) mod serve;
