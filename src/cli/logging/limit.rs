//! Rate limit of log lines per callsite. Without it, strangers would decide how many there are.

use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};

/// Maximum number of lines of one callsite per second. Levels below `info` are not limited: an operator enables
/// them to see every line.
pub(super) const LINES_PER_SECOND: u32 = 50;

const SECOND: Duration = Duration::from_secs(1);

/// Maximum length of the message quoted for suppressed lines, in bytes.
const MAX_SAID: usize = 120;

/// Counter of the lines of each callsite. The number of callsites is fixed by the code.
#[derive(Debug, Default)]
pub(super) struct Limit(Mutex<HashMap<Identifier, Window>>);

/// Lines of one callsite in the present second.
#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
    left_out: Option<LeftOut>,
}

/// Suppressed lines of one callsite.
#[derive(Debug)]
pub(super) struct LeftOut {
    pub(super) metadata: &'static Metadata<'static>,
    pub(super) lines: u64,
    /// Beginning of the first line's message.
    pub(super) said: String,
}

impl Limit {
    fn windows(&self) -> MutexGuard<'_, HashMap<Identifier, Window>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the event may be written, and counts it as suppressed if not.
    pub(super) fn allow(&self, event: &Event<'_>) -> bool {
        self.allow_at(event, Instant::now())
    }

    fn allow_at(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return true;
        }
        let mut windows = self.windows();
        let window = windows.entry(metadata.callsite()).or_insert(Window {
            began: now,
            lines: 0,
            left_out: None,
        });
        if now.saturating_duration_since(window.began) >= SECOND {
            window.began = now;
            window.lines = 0;
        }
        if window.lines < LINES_PER_SECOND {
            window.lines += 1;
            return true;
        }
        if let Some(left_out) = &mut window.left_out {
            left_out.lines += 1;
            return false;
        }
        // The message is formatted by the code that logs, so not under the lock.
        drop(windows);
        let said = said(event);
        if let Some(window) = self.windows().get_mut(&metadata.callsite()) {
            let first = LeftOut {
                metadata,
                lines: 0,
                said,
            };
            window.left_out.get_or_insert(first).lines += 1;
        }
        false
    }

    /// Returns the lines suppressed since the last call, and resets the counts.
    pub(super) fn take_left_out(&self) -> Vec<LeftOut> {
        let mut windows = self.windows();
        windows
            .values_mut()
            .filter_map(|window| window.left_out.take())
            .collect()
    }
}

fn said(event: &Event<'_>) -> String {
    let mut message = Message(String::new());
    event.record(&mut message);
    message.0
}

/// Visitor that records the beginning of an event's message.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(Beginning(&mut self.0), "{value:?}");
        }
    }
}

/// Writer that keeps at most [`MAX_SAID`] bytes.
struct Beginning<'a>(&'a mut String);

impl std::fmt::Write for Beginning<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = MAX_SAID.saturating_sub(self.0.len());
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        if text.len() > room {
            return Err(std::fmt::Error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

    use super::*;

    /// Layer that receives events at a time set by the test.
    #[derive(Clone)]
    struct Sink {
        limit: Arc<Limit>,
        now: Arc<Mutex<Instant>>,
        lines: Arc<Mutex<Vec<String>>>,
    }

    impl<S: tracing::Subscriber> Layer<S> for Sink {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            if self.limit.allow_at(event, *self.now.lock().unwrap()) {
                self.lines.lock().unwrap().push(said(event));
            }
        }
    }

    impl Sink {
        fn new() -> Self {
            Self {
                limit: Arc::default(),
                now: Arc::new(Mutex::new(Instant::now())),
                lines: Arc::default(),
            }
        }

        fn during(&self, work: impl FnOnce()) -> Vec<String> {
            tracing::subscriber::with_default(Registry::default().with(self.clone()), work);
            std::mem::take(&mut self.lines.lock().unwrap())
        }
    }

    fn flood(lines: usize) {
        for n in 0..lines {
            tracing::warn!("flood {n}");
        }
    }

    #[test]
    fn a_flood_of_one_place_is_capped_and_counted_and_hides_no_other() {
        let sink = Sink::new();
        let lines = sink.during(|| {
            flood(1_000);
            tracing::warn!("another");
            tracing::error!("a third");
        });
        assert_eq!(lines.len(), LINES_PER_SECOND as usize + 2);
        assert_eq!(lines[0], "flood 0");
        assert_eq!(lines[50..], ["another", "a third"]);
        let left_out = sink.limit.take_left_out();
        assert_eq!(left_out.len(), 1);
        assert_eq!(left_out[0].lines, 950);
        assert_eq!(left_out[0].said, "flood 50");
        assert!(left_out[0].metadata.target().ends_with("limit::tests"));
        assert!(sink.limit.take_left_out().is_empty());

        // The next second has a budget of its own, and lines suppressed before it are still counted.
        sink.during(|| flood(60));
        *sink.now.lock().unwrap() += SECOND;
        assert_eq!(sink.during(|| flood(60)).len(), 50);
        assert_eq!(sink.limit.take_left_out()[0].lines, 70);
    }

    #[test]
    fn what_an_operator_asks_for_is_not_capped() {
        let sink = Sink::new();
        let lines = sink.during(|| (0..500).for_each(|n| tracing::debug!("detail {n}")));
        assert_eq!(lines.len(), 500);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let sink = Sink::new();
        sink.during(|| (0..51).for_each(|_| tracing::info!("x{}", "é".repeat(5_000))));
        let left_out = sink.limit.take_left_out();
        assert_eq!(left_out[0].said, format!("x{}", "é".repeat(59)));
    }
}
