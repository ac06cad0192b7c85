//! Rescind mints API keys that scanners can find, watches the public places where keys leak, and revokes leaked secret
//! keys within seconds.
//!
//! This page is the map of the program, in the order in which one leaked key walks through it.
//!
//! # What a key looks like
//!
//! [`keyformat`] loads the pattern files and knows everything about the text of a key: prefix, alphabet, checksum,
//! digest. It mints keys, too. [`scan`] finds candidates in texts, through base64, UTF-16 and other encodings, redacts
//! them in whatever is stored or shown, and writes reports. Both are pure: they know no clock, no database and no
//! network. [`tree`] walks folders and git repositories for `rescind scan` and hands their contents to the scanner.
//!
//! # How a leak arrives
//!
//! [`intake`] is for those who tell Rescind: partners with signed reports, forges with webhooks, strangers who hold a
//! key. [`source`] is for what has to be polled: GitHub's events feed, archives, single repositories, and the webhook
//! deliveries that failed. Both hand messages to [`forge`], which knows what a forge is and turns a message into
//! *work items* (pushed ranges, to be read) and *sightings* (keys in the message itself).
//!
//! [`work`] claims work items, has [`fetch`] read their contents over git's own protocol, scans them, and commits what
//! it found together with the end of the item. [`github`] is the one client of GitHub's REST API.
//!
//! # What happens to it
//!
//! [`respond`] turns a sighting into an occurrence, an incident, a revocation and a log entry, in one transaction.
//! [`issuer`] mints access tokens and reads the files of keys that are imported. [`store`] is the database: SQLite or
//! PostgreSQL behind one type, with rooms for the connection (`db`), keys, the queue of work items, incidents, sources
//! and the revocation log.
//!
//! # Who runs it
//!
//! [`config`] reads the configuration into its final types. [`server`] is the HTTP interface, [`daemon`] the life of
//! `rescind serve`: start, tasks, schedules, shutdown. [`cli`] has a file per command. [`sandbox`] holds the git server,
//! the feed and the partner that the demo, the tests and the benchmarks talk to instead of the world outside.
//! [`clock`], [`schedule`] and [`offload`] are tools that need nothing else.
//!
//! Dependencies run one way. `docs/architecture.md` says which way and why; `tests/it/arrows.rs` holds the table.

#[macro_use]
mod named;

pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
#[cfg(test)]
#[path = "../tests/it/support/eventually.rs"]
mod eventually;
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
