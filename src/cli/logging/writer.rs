//! The log of a daemon: lines go through a queue to a thread that alone waits for whoever reads them.

use std::cell::Cell;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tracing::Level;

use super::limit::{LeftOut, Limit};
use super::queue::{Queue, Rank};

/// The interval at which the log tells what is missing in it.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(1);

/// How long the end of the process waits for the reader of the log.
const LAST_LINES: Duration = Duration::from_secs(1);

/// How long a pipe that does not block, and is full, is left alone.
const FULL: Duration = Duration::from_millis(20);

thread_local! {
    /// Whether this thread is telling what is missing: neither limit holds for that.
    static TELLS: Cell<bool> = const { Cell::new(false) };
}

/// The destination of a daemon's lines.
#[derive(Debug, Clone, Default)]
pub(super) struct Writer {
    queue: Arc<Queue>,
    limit: Arc<Limit>,
}

impl Writer {
    /// Starts the thread that writes to `out`, and tells so often what is missing.
    pub(super) fn run(
        &self,
        mut out: impl Write + Send + 'static,
        tell_every: Duration,
    ) -> io::Result<()> {
        let writer = self.clone();
        let run = move || {
            let mut told = Instant::now();
            loop {
                let line = writer.queue.take(tell_every.saturating_sub(told.elapsed()));
                if let Some(line) = line {
                    write(&mut out, line.as_bytes());
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

    /// Returns whether this event becomes a line.
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

    /// Adds a line that tells why the process ends.
    pub(super) fn add_last(&self, line: String) {
        self.queue.add(line, Rank::Own);
    }

    /// Logs how many lines are missing.
    fn tell(&self) {
        TELLS.set(true);
        let dropped = self.queue.take_dropped();
        if dropped > 0 {
            tracing::error!(
                lines = dropped,
                "log lines were dropped: the log was not read"
            );
        }
        self.limit.take_left_out().iter().for_each(tell_of);
        TELLS.set(false);
    }

    /// Waits until everything is written, or its reader has kept the process waiting long enough.
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
    // Levels are constants of the place that logs, and whoever asked for errors alone wants to know of these.
    if *metadata.level() == Level::ERROR {
        tracing::error!(lines, place, said, "more lines like this were left out");
    } else {
        tracing::warn!(lines, place, said, "more lines like this were left out");
    }
}

/// Writes a line. Of one that cannot be written nobody can be told.
fn write(out: &mut impl Write, mut line: &[u8]) {
    while !line.is_empty() {
        match out.write(line) {
            Ok(written) if written > 0 => line = &line[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Whoever else has this pipe may have made it so.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL),
            Ok(_) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::{Form, LogFormat, Outlet, subscriber};
    use super::*;

    /// A log, and what is read of it.
    fn log() -> (Writer, tracing::Dispatch, io::PipeReader) {
        let (reader, out) = io::pipe().expect("a pipe");
        let writer = Writer::default();
        // The threads of tests have subscribers of their own, which this one lacks.
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

    /// Everything in `reader` up to a line that has `text`.
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
