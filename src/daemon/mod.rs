//! Lifecycle, schedule, workers, shutdown, telemetry.
