//! Log of the daemon. Lines pass through a queue to a thread, which alone waits for their reader.

use std::cell::Cell;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tracing::Level;

use super::limit::{LeftOut, Limit};
use super::queue::{Queue, Rank};

/// Interval between reports of missing lines.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(1);

/// Maximum time that the end of the process waits for the log's reader.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Delay before retrying a non-blocking pipe that is full.
const FULL: Duration = Duration::from_millis(20);

thread_local! {
    /// Set while this thread reports missing lines, to which neither limit applies.
    static TELLS: Cell<bool> = const { Cell::new(false) };
}

/// Destination of the daemon's log lines.
#[derive(Debug, Clone, Default)]
pub(super) struct Writer {
    queue: Arc<Queue>,
    limit: Arc<Limit>,
    lost: Arc<Lost>,
}

/// Lines that could not be written, as on a full disk.
#[derive(Debug, Default)]
struct Lost {
    lines: AtomicU64,
    /// `true` if the last line could not be written, so that a report of it could not either.
    fails: AtomicBool,
}

impl Writer {
    /// Starts the thread that writes to `out` and reports missing lines every `tell_every`.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be started.
    pub(super) fn run(
        &self,
        out: impl Write + Send + 'static,
        tell_every: Duration,
    ) -> io::Result<()> {
        let writer = self.clone();
        let run = move || {
            let mut told = Instant::now();
            let mut out = Out {
                out,
                is_torn: false,
            };
            loop {
                let line = writer.queue.take(tell_every.saturating_sub(told.elapsed()));
                if let Some(line) = line {
                    let is_written = out.write(line.as_bytes());
                    writer.lost.fails.store(!is_written, Ordering::Relaxed);
                    let lost = u64::from(!is_written);
                    writer.lost.lines.fetch_add(lost, Ordering::Relaxed);
                }
                if told.elapsed() >= tell_every {
                    writer.tell();
                    told = Instant::now();
                }
            }
        };
        thread::Builder::new().name("log".to_owned()).spawn(run)?;
        Ok(())
    }

    /// Returns whether the event is to be logged.
    pub(super) fn allows(&self, event: &tracing::Event<'_>) -> bool {
        TELLS.get() || self.limit.allow(event)
    }

    /// Adds the line of an event.
    pub(super) fn add(&self, line: String, level: Level) {
        let rank = match level {
            _ if TELLS.get() => Rank::Own,
            _ if level > Level::INFO => Rank::Detail,
            _ => Rank::Ordinary,
        };
        self.queue.add(line, rank);
    }

    /// Adds a line that states why the process ends. It is never dropped.
    pub(super) fn add_last(&self, line: String) {
        self.queue.add(line, Rank::Own);
    }

    /// Logs the number of missing lines.
    fn tell(&self) {
        TELLS.set(true);
        let dropped = self.queue.take_dropped();
        if dropped > 0 {
            tracing::error!(
                lines = dropped,
                "log lines were dropped: the log was not read"
            );
        }
        if !self.lost.fails.load(Ordering::Relaxed) {
            let lost = self.lost.lines.swap(0, Ordering::Relaxed);
            if lost > 0 {
                tracing::error!(
                    lines = lost,
                    "log lines were lost: the log could not be written"
                );
            }
        }
        self.limit.take_left_out().iter().for_each(tell_of);
        TELLS.set(false);
    }

    /// Waits until every line is written, for at most [`LAST_LINES`].
    pub(super) fn end(&self) {
        self.tell();
        self.queue.wait_until_written(LAST_LINES);
    }
}

fn tell_of(left_out: &LeftOut) {
    let LeftOut {
        metadata,
        lines,
        said,
    } = left_out;
    let place = format!("{}:{}", metadata.target(), metadata.line().unwrap_or(0));
    // The level is a constant of the callsite, and an operator who enabled errors alone wants to know of these.
    if *metadata.level() == Level::ERROR {
        tracing::error!(lines, place, said, "more lines like this were left out");
    } else {
        tracing::warn!(lines, place, said, "more lines like this were left out");
    }
}

/// Output of the lines.
struct Out<W> {
    out: W,
    /// `true` if a part of the last line was written, and the rest was not.
    is_torn: bool,
}

impl<W: Write> Out<W> {
    /// Writes a line, on a line of its own. Returns whether all of it was written: the failure itself cannot be
    /// reported anywhere.
    fn write(&mut self, line: &[u8]) -> bool {
        if self.is_torn && self.write_all(b"\n") == 0 {
            return false;
        }
        let written = self.write_all(line);
        self.is_torn = written > 0 && written < line.len();
        written == line.len()
    }

