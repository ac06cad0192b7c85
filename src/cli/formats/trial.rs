//! Comparison of a string with the formats, step by step.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::keyformat::{ChecksumState, FormatSet, KeyFormat, KeyValue, Verdict, Visibility};
use crate::scan::{Encoding, Encodings, Engine};

/// Comparison of one string with all formats.
pub(super) struct Trial<'a> {
    formats: &'a FormatSet,
    string: &'a str,
    /// Formats whose literal occurs in the string.
    touched: Vec<&'a KeyFormat>,
    matched: Option<(&'a KeyFormat, ChecksumState)>,
}

impl<'a> Trial<'a> {
    pub(super) fn new(formats: &'a FormatSet, string: &'a str) -> Self {
        let touched = formats
            .iter()
            .filter(|format| string.contains(format.literal()))
            .collect();
        let matched = formats
            .iter()
            .find_map(|format| match format.judge(string.as_bytes()) {
                Verdict::Match { checksum } => Some((format, checksum)),
                Verdict::WrongShape | Verdict::WrongChecksum => None,
            });
        Self {
            formats,
            string,
            touched,
            matched,
        }
    }

    pub(super) fn is_candidate(&self) -> bool {
        self.matched
            .is_some_and(|(format, _)| format.visibility() == Visibility::Secret)
    }

    /// Returns the result in one sentence that shows no more than a redacted key.
    fn verdict(&self) -> String {
        let Some((format, checksum)) = self.matched else {
            return self.inside().map_or_else(
                || "not a candidate".to_owned(),
                |inside| format!("not a candidate as a whole, but {inside}"),
            );
        };
        let id = format.id();
        let redacted = KeyValue::new(self.string).redacted(format.display_prefix());
        match (format.visibility(), checksum) {
            (Visibility::Public, _) => {
                format!(
                    "not a candidate: {redacted} is a key of {id}, which is public and never scanned for"
                )
            }
            (Visibility::Secret, ChecksumState::Valid) => {
                format!("a candidate of {id}: {redacted}")
            }
            (Visibility::Secret, ChecksumState::None) => {
                format!("a candidate of {id}, by its shape alone: {redacted}")
            }
        }
    }

    /// Returns the first candidate that the scanner finds inside the string, which may be a line of a file or
    /// base64.
    fn inside(&self) -> Option<String> {
        let engine = Engine::new(self.formats, Encodings::ALL);
        let found = engine.scan(self.string.as_bytes()).into_iter().next()?;
        let encoding = match found.encoding {
            Encoding::Utf8 => String::new(),
            other => format!(" in {}", other.name()),
        };
        Some(format!(
            "a candidate of {} stands in it at byte {}{encoding}: {}",
            found.format,
            found.offset + 1,
            found.display
        ))
    }

    pub(super) fn as_text(&self) -> String {
        let mut text = String::new();
        if self.string.trim() != self.string {
            text.push_str("note: there is white space around it, which belongs to no key\n");
        }
        if self.touched.is_empty() {
            let mut literals: Vec<_> = self.formats.iter().map(KeyFormat::literal).collect();
            literals.dedup();
            let _ = writeln!(
                text,
                "no format's literal stands in it: {}",
                literals.join(", ")
            );
        }
        for format in &self.touched {
            let _ = writeln!(text, "{} ({})", format.id(), format.visibility().name());
            for step in format.explain(self.string) {
                let mark = if step.ok { "ok" } else { "no" };
                let _ = writeln!(text, "  {mark}  {:8}  {}", step.what, step.detail);
            }
        }
        let _ = writeln!(text, "{}", self.verdict());
        text
    }

    pub(super) fn as_json(&self) -> Value {
        let formats: Vec<Value> = self.touched.iter().map(|format| {
            let steps: Vec<Value> = format
                .explain(self.string)
                .iter()
                .map(|step| json!({ "what": step.what, "ok": step.ok, "detail": step.detail }))
                .collect();
            json!({ "id": format.id(), "visibility": format.visibility().name(), "steps": steps })
        }).collect();
        let mut value = json!({
            "candidate": self.is_candidate(),
            "verdict": self.verdict(),
            "formats": formats,
        });
        if let Some((format, _)) = self.matched {
            value["format"] = format.id().into();
        }
        value
    }
}
