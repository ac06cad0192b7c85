//! Long-running work, kept off the threads that serve requests.

use std::sync::LazyLock;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};

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
    aside(work)
}

/// Waits for `future` in the middle of work that runs [apart], or on a thread that may block.
///
/// # Panics
/// Panics on the thread of a current-thread runtime, whose other tasks would wait as well.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::task::block_in_place(|| Handle::current().block_on(future))
}

/// Size in bytes up to which a text written by others is worked on at once: it costs no more than the request that
/// brought it.
const SMALL: usize = 512;

/// Size in bytes of the texts that one turn may take.
pub(crate) const PIECE: usize = 4 << 10;

/// Turns of work on texts written by others. Half of the processors are left to everything else.
static TURNS: LazyLock<Semaphore> = LazyLock::new(half_of_the_processors);

/// Turns of work on blocking threads. The same is left to everything else.
static BLOCKING_TURNS: LazyLock<Semaphore> = LazyLock::new(half_of_the_processors);

fn half_of_the_processors() -> Semaphore {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new((processors / 2).max(1))
}

/// Waits for the turn to do some milliseconds of work on a blocking thread, which is held until that is done.
pub(crate) async fn blocking_turn() -> Option<SemaphorePermit<'static>> {
    // The semaphore is never closed.
    BLOCKING_TURNS.acquire().await.ok()
}

/// Runs a piece of work on `bytes` bytes of texts written by others, without blocking other tasks, when its turn has
/// come, and lets others go on afterward.
///
/// Turns are given in the order in which they are asked for, so a caller with little work waits for one piece of each
/// of those before it, not for all of their work. Pieces should be short, and are not begun once the caller is
/// dropped.
pub(crate) async fn in_turn<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes <= SMALL {
        return work();
    }
    // The semaphore is never closed.
    let turn = TURNS.acquire().await.ok();
    let done = aside(work);
    drop(turn);
    tokio::task::yield_now().await;
    done
}

fn aside<T>(work: impl FnOnce() -> T) -> T {
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

    use tokio_util::task::TaskTracker;

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

    /// The second caller's one piece is done long before the first one's many.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn pieces_of_several_callers_take_turns() {
        let (told, mut done) = tokio::sync::mpsc::unbounded_channel();
        let small = told.clone();
        let mut tasks = tokio::task::JoinSet::new();
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..at_once {
            let told = told.clone();
            tasks.spawn(async move {
                for _ in 0..100 {
                    in_turn(SMALL + 1, || std::thread::sleep(Duration::from_millis(2))).await;
                }
                told.send("large").unwrap();
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        tasks.spawn(async move {
            in_turn(SMALL + 1, || ()).await;
            small.send("small").unwrap();
        });
        assert_eq!(done.recv().await, Some("small"));
        tasks.join_all().await;
    }

    #[tokio::test]
    async fn it_runs_where_there_is_one_thread() {
        assert_eq!(apart(LARGE + 1, || 7), 7);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn it_can_wait_for_others_wherever_it_runs() {
        let wait = || block_on(async { TaskTracker::new().spawn(async { 7 }).await.unwrap() });
        let apart = move || apart(LARGE + 1, wait);
        assert_eq!((wait(), apart()), (7, 7));
        assert_eq!(
            TaskTracker::new()
                .spawn(async move { (wait(), apart()) })
                .await
                .unwrap(),
            (7, 7)
        );
        assert_eq!(tokio::task::spawn_blocking(wait).await.unwrap(), 7);
        let nested = || block_on(async { in_turn(SMALL + 1, || 7).await });
        assert_eq!(
            TaskTracker::new()
                .spawn(async move { nested() })
                .await
                .unwrap(),
            7
        );
    }

    #[tokio::test]
    async fn a_thread_that_may_block_waits_for_a_runtime_with_one_thread() {
        let wait = || block_on(async { TaskTracker::new().spawn(async { 7 }).await.unwrap() });
        assert_eq!(tokio::task::spawn_blocking(wait).await.unwrap(), 7);
    }
}