    /// Writes bytes until an error. Returns their number.
    fn write_all(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            match self.out.write(&bytes[at..]) {
                Ok(written) if written > 0 => at += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Another process that shares the pipe may have made it non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL),
                Ok(_) | Err(_) => break,
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::{Form, LogFormat, Outlet, subscriber};
    use super::*;

    /// Returns a log and the reader of its output.
    fn log() -> (Writer, tracing::Dispatch, io::PipeReader) {
        let (reader, out) = io::pipe().expect("a pipe");
        let writer = Writer::default();
        // Other threads of the test have their own subscribers; the writer's thread has none.
        writer.run(out, Duration::MAX).expect("a thread");
        let form = Form {
            format: LogFormat::Text,
            colored: false,
        };
        let targets = tracing_subscriber::filter::Targets::new().with_default(Level::TRACE);
        let outlet = Outlet::Queue(writer.clone());
        let subscriber = subscriber(form, outlet, targets);
        (writer, tracing::Dispatch::new(subscriber), reader)
    }

    /// Disk with room for some bytes.
    #[derive(Clone, Default)]
    struct Disk(Arc<std::sync::Mutex<(Vec<u8>, usize)>>);

    impl Disk {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("a disk").0.clone()).expect("text")
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().expect("a disk");
            let (written, room) = &mut *disk;
            let fits = bytes.len().min(*room);
            if fits == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            *room -= fits;
            written.extend(&bytes[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_a_full_disk_did_not_take_are_counted_and_none_is_torn_into_the_next() {
        let disk = Disk::default();
        let writer = Writer::default();
        writer.run(disk.clone(), Duration::MAX).expect("a thread");
        let form = Form {
            format: LogFormat::Text,
            colored: false,
        };
        let targets = tracing_subscriber::filter::Targets::new().with_default(Level::TRACE);
        let subscriber = subscriber(form, Outlet::Queue(writer.clone()), targets);
        tracing::subscriber::with_default(subscriber, || {
            let log = |text: &str, room: usize| {
                disk.0.lock().expect("a disk").1 = room;
                tracing::info!("{text}");
                assert!(writer.queue.wait_until_written(Duration::from_secs(20)));
            };
            log("first", usize::MAX);
            log("torn", 30);
            log("lost", 0);
            // Nothing can be told as long as nothing is written.
            writer.tell();
            log("third", usize::MAX);
            writer.end();
        });
        let text = disk.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[0].ends_with("first"), "{text}");
        assert_eq!(lines[1].len(), 30, "{text}");
        assert!(lines[2].ends_with("third"), "{text}");
        assert!(lines[3].contains("log lines were lost"), "{text}");
        assert!(lines[3].contains("lines=2"), "{text}");
    }

    /// Returns the lines of `reader` up to the first that contains `text`.
    fn read_to(reader: &mut impl io::BufRead, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(reader.read_line(&mut line).expect("a line"), 0);
            lines.push(line);
            if lines.last().is_some_and(|line| line.contains(text)) {
                return lines;
            }
        }
    }

    #[test]
    fn a_log_that_nobody_reads_holds_up_nobody_and_tells_what_is_missing() {
        let (writer, dispatch, reader) = log();
        let (send, done) = std::sync::mpsc::channel();
        let ends = writer.clone();
        let flood = dispatch.clone();
        thread::spawn(move || {
            tracing::dispatcher::with_default(&flood, || {
                for n in 0..20_000 {
                    tracing::debug!("line {n}: {}", "x".repeat(100));
                }
                ends.end();
            });
            send.send(()).expect("somebody waits");
        });
        let within = Duration::from_secs(20);
        done.recv_timeout(within).expect("nobody is held up");

        let mut reader = io::BufReader::new(reader);
        let lines = read_to(&mut reader, "log lines were dropped");
        assert!(lines[0].contains("line 0: "), "{}", lines[0]);
        let dropped = lines.last().expect("it").split("lines=").nth(1);
        let dropped = dropped.and_then(|count| count.trim().parse::<usize>().ok());
        let told = lines.len() - 1;
        assert_eq!(told + dropped.expect("a count"), 20_000);
        assert!(told > 1_000, "{told}");
    }

    #[test]
    fn what_is_left_out_is_told_at_the_end_and_the_end_writes_everything() {
        let (writer, dispatch, mut reader) = log();
        let reads = thread::spawn(move || {
            let mut all = vec![0; 64 * 1024];
            let mut text = String::new();
            while !text.contains("were left out") {
                let read = reader.read(&mut all).expect("a read");
                text += &String::from_utf8_lossy(&all[..read]);
            }
            text
        });
        tracing::dispatcher::with_default(&dispatch, || {
            for _ in 0..300 {
                tracing::info!("refused");
            }
            tracing::warn!("another");
            writer.end();
        });
        assert!(writer.queue.wait_until_written(Duration::ZERO));
        let text = reads.join().expect("a log");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 52, "{text}");
        assert!(lines[50].ends_with("another"), "{text}");
        let told = "more lines like this were left out lines=250 place=\"rescind::cli::logging::writer::tests:";
        assert!(lines[51].contains(told), "{text}");
        assert!(lines[51].contains("said=\"refused\""), "{text}");
    }
}
