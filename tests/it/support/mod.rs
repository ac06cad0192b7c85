//! Fixtures shared by several tests.

pub(crate) mod cluster;
pub(crate) mod databases;
pub(crate) mod eventually;
pub(crate) mod git;
pub(crate) mod http;
pub(crate) mod responder;
pub(crate) mod role;
pub(crate) mod snapshot;
pub(crate) mod world;
