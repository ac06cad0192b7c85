//! Messages of forges, from feeds, archives and webhooks: pushes and texts, parsed leniently.
//!
//! A message of a forge yields [`Push`]es and [`Announcement`]s, which become work items, and JSON whose
//! texts are scanned on the spot. [`Gatherer`] collects both for one commit to the database; texts never
//! leave memory.

mod actor;
mod gather;
mod kind;
mod message;
mod push;
mod texts;

pub use actor::{actor_of, is_polled};
pub use gather::{Gathered, Gatherer, MessagePlace, ToldItem};
pub use kind::Forge;
pub use message::redact_message;
pub use push::{
    Announcement, NO_COMMIT, Push, Remote, id_or_name, is_plain_id, is_reference, is_to_the_letter,
    kept_id, kept_reference, no_commit, object_id,
};
pub use texts::{Link, scan_plain, scan_texts};
