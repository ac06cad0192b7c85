//! Conversion of the bytes of an hour to batches of work items and sightings, on a thread that may block.

use std::convert::Infallible;
use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use jiff::Timestamp;
use serde::de::IgnoredAny;
use tokio::sync::mpsc::{Receiver, Sender};

use super::split::{MAX_EVENT, Piece, Splitter};
use crate::fetch::{as_json, unescape};
use crate::forge::{Gathered, Gatherer, MessagePlace};
use crate::respond::{Candidates, LITTLE};
use crate::source::SourceParts;
use crate::source::feed::{Event, EventCounts, Taking};
use crate::store::Priority;

/// Maximum number of events per batch.
const BATCH: u64 = 1_000;

/// Number of candidates that end a batch, however few events they are from.
const MANY_CANDIDATES: usize = 1_000;

/// Size of the work items that end a batch, in bytes.
const MANY_BYTES: usize = 512 << 10;

/// Size of the inflate buffer, in bytes.
const INFLATED: usize = 128 << 10;

/// Result of reading a number of events.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Work items, sightings, and counts of pieces that were not counted before.
    pub(super) gathered: Gathered,
    /// Number of pieces, events and junk, that were not counted before.
    pub(super) pieces: u64,
    /// Number of those that are readable events.
    pub(super) events: u64,
    /// Number of those that are events of an unknown type.
    pub(super) unknown: u64,
    /// Time of the newest event.
    pub(super) newest: Option<Timestamp>,
}

/// Message from the collecting thread.
#[derive(Debug)]
pub(super) enum Told {
    /// A batch of events.
    Batch(Box<Batch>),
    /// Candidates of a single event, or of a part of it, of which many may be keys of ours. They are in no batch.
    Long(Box<Long>),
    /// The end of the file, or what is wrong with it.
    End(Result<(), &'static str>),
}

/// Candidates of an event, or of a part of one.
#[derive(Debug)]
pub(super) struct Long {
    /// Number of pieces of the hour before the event.
    pub(super) before: u64,
    pub(super) candidates: Candidates<MessagePlace>,
}

/// Events of an hour that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// All of them.
    All,
    /// Those of which many candidates may be keys of ours, once all others were committed, without those among so many
    /// first pieces. Nothing is counted.
    Long(u64),
}

/// Options for reading the events of an hour.
#[derive(Debug)]
pub(super) struct Reading {
    /// Name of the source.
    pub(super) source: String,
    /// Host that serves the contents.
    pub(super) host: String,
    /// Time of events that have none.
    pub(super) at: Timestamp,
    /// Number of pieces that were counted by earlier attempts to read the hour.
    pub(super) counted: u64,
    /// Events that are read.
    pub(super) pass: Pass,
}

/// Reads the compressed bytes of an hour to their end and sends their contents to `told`. Stops early if the receiver
/// is gone.
pub(super) fn collect(
    reading: &Reading,
    parts: &SourceParts,
    chunks: Receiver<Vec<u8>>,
    told: &Sender<Told>,
) {
    let mut collector = Collector::new(reading, parts, told);
    let read = collector.read(Chunks::new(chunks));
    collector.tell();
    let _ = told.blocking_send(Told::End(read));
}

struct Collector<'a> {
    reading: &'a Reading,
    parts: &'a SourceParts,
    told: &'a Sender<Told>,
    /// Items and candidates of the events in the current batch.
    gathered: Gathered,
    batch: Batch,
    /// Number of pieces in the current batch, whether counted before or not.
    taken: u64,
    /// Size of the work items in the current batch, in bytes.
    item_bytes: usize,
    /// Number of pieces still to come that were counted before.
    to_skip: u64,
    /// Number of pieces before the current one.
    before: u64,
}

impl<'a> Collector<'a> {
    fn new(reading: &'a Reading, parts: &'a SourceParts, told: &'a Sender<Told>) -> Self {
        Self {
            reading,
            parts,
            told,
            gathered: Gathered::new(parts.clock.now()),
            batch: Batch::default(),
            taken: 0,
            item_bytes: 0,
            to_skip: match reading.pass {
                Pass::All => reading.counted,
                Pass::Long(_) => u64::MAX,
            },
            before: 0,
        }
    }

