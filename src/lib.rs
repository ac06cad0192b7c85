//! Rescind mints API keys that scanners can find, watches the public places where keys leak, and revokes leaked secret
//! keys within seconds.
//!
//! This page is the map of the program, in the order in which one leaked key walks through it.
//!
//! # What a key looks like
//!
//! [`keyformat`] loads the pattern files and knows everything about the text of a key: prefix, alphabet, checksum
//! (`keyformat/checksum.rs`), digest. It mints keys, too. [`scan`] finds candidates in texts, through base64, UTF-16
//! and other encodings, and writes reports. Its engine is built of the secret formats only (`FormatSet::secret`), so a
//! public key is never hunted. Both are pure: they know no clock, no database and no network. [`tree`] walks folders
//! and git repositories for `rescind scan` and hands their contents to the scanner.
//!
//! `scan/redact.rs` has the one definition of "contains a key", of whatever format, and takes keys out of a text. Who
//! stores or shows texts of others applies it: to the places that partners and strangers report, with a bound per
//! message, `respond/clean.rs`; to the places of what is scanned, once it is known to be ours, `work/place.rs` and
//! `forge/gather.rs` (the length of each text stands in `respond/redact.rs`); to errors and names of references,
//! before they are logged or stored, `forge/message.rs` (`redact_message`) and `forge/push.rs`; to the path of a request,
//! `server/layers.rs`; to what issuers send, `issuer/keys.rs`; to its own output, each command of
//! [`cli`], and to its error `cli/exit.rs`. The logger (`cli/logging`) redacts nothing.
//!
//! # How a leak arrives
//!
//! [`intake`] is for those who tell Rescind: partners with signed reports, forges with webhooks, strangers who hold a
//! key. [`source`] is for what has to be polled: GitHub's events feed (`source/feed/mod.rs`, which also chooses the
//! delay to the next poll), archives, single repositories, and the webhook deliveries that failed; `source/status.rs`
//! tells how each source fares, such as that it is behind. Events that name many keys come after all others
//! (`source/feed/aside.rs`, `source/archive/stream.rs`). A poll ends in one of `source/outcome.rs`, and
//! `daemon/poller.rs` waits for the next. What partners and strangers report goes straight to [`respond`]. Messages of
//! forges, announced or polled, go to [`forge`], which turns a message into *work items* (pushed ranges, to be read;
//! `forge/gather.rs`) and *candidates* (in the message itself), which become *sightings* only once they are known to be
//! keys of ours.
//!
//! A new forge begins with its names and servers in `forge/kind.rs`; how it is heard is in `intake/webhook`:
//! `headers.rs`, `verify.rs`, and a file that reads its payloads. `headers.rs` identifies a delivery, too, and
//! `store/sources/deliveries.rs` decides whether it came before.
//!
//! [`work`] claims work items for as long as a lease lasts, has [`fetch`] read their contents over git's own protocol,
//! scans them, and commits what it found together with the end of the item: done, put off, moved to another lane, or
//! failed. `work/claim.rs` chooses the items (`work/lent.rs` those of hosts without a place), `store/queue/begun.rs`
//! sets their leases (as long as `work.rs` says, `WorkerOptions`), `store/queue/claim.rs` extends them.
//! `forge/gather.rs` makes a range of a push; `work/listing.rs` chooses among the references of a list,
//! `work/lineage.rs` divides a range that is too large and adds what a forced push dropped, `work/plan.rs` makes the
//! request for a range, and `fetch/git.rs` asks for it; `store/queue/rests.rs` knows if the branch of `HEAD` counts as
//! read then. What failed is tried again or dead-lettered by the queue: `store/queue/give_back.rs` counts tries and has
//! the delays, `store/queue/holders.rs` counts the workers that died. `work/pauses.rs` and `work/throttles.rs` leave a
//! host alone that fails, `work/lasting.rs` knows for how long, `source/state.rs` a source. [`fetch`] also has the one
//! HTTP client, and the guard that refuses addresses; [`github`] is the one client of GitHub's REST API, which obeys
//! its rate limits: `github/answer.rs` reads them from an answer, `github/tokens.rs` decides which token may be used and
//! when, `github/api.rs` goes on with another one.
//!
//! # What happens to it
//!
//! [`respond`] looks up which candidates are ours (`respond/known.rs`), turns each of these into an occurrence, an
//! incident, a revocation and a log entry, in one transaction (`respond/report.rs`), and revokes by hand likewise.
//! `store/incidents/occurrences.rs` tells a new occurrence or incident from a known one. Messages with many keys
//! wait for those with few (`respond/turns.rs`, `store/db/gate.rs`), but for what else is in them
//! (`intake/webhook/many.rs`).
//! [`issuer`] does to keys what else people ask for (`issuer/keys.rs`): issues, changes, rotates and imports them; it
//! mints access tokens. `store/peppers.rs` asks if all that is stored would be found under the configured peppers.
//! [`store`] is the database: SQLite or PostgreSQL behind one type, with rooms for the connection,
//! its deadlines and the migrations (`db`), keys, the queue of work items with their leases and tries, incidents,
//! sources and the revocation log. It holds every SQL statement, among them the compare-and-set that revokes a key
//! once. The log is appended to by `store/log.rs`, hashed and verified by `store/log/chain.rs`, exported files as well;
//! `store/log/verify.rs` has it verify the database, with the rows around each entry.
//!
//! # Who runs it
//!
//! [`config`] reads the configuration into its final types, with their defaults. [`server`] is the HTTP interface: who
//! may connect and send how much, routes, roles. A handler in `server/api` carries its own description for OpenAPI:
//! `server/router.rs` mounts both, `server/openapi.rs` is the frame of the document. Numbers per minute, such as that
//! of self-reports of unknown keys, stand in `server/mod.rs` (`Limits`) and are checked by their handlers. Lists are
//! answered by a handler (`server/api/incidents.rs`), asked of the database by a file of [`store`]
//! (`store/incidents.rs`), and their cost, searches above all, is bounded by `server/client/listings.rs`. Whoever
//! refuses a request says when to come again; `server/error.rs` writes that as `Retry-After`, and has the time for a
//! database that is away.
//!
//! [`daemon`] is the life of `rescind serve`: start, tasks, polls on schedule, the worker's set-up and housekeeping
//! (`daemon/work.rs`), shutdown. SIGHUP is caught by `daemon/signals.rs` and obeyed by `Daemon::reload`
//! (`daemon/mod.rs`). [`cli`] has a file per command; `doctor` asks whoever enforces a rule (file descriptors:
//! `daemon/descriptors.rs`). [`sandbox`] holds the git server, the feed and the partner that the demo,
//! the tests and the benchmarks talk to instead of the world outside. [`clock`], [`schedule`], [`offload`], `backoff`
//! (the curve of delays that grow, whose numbers each user has), `fair` (places for which those that ask
//! for much wait in turn), `memory` (the sizes of all that is kept of what others send), `named` (enums whose
//! variants have names), `regular` (files that are opened without waiting) and `temporary` (files beside those whose
//! place they take) are tools that need nothing else.
//!
//! Dependencies run one way. `docs/architecture.md` says which way and why; `tests/it/arrows.rs` holds the table.
//! `CONTRIBUTING.md` has recipes: what is touched, in order, to add a source, a forge, a partner, a route and the like.

#[macro_use]
mod named;

mod backoff;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
#[cfg(test)]
#[path = "../tests/it/support/eventually.rs"]
mod eventually;
mod fair;
pub mod fetch;
pub mod forge;
#[cfg(test)]
mod fuzzing;
pub mod github;
pub mod intake;
pub mod issuer;
pub mod keyformat;
mod memory;
pub mod offload;
mod regular;
pub mod respond;
pub mod sandbox;
pub mod scan;
pub mod schedule;
pub mod server;
pub mod source;
pub mod store;
mod temporary;
pub mod tree;
pub mod work;
