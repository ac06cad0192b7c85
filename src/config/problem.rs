//! Problems of a configuration and their places. A problem never shows the value that it is about, which
//! may be a secret, or a secret in the wrong place.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Origin of a part of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigPlace {
    /// The built-in default.
    Default,
    /// A position in a file. Line and column are counted from 1, columns in characters.
    File {
        /// Path of the file, as named on the command line.
        path: Arc<Path>,
        /// Line, counted from 1.
        line: usize,
        /// Column, counted from 1 in characters.
        column: usize,
    },
    /// The environment variable with this name.
    Environment(Arc<str>),
}

impl fmt::Display for ConfigPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in default"),
            Self::File { path, line, column } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// A single problem that has to be fixed before the configuration can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Place of the value concerned.
    pub place: ConfigPlace,
    /// Path of the key, such as `sources[0].schedule`; empty if the problem concerns the file as a whole.
    pub key: String,
    /// Description of the problem.
    pub what: String,
    /// Instruction for fixing the problem.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place != ConfigPlace::Default {
            write!(f, "{}: ", self.place)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}\n    hint: {}", self.what, self.hint)
    }
}

/// Error returned for a configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration {}: {cause}\n    hint: {hint}", path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Cause of the failure.
        cause: std::io::Error,
        /// Instruction for fixing the problem.
        hint: &'static str,
    },
    /// The configuration is invalid. Its problems are in the order of the file.
    #[error("{}", list(.0))]
    Invalid(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

/// Collects problems while the configuration is read, so that all are reported at once.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub(super) fn add(
        &self,
        place: &ConfigPlace,
        key: impl Into<String>,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.0.borrow_mut().push(Problem {
            place: place.clone(),
            key: key.into(),
            what: what.into(),
            hint: hint.into(),
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Returns the place of the problem that was collected first.
    pub(super) fn first_place(&self) -> Option<ConfigPlace> {
        let problems = self.0.borrow();
        problems.first().map(|problem| problem.place.clone())
    }

    /// Returns an error if any problem was collected: the file's problems by line, then the
    /// environment's.
    pub(super) fn into_result(self) -> Result<(), ConfigError> {
        let mut problems = self.0.into_inner();
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort_by_key(|problem| match &problem.place {
            ConfigPlace::File { line, column, .. } => (0, *line, *column),
            ConfigPlace::Environment(_) => (1, 0, 0),
            ConfigPlace::Default => (2, 0, 0),
        });
        Err(ConfigError::Invalid(problems))
    }
}

/// Returns the word of `known` that `typed` was probably meant to be, or `None` if none is close.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|word| (edits(typed, word), word))
        .filter(|(edits, word)| *edits <= 1 + word.len() / 4)
        .min()
        .map(|(_, word)| word)
}

/// Computes the Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_the_word_that_was_meant() {
        let known = ["bind", "public_url", "token"];
        assert_eq!(nearest("tokn", known), Some("token"));
        assert_eq!(nearest("publicurl", known), Some("public_url"));
        assert_eq!(nearest("retention", known), None);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
