//! Streaming of one hour from the server to the database, in memory that does not depend on its size.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Response;
use reqwest::header::ACCEPT_ENCODING;
use tokio::sync::mpsc;

use super::GhArchive;
use super::collect::{Batch, Long, Pass, Reading, Told, collect};
use super::cursor::{Cursor, Reader, Track};
use super::hour::Hour;
use crate::fetch::{FetchError, Pace, PaceLimits, has_contents, send, wait_of};
use crate::forge::{Gathered, MessagePlace};
use crate::github::GitHubError;
use crate::respond::{Candidates, LITTLE};
use crate::source::kept::Kept;
use crate::source::{HourError, PollError};
use crate::store::StoreError;

/// Maximum time without any data from the server.
const STALL: Duration = Duration::from_secs(30);

/// Maximum time for reading one hour.
const LIMIT: Duration = Duration::from_hours(2);

/// Minimum pace of a download: 100 MB within two hours, and no trickle.
const PACE: PaceLimits = PaceLimits {
    stall: STALL,
    total: LIMIT,
    grace: Duration::from_secs(30),
    window: Duration::from_secs(30),
    rate: 16 << 10,
    prepare: None,
};

/// Maximum size of the file of an hour, compressed, in bytes. Typical files have 100 MB.
const MAX_FILE: u64 = 4 << 30;

/// Capacity of the channel to the inflating thread, in chunks of some 16 KiB.
const CHUNKS: usize = 16;

/// Capacity of the channel of batches that wait to be committed.
const BATCHES: usize = 2;

/// Number of times that an event that names many keys waits for its turn, of up to 25 s each.
const TURNS: u32 = 20;

/// Delay before it waits again.
const PUT_OFF: Duration = Duration::from_secs(1);

/// Outcome of an attempt to read an hour.
#[derive(Debug)]
pub(super) enum HourEnd {
    /// The hour was read to its end.
    Whole,
    /// The archive does not have the hour.
    Missing,
    /// The hour was not read, or not to its end.
    Broken(PollError),
}

/// Final state of an hour, which is not read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Whole,
    Missing,
    Incomplete,
}

/// One reader's current run over a number of hours.
pub(super) struct Sitting<'a> {
    archive: &'a GhArchive,
    reader: Reader,
    /// Position of the reader.
    pub(super) track: Track,
    /// Callback that is invoked after each commit.
    pub(super) each: &'a mut (dyn FnMut(&Track) + Send),
    /// `true` if events of the current hour were put aside, since they name many keys of ours.
    has_aside: bool,
    /// Number of pieces of the hour before the last event that is being written down, of those that were put aside.
    writing: Option<u64>,
}

impl<'a> Sitting<'a> {
    pub(super) fn new(
        archive: &'a GhArchive,
        reader: Reader,
        track: Track,
        each: &'a mut (dyn FnMut(&Track) + Send),
    ) -> Self {
        Self {
            archive,
            reader,
            track,
            each,
            has_aside: false,
            writing: None,
        }
    }

    /// Reads the next hour and commits its contents. The track stays at this hour. If there are events that name many
    /// keys of ours, the hour is requested again for them once all others were committed. So it is if it was not read to
    /// its end, which it may never be: what was written down is not when the hour is tried again.
    ///
    /// # Errors
    /// Returns a [`PollError`] only if the database fails; any other failure is a [`HourEnd::Broken`].
    pub(super) async fn read(&mut self) -> Result<HourEnd, PollError> {
        (self.has_aside, self.writing) = (false, None);
        let ended = self.read_once(Pass::All).await?;
        if !self.has_aside {
            return Ok(ended);
        }
        let again = self.read_once(Pass::Long(self.track.written)).await?;
        Ok(match ended {
            HourEnd::Whole => again,
            broken => broken,
        })
    }

    async fn read_once(&mut self, pass: Pass) -> Result<HourEnd, PollError> {
        let hour = self.track.next;
        let response = match self.archive.ask(hour).await {
            Ok(Some(response)) => response,
            Ok(None) => return Ok(HourEnd::Missing),
            Err(error) => return Ok(HourEnd::Broken(error)),
        };
        let seconds = LIMIT.as_secs();
        let read = tokio::time::timeout(LIMIT, self.read_body(hour, response, pass)).await;
        let ended = match read {
            Ok(ended) => ended?,
            Err(_) => Err(HourError::Cut(FetchError::TooSlow { seconds })),
        };
        Ok(match ended {
            Ok(()) => HourEnd::Whole,
            Err(error) => HourEnd::Broken(failed(hour, error)),
        })
    }

