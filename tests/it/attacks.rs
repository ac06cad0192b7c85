//! Attacks on Rescind by outsiders, and by faults. Each test is an attack that worked once, or that must never start
//! to.

mod answers;
mod database;
mod feed;
mod http;
mod items;
mod local;
mod log;
mod memory;
mod outgoing;
mod packs;
mod records;
mod stops;
mod work;
