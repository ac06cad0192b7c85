//! Lifecycle, schedule, workers, shutdown, telemetry.

mod lifecycle;

pub use lifecycle::{Ended, Lifecycle, Signals};
