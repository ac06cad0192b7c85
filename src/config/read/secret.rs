//! Secrets, which stand in the configuration, in an environment variable, or in a file.

use std::io;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::{Found, Section};
use crate::config::bounded;
use crate::config::problem::{ConfigPlace, Problem};
use crate::config::tree::{Node, Table, Value, parse_raw};

/// Stands for a secret that could not be looked up, and is marked. No variable can have this value.
const UNSET: &str = "\0";

/// Returns whether a secret could not be looked up, and is marked: there is nothing to check.
pub(in crate::config) fn is_unset(secret: &SecretString) -> bool {
    secret.expose_secret() == UNSET
}

impl Section<'_> {
    /// Returns a secret, which must have a value if its key is present.
    pub(in crate::config) fn secret(&self, key: &'static str) -> Option<Found<SecretString>> {
        let node = self.take(key)?;
        self.resolve(&node, key, false)
    }

    /// Returns a secret whose environment variable may be unset, which leaves a warning.
    pub(in crate::config) fn optional_secret(
        &self,
        key: &'static str,
    ) -> Option<Found<SecretString>> {
        let node = self.take(key)?;
        self.resolve(&node, key, true)
    }

    pub(in crate::config) fn secrets(&self, key: &'static str) -> Vec<Found<SecretString>> {
        let example = r#"["…", { env = "NAME" }, { file = "PATH" }]"#;
        let items = self.list(key, "a list of secrets", example);
        let items = items.into_iter().flatten().enumerate();
        items
            .filter_map(|(index, node)| self.resolve(&node, &format!("{key}[{index}]"), false))
            .collect()
    }

    fn resolve(&self, node: &Node, key: &str, optional: bool) -> Option<Found<SecretString>> {
        if !self.needs_secret(key) {
            return None;
        }
        let place = &node.place;
        let secret = match &node.value {
            Value::Text(text) => SecretString::from(text.as_str()),
            Value::Raw(text) => match parse_raw(text, place).map(|node| node.value) {
                Some(Value::Table(table)) => self.referred(&table, place, key, optional)?,
                _ => SecretString::from(text.as_str()),
            },
            Value::Table(table) => self.referred(table, place, key, optional)?,
            _ => {
                self.wrong_type(place, key, "a secret", r#"{ env = "NAME" }"#);
                return None;
            }
        };
        if secret.expose_secret().is_empty() {
            self.refuse(place, key, "is empty", "give it a value or remove the key");
            return None;
        }
        Some(Found {
            value: secret,
            place: place.clone(),
        })
    }

    /// Resolves `{ env = "NAME" }` or `{ file = "PATH" }`.
    fn referred(
        &self,
        table: &Table,
        place: &ConfigPlace,
        key: &str,
        optional: bool,
    ) -> Option<SecretString> {
        let mut entries = table.0.iter();
        let (Some((kind, (_, node))), None) = (entries.next(), entries.next()) else {
            self.wrong_reference(place, key);
            return None;
        };
        let (Value::Text(target) | Value::Raw(target)) = &node.value else {
            self.wrong_reference(place, key);
            return None;
        };
        match kind.as_str() {
            "env" => self.read_variable(target, place, key, optional),
            "file" => self.read_secret_file(Path::new(target), place, key),
            _ => {
                self.wrong_reference(place, key);
                None
            }
        }
    }

    fn wrong_reference(&self, place: &ConfigPlace, key: &str) {
        let example = r#"{ env = "NAME" } or { file = "PATH" }"#;
        self.wrong_type(place, key, "a text or a reference to one", example);
    }

    fn read_variable(
        &self,
        name: &str,
        place: &ConfigPlace,
        key: &str,
        optional: bool,
    ) -> Option<SecretString> {
        let value = self.reader.environment.get(name);
        let value = value.filter(|value| !value.is_empty());
        if value.is_none() && optional {
            self.warn(
                key,
                &format!("the environment variable {name} is not set, going on without"),
            );
        } else if value.is_none() {
            let what = format!("the environment variable {name} is not set, or is empty");
            let hint = format!("set {name}, or remove the key");
            return self.unset(place, key, what, hint);
        }
        value.map_or_else(|| self.mark(), |value| Some(value.into()))
    }

    /// Reports a secret that cannot be looked up, or marks it where that is wanted.
    fn unset(
        &self,
        place: &ConfigPlace,
        key: &str,
        what: String,
        hint: String,
    ) -> Option<SecretString> {
        if !self.reader.needs.marks_unset() {
            self.refuse(place, key, &what, &hint);
            return None;
        }
        self.reader.unset.borrow_mut().push(Problem {
            place: place.clone(),
            key: self.path_of(key),
            what,
            hint,
        });
        self.mark()
    }

    fn mark(&self) -> Option<SecretString> {
        self.reader.needs.marks_unset().then(|| UNSET.into())
    }

    fn read_secret_file(
        &self,
        path: &Path,
        place: &ConfigPlace,
        key: &str,
    ) -> Option<SecretString> {
        let read = bounded(path).and_then(|bytes| {
            // The error of the conversion would hold the secret.
            String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))
        });
        match read {
            Ok(mut text) => {
                let trimmed = text.trim_end_matches(['\r', '\n']).len();
                text.truncate(trimmed);
                // Taken as it is, since keys may stand under such a pepper.
                if text.starts_with('\u{feff}') || text.trim() != text {
                    let file = path.display();
                    self.warn(
                        key,
                        &format!(
                            "the file {file} begins with a byte order mark or a blank, or ends with a blank, which counts as part of the secret: save the secret without it"
                        ),
                    );
                }
                Some(SecretString::from(text))
            }
            Err(error) => {
                let what = format!("cannot read the file {}: {error}", path.display());
                let hint = "the file holds the secret and nothing else, as UTF-8 text";
                self.unset(place, key, what, hint.to_owned())
            }
        }
    }
}
