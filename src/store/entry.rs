//! The revocation log's entries, as they are hashed and as they are exported.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::OwnerType;
use super::chain::canonical_json;

/// What was done to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The key was revoked.
    Revoked,
    /// A new key took its place; it ends with the overlap.
    Rotated,
}

impl Action {
    /// The action's word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Rotated => "rotated",
        }
    }

    /// Reads an action's word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Revoked, Self::Rotated]
            .into_iter()
            .find(|action| action.as_str() == text)
    }
}

/// Why it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The key was seen in public.
    Leaked,
    /// A person or the provider's back end asked for it.
    Manual,
    /// Somebody presented the key itself.
    SelfReport,
    /// A new key took its place.
    Rotated,
}

impl Reason {
    const ALL: [Self; 4] = [Self::Leaked, Self::Manual, Self::SelfReport, Self::Rotated];

    /// The reason's word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leaked => "leaked",
            Self::Manual => "manual",
            Self::SelfReport => "self_report",
            Self::Rotated => "rotated",
        }
    }

    /// Reads a reason's word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// Where a key was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The way it came in: a source's name, or a partner's.
    pub source: String,
    /// A link to the place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// `owner/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The commit's hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The file's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
}

/// One entry of the revocation log, in the shape in which it is exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// The entry's number, from 1 without gaps.
    pub seq: u64,
    /// When it was done.
    #[serde(with = "six_decimals")]
    pub at: Timestamp,
    /// What was done.
    pub action: Action,
    /// The key.
    pub key_id: Uuid,
    /// The key's format.
    pub format: String,
    /// Whether a user or a team owns the key.
    pub owner_type: OwnerType,
    /// The owner's identifier.
    pub owner_id: String,
    /// The last four characters of the key's value.
    pub last_four: String,
    /// The key's description at that time.
    pub description: String,
    /// Why it was done.
    pub reason: Reason,
    /// The policy that decided; absent where a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Who did it: `cli`, `token:<id>`, `partner:github`, `source:<name>`, `self_report`.
    pub actor: String,
    /// The key's incident, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident_id: Option<Uuid>,
    /// Where the key was seen, if that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurrence: Option<Place>,
    /// When it was seen.
    #[serde(
        default,
        with = "optional_six_decimals",
        skip_serializing_if = "Option::is_none"
    )]
    pub detected_at: Option<Timestamp>,
    /// The hash of the entry before, 64 zeros in the first.
    pub prev_hash: String,
    /// This entry's hash.
    pub hash: String,
}

impl LogEntry {
    /// The canonical JSON of the entry without `prev_hash` and `hash`: what is hashed and kept.
    pub(super) fn canonical(&self) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Value::Object(fields) = &mut value {
            fields.remove("prev_hash");
            fields.remove("hash");
        }
        canonical_json(&value)
    }

    /// The entry as one line of an export, without the line's end.
    pub fn to_json_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The columns of a CSV export, in its order.
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
    /// The entry as a row of a CSV export. A text that a spreadsheet would take for a formula gets an
    /// apostrophe in front (<https://owasp.org/www-community/attacks/CSV_Injection>), so a CSV export
    /// is for reading; the exact texts, and with them the hashes, are in the JSONL export.
    pub fn to_csv_row(&self) -> [String; 22] {
        let place = self.occurrence.as_ref();
        let text = |text: Option<&String>| text.map_or_else(String::new, |text| cell(text));
        [
            self.seq.to_string(),
            log_time(self.at),
            self.action.as_str().to_owned(),
            self.key_id.to_string(),
            cell(&self.format),
            self.owner_type.as_str().to_owned(),
            cell(&self.owner_id),
            cell(&self.last_four),
            cell(&self.description),
            self.reason.as_str().to_owned(),
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
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

/// A time as the log writes it: `2026-11-22T20:46:15.123456Z`, always six decimals.
pub fn log_time(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// Times in the log's own writing, and in no other: a changed byte must not go unseen.
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
