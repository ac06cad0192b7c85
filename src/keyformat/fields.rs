//! Reads the fields of one TOML table and records every problem with its line.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Fault, Problem};

/// A value and its line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// A pattern file that is being read.
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    /// Byte offsets of the starts of lines.
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a str, text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0)
            .chain(ends.map(|(at, _)| at + 1))
            .collect();
        Self { file, line_starts }
    }

    /// Returns the line on which `span` starts, counted from 1.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        self.line_starts
            .partition_point(|start| *start <= span.start)
    }

    pub(super) fn problem(&self, line: usize, format: Option<&str>, fault: Fault) -> Problem {
        Problem {
            file: self.file.to_owned(),
            line: Some(line),
            format: format.map(str::to_owned),
            message: fault.message,
            remedy: fault.remedy,
        }
    }
}

/// Reader of the fields of one table.
pub(super) struct Fields<'a, 't> {
    source: &'a Source<'a>,
    table: &'a DeTable<'t>,
    /// Prefix of the table's keys in messages: empty for a format, `body.` for its body.
    path: &'static str,
    /// Line on which the table starts, reported for missing fields.
    pub(super) line: usize,
    /// Identifier of the format, once it is known.
    pub(super) format: Option<String>,
    pub(super) problems: Vec<Problem>,
}

impl<'a, 't> Fields<'a, 't> {
    pub(super) fn new(
        source: &'a Source<'a>,
        table: &'a DeTable<'t>,
        path: &'static str,
        line: usize,
        format: Option<String>,
    ) -> Self {
        Self {
            source,
            table,
            path,
            line,
            format,
            problems: Vec::new(),
        }
    }

    /// Records a problem at `line`.
    pub(super) fn fault(&mut self, line: usize, fault: Fault) {
        self.problems
            .push(self.source.problem(line, self.format.as_deref(), fault));
    }

    /// Returns the value of `result`, or records its fault at `line`.
    pub(super) fn check<T>(&mut self, line: usize, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.fault(line, fault)).ok()
    }

    /// Records a problem for every key that is not in `known`.
    pub(super) fn refuse_unknown(&mut self, known: &[&str]) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let fault = Fault::new(
                    format!("unknown key `{}{}`", self.path, shortened(name)),
                    format!("the keys known here are {}", listed(known)),
                );
                self.fault(self.source.line(&key.span()), fault);
            }
        }
    }

    fn get(&self, name: &str) -> Option<Located<&'a DeValue<'t>>> {
        let value = self.table.get(name)?;
        Some(Located {
            value: value.get_ref(),
            line: self.source.line(&value.span()),
        })
    }

    /// Returns `true` if the key is present, whatever its type.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// Returns a string if the key is present. Records a problem for any other type.
    pub(super) fn string(&mut self, name: &str) -> Option<Located<&'a str>> {
        self.typed(name, "a string in quotes", DeValue::as_str)
    }

    /// Returns a table if the key is present. Records a problem for any other type.
    pub(super) fn table(&mut self, name: &str) -> Option<Located<&'a DeTable<'t>>> {
        self.typed(
            name,
            "a table such as { key = \"value\" }",
            DeValue::as_table,
        )
    }

    /// Returns a count of at least 1 if the key is present. Records a problem for any other value.
    pub(super) fn count(&mut self, name: &str) -> Option<Located<usize>> {
        self.typed(name, "a whole number from 1 on", |value| {
            let number = value.as_integer()?;
            usize::from_str_radix(number.as_str(), number.radix())
                .ok()
                .filter(|count| *count > 0)
        })
    }

    pub(super) fn flag(&mut self, name: &str) -> Option<Located<bool>> {
        self.typed(name, "true or false", |value| match value {
            DeValue::Boolean(flag) => Some(*flag),
            _ => None,
        })
    }

    fn typed<T>(
        &mut self,
        name: &str,
        wanted: &str,
        read: impl Fn(&'a DeValue<'t>) -> Option<T>,
    ) -> Option<Located<T>> {
        let Located { value, line } = self.get(name)?;
        let read = read(value).map(|value| Located { value, line });
        if read.is_none() {
            let found = match value {
                DeValue::Integer(number) => shortened(&number.to_string()),
                other => format!("of the type {}", other.type_str()),
            };
            let fault = Fault::new(
                format!("`{}{name}` is {found}", self.path),
                format!("write {wanted}"),
            );
            self.fault(line, fault);
        }
        read
    }

    /// Records a problem if the key is missing.
    pub(super) fn require(&mut self, name: &str, example: &str) {
        if !self.has(name) {
            let fault = Fault::new(
                format!("`{}{name}` is missing", self.path),
                format!("add for example {name} = {example}"),
            );
            self.fault(self.line, fault);
        }
    }

    /// Returns the value of one of the words in `choices`. Records a problem for any other word.
    pub(super) fn word<T>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<Located<T>>
    where
        T: Copy,
    {
        let found = self.string(name)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == found.value) {
            return Some(Located {
                value: *value,
                line: found.line,
            });
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        let fault = Fault::new(
            format!("`{}{name}` is \"{}\"", self.path, shortened(found.value)),
            format!("this version knows {}", listed(&words)),
        );
        self.fault(found.line, fault);
        None
    }
}

/// Parses a whole document.
///
/// # Errors
/// Returns every syntax error.
pub(super) fn parse<'t>(
    source: &Source<'_>,
    text: &'t str,
) -> Result<Spanned<DeTable<'t>>, Vec<Problem>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(document);
    }
    Err(errors
        .iter()
        .map(|error| {
            let fault = Fault::new(
                format!("not TOML: {}", error.message().replace('\n', ", ")),
                "mend the syntax; docs/key-formats.md shows a whole file",
            );
            source.problem(
                error.span().map_or(1, |span| source.line(&span)),
                None,
                fault,
            )
        })
        .collect())
}

/// Returns `text` escaped to one line and cut at 40 characters, for use in a message.
pub(super) fn shortened(text: &str) -> String {
    let mut shown: String = text.escape_debug().take(40).collect();
    if text.escape_debug().count() > 40 {
        shown.push('…');
    }
    shown
}

fn listed(words: &[&str]) -> String {
    words
        .iter()
        .map(|word| format!("`{word}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
