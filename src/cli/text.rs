//! Parsers of texts from the command line and of keys from standard input.

use std::io::{self, IsTerminal, Read, Write};

use crate::cli::UsageError;
use crate::issuer::is_blank;
use crate::keyformat::KeyValue;

/// Maximum length of an owner's identifier, in characters.
const MAX_ID: usize = 255;

/// Maximum length of a description, in characters.
const MAX_DESCRIPTION: usize = 1000;

/// Maximum length of a key on standard input, in bytes. Key formats are far shorter.
const MAX_KEY: u64 = 4096;

/// Parses an owner's identifier: 1 to [`MAX_ID`] characters, none of them a control character.
pub(super) fn id(text: &str) -> Result<String, String> {
    bounded(text, MAX_ID)
}

/// Parses a description: 1 to [`MAX_DESCRIPTION`] characters, none of them a control character.
pub(super) fn description(text: &str) -> Result<String, String> {
    bounded(text, MAX_DESCRIPTION)
}

/// Parses a project's name: 1 to 64 letters, digits, hyphens, underscores or dots. It becomes part of paths and
/// labels.
pub(super) fn project(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(allowed) {
        return Err("write 1 to 64 letters, digits, hyphens, underscores or dots".to_owned());
    }
    Ok(text.to_owned())
}

fn bounded(text: &str, longest: usize) -> Result<String, String> {
    let count = text.chars().count();
    if count == 0 || count > longest {
        return Err(format!("has to have 1 to {longest} characters"));
    }
    if is_blank(text) {
        return Err("must not be blank".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("must not have control characters".to_owned());
    }
    Ok(text.to_owned())
}

/// Reads a key from standard input: one line from a terminal, everything otherwise. Arguments are no place for a
/// key: every user of the machine can see them.
///
/// # Errors
/// Returns an error if standard input cannot be read or does not hold exactly one key.
pub(super) fn key_from_stdin() -> anyhow::Result<KeyValue> {
    if io::stdin().is_terminal() {
        let _ = write!(io::stderr(), "Paste the key and press Enter: ");
    }
    let mut text = zeroize::Zeroizing::new(Vec::new());
    let mut stdin = io::stdin().lock().take(MAX_KEY + 1);
    if io::stdin().is_terminal() {
        io::BufRead::read_until(&mut stdin, b'\n', &mut text)?;
    } else {
        stdin.read_to_end(&mut text)?;
    }
    // Editors put a mark before a text, and quotation marks are copied along.
    let is_around = |c: char| c.is_whitespace() || matches!(c, '\u{feff}' | '"' | '\'' | '`');
    let key = std::str::from_utf8(&text).unwrap_or_default();
    let key = key.trim_matches(is_around);
    if key.is_empty() || key.len() as u64 > MAX_KEY || key.contains(char::is_whitespace) {
        let message = "standard input has to hold one key, and nothing else";
        return Err(UsageError(message.to_owned()).into());
    }
    Ok(KeyValue::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_what_will_be_stored() {
        assert!(id("u_1").is_ok() && id("").is_err() && id(&"x".repeat(256)).is_err());
        assert!(description("a\u{1b}[31m").is_err());
        assert!(description(" ").is_err() && description("\u{a0}").is_err() && id(" ").is_err());
        assert!(project("acme-1").is_ok() && project("a b").is_err() && project("").is_err());
    }
}
