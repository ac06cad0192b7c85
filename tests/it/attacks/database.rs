//! A database that is full, frozen, locked or flooded: nothing else stops, and it works again by itself.

mod closing;
mod crowded;
mod damaged;
mod disk;
mod frozen;
mod moved;
mod privileges;
pub(crate) mod proxy;
mod read_only;
mod restored;
mod room;
mod settings;
mod standby;
mod start;
mod states;
mod torn;
mod turns;
mod writers;

use std::time::Duration;

use crate::support::eventually::eventually_blocking;

/// Longer than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Asks again and again until the answer is the wanted one.
fn until<T: std::fmt::Debug>(
    what: &str,
    mut ask: impl FnMut() -> T,
    is_it: impl Fn(&T) -> bool,
) -> T {
    eventually_blocking(what, || {
        let answer = ask();
        if is_it(&answer) {
            Ok(answer)
        } else {
            Err(answer)
        }
    })
}
