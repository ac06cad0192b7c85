//! Long-running work, kept off the threads that serve requests.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Size in bytes up to which input is worked on in place: it takes some 20 ms at worst.
const LARGE: usize = 64 << 10;

/// Runs work on input of `bytes` bytes without blocking the other tasks of the current thread, if that may take long.
///
/// The runtime has one thread per processor, so a few long pieces of work would stall the server. On a current-thread
/// runtime, or outside any runtime, the work runs in place.
pub(crate) fn apart<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes <= LARGE {
        return work();
    }
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match flavor {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // A current-thread runtime has no other thread to hand its tasks to.
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn others_go_on_meanwhile() {
        let (done, goes_on) = std::sync::mpsc::channel();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let waited = apart(LARGE + 1, || goes_on.recv_timeout(Duration::from_secs(10)));
            waited.expect("the other task runs");
        });
        tasks.spawn(async move {
            let _ = done.send(());
        });
        tasks.join_all().await;
    }

    #[tokio::test]
    async fn it_runs_where_there_is_one_thread() {
        assert_eq!(apart(LARGE + 1, || 7), 7);
    }
}