    async fn read_body(
        &mut self,
        hour: Hour,
        response: Response,
        pass: Pass,
    ) -> Result<Result<(), HourError>, PollError> {
        let (chunks, inflating) = mpsc::channel(CHUNKS);
        let (telling, told) = mpsc::channel(BATCHES);
        let reading = Reading {
            source: self.archive.frame.name.clone(),
            host: self.archive.host.clone(),
            at: hour.begin(),
            counted: self.track.counted,
            pass,
        };
        let parts = self.archive.frame.parts.clone();
        // The thread ends by itself when the channels close, also if this future is dropped.
        tokio::task::spawn_blocking(move || collect(&reading, &parts, inflating, &telling));

        let (before, sent) = (self.track.bytes, AtomicU64::new(0));
        let (passed_on, ended) = tokio::join!(
            pass_on(response, chunks, &sent),
            self.commit_all(told, pass, before, &sent)
        );
        self.track.bytes = before + sent.load(Ordering::Relaxed);
        // A broken connection also looks like a truncated file, so its error takes precedence.
        Ok(match (passed_on, ended?) {
            (Err(error), _) => Err(error),
            (Ok(()), ended) => ended,
        })
    }

    /// Commits the batches that the thread sends, until it ends. Dropping the receiver ends the thread.
    async fn commit_all(
        &mut self,
        mut told: mpsc::Receiver<Told>,
        pass: Pass,
        bytes_before: u64,
        sent: &AtomicU64,
    ) -> Result<Result<(), HourError>, PollError> {
        while let Some(message) = told.recv().await {
            self.track.bytes = bytes_before + sent.load(Ordering::Relaxed);
            match message {
                Told::Batch(batch) => self.commit(*batch).await?,
                Told::Long(long) => self.take(*long, pass).await?,
                Told::End(end) => {
                    self.note_written().await?;
                    return Ok(end.map_err(HourError::Damaged));
                }
            }
        }
        Ok(Err(HourError::Damaged("it was not read to the end")))
    }

    async fn commit(&mut self, batch: Batch) -> Result<(), PollError> {
        self.track.counted += batch.pieces;
        self.track.events += batch.events;
        self.track.malformed += batch.gathered.malformed;
        self.save(Some(batch), None).await
    }

    /// Commits the candidates of one event. If many of them are keys of ours, that is left to the second pass.
    async fn take(&mut self, long: Long, pass: Pass) -> Result<(), PollError> {
        let Long {
            before,
            mut candidates,
        } = long;
        let frame = &self.archive.frame;
        let is_little = frame.retain_ours(&mut candidates).await? <= LITTLE;
        match pass {
            Pass::All if is_little => {
                let mut gathered = Gathered {
                    candidates,
                    ..Gathered::default()
                };
                frame.commit_early(&mut gathered).await?;
            }
            Pass::All => self.has_aside |= before >= self.track.written,
            Pass::Long(_) if is_little => {}
            Pass::Long(_) => {
                if self.writing != Some(before) {
                    self.note_written().await?;
                    self.writing = Some(before);
                }
                self.archive.report_many(&candidates).await?;
            }
        }
        Ok(())
    }

    /// Records that an event that was put aside is written down, so that it is not when the hour is read again.
    async fn note_written(&mut self) -> Result<(), PollError> {
        if let Some(before) = self.writing.take() {
            self.track.written = before + 1;
            self.save(None, None).await?;
        }
        Ok(())
    }

    /// Records the position at which reading starts.
    pub(super) async fn begin(&mut self) -> Result<(), PollError> {
        self.save(None, None).await
    }

    /// Records a failed attempt.
    pub(super) async fn note_try(&mut self) -> Result<(), PollError> {
        self.track.tries += 1;
        self.track.tried_at = Some(self.archive.frame.now());
        self.save(None, None).await
    }

