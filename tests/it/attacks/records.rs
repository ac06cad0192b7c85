//! Keys, incidents and the log: whoever reports what at the same time, and whatever one project knows of
//! another.

mod costly;
mod encodings;
mod locks;
mod projects;
mod tampering;
mod together;
mod two_daemons;
