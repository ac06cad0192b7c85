//! Commands that are interrupted while they write a file.

use std::io;
use std::sync::Once;
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use super::exit::COULD_NOT_RUN;
use super::logging;
use crate::temporary;

static WATCHED: Once = Once::new();

/// Has `SIGINT` and `SIGTERM` remove the files that are not complete before they end this process.
pub(super) fn watch() {
    // Without it a file may be left behind, which goes when the same one is written again.
    WATCHED.call_once(|| drop(start()));
}

fn start() -> io::Result<()> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    let wait = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => (),
                _ = terminate.recv() => (),
            }
        });
        let ended = temporary::remove_all();
        let text = match ended.removed {
            0 => "interrupted",
            _ => "interrupted: the file was not written",
        };
        logging::print(&format!("error: {text}"));
        std::process::exit(i32::from(COULD_NOT_RUN));
    };
    let thread = thread::Builder::new().name("signals".to_owned());
    thread.spawn(wait).map(drop)
}
