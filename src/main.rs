//! The `rescind` command: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    rescind::cli::main()
}
