//! Problems in pattern files, each with a remedy.

use std::fmt;

/// A single problem in a pattern file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Name of the file, as given to the loader.
    pub file: String,
    /// Line, counted from 1; `None` if the problem concerns the file as a whole.
    pub line: Option<usize>,
    /// Identifier of the format concerned, if it is known.
    pub format: Option<String>,
    /// Description of the problem.
    pub message: String,
    /// Instruction for fixing the problem.
    pub remedy: String,
}

impl fmt::Display for Problem {
    /// Writes `file:line: id: message; remedy`, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(format) = &self.format {
            write!(f, ": {format}")?;
        }
        write!(f, ": {}; {}", self.message, self.remedy)
    }
}

/// Error listing everything that is wrong with the pattern files, in the order of files and lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct FormatsError {
    /// The problems; never empty.
    pub problems: Vec<Problem>,
}

/// A problem whose position is not known yet.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) remedy: String,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}
