//! The configuration: typed sections, environment overlay, errors that name file and line, secrets masked.
