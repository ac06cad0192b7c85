//! The `rescind` command: everything is in the library.

fn main() {}
