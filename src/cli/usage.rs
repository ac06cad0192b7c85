//! Errors in the use of the command line.

/// Error in the use of the command line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);
