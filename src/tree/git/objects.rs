//! Listing of the objects of a history, and reading of their contents.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::process::{ChildStdin, Stdio};
use std::thread::{self, JoinHandle};

use super::command::Repository;
use super::running::Running;
use super::silence::Listening;
use super::{HistoryError, links};
use crate::scan::GitKind;

const LIST: &str = "list the objects of the history";
const READ: &str = "read an object";

/// Maximum size in bytes of a folder that is read.
pub(super) const READ_MAX: u64 = 64 << 20;

/// Format in which git says what an object is before it writes it out.
const HEAD: &str = "--batch=%(objectname) %(objecttype) %(objectsize)";

/// The same, where it does not write it out.
const HEAD_ONLY: &str = "--batch-check=%(objectname) %(objecttype) %(objectsize)";

/// Maximum number of stashes. Git itself forgets those that are older than a month.
const STASHES_MAX: usize = 100_000;

/// Object of a history.
#[derive(Debug)]
pub(super) struct Entry {
    /// Type of the object. `None` if another one refers to it but the repository lacks it, because it is a partial
    /// clone or damaged.
    pub(super) kind: Option<GitKind>,
    /// Object name: a hash in hexadecimal.
    pub(super) id: String,
}

/// Objects of a history, one after another. Reading from it reads the contents of the current one.
///
/// One process writes the objects out, whose names come from another one or from a thread.
pub(super) struct Contents {
    output: BufReader<Listening>,
    /// Number of bytes of the current object that have not been read.
    left: u64,
    /// Set once an object was read, whose contents a line feed follows.
    started: bool,
    /// `true` if git writes out the objects, and not only what they are.
    is_written: bool,
    line: Vec<u8>,
    feeder: Option<JoinHandle<io::Result<()>>>,
    processes: Vec<Running>,
    /// Descriptions of what was not listed.
    passed_over: Vec<String>,
}

impl Contents {
    /// Starts reading all objects of the history, each once: after the first commit that has it and after the folder
    /// that it is in, older commits first. Missing ones come last.
    pub(super) fn of_history(repository: &Repository) -> Result<Self, HistoryError> {
        Self::of_list(repository, &[])
    }

    /// Starts reading the objects of the history that refer to others, in the same order: commits, folders and tags.
    pub(super) fn of_references(repository: &Repository) -> Result<Self, HistoryError> {
        Self::of_list(repository, &["--filter=blob:none"])
    }

    fn of_list(repository: &Repository, more: &[&str]) -> Result<Self, HistoryError> {
        let (mut list, passed_over) = list_objects(repository, more)?;
        let objects = list.stdout().map_err(broken)?;
        let mut contents = Self::start(repository, HEAD, Stdio::from(objects), vec![list])?;
        contents.passed_over.extend(passed_over);
        Ok(contents)
    }

    /// Starts reading the named objects, in this order and without a path.
    pub(super) fn of_names(
        repository: &Repository,
        names: Vec<String>,
    ) -> Result<Self, HistoryError> {
        Self::fed(repository, HEAD, names)
    }

    /// Starts looking at the named objects, in this order, of which only the kinds are read.
    pub(super) fn heads_of(
        repository: &Repository,
        names: Vec<String>,
    ) -> Result<Self, HistoryError> {
        Self::fed(repository, HEAD_ONLY, names)
    }

    fn fed(
        repository: &Repository,
        format: &str,
        names: Vec<String>,
    ) -> Result<Self, HistoryError> {
        let mut contents = Self::start(repository, format, Stdio::piped(), Vec::new())?;
        let input = contents.processes.iter_mut().find_map(Running::stdin);
        contents.feeder = input.map(|input| thread::spawn(move || feed(&names, input)));
        Ok(contents)
    }

    /// Starts the process that writes out the objects named by `names`, which come from `processes`.
    fn start(
        repository: &Repository,
        format: &str,
        names: Stdio,
        mut processes: Vec<Running>,
    ) -> Result<Self, HistoryError> {
        let arguments = ["cat-file", format, "--buffer"];
        let mut read = repository.start_reading(READ, &arguments, names)?;
        let others: Vec<&Running> = processes.iter().collect();
        let output = read.listen(&others).map_err(broken)?;
        let output = BufReader::with_capacity(128 << 10, output);
        processes.push(read);
        Ok(Self {
            output,
            left: 0,
            started: false,
            is_written: format == HEAD,
            line: Vec::new(),
            feeder: None,
            processes,
            passed_over: Vec::new(),
        })
    }

