//! Folders from which git searches for a repository.

use std::path::PathBuf;

/// Start of git's search for a repository.
#[derive(Debug)]
pub(super) enum Start {
    /// In this folder.
    At(PathBuf),
    /// This folder and those above it.
    Around(PathBuf),
    /// The folder named by the environment, or else around the current folder.
    Told,
}
