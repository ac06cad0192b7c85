//! Places at which git searches for a repository.

use std::path::PathBuf;

/// Place where git searches for a repository.
#[derive(Debug)]
pub(super) enum Place {
    /// In this folder.
    At(PathBuf),
    /// This folder and those above it.
    Around(PathBuf),
    /// The place named by the environment, or else around the current folder.
    Told,
}