    /// Advances to the next object, whose contents can then be read from `self`. Returns `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, HistoryError> {
        self.skip_rest().map_err(broken)?;
        let Some((entry, size)) = read_head(&mut self.output, &mut self.line).map_err(broken)?
        else {
            return Ok(None);
        };
        if entry.kind.is_some() && self.is_written {
            (self.left, self.started) = (size, true);
        }
        Ok(Some(entry))
    }

    /// Reads the beginning of the current object, up to `max` bytes, and holds no more than that.
    pub(super) fn text(&mut self, max: u64) -> Result<Vec<u8>, HistoryError> {
        let mut text = room_for(self.left.min(max));
        let read = self.by_ref().take(max).read_to_end(&mut text);
        read.map_err(broken)?;
        Ok(text)
    }

    /// Returns the number of bytes of the current object that have not been read.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.started) {
            let rest = std::mem::take(&mut self.left) + 1;
            io::copy(&mut self.output.by_ref().take(rest), &mut io::sink())?;
        }
        Ok(())
    }

    /// Returns why git ended before all objects were read, as far as it says so, or else `error`.
    pub(super) fn why_it_ended(self, error: HistoryError) -> HistoryError {
        let Self {
            output,
            mut processes,
            ..
        } = self;
        drop(output);
        // The last one is the one that reads.
        match processes.pop().map(|mut process| process.end()) {
            Some(Ok((status, complaints))) if !status.success() => HistoryError::Failed {
                what: READ,
                complaint: super::running::complaint(&complaints),
            },
            _ => error,
        }
    }

    /// Waits for all processes. Success means that all objects were listed, except for those that git reports to
    /// have skipped, which are returned.
    pub(super) fn finish(self) -> Result<Vec<String>, HistoryError> {
        let fed = self.feeder.map_or(Ok(Ok(())), JoinHandle::join);
        let mut passed_over = self.passed_over;
        for process in self.processes {
            passed_over.extend(process.finish()?);
        }
        fed.unwrap_or_else(|_| Err(io::Error::other("the thread between them panicked")))
            .map_err(broken)?;
        Ok(passed_over)
    }
}

impl Read for Contents {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.output.by_ref().take(self.left).read(buffer)?;
        if read == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// Objects of a repository, each read when it is asked for.
pub(super) struct Lookup {
    input: Option<ChildStdin>,
    output: BufReader<Listening>,
    line: Vec<u8>,
    process: Running,
}

/// Answer to a request for an object.
#[derive(Debug)]
pub(super) enum Answer {
    /// The object, with at most the number of bytes that was asked for, and its size.
    Read(GitKind, Vec<u8>, u64),
    /// The repository lacks the object.
    Missing,
}

impl Lookup {
    pub(super) fn new(repository: &Repository) -> Result<Self, HistoryError> {
        let mut process = repository.start_reading(READ, &["cat-file", HEAD], Stdio::piped())?;
        Ok(Self {
            input: process.stdin(),
            output: BufReader::new(process.listen(&[]).map_err(broken)?),
            line: Vec::new(),
            process,
        })
    }

