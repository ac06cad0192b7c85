//! Threads of their own for what other servers send.

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

use crate::memory;

/// Number of requests that are in flight at once: those of all places for packs, and some of the sources, the partners'
/// keys and the access tokens of apps.
///
/// The parser of responses reads on for as long as a server sends interim ones (`102 Processing`, RFC 9110 section
/// 15.2), half a second of processor time at a stretch, and holds its thread meanwhile. With a thread for each request
/// it is the operating system that divides the processors, which does so every few milliseconds.
const THREADS: usize = memory::SMALL_PACKS + memory::SMALL_PACKS_APART + memory::MEDIUM_PACKS + 10;

/// Size of the stack of a thread, in bytes. Of those only the parts that were used are resident, unless they are large
/// enough for huge pages, which have 2 MiB.
const STACK: usize = 1 << 20;

/// Difference to the priority of all other threads: while somebody makes all of these busy, each of the others gets
/// about as much of a processor as all of these together.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// The threads of this process.
static RUNTIME: LazyLock<Result<Runtime, String>> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("outgoing")
        .thread_stack_size(STACK)
        // New events and requests are looked for after each task: by default after 61, each of which may take half a
        // second.
        .event_interval(1)
        .global_queue_interval(1)
        .on_thread_start(stepping_back())
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
});

/// Starts the threads, unless they run already.
///
/// # Errors
/// Returns a description if the operating system refuses them.
pub(super) fn start() -> Result<(), String> {
    RUNTIME.as_ref().map(|_| ()).map_err(String::clone)
}

/// Runs a request, with all that it starts, on threads of their own. It ends when the caller is dropped.
///
/// # Errors
/// Returns a description if there are no threads, or if the request panicked.
pub(super) async fn run<T: Send + 'static>(
    request: impl Future<Output = T> + Send + 'static,
) -> Result<T, String> {
    let runtime = RUNTIME.as_ref().map_err(String::clone)?;
    AbortOnDropHandle::new(runtime.spawn(request))
        .await
        .map_err(|_| "the request was broken off by a fault of this program".to_owned())
}

/// Returns a function that lowers the priority of the thread that calls it, compared with the one that called this.
/// A thread whose priority cannot be lowered runs all the same.
#[cfg(target_os = "linux")]
fn stepping_back() -> impl Fn() + Send + Sync + 'static {
    use rustix::process::{getpriority_process, setpriority_process};

    // Threads inherit the priority of the one that starts them. On Linux these calls concern a thread, elsewhere the
    // whole process: setpriority(2).
    let priority = getpriority_process(None).unwrap_or_default() + NICE;
    move || {
        let _ = setpriority_process(None, priority);
    }
}

#[cfg(not(target_os = "linux"))]
fn stepping_back() -> impl Fn() + Send + Sync + 'static {
    || ()
}
