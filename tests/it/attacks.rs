//! What somebody from outside, or a fault, may do to Rescind. Each test is an attack that worked once, or that
//! must not begin to.

mod database;
mod feed;
mod http;
mod local;
mod log;
mod outgoing;
mod packs;
mod records;
mod stops;
mod work;
