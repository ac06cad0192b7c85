//! Rescind mints API keys that scanners can find, watches the public places where keys leak, and revokes
//! leaked secret keys.

pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod fetch;
pub mod forge;
#[cfg(test)]
mod fuzzing;
pub mod github;
pub mod intake;
pub mod issuer;
pub mod keyformat;
pub mod offload;
pub mod respond;
pub mod sandbox;
pub mod scan;
pub mod schedule;
pub mod server;
pub mod source;
pub mod store;
pub mod tree;
pub mod work;
