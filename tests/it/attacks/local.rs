//! Attacks by what is scanned or imported: repositories whose configuration names programs, names of files that
//! fool a terminal, ignore files and tables without an end.

#[cfg(unix)]
mod bombs;
#[cfg(unix)]
mod endless;
#[cfg(unix)]
mod forged;
#[cfg(unix)]
mod ignored;
#[cfg(unix)]
mod large;
#[cfg(unix)]
mod long;
#[cfg(unix)]
mod names;
#[cfg(unix)]
mod repositories;
mod tables;

#[cfg(unix)]
use std::path::Path;
#[cfg(unix)]
use std::process::{Command, Output};

#[cfg(unix)]
use crate::scan::{program, run};

/// Scans with a program that is killed after a minute, in which case there is no exit code. The program may allocate up
/// to `memory` KiB of address space, if that is limited.
#[cfg(unix)]
fn scan_bounded(root: &Path, arguments: &[&str], memory: Option<u64>) -> Output {
    let program = program();
    let limit = memory.map_or(String::new(), |memory| format!("ulimit -v {memory}; "));
    let script = format!("{limit}exec timeout --signal=KILL 60 \"$0\" \"$@\"");
    let mut bounded = Command::new("sh");
    bounded.args(["-c", &script]).arg(program.get_program());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => bounded.env(name, value),
            None => bounded.env_remove(name),
        };
    }
    bounded.arg("scan").args(arguments).current_dir(root);
    run(&mut bounded, b"")
}
