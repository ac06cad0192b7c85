//! Values of the rows of a CSV or JSON Lines file.

use std::collections::BTreeMap;
use std::fmt;
use std::io::BufRead;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde_json::value::RawValue;

use super::lines::Lines;
use super::{COLUMNS, RowError, RowFormat, wrong};

/// Number of required columns, which are the first ones of [`COLUMNS`].
const REQUIRED: usize = 3;

/// Column that is only shown.
const DESCRIPTION: &str = COLUMNS[3];

/// Iterator over the rows of a file, yielding the line and the values of each.
pub(super) struct Rows<R> {
    lines: Lines<R>,
    format: RowFormat,
    columns: Option<Vec<usize>>,
    ended: bool,
}

/// Values of a row in the order of [`COLUMNS`].
pub(super) type Values = [Option<String>; COLUMNS.len()];

impl<R: BufRead> Iterator for Rows<R> {
    type Item = Result<(u64, Values), RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        self.next_values()
    }
}

impl<R: BufRead> Rows<R> {
    pub(super) fn new(input: R, format: RowFormat) -> Self {
        Self {
            lines: Lines::new(input),
            format,
            columns: None,
            ended: false,
        }
    }

    fn next_values(&mut self) -> Option<Result<(u64, Values), RowError>> {
        loop {
            let record = match self.format {
                RowFormat::Csv => self.lines.next_csv_record(),
                RowFormat::JsonLines => self.lines.next_line(),
            };
            let (line, record) = match record? {
                Ok(record) => record,
                Err(error) => {
                    self.ended = error.is_last;
                    return Some(Err(error.row));
                }
            };
            let text = record.trim_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
            if text.is_empty() {
                continue;
            }
            match (self.format, &self.columns) {
                (RowFormat::JsonLines, _) => {
                    return Some(json_values(line, text).map(|values| (line, values)));
                }
                (RowFormat::Csv, Some(columns)) => {
                    let fields = self.lines.splitter.fields(text);
                    return Some(csv_values(line, &fields, columns).map(|values| (line, values)));
                }
                (RowFormat::Csv, None) => {
                    match csv_columns(line, &self.lines.splitter.fields(text)) {
                        Ok(columns) => self.columns = Some(columns),
                        Err(error) => {
                            self.ended = true;
                            return Some(Err(error));
                        }
                    }
                }
            }
        }
    }
}

/// Returns the index in [`COLUMNS`] of each column of the file.
fn csv_columns(line: u64, fields: &[&str]) -> Result<Vec<usize>, RowError> {
    let hint = || {
        format!(
            "the first line has to name the columns: {}",
            COLUMNS.join(",")
        )
    };
    let mut columns = Vec::new();
    for name in fields {
        let column = COLUMNS
            .iter()
            .position(|column| name.eq_ignore_ascii_case(column));
        match column {
            Some(column) if !columns.contains(&column) => columns.push(column),
            _ => return Err(wrong(line, None, hint())),
        }
    }
    if (0..REQUIRED).any(|column| !columns.contains(&column)) {
        return Err(wrong(line, None, hint()));
    }
    Ok(columns)
}

/// Returns a field's value, without ASCII white space around it, or `None` if nothing is left.
fn value_of(field: &str) -> Option<String> {
    let text = field.trim_ascii();
    (!text.is_empty()).then(|| text.to_owned())
}

fn csv_values(line: u64, fields: &[&str], columns: &[usize]) -> Result<Values, RowError> {
    if fields.len() != columns.len() {
        let problem = format!(
            "has {} fields where the first line names {}",
            fields.len(),
            columns.len()
        );
        return Err(wrong(line, None, problem));
    }
    let mut values = Values::default();
    for (field, &column) in fields.iter().zip(columns) {
        values[column] = value_of(field);
    }
    Ok(values)
}

fn json_values(line: u64, text: &str) -> Result<Values, RowError> {
    let mut fields: BTreeMap<String, &RawValue> =
        serde_json::from_str(text).map_err(|error| wrong(line, None, no_object(&error)))?;
    let mut values = Values::default();
    for (value, name) in values.iter_mut().zip(COLUMNS) {
        *value = match fields.remove(name).map(RawValue::get) {
            None | Some("null") => None,
            Some(text) if text.starts_with('"') => json_text(line, name, text)?,
            Some(_) => return Err(wrong(line, Some(name), "has to be a string or null")),
        };
    }
    if fields.is_empty() {
        Ok(values)
    } else {
        let problem = format!("has a field that is none of {}", COLUMNS.join(", "));
        Err(wrong(line, None, problem))
    }
}

/// Returns what is wrong with a line that holds no JSON object. The words of syntax errors have nothing of the line in
/// them.
fn no_object(error: &serde_json::Error) -> String {
    if error.is_data() {
        return "is not a JSON object".to_owned();
    }
    let words = error.to_string();
    let words = words.split(" at line ").next().unwrap_or_default();
    format!("is not JSON: {words}")
}

/// Reads a string. An escape that stands for no character does no harm in a description, which is only shown: a key that
/// was not imported would not be revoked when it leaks.
fn json_text(line: u64, name: &'static str, text: &str) -> Result<Option<String>, RowError> {
    if let Ok(text) = serde_json::from_str::<String>(text) {
        return Ok(value_of(&text));
    }
    match serde_json::from_str(text) {
        Ok(Mended(text)) if name == DESCRIPTION => Ok(value_of(&text)),
        _ => Err(wrong(
            line,
            Some(name),
            "has an escape that stands for no character, half of a surrogate pair such as \\ud800",
        )),
    }
}

/// Text in which each half of a surrogate pair that stands alone became the replacement character.
struct Mended(String);

impl<'de> Deserialize<'de> for Mended {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As bytes, `serde_json` reads such a half as if it were a character, of three bytes that UTF-8 does not have.
        deserializer.deserialize_bytes(MendedVisitor)
    }
}

struct MendedVisitor;

impl Visitor<'_> for MendedVisitor {
    type Value = Mended;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Mended, E> {
        let text = String::from_utf8_lossy(bytes);
        Ok(Mended(text.replace("\u{fffd}\u{fffd}\u{fffd}", "\u{fffd}")))
    }
}
