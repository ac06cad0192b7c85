//! The one integration-test binary: every test here runs against the real thing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

mod api;
mod arrows;
mod attacks;
mod canary;
mod cli;
mod config;
mod crash;
mod demo;
mod fetch;
mod formats;
mod intake;
mod kept;
mod respond;
mod scan;
mod serve;
mod source;
mod store;
mod webhooks;
