//! Reads typed values out of the tree, tracking the known keys so that all others are rejected.

mod secret;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use super::problem::{ConfigPlace, Problem, Problems, nearest};
use super::tree::{Node, Table, Value, parse_raw};
use super::{Environment, Needs};

/// State shared by all sections while they are read.
pub(super) struct Reader<'a> {
    pub(super) problems: &'a Problems,
    pub(super) environment: &'a Environment,
    pub(super) needs: Needs,
    /// `false` if the file was found in the current folder, where it may be anyone's.
    pub(super) is_named: bool,
    pub(super) warnings: RefCell<Vec<String>>,
    pub(super) origins: RefCell<BTreeMap<String, ConfigPlace>>,
    /// Secrets that could not be looked up and are marked.
    pub(super) unset: RefCell<Vec<Problem>>,
}

pub(super) use secret::is_unset;

/// A value and its place, for the checks that follow that of its type.
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) place: ConfigPlace,
}

/// One table of the configuration. [`Section::finish`] reports the keys that were never asked for.
pub(super) struct Section<'a> {
    reader: &'a Reader<'a>,
    path: String,
    place: ConfigPlace,
    table: Table,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    pub(super) fn root(reader: &'a Reader<'a>, table: Table) -> Self {
        Self {
            reader,
            path: String::new(),
            place: ConfigPlace::Default,
            table,
            known: RefCell::default(),
        }
    }

    /// Returns the key's path from the root, such as `server.bind`.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    pub(super) fn place(&self) -> &ConfigPlace {
        &self.place
    }

    /// Reports a problem with the value of `key`, if it is in the way of whoever needs the configuration.
    pub(super) fn refuse(&self, place: &ConfigPlace, key: &str, what: &str, hint: &str) {
        let path = self.path_of(key);
        if self.reader.needs.has_part(&path) {
            self.reader.problems.add(place, path, what, hint);
        }
    }

    /// Warns of the value of `key`, which is taken.
    pub(super) fn warn(&self, key: &str, what: &str) {
        let path = self.path_of(key);
        if self.reader.needs.has_part(&path) {
            let warning = format!("{path}: {what}");
            self.reader.warnings.borrow_mut().push(warning);
        }
    }

    /// Returns `true` if `key` has a value, valid or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.0.contains_key(key)
    }

    /// Returns `true` if the secret at `key` is needed, and is looked up.
    pub(super) fn needs_secret(&self, key: &str) -> bool {
        self.reader.needs.has_secret(&self.path_of(key))
    }

    /// Returns `true` if `key` has a list with anything in it.
    pub(super) fn lists(&self, key: &'static str) -> bool {
        let node = self.table.0.get(key).map(|(_, node)| node.clone());
        let node = node.and_then(|node| match &node.value {
            Value::Raw(text) => parse_raw(text, &node.place),
            _ => Some(node),
        });
        matches!(node.map(|node| node.value), Some(Value::List(items)) if !items.is_empty())
    }

    /// Reports a problem if `key` has a value, valid or not.
    pub(super) fn forbid(&self, key: &'static str, what: &str, hint: &str) {
        if let Some((place, _)) = self.table.0.get(key) {
            self.known.borrow_mut().push(key);
            self.refuse(place, key, what, hint);
        }
    }

    /// Marks `keys` as known, so that [`Section::finish`] does not report them.
    pub(super) fn forgive(&self, keys: &[&'static str]) {
        self.known.borrow_mut().extend(keys);
    }

    fn take(&self, key: &'static str) -> Option<Node> {
        self.known.borrow_mut().push(key);
        let (_, node) = self.table.0.get(key)?;
        self.reader
            .origins
            .borrow_mut()
            .insert(self.path_of(key), node.place.clone());
        Some(node.clone())
    }

    /// Returns the value of `key`, parsed as TOML if it is the text of an environment variable.
    fn take_parsed(&self, key: &'static str, expected: &str, example: &str) -> Option<Node> {
        let node = self.take(key)?;
        let Value::Raw(text) = &node.value else {
            return Some(node);
        };
        let parsed = parse_raw(text, &node.place);
        if parsed.is_none() {
            self.wrong_type(&node.place, key, expected, example);
        }
        parsed
    }

    fn wrong_type(&self, place: &ConfigPlace, key: &str, expected: &str, example: &str) {
        self.refuse(
            place,
            key,
            &format!("has to be {expected}"),
            &format!("for example {example}"),
        );
    }

    pub(super) fn section(&self, key: &'static str) -> Section<'a> {
        let path = self.path_of(key);
        let example = format!("[{path}] on a line of its own, its keys below");
        let mut place = self.place.clone();
        let mut table = Table::default();
        if let Some(node) = self.take_parsed(key, "a section", &example) {
            place = node.place.clone();
            match node.value {
                Value::Table(inner) => table = inner,
                _ => self.wrong_type(&node.place, key, "a section", &example),
            }
        }
        Section {
            reader: self.reader,
            path,
            place,
            table,
            known: RefCell::default(),
        }
    }

    /// Returns a list of sections, such as `[[sources]]`. It is empty if the key is missing.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        let example = format!("[[{key}]] on a line of its own, its keys below");
        let items = self.list(key, "a list of sections", &example);
        let sections = items.into_iter().flatten().enumerate();
        let sections = sections.filter_map(|(index, node)| {
            let value = match node.value {
                Value::Raw(text) => parse_raw(&text, &node.place).map(|node| node.value),
                value => Some(value),
            };
            let Some(Value::Table(table)) = value else {
                self.wrong_type(&node.place, key, "a list of sections", &example);
                return None;
            };
            Some(Section {
                reader: self.reader,
                path: format!("{}[{index}]", self.path_of(key)),
                place: node.place,
                table,
                known: RefCell::default(),
            })
        });
        sections.collect()
    }

    fn list(&self, key: &'static str, expected: &str, example: &str) -> Option<Vec<Node>> {
        let node = self.take_parsed(key, expected, example)?;
        let Value::List(items) = node.value else {
            self.wrong_type(&node.place, key, expected, example);
            return None;
        };
        Some(items)
    }

    pub(super) fn text(&self, key: &'static str, example: &str) -> Option<Found<String>> {
        let node = self.take(key)?;
        let (Value::Text(value) | Value::Raw(value)) = node.value else {
            self.wrong_type(&node.place, key, "a text", example);
            return None;
        };
        if value.trim().is_empty() {
            self.wrong_type(&node.place, key, "a text that is not empty", example);
            return None;
        }
        Some(Found {
            value,
            place: node.place,
        })
    }

    pub(super) fn texts(&self, key: &'static str, example: &str) -> Option<Vec<Found<String>>> {
        let items = self.list(key, "a list of texts", example)?;
        let texts = items.into_iter().filter_map(|node| {
            // An element may come from a variable of its own.
            let (Value::Text(value) | Value::Raw(value)) = node.value else {
                self.wrong_type(&node.place, key, "a list of texts", example);
                return None;
            };
            let place = node.place;
            Some(Found { value, place })
        });
        Some(texts.collect())
    }

    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        let node = self.take_parsed(key, "true or false", "true")?;
        let Value::Flag(flag) = node.value else {
            self.wrong_type(&node.place, key, "true or false", "true");
            return None;
        };
        Some(flag)
    }

    /// Returns a number of bytes, at least 1: an integer, or a text such as `"32MiB"`.
    pub(super) fn size(&self, key: &'static str, example: &str) -> Option<Found<u64>> {
        let node = self.take(key)?;
        let size = match &node.value {
            Value::Integer(Some(number)) => u64::try_from(*number).ok(),
            Value::Text(text) | Value::Raw(text) => super::size::parse(text),
            _ => None,
        };
        let Some(value) = size.filter(|size| *size > 0) else {
            self.wrong_type(
                &node.place,
                key,
                "a number of bytes, at least 1, with or without a unit (kB, MB, GB, KiB, MiB, GiB)",
                example,
            );
            return None;
        };
        Some(Found {
            value,
            place: node.place,
        })
    }

    /// Returns an integer, at least 1.
    pub(super) fn count(&self, key: &'static str, example: &str) -> Option<Found<u64>> {
        let node = self.take_parsed(key, "a whole number, at least 1", example)?;
        let number = match &node.value {
            Value::Integer(Some(number)) => u64::try_from(*number).ok(),
            _ => None,
        };
        let Some(value) = number.filter(|number| *number > 0) else {
            self.wrong_type(&node.place, key, "a whole number, at least 1", example);
            return None;
        };
        let place = node.place;
        Some(Found { value, place })
    }

    /// Returns a duration: an integer and a unit.
    pub(super) fn duration(&self, key: &'static str, example: &str) -> Option<Found<Duration>> {
        let found = self.text(key, example)?;
        let Some(value) = super::duration::parse_duration(&found.value) else {
            let expected = "a whole number and a unit (s, m, h, d, w, y)";
            self.wrong_type(&found.place, key, expected, example);
            return None;
        };
        let place = found.place;
        Some(Found { value, place })
    }

    /// Reports the keys that this version does not know. In a file that was named, and in variables of this program, a
    /// misspelled key is a mistake whoever needs it: nothing of them is ignored silently.
    pub(super) fn finish(self) {
        let known = self.known.borrow();
        for (key, (place, _)) in &self.table.0 {
            if known.contains(&key.as_str()) {
                continue;
            }
            let hint = match nearest(key, known.iter().copied()) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            let what = if self.path.is_empty() {
                "this version knows no such section"
            } else {
                "this version knows no such key"
            };
            // No known key is that long: it may be a value that slipped to the left of the equals sign.
            let shown = if key.len() > 40 { "…" } else { key };
            if self.reader.is_named || matches!(place, ConfigPlace::Environment(_)) {
                let path = self.path_of(shown);
                self.reader.problems.add(place, path, what, &hint);
            } else {
                self.refuse(place, shown, what, &hint);
            }
        }
    }
}
