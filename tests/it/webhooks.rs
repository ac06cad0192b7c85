//! Webhooks of forges, as the forges send them.

mod bodies;
mod daemon;
mod effects;
mod full;
mod load;
mod many;
mod odd;
mod redelivery;
pub(crate) mod sender;
mod state;
