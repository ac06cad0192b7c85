//! Whoever can connect, and whoever can send: memory, connections and file descriptors of the real daemon.

mod bodies;
mod connections;
mod crowds;
mod declared;
mod descriptors;
mod exports;
mod heads;
mod imports;
mod listings;
mod newcomers;
mod proofs;
mod standings;
mod stopping;
mod target;
mod texts;
