//! Work that takes long, away from what answers.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs work that may take seconds without holding up the tasks of the thread that it runs on.
///
/// There are as many threads for tasks as processors, so that a few long pieces of work would silence the server.
pub(super) fn apart<T>(work: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match flavor {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // There is one thread, and nobody to take its tasks over.
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
            let waited = apart(|| goes_on.recv_timeout(Duration::from_secs(10)));
            waited.expect("the other task runs");
        });
        tasks.spawn(async move {
            let _ = done.send(());
        });
        tasks.join_all().await;
    }

    #[tokio::test]
    async fn it_runs_where_there_is_one_thread() {
        assert_eq!(apart(|| 7), 7);
    }
}
