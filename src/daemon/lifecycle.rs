//! Tasks of the daemon, and their shutdown.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Signals;

/// Runs tasks, and stops them on a signal or when a task that must not end has ended.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    tasks: TaskTracker,
    stop: CancellationToken,
    died: Arc<Mutex<Option<&'static str>>>,
}

/// Outcome of the shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// A signal came, and everything in flight finished.
    Cleanly,
    /// A signal came, but some tasks did not finish in time, or a second signal came a second or more after the first.
    /// Nothing is lost: work that was not committed is repeated.
    InAHurry,
    /// This task ended or panicked, which it must not.
    TaskDied(&'static str),
}

impl Lifecycle {
    /// Returns a token that is canceled when the daemon stops: tasks take no new work, and finish or release what they
    /// have begun.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs a task that lasts as long as the daemon. If it ends earlier or panics, the daemon stops.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_until(name, self.stop.clone(), task);
    }

    /// Runs a task that may end once `may_end` is canceled. If it ends earlier or panics, the daemon stops.
    pub(super) fn spawn_until(
        &self,
        name: &'static str,
        may_end: CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let lifecycle = self.clone();
        self.tasks.spawn(async move {
            // The panic itself was logged where it happened.
            let panicked = AssertUnwindSafe(task).catch_unwind().await.is_err();
            let stop = &lifecycle.stop;
            if panicked || !(may_end.is_cancelled() || stop.is_cancelled()) {
                let mut died = lifecycle
                    .died
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                died.get_or_insert(name);
                lifecycle.stop.cancel();
            }
        });
    }

    /// Stops all tasks, giving them `patience` to finish.
    pub(super) async fn abandon(&self, patience: Duration) {
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(patience, self.tasks.wait()).await;
    }

    /// Waits for a signal or the death of a task, then at most `patience` for all tasks to finish.
    pub async fn run(&self, mut signals: Signals, patience: Duration) -> Ended {
        let first = tokio::select! {
            name = signals.next() => {
                tracing::info!(signal = name, "stopping: requests and work items in flight are finished");
                Some(Instant::now())
            }
            () = self.stop.cancelled() => None,
        };
        self.stop.cancel();
        self.tasks.close();
        let in_time = tokio::select! {
            () = self.tasks.wait() => true,
            name = signals.another(first) => {
                tracing::warn!(signal = name, "second signal, stopping at once");
                false
            }
            () = tokio::time::sleep(patience) => {
                tracing::warn!(tasks = self.tasks.len(), "tasks did not finish in time, stopping anyway");
                false
            }
        };
        let died = *self.died.lock().unwrap_or_else(PoisonError::into_inner);
        match died {
            Some(name) => Ended::TaskDied(name),
            None if in_time => Ended::Cleanly,
            None => Ended::InAHurry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually::eventually;

    const LONG: Duration = Duration::from_mins(10);

    #[tokio::test]
    async fn a_dead_task_stops_the_others_and_is_named() {
        for panics in [true, false] {
            let lifecycle = Lifecycle::default();
            let stop = lifecycle.stop_token();
            lifecycle.spawn("patient", async move { stop.cancelled().await });
            lifecycle.spawn("mortal", async move { assert!(!panics, "on purpose") });
            let ended = lifecycle.run(Signals::listen().unwrap(), LONG).await;
            assert_eq!(ended, Ended::TaskDied("mortal"));
        }
    }

    #[tokio::test]
    async fn a_task_that_is_replaced_may_end_and_no_other() {
        for may_end in [true, false] {
            let lifecycle = Lifecycle::default();
            let token = CancellationToken::new();
            if may_end {
                token.cancel();
            }
            let task = std::future::ready(());
            lifecycle.spawn_until("replaced", token, task);
            tokio::task::yield_now().await;
            eventually("the task ended", async || lifecycle.tasks.is_empty()).await;
            assert_eq!(lifecycle.stop.is_cancelled(), !may_end);
        }
    }

    #[tokio::test]
    async fn a_panic_while_stopping_is_no_clean_end() {
        let lifecycle = Lifecycle::default();
        let stop = lifecycle.stop_token();
        lifecycle.spawn("clumsy", async move {
            stop.cancelled().await;
            panic!("on purpose");
        });
        lifecycle.stop_token().cancel();
        let ended = lifecycle.run(Signals::listen().unwrap(), LONG).await;
        assert_eq!(ended, Ended::TaskDied("clumsy"));
    }

    #[tokio::test]
    async fn waits_for_tasks_but_not_for_ever() {
        let lifecycle = Lifecycle::default();
        lifecycle.spawn("stuck", std::future::pending());
        lifecycle.stop_token().cancel();
        let ended = lifecycle
            .run(Signals::listen().unwrap(), Duration::from_millis(1))
            .await;
        assert_eq!(ended, Ended::InAHurry);

        let lifecycle = Lifecycle::default();
        let stop = lifecycle.stop_token();
        lifecycle.spawn("obedient", async move { stop.cancelled().await });
        lifecycle.stop_token().cancel();
        let ended = lifecycle.run(Signals::listen().unwrap(), LONG).await;
        assert_eq!(ended, Ended::Cleanly);
    }
}
