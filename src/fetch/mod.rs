//! Fetching of pushed ranges as texts in memory: git's protocol over smart HTTP, without touching the
//! disk.
//!
//! [`GitFetcher::fetch`] requests the contents of a push from a server and returns a [`FetchedPack`], the
//! packs as received. [`FetchedPack::visit`] then passes every text in them to a closure, one at a time:
//! commits, annotated tags, trees (their names are text too) and blobs with a path. It is pure
//! computation, so it belongs on a thread that may block.
//!
//! Everything that a server sends is bounded by [`FetchLimits`]: bytes received, bytes inflated, size and
//! number of objects, time without a byte, total time. Anything omitted because of a limit is counted,
//! never dropped in silence.

mod answers;
mod budget;
mod demand;
mod dialects;
mod error;
mod fetcher;
mod git;
mod guard;
mod heavy;
mod history;
mod http;
mod json;
mod lane;
mod ledger;
mod limits;
mod long_list;
mod look_ups;
mod names;
mod pace;
mod pack;
mod pack_rest;
mod paths;
mod patience;
mod peer;
mod place;
mod protocol;
mod short_id;
mod shown;
mod size;
mod texts;
mod threads;
mod token;
mod waiter;
mod weight;

pub(crate) use answers::{Body, read_body};
pub use demand::{Demand, Waiting};
pub(crate) use error::CUT;
pub use error::FetchError;
pub use fetcher::GitFetcher;
pub use git::{CountsAsRead, Has, RangeRequest};
pub use gix_hash::ObjectId;
pub use guard::{Guard, Refused};
pub use http::{HttpClientError, guarded_client, http_client, verbatim_client};
pub(crate) use http::{direct_client, has_contents, read_chunk, send, wait_of};
pub(crate) use json::{Said, as_json, as_text, said, unescape};
pub use lane::FetchLane;
pub use ledger::{Ledger, Payer, Used};
pub use limits::FetchLimits;
pub use long_list::LongList;
pub use names::{BadName, RepositoryName, host_of};
pub(crate) use pace::{Pace, PaceLimits};
pub use place::FetchPlace;
pub use protocol::{HEAD, References};
pub use short_id::ShortId;
pub use shown::{Breath, LeftOut, Text, TextKind};
pub use texts::{FetchedPack, Visited};
pub use token::{Token, TokenUser};
