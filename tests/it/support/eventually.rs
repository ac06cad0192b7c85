//! Waiting for a condition, of which nobody knows how long it takes.

use std::fmt::Debug;
use std::time::Duration;

/// Longer than anything that a test waits for takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Answer to the question whether a condition holds: `true`, `Some` or `Ok` if it does.
pub(crate) trait Condition {
    /// Value that is there once it holds.
    type Wanted;

    /// Returns what is wanted, or what is there instead.
    fn holds(self) -> Result<Self::Wanted, String>;
}

impl Condition for bool {
    type Wanted = ();

    fn holds(self) -> Result<(), String> {
        self.then_some(()).ok_or_else(String::new)
    }
}

impl<T> Condition for Option<T> {
    type Wanted = T;

    fn holds(self) -> Result<T, String> {
        self.ok_or_else(String::new)
    }
}

impl<T, E: Debug> Condition for Result<T, E> {
    type Wanted = T;

    fn holds(self) -> Result<T, String> {
        self.map_err(|instead| format!(": {instead:?}"))
    }
}

/// Asks again and again until the condition holds, and returns what is there then.
///
/// # Panics
/// Panics, with `what` and the last answer, if the condition does not hold in time.
pub(crate) async fn eventually<C: Condition>(
    what: &str,
    mut ask: impl AsyncFnMut() -> C,
) -> C::Wanted {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        match ask().await.holds() {
            Ok(wanted) => return wanted,
            Err(instead) => assert!(
                tokio::time::Instant::now() < until,
                "waited in vain: {what}{instead}"
            ),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Blocking twin of [`eventually`], for tests without a runtime.
///
/// # Panics
/// Panics, with `what` and the last answer, if the condition does not hold in time.
#[track_caller]
pub(crate) fn eventually_blocking<C: Condition>(
    what: &str,
    mut ask: impl FnMut() -> C,
) -> C::Wanted {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        match ask().holds() {
            Ok(wanted) => return wanted,
            Err(instead) => assert!(
                std::time::Instant::now() < until,
                "waited in vain: {what}{instead}"
            ),
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
