//! Settings of the C library's allocator that make it return memory to the system.

use std::env;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Variables that glibc reads when a process starts: allocations of 64 KiB and more are returned to the system
/// when freed, all threads share one arena, and its free top is trimmed from 128 KiB on. With 256 KiB, two arenas and
/// 1 MiB, 10 to 25 MiB more were resident when everything was full at once.
///
/// By default, the first threshold rises to the largest block ever freed, up to 32 MiB, and a process with many
/// threads keeps many arenas. A daemon that has read large pushes would keep twice the memory that it needs
/// (`docs/performance.md`). A process cannot change this for itself without unsafe code.
///
/// Source: <https://www.gnu.org/software/libc/manual/html_node/Memory-Allocation-Tunables.html> and mallopt(3).
const SETTINGS: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
];

/// Marks a process that was already re-executed. A process with more privileges than its user (setuid,
/// capabilities) never receives the settings, and would re-execute itself forever.
const STARTED_ANEW: &str = "RESCIND_STARTED_ANEW";

/// Re-executes this program with [`SETTINGS`] in its environment. The process keeps its identifier, its open files
/// and its arguments.
///
/// Does nothing if any of the settings is present, whether set by an operator or by a previous re-execution, or if
/// the C library is not glibc, which alone reads them.
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
        "memory is given back late: set MALLOC_MMAP_THRESHOLD_=65536, MALLOC_ARENA_MAX=1 and \
         MALLOC_TRIM_THRESHOLD_=131072 for this program"
    );
}

/// Replaces this process with a new instance of itself. Returns only on failure.
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