    /// Records the final state of the current hour and moves on to the next.
    pub(super) async fn finish(&mut self, verdict: Verdict) -> Result<(), PollError> {
        let hour = self.track.next;
        let source = &self.archive.frame.name;
        match verdict {
            Verdict::Whole => tracing::debug!(%source, %hour, "an archived hour was read"),
            Verdict::Missing => {
                tracing::warn!(%source, %hour, "the archive does not have this hour");
                self.track.missing.add(hour);
            }
            Verdict::Incomplete => {
                tracing::warn!(%source, %hour, "an archived hour could not be read to its end");
                self.track.incomplete.add(hour);
            }
        }
        self.track.go_on();
        self.save(None, Some((hour, verdict))).await
    }

    /// Commits some events, the end of an hour, and the position of the reader. The state is reloaded each time,
    /// because the schedule and backfills share it, within one process or across several.
    async fn save(
        &mut self,
        batch: Option<Batch>,
        end: Option<(Hour, Verdict)>,
    ) -> Result<(), PollError> {
        let frame = &self.archive.frame;
        let mut state = frame.state().await?;
        let mut cursor = Kept::<Cursor>::load(&state.cursor, self.archive.address());
        cursor.note(self.reader, self.track.clone());
        match end {
            Some((hour, Verdict::Whole)) => cursor.mended(hour),
            Some(_) if self.reader == Reader::Schedule => state.gaps += 1,
            _ => {}
        }
        if let Some(track) = cursor.track(self.reader) {
            self.track = track.clone();
        }
        state.cursor = cursor.to_json();
        state.unseen = cursor.unseen();
        let mut gathered = Gathered::default();
        if let Some(batch) = batch {
            state.events += batch.events;
            state.unknown += batch.unknown;
            let newest = state.newest_event_at.max(batch.newest);
            state.newest_event_at = newest.map(|at| at.min(frame.now()));
            gathered = batch.gathered;
        }
        self.track.items += frame.commit(&mut state, gathered).await?;
        (self.each)(&self.track);
        Ok(())
    }
}

impl GhArchive {
    /// Reports the keys of an event, or of a part of it, when it is its turn.
    async fn report_many(&self, candidates: &Candidates<MessagePlace>) -> Result<(), PollError> {
        let mut turns = 1;
        // Else the hour would be read from its beginning for every turn that does not come.
        while let Err(error) = self.frame.report_many(candidates).await {
            let is_put_off = matches!(error, PollError::Store(StoreError::PutOff { .. }));
            if !is_put_off || turns == TURNS {
                return Err(error);
            }
            turns += 1;
            tokio::time::sleep(PUT_OFF).await;
        }
        Ok(())
    }

    /// Requests the file of an hour. Returns `None` if the archive does not have it.
    async fn ask(&self, hour: Hour) -> Result<Option<Response>, PollError> {
        let mut url = self.base_url.clone();
        url.path_segments_mut()
            .map_err(|()| PollError::Api(GitHubError::Address("it cannot carry a path")))?
            .pop_if_empty()
            .push(&format!("{hour}.json.gz"));
        // The file is compressed already, so it must be sent unchanged.
        let sent = send(&url, STALL, |url| {
            let client = &self.frame.parts.client;
            client.get(url).header(ACCEPT_ENCODING, "identity")
        });
        let response = sent
            .await
            .map_err(|error| failed(hour, HourError::Unreachable(error)))?;
        let headers = response.headers();
        let told = wait_of(headers);
        let status = response.status().as_u16();
        match status {
            _ if has_contents(status) => Ok(Some(response)),
            404 | 410 => Ok(None),
            429 => Err(PollError::Api(GitHubError::RateLimited {
                status,
                retry_after: told,
            })),
            403 if told.is_some() => Err(PollError::Api(GitHubError::RateLimited {
                status,
                retry_after: told,
            })),
            400..500 => Err(failed(hour, HourError::Refused { status })),
            _ => Err(failed(hour, HourError::Server { status })),
        }
    }
}

/// Passes the bytes of a file to the inflating thread, at the pace of that thread.
async fn pass_on(
    mut response: Response,
    chunks: mpsc::Sender<Vec<u8>>,
    sent: &AtomicU64,
) -> Result<(), HourError> {
    let mut pace = Pace::new(PACE);
    while let Some(chunk) = pace.chunk(&mut response).await.map_err(HourError::Cut)? {
        let so_far = sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        if so_far > MAX_FILE {
            return Err(HourError::Damaged("the file is larger than 4 GiB"));
        }
        if chunks.send(chunk.to_vec()).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn failed(hour: Hour, error: HourError) -> PollError {
    PollError::Hour {
        hour: hour.to_string(),
        error,
    }
}
