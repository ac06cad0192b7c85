//! Entries of the revocation log, as they are hashed and as they are exported.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::OwnerType;
use super::canonical::canonical_json;

named! {
    /// Action on a key.
    #[derive(Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum Action {
        /// The key was revoked.
        Revoked = "revoked",
        /// The key was replaced by a new one. It expires at the end of the overlap.
        Rotated = "rotated",
    }
}

named! {
    /// Reason for an action.
    #[derive(Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum Reason {
        /// The key was seen in public.
        Leaked = "leaked",
        /// A person or the provider's back end requested it.
        Manual = "manual",
        /// Someone presented the key itself.
        SelfReport = "self_report",
        /// The key was replaced by a new one.
        Rotated = "rotated",
    }
}

/// Place where a key was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Name of the source or the partner that reported it.
    pub source: String,
    /// Link to the place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub url: Option<String>,
    /// Name of the repository, as `owner/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub repository: Option<String>,
    /// Hash of the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub commit: Option<String>,
    /// Path of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub path: Option<String>,
    /// Number of the line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub line: Option<u64>,
}

impl Place {
    /// Creates a place of which nothing but the source is known.
    pub fn of_source(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            url: None,
            repository: None,
            commit: None,
            path: None,
            line: None,
        }
    }
}

/// An entry of the revocation log, in the shape in which it is exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// Number of the entry, from 1 without gaps.
    pub seq: u64,
    /// Time of the action.
    #[serde(with = "six_decimals")]
    pub at: Timestamp,
    /// Action on the key.
    pub action: Action,
    /// Identifier of the key.
    pub key_id: Uuid,
    /// Key format of the key.
    pub format: String,
    /// Type of the owner of the key.
    pub owner_type: OwnerType,
    /// The provider's identifier of the owner.
    pub owner_id: String,
    /// Last four characters of the value of the key.
    pub last_four: String,
    /// Description of the key at that time.
    pub description: String,
    /// Reason for the action.
    pub reason: Reason,
    /// Policy that decided. Absent if a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub policy: Option<String>,
    /// Originator of the action: `cli:<user>`, `token:<id>`, `partner:github`, `source:<name>`, or `self_report`.
    pub actor: String,
    /// Incident of the key, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub incident_id: Option<Uuid>,
    /// Place where the key was seen, if that is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub occurrence: Option<Place>,
    /// Time at which it was seen.
    #[serde(
        default,
        with = "optional_six_decimals",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(nullable = false)]
    pub detected_at: Option<Timestamp>,
    /// Hash of the previous entry. 64 zeros in the first entry.
    pub prev_hash: String,
    /// Hash of this entry.
    pub hash: String,
}

impl LogEntry {
    /// Returns the canonical JSON of the entry without `prev_hash` and `hash`, which is what is hashed and stored.
    pub(in crate::store) fn canonical(&self) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Value::Object(fields) = &mut value {
            fields.remove("prev_hash");
            fields.remove("hash");
        }
        canonical_json(&value)
    }

    /// Returns the entry as one line of a JSONL export, without a line ending.
    pub fn to_json_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Columns of a CSV export, in order.
pub const CSV_HEADER: [&str; 22] = [
    "seq",
    "at",
    "action",
    "key_id",
    "format",
    "owner_type",
    "owner_id",
    "last_four",
    "description",
    "reason",
    "policy",
    "actor",
    "incident_id",
    "occurrence_source",
    "occurrence_url",
    "occurrence_repository",
    "occurrence_commit",
    "occurrence_path",
    "occurrence_line",
    "detected_at",
    "prev_hash",
    "hash",
];

impl LogEntry {
    /// Returns the entry as a row of a CSV export. A text that a spreadsheet would take for a formula is prefixed with
    /// an apostrophe (<https://owasp.org/www-community/attacks/CSV_Injection>), so a CSV export is for reading. The
    /// exact texts, and with them the hashes, are in the JSONL export.
    pub fn to_csv_row(&self) -> [String; 22] {
        let place = self.occurrence.as_ref();
        let text = |text: Option<&String>| text.map_or_else(String::new, |text| cell(text));
        [
            self.seq.to_string(),
            log_time(self.at),
            self.action.name().to_owned(),
            self.key_id.to_string(),
            cell(&self.format),
            self.owner_type.name().to_owned(),
            cell(&self.owner_id),
            cell(&self.last_four),
            cell(&self.description),
            self.reason.name().to_owned(),
            text(self.policy.as_ref()),
            cell(&self.actor),
            self.incident_id
                .map_or_else(String::new, |id| id.to_string()),
            text(place.map(|place| &place.source)),
            text(place.and_then(|place| place.url.as_ref())),
            text(place.and_then(|place| place.repository.as_ref())),
            text(place.and_then(|place| place.commit.as_ref())),
            text(place.and_then(|place| place.path.as_ref())),
            place
                .and_then(|place| place.line)
                .map_or_else(String::new, |line| line.to_string()),
            self.detected_at.map_or_else(String::new, log_time),
            self.prev_hash.clone(),
            self.hash.clone(),
        ]
    }
}

fn cell(text: &str) -> String {
    // The full-width forms are taken for the others where the language of the spreadsheet writes them.
    const FORMULA: [char; 10] = ['=', '+', '-', '@', '＝', '＋', '－', '＠', '\t', '\r'];
    if text.starts_with(FORMULA) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

/// Formats a time for the log: `2026-11-22T20:46:15.123456Z`, always with six decimals.
pub fn log_time(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// Times in the format of the log, and in no other: a changed byte must not go unnoticed.
mod six_decimals {
    use jiff::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::log_time(*at))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(from)?;
        text.parse()
            .ok()
            .filter(|at| super::log_time(*at) == text)
            .ok_or_else(|| {
                de::Error::custom("a time is not written as 2026-11-22T20:46:15.123456Z")
            })
    }
}

mod optional_six_decimals {
    use jiff::Timestamp;
    use serde::{Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde calls it by reference")]
    pub(super) fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => super::six_decimals::serialize(at, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        super::six_decimals::deserialize(from).map(Some)
    }
}
/// Returns a text of others as it stands in entries: control characters are replaced.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}
