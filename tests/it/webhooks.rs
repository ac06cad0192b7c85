//! Webhooks of forges, as the forges send them.

mod bodies;
mod daemon;
mod effects;
mod load;
pub(crate) mod sender;