    /// Reads up to `max` bytes of an object.
    pub(super) fn get(&mut self, id: &str, max: u64) -> Result<Answer, HistoryError> {
        match self.try_get(id, max) {
            Ok(Some(answer)) => Ok(answer),
            // Git ended, and says why.
            Ok(None) => self.why_it_ended(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(broken(error)),
            Err(error) => self.why_it_ended(error),
        }
    }

    fn try_get(&mut self, id: &str, max: u64) -> io::Result<Option<Answer>> {
        if let Some(input) = &mut self.input {
            writeln!(input, "{id}")?;
        }
        let Some((entry, size)) = read_head(&mut self.output, &mut self.line)? else {
            return Ok(None);
        };
        let Some(kind) = entry.kind else {
            return Ok(Some(Answer::Missing));
        };
        let mut text = room_for(size.min(max));
        let read = self
            .output
            .by_ref()
            .take(size.min(max))
            .read_to_end(&mut text)? as u64;
        if read < size.min(max) {
            return Ok(None);
        }
        // A line feed follows.
        io::copy(
            &mut self.output.by_ref().take(size - read + 1),
            &mut io::sink(),
        )?;
        Ok(Some(Answer::Read(kind, text, size)))
    }

    fn why_it_ended(&mut self, error: io::Error) -> Result<Answer, HistoryError> {
        self.input = None;
        let (status, complaints) = self.process.end()?;
        if status.success() {
            return Err(broken(error));
        }
        Err(HistoryError::Failed {
            what: READ,
            complaint: super::running::complaint(&complaints),
        })
    }
}

/// Returns room for as many bytes: what grows while it is read takes up to twice as many.
fn room_for(bytes: u64) -> Vec<u8> {
    Vec::with_capacity(usize::try_from(bytes).unwrap_or_default())
}

/// Reads what git says of an object before its contents, and its size. Returns `None` at the end.
fn read_head(output: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<(Entry, u64)>> {
    line.clear();
    if output.read_until(b'\n', line)? == 0 {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(line);
    let mut words = text.split_ascii_whitespace();
    // The list of objects marks those that are missing.
    let id = words.next().unwrap_or_default().trim_start_matches('?');
    let kind = words.next().and_then(kind_of);
    let size = words.next().and_then(|size| size.parse().ok());
    let entry = |kind| Entry {
        kind,
        id: id.to_owned(),
    };
    Ok(Some(match (kind, size) {
        (Some(kind), Some(size)) => (entry(Some(kind)), size),
        _ => (entry(None), 0),
    }))
}

/// Starts listing every object reachable from a reference. Returns what is not listed as well.
pub(super) fn list_objects(
    repository: &Repository,
    more: &[&str],
) -> Result<(Running, Option<String>), HistoryError> {
    let arguments = [
        "rev-list",
        "--objects",
        // They would be cut at line breaks.
        "--no-object-names",
        "--in-commit-order",
        "--topo-order",
        "--reverse",
        "--all",
        "--missing=print",
        "--stdin",
    ];
    let mut list = repository.start(LIST, &[&arguments, more].concat(), Stdio::piped())?;
    let (stashes, passed_over) = stashes(repository)?;
    list.tell(&stashes).map_err(broken)?;
    Ok((list, passed_over))
}

/// Returns the commits of all stashes, one per line, and whether there are more of them. The reference `refs/stash` is
/// only the latest of them.
fn stashes(repository: &Repository) -> Result<(Vec<u8>, Option<String>), HistoryError> {
    let arguments = ["rev-list", "--walk-reflogs", "refs/stash"];
    let mut list = repository.start(LIST, &arguments, Stdio::null())?;
    let mut output = BufReader::new(list.listen(&[]).map_err(broken)?);
    let mut stashes = Vec::new();
    for _ in 0..=STASHES_MAX {
        if output.read_until(b'\n', &mut stashes).map_err(broken)? == 0 {
            let (status, _) = list.end()?;
            // It fails when there is none.
            let listed = if status.success() {
                stashes
            } else {
                Vec::new()
            };
            return Ok((listed, None));
        }
    }
    let passed_over = format!("stashes beyond the latest {STASHES_MAX}");
    Ok((stashes, Some(passed_over)))
}

/// Tells the names of the objects that are to be read.
fn feed(names: &[String], input: ChildStdin) -> io::Result<()> {
    let mut input = BufWriter::new(input);
    let told = names
        .iter()
        .try_for_each(|name| writeln!(input, "{name}"))
        .and_then(|()| input.flush());
    match told {
        // The reader exited, and reports why unless it was asked to.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        told => told,
    }
}

fn kind_of(name: &str) -> Option<GitKind> {
    match name {
        "blob" => Some(GitKind::Blob),
        "commit" => Some(GitKind::Commit),
        "tag" => Some(GitKind::Tag),
        "tree" => Some(GitKind::Tree),
        _ => None,
    }
}

/// Reads the start of a commit, in which its top folder stands.
pub(super) fn start_of_commit(contents: &mut Contents) -> Result<Vec<u8>, HistoryError> {
    let mut start = Vec::new();
    let read = contents.by_ref().take(128).read_to_end(&mut start);
    read.map_err(broken)?;
    Ok(start)
}

/// Returns the hash of the top folder that the start of a commit names.
pub(super) fn top_folder(start: &[u8]) -> Option<Vec<u8>> {
    links::folder(start).map(|id| hash(&id))
}

/// Returns the bytes of an object name in hexadecimal.
pub(super) fn hash(id: &str) -> Vec<u8> {
    let pairs = id.as_bytes().chunks(2);
    let pairs = pairs.filter_map(|pair| std::str::from_utf8(pair).ok());
    pairs
        .filter_map(|pair| u8::from_str_radix(pair, 16).ok())
        .collect()
}

pub(super) fn broken(source: io::Error) -> HistoryError {
    HistoryError::Broken { what: READ, source }
}