    fn read(&mut self, mut chunks: Chunks) -> Result<(), &'static str> {
        // A server may decompress the file, so the format is determined by the contents, not the name.
        let first = chunks.fill_buf().ok().and_then(|bytes| bytes.first());
        match first {
            Some(0x1f) => self.split(MultiGzDecoder::new(chunks)),
            // Some begin with a byte order mark.
            Some(b'{' | b'\n' | 0xef) => self.split(chunks),
            Some(_) => Err("what the server sent is no gzip: check the source's base_url"),
            None => Err("the file is empty"),
        }
    }

    fn split(&mut self, mut inflated: impl Read) -> Result<(), &'static str> {
        let mut splitter = Splitter::new(MAX_EVENT);
        let mut buffer = vec![0; INFLATED];
        loop {
            let count = match inflated.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(wrong(&error)),
            };
            splitter.feed(&buffer[..count], &mut |piece| self.take(piece));
            if self.told.is_closed() {
                return Err("it was not read to the end");
            }
        }
        splitter.finish(&mut |piece| self.take(piece));
        Ok(())
    }

    fn take(&mut self, piece: Piece<'_>) {
        if !matches!(self.reading.pass, Pass::Long(written) if self.before < written) {
            self.read_piece(piece);
        }
        self.before += 1;
    }

    fn read_piece(&mut self, piece: Piece<'_>) {
        let is_new = self.to_skip == 0;
        let is_event = match piece {
            Piece::Object(json) => self.event(json, is_new),
            Piece::Junk(wrong, text) => {
                self.malformed(wrong, is_new);
                self.plain_text(text);
                false
            }
            Piece::More(text) => return self.plain_text(text),
        };
        if is_new {
            self.batch.pieces += 1;
            self.batch.events += u64::from(is_event);
        } else {
            self.to_skip -= 1;
        }
        self.taken += 1;
        let candidates = &self.gathered.candidates;
        let is_much = candidates.len() >= MANY_CANDIDATES || candidates.is_full();
        if self.taken >= BATCH || is_much || self.item_bytes >= MANY_BYTES {
            self.tell();
        }
    }

    /// Takes one event. Returns whether it is a readable one.
    fn event(&mut self, json: &mut [u8], is_new: bool) -> bool {
        let text = as_json(json);
        if serde_json::from_str::<IgnoredAny>(text).is_err() {
            self.malformed("it is no JSON", is_new);
            self.plain_text(json);
            return false;
        }
        let event = Event::read(text, &self.reading.host);
        self.batch.newest = self.batch.newest.max(event.at);
        let mut counts = EventCounts::default();
        let taking = Taking {
            priority: Priority::Backfill,
            forks: false,
            now: self.reading.at,
        };
        let mut taker = gatherer(self.reading, self.parts);
        counts.announce(&event, &mut taker, taking);
        let set_apart = |all: &mut Gathered| {
            self.set_apart(all);
            Ok::<_, Infallible>(())
        };
        let Ok(()) = counts.texts(&event, &mut taker, set_apart);
        let mut gathered = taker.gathered;
        if gathered.candidates.len() > LITTLE {
            self.set_apart(&mut gathered);
        }
        if is_new {
            self.batch.unknown += counts.unknown;
        } else {
            (gathered.texts, gathered.malformed) = (0, 0);
        }
        self.item_bytes += gathered.item_bytes();
        self.gathered.add(gathered);
        if let Some(wrong) = counts.wrong {
            self.malformed(wrong, is_new);
        }
        event.malformed.is_none()
    }

    /// Scans a text that is no event. It may be what is left of some.
    fn plain_text(&mut self, text: &[u8]) {
        let mut text = text.to_vec();
        unescape(&mut text);
        let mut taker = gatherer(self.reading, self.parts);
        let set_apart = |all: &mut Gathered| {
            self.set_apart(all);
            Ok::<_, Infallible>(())
        };
        let Ok(()) = taker.plain_text(&text, None, set_apart);
        let mut gathered = taker.gathered;
        if gathered.candidates.len() > LITTLE {
            self.set_apart(&mut gathered);
        }
        (gathered.texts, gathered.malformed) = (0, 0);
        self.gathered.add(gathered);
    }

    /// Has candidates looked up separately, so that one author's texts hide and delay nothing of another's.
    fn set_apart(&self, all: &mut Gathered) {
        let next = Gathered::new(self.parts.clock.now()).candidates;
        let long = Long {
            before: self.before,
            candidates: std::mem::replace(&mut all.candidates, next),
        };
        let _ = self.told.blocking_send(Told::Long(Box::new(long)));
    }

    fn malformed(&mut self, wrong: &'static str, is_new: bool) {
        if is_new {
            self.gathered.malformed(wrong);
            let source = &self.reading.source;
            tracing::debug!(%source, wrong, "an archived event cannot be read");
        }
    }

    /// Sends everything that was collected since the last call.
    fn tell(&mut self) {
        let next = Gathered::new(self.parts.clock.now());
        let mut batch = std::mem::take(&mut self.batch);
        batch.gathered = std::mem::replace(&mut self.gathered, next);
        self.item_bytes = 0;
        let is_something = std::mem::take(&mut self.taken) > 0;
        if is_something && self.reading.pass == Pass::All {
            // If the receiver is gone, the read loop notices by itself.
            let _ = self.told.blocking_send(Told::Batch(Box::new(batch)));
        }
    }
}

fn gatherer<'a>(reading: &'a Reading, parts: &'a SourceParts) -> Gatherer<'a> {
    let redactor = parts.responder.redactor();
    Gatherer::new(&reading.source, redactor, &parts.engine, parts.clock.now())
}

fn wrong(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the file ends too early",
        _ => "the file is no gzip, or is damaged",
    }
}

/// Reader over chunks that come from another task. Ends when the channel closes.
struct Chunks {
    coming: Receiver<Vec<u8>>,
    present: Vec<u8>,
    at: usize,
}

impl Chunks {
    fn new(coming: Receiver<Vec<u8>>) -> Self {
        Self {
            coming,
            present: Vec::new(),
            at: 0,
        }
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at >= self.present.len() {
            let Some(chunk) = self.coming.blocking_recv() else {
                return Ok(&[]);
            };
            self.present = chunk;
            self.at = 0;
        }
        Ok(self.present.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}
