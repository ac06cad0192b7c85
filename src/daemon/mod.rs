//! Lifecycle, schedule, workers, shutdown, telemetry.

mod lifecycle;
mod token;

pub use lifecycle::{Ended, Lifecycle, Signals};
pub use token::{MintTokenError, bootstrap_token, mint_token};
