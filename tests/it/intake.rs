//! Reports of partners: the real endpoint on a real port; only GitHub's list of keys is played by wiremock.

mod access_tokens;
mod github;
mod interrupted;
mod partners;
mod public_keys;
mod revocation;
pub(crate) mod signer;
mod unreadable;
