//! Whoever can connect, and whoever can send: memory, connections and file descriptors of the real daemon.

pub(super) mod bodies;
mod connections;
mod crowds;
mod declared;
mod descriptors;
mod exports;
mod floods;
mod hangups;
mod heads;
pub(super) mod imports;
pub(super) mod listings;
mod newcomers;
mod proofs;
mod reports;
mod standings;
mod stopping;
pub(super) mod target;
mod texts;
