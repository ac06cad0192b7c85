//! Listing of the objects of a history, and reading of their contents.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::thread::{self, JoinHandle};

use super::HistoryError;
use super::command::Repository;
use super::running::Running;
use super::silence::Listening;
use crate::scan::GitKind;
use crate::tree::open::path_of;

const LIST: &str = "list the objects of the history";
const READ: &str = "read an object";

/// Object of a history.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    /// Object name: a hash in hexadecimal.
    pub(super) id: String,
    /// A path at which some commit has the object.
    pub(super) path: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text(GitKind),
    /// Folder, which has no text.
    Folder,
    /// Object that another one refers to but the repository lacks, because it is a partial clone or damaged.
    Missing,
}

/// Objects of a history, one after another. Reading from it reads the contents of the current one.
///
/// One process writes the objects out, and a thread sends it their names. If the names come from other processes,
/// those are kept until they end.
pub(super) struct Contents {
    output: BufReader<Listening>,
    /// Number of bytes of the current object that have not been read.
    left: u64,
    /// Set once an object was read, whose contents a line feed follows.
    started: bool,
    line: Vec<u8>,
    feeder: JoinHandle<io::Result<()>>,
    processes: Vec<Running>,
}

impl Contents {
    /// Starts reading all objects of the history that have a text, and those that are missing. Two more processes
    /// take part: one lists all objects, the other determines which of them are folders.
    pub(super) fn of_history(repository: &Repository) -> Result<Self, HistoryError> {
        Self::of_kinds(repository, |kind| kind != b"tree")
    }

    /// Starts reading the objects of the history that refer to others: commits, folders and tags.
    pub(super) fn of_references(repository: &Repository) -> Result<Self, HistoryError> {
        Self::of_kinds(repository, |kind| !matches!(kind, b"blob" | b"missing"))
    }

    fn of_kinds(repository: &Repository, wanted: fn(&[u8]) -> bool) -> Result<Self, HistoryError> {
        let mut list = list_objects(repository)?;
        let objects = list.stdout().map_err(broken)?;
        let arguments = [
            "cat-file",
            "--batch-check=%(objectname) %(objecttype) %(rest)",
            "--buffer",
        ];
        let mut check = repository.start_reading(LIST, &arguments, Stdio::from(objects))?;
        let kinds = BufReader::new(check.stdout().map_err(broken)?);
        Self::start(repository, vec![list, check], move |names| {
            feed(kinds, wanted, names)
        })
    }

    /// Starts reading the named objects, in this order and without a path.
    pub(super) fn of_names(
        repository: &Repository,
        names: Vec<String>,
    ) -> Result<Self, HistoryError> {
        Self::start(repository, Vec::new(), move |mut wanted| {
            for name in names {
                writeln!(wanted, "{name}")?;
            }
            wanted.flush()
        })
    }

    /// Starts the process that writes out the objects named by `feed`.
    fn start(
        repository: &Repository,
        mut processes: Vec<Running>,
        feed: impl FnOnce(BufWriter<ChildStdin>) -> io::Result<()> + Send + 'static,
    ) -> Result<Self, HistoryError> {
        let arguments = [
            "cat-file",
            "--batch=%(objectname) %(objecttype) %(objectsize) %(rest)",
            "--buffer",
        ];
        let mut read = repository.start_reading(READ, &arguments, Stdio::piped())?;
        let wanted = read.stdin();
        let others: Vec<&Running> = processes.iter().collect();
        let output = read.listen(&others).map_err(broken)?;
        let output = BufReader::with_capacity(128 << 10, output);
        processes.push(read);
        Ok(Self {
            output,
            left: 0,
            started: false,
            line: Vec::new(),
            feeder: thread::spawn(move || match wanted.map(BufWriter::new).map(feed) {
                // The reader exited, and reports why unless it was asked to.
                Some(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                told => told.unwrap_or(Ok(())),
            }),
            processes,
        })
    }

    /// Advances to the next object, whose contents can then be read from `self`. Returns `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, HistoryError> {
        self.skip_rest().map_err(broken)?;
        self.line.clear();
        let read = self.output.read_until(b'\n', &mut self.line);
        if read.map_err(broken)? == 0 {
            return Ok(None);
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let mut words = line.splitn(4, |byte| *byte == b' ');
        let id = words.next().unwrap_or_default();
        let kind = words.next().unwrap_or_default();
        let size = words.next().map(String::from_utf8_lossy);
        let path = words.next().filter(|path| !path.is_empty()).map(path_of);
        let id = String::from_utf8_lossy(id)
            .trim_start_matches('?')
            .to_owned();
        let kind = match (kind_of(kind), size.and_then(|size| size.parse().ok())) {
            (Some(kind), Some(size)) => {
                (self.left, self.started) = (size, true);
                kind
            }
            _ => Kind::Missing,
        };
        Ok(Some(Entry { kind, id, path }))
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.started) {
            let rest = std::mem::take(&mut self.left) + 1;
            io::copy(&mut self.output.by_ref().take(rest), &mut io::sink())?;
        }
        Ok(())
    }

    /// Waits for all processes. Success means that all objects were listed, except for those that git reports to
    /// have skipped, which are returned.
    pub(super) fn finish(self) -> Result<Vec<String>, HistoryError> {
        let fed = self.feeder.join();
        let mut passed_over = Vec::new();
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

/// Starts listing every object reachable from a reference, with a path if it has one.
fn list_objects(repository: &Repository) -> Result<Running, HistoryError> {
    let arguments = [
        "rev-list",
        "--objects",
        "--all",
        "--missing=print",
        "--stdin",
    ];
    let mut list = repository.start(LIST, &arguments, Stdio::piped())?;
    list.tell(&stashes(repository)?).map_err(broken)?;
    Ok(list)
}

/// Returns the commits of all stashes, one per line. The reference `refs/stash` is only the latest of them.
pub(super) fn stashes(repository: &Repository) -> Result<Vec<u8>, HistoryError> {
    let stashes = repository.answer(&["rev-list", "--walk-reflogs", "refs/stash"])?;
    let (status, stashes, _) = stashes;
    // It fails when there is none.
    Ok(if status.success() {
        stashes
    } else {
        Vec::new()
    })
}

/// Forwards the names of the objects of the wanted kinds.
fn feed(
    mut kinds: BufReader<ChildStdout>,
    wanted: fn(&[u8]) -> bool,
    mut names: BufWriter<ChildStdin>,
) -> io::Result<()> {
    let mut line = Vec::new();
    while kinds.read_until(b'\n', &mut line)? > 0 {
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let id = words.next().unwrap_or_default();
        let kind = words.next().unwrap_or_default().trim_ascii_end();
        match kind {
            kind if !wanted(kind) => {}
            b"missing" => names.write_all(&[id, b"\n"].concat())?,
            _ => {
                let path = words.next().unwrap_or(b"\n");
                names.write_all(&[id, b" ", path].concat())?;
            }
        }
        line.clear();
    }
    names.flush()
}

fn kind_of(name: &[u8]) -> Option<Kind> {
    match name {
        b"blob" => Some(Kind::Text(GitKind::Blob)),
        b"commit" => Some(Kind::Text(GitKind::Commit)),
        b"tag" => Some(Kind::Text(GitKind::Tag)),
        b"tree" => Some(Kind::Folder),
        _ => None,
    }
}

pub(super) fn broken(source: io::Error) -> HistoryError {
    HistoryError::Broken { what: READ, source }
}
