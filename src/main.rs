//! The `rescind` command. All of its code is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    rescind::cli::main()
}
