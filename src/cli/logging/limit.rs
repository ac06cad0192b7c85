//! How many lines a second one place in the code may log. Strangers decide how many there could be.

use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};

/// The most lines of one place in a second. Those finer than `info` have no such limit: an operator asks for
/// them when each one is wanted.
pub(super) const LINES_PER_SECOND: u32 = 50;

const SECOND: Duration = Duration::from_secs(1);

/// The longest part of a message, in bytes, that is repeated when lines like it are left out.
const MAX_SAID: usize = 120;

/// Counts the lines of each place that logs. There are as many as the code has.
#[derive(Debug, Default)]
pub(super) struct Limit(Mutex<HashMap<Identifier, Place>>);

#[derive(Debug)]
struct Place {
    began: Instant,
    lines: u32,
    left_out: Option<LeftOut>,
}

/// Lines of one place that were not written.
#[derive(Debug)]
pub(super) struct LeftOut {
    pub(super) metadata: &'static Metadata<'static>,
    pub(super) lines: u64,
    /// The beginning of the message of the first one.
    pub(super) said: String,
}

impl Limit {
    fn places(&self) -> MutexGuard<'_, HashMap<Identifier, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether this event is written. If it is not, it is counted.
    pub(super) fn allow(&self, event: &Event<'_>) -> bool {
        self.allow_at(event, Instant::now())
    }

    fn allow_at(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return true;
        }
        let mut places = self.places();
        let place = places.entry(metadata.callsite()).or_insert(Place {
            began: now,
            lines: 0,
            left_out: None,
        });
        if now.saturating_duration_since(place.began) >= SECOND {
            place.began = now;
            place.lines = 0;
        }
        if place.lines < LINES_PER_SECOND {
            place.lines += 1;
            return true;
        }
        if let Some(left_out) = &mut place.left_out {
            left_out.lines += 1;
            return false;
        }
        // What writes the message is the code of whoever logs, so not under the lock.
        drop(places);
        let said = said(event);
        if let Some(place) = self.places().get_mut(&metadata.callsite()) {
            let first = LeftOut {
                metadata,
                lines: 0,
                said,
            };
            place.left_out.get_or_insert(first).lines += 1;
        }
        false
    }

    /// Returns what was left out since this was asked last.
    pub(super) fn take_left_out(&self) -> Vec<LeftOut> {
        let mut places = self.places();
        places
            .values_mut()
            .filter_map(|place| place.left_out.take())
            .collect()
    }
}

fn said(event: &Event<'_>) -> String {
    let mut message = Message(String::new());
    event.record(&mut message);
    message.0
}

/// The beginning of an event's message.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let _ = write!(Beginning(&mut self.0), "{value:?}");
        }
    }
}

/// Takes no more than [`MAX_SAID`] bytes, whatever is written to it.
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

    /// Takes events at a time that tests set.
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

        // The next second has lines of its own, and what was left out before it is not forgotten.
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
