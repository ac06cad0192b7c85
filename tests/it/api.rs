//! The HTTP interface: the real router on a real port, over a real database.

mod bad_input;
mod clients;
pub(crate) mod described;
mod document;
pub(crate) mod harness;
mod idempotency;
mod keys;
mod operators;
mod peppers;
pub(crate) mod roles;
mod self_report;
mod service;
mod sources;
mod stats;
