//! Servers on the loopback interface that stand in for the world outside: a git server, an events feed and a partner
//! that sends signed reports.

mod feed;
pub mod git_server;
mod partner;

pub use feed::Feed;
pub use partner::Partner;
