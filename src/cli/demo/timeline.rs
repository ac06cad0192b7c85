//! Timeline of the demo's keys.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;

use super::leaks::Leak;
use crate::keyformat::KeyValue;

/// Times at which each key was minted, leaked, seen and revoked.
#[derive(Debug)]
pub(super) struct Timeline {
    start: Timestamp,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    id: String,
    leak: Leak,
    redacted: String,
    minted: Timestamp,
    leaked: Option<Timestamp>,
    seen: Option<Timestamp>,
    revoked: Option<Timestamp>,
    source: String,
}

impl Timeline {
    /// Creates an empty timeline that counts from `start`.
    pub(super) fn starting_at(start: Timestamp) -> Self {
        Self {
            start,
            rows: Vec::new(),
        }
    }

    /// Records that a key was minted.
    pub(super) fn minted(&mut self, id: &str, leak: Leak, value: &KeyValue, at: Timestamp) {
        let prefix_len = value.expose().rfind('_').map_or(0, |last| last + 1);
        self.rows.push(Row {
            id: id.to_owned(),
            leak,
            redacted: value.redacted(&value.expose()[..prefix_len]),
            minted: at,
            leaked: None,
            seen: None,
            revoked: None,
            source: String::new(),
        });
    }

    /// Records that a key was pushed or reported.
    pub(super) fn leaked(&mut self, id: &str, at: Timestamp) {
        if let Some(row) = self.row(id) {
            row.leaked = Some(at);
        }
    }

    /// Records that a key was seen by a source and revoked.
    pub(super) fn revoked(
        &mut self,
        id: &str,
        seen: Timestamp,
        revoked: Timestamp,
        source: String,
    ) {
        if let Some(row) = self.row(id) {
            row.seen = Some(seen);
            row.revoked = Some(revoked);
            row.source = source;
        }
    }

    fn row(&mut self, id: &str) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.id == id)
    }

    fn since_start(&self, at: Option<Timestamp>) -> String {
        at.map_or_else(|| "-".to_owned(), |at| milliseconds(self.start, at))
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "key",
            "how it leaks",
            "minted",
            "leaked",
            "seen",
            "revoked",
            "leak to revocation",
            "seen by",
        ]);
        for row in &self.rows {
            let took = match (row.leaked, row.revoked) {
                (Some(leaked), Some(revoked)) => milliseconds(leaked, revoked),
                _ => "-".to_owned(),
            };
            table.add_row([
                row.redacted.clone(),
                row.leak.description().to_owned(),
                milliseconds(self.start, row.minted),
                self.since_start(row.leaked),
                self.since_start(row.seen),
                self.since_start(row.revoked),
                took,
                row.source.clone(),
            ]);
        }
        for column in 2..=6 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(f, "{table}")
    }
}

fn milliseconds(from: Timestamp, to: Timestamp) -> String {
    let micros = to.as_microsecond() - from.as_microsecond();
    format!("{}.{} ms", micros / 1000, (micros % 1000) / 100)
}
