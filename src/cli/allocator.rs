//! Settings of the C library, so that memory goes back to the system.

use std::env;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Variables that glibc reads when a process starts: from 256 KiB on a piece of memory goes back to the system
/// when it is freed, threads share two heaps, and the free end of a heap goes back from 1 MiB on.
///
/// By default the first limit rises to the largest piece that was ever freed, up to 32 MiB, and each of many
/// threads keeps a heap of its own. So a daemon that once read large pushes would hold twice of what it
/// needs (`docs/performance.md`). A process cannot change this for itself without unsafe code.
///
/// Source: <https://www.gnu.org/software/libc/manual/html_node/Memory-Allocation-Tunables.html> and mallopt(3).
const SETTINGS: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "262144"),
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_TRIM_THRESHOLD_", "1048576"),
];

/// Says that this program was started anew. A process with more rights than its user (setuid, capabilities) is
/// started without the settings, whoever set them, and would start itself anew for ever.
const STARTED_ANEW: &str = "RESCIND_STARTED_ANEW";

/// Starts this program anew with these settings, in the same process: its identifier, its open files and its
/// arguments stay. Does nothing when any of them is set already, be it by an operator or by the start before.
/// Other C libraries do not look at them.
pub(super) fn settle() {
    let is_set = |name: &str| env::var_os(name).is_some();
    if !cfg!(target_env = "gnu") || SETTINGS.iter().any(|(name, _)| is_set(name)) {
        return;
    }
    let error = if is_set(STARTED_ANEW) {
        io::Error::other("the settings do not reach this program")
    } else {
        start_anew()
    };
    tracing::warn!(
        %error,
        "memory is given back late: set MALLOC_MMAP_THRESHOLD_=262144, MALLOC_ARENA_MAX=2 and \
         MALLOC_TRIM_THRESHOLD_=1048576 for this program"
    );
}

/// Returns only when it failed.
fn start_anew() -> io::Error {
    let program = match env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with("ld-") || name.starts_with("ld.so") {
        return io::Error::other("it was started through the dynamic loader");
    }
    let mut arguments = env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command
        .args(arguments)
        .envs(SETTINGS)
        .env(STARTED_ANEW, "1")
        .exec()
}
