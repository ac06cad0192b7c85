//! Destination of a report.

use std::cell::Cell;
use std::io::{self, BufWriter, ErrorKind, Stdout, Write};
use std::path::Path;
use std::rc::Rc;

use crate::cli::file::{Output, is_standard_output};
use crate::cli::kept::Kept;
use crate::cli::output::UNWRITABLE;
use crate::cli::{Context, UsageError};

/// Standard output, or a file.
///
/// A reader of standard output that has seen enough is no error: the exit code tells of all that was scanned, also
/// behind `| head`. What is written after it left goes nowhere.
pub(super) struct Sink {
    to: To,
    is_left: Rc<Cell<bool>>,
}

enum To {
    Stdout(BufWriter<Stdout>),
    File(Output),
}

impl Sink {
    /// Opens the file, if one other than `-` is named.
    ///
    /// # Errors
    /// Returns an error that names the file if it cannot be written.
    pub(super) fn open(file: Option<&Path>, context: &Context) -> Result<Self, UsageError> {
        let to = match file.filter(|path| !is_standard_output(path)) {
            Some(path) => To::File(Output::create(path, &Kept::of(context))?),
            None => To::Stdout(BufWriter::new(io::stdout())),
        };
        let is_left = Rc::default();
        Ok(Self { to, is_left })
    }

    /// Returns a flag that is set once the reader of standard output has left.
    pub(super) fn is_left(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.is_left)
    }

    /// Completes the file.
    ///
    /// # Errors
    /// Returns an error that names the file if it could not be written.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self.to {
            To::Stdout(_) => Ok(()),
            To::File(file) => file.finish(),
        }
    }

    fn taken<T>(&self, result: io::Result<T>, instead: T) -> io::Result<T> {
        match (result, &self.to) {
            (Err(error), To::Stdout(_)) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_left.set(true);
                Ok(instead)
            }
            (Err(error), To::Stdout(_)) => Err(io::Error::other(format!("{UNWRITABLE}: {error}"))),
            (result, _) => result,
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_left.get() {
            return Ok(bytes.len());
        }
        let written = match &mut self.to {
            To::Stdout(out) => out.write(bytes),
            To::File(file) => file.write(bytes),
        };
        self.taken(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.is_left.get() {
            return Ok(());
        }
        let flushed = match &mut self.to {
            To::Stdout(out) => out.flush(),
            To::File(file) => file.flush(),
        };
        self.taken(flushed, ())
    }
}
