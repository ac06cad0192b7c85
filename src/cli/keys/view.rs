//! Output forms of keys.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::cli::output::{self, time};
use crate::keyformat::KeyValue;
use crate::store::{Key, WhyInvalid};

/// JSON form of a key. Unset fields are omitted.
#[derive(Debug, Serialize)]
pub(super) struct KeyJson<'a> {
    id: Uuid,
    project: &'a str,
    status: &'static str,
    format: &'a str,
    owner_type: &'static str,
    owner_id: &'a str,
    description: &'a str,
    is_public: bool,
    redacted: String,
    last_four: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exposed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_by: Option<Uuid>,
}

impl<'a> KeyJson<'a> {
    pub(super) fn new(key: &'a Key, now: Timestamp) -> Self {
        Self {
            id: key.id,
            project: &key.project,
            status: status(key, now),
            format: &key.format,
            owner_type: key.owner.kind.name(),
            owner_id: &key.owner.id,
            description: &key.description,
            is_public: key.is_public,
            redacted: redacted(key),
            last_four: &key.last_four,
            policy: key.policy.as_deref(),
            created_at: key.created_at,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            exposed_at: key.exposed_at,
            replaced_by: key.replaced_by,
        }
    }
}

/// Prints keys with the same value: one, or one per project that holds it.
pub(super) fn show(json: bool, keys: &[Key], now: Timestamp) -> anyhow::Result<()> {
    for (number, key) in keys.iter().enumerate() {
        if number > 0 && !json {
            output::say("")?;
        }
        output::show(json, &KeyJson::new(key, now), &lines(key, now))?;
    }
    if keys.len() > 1 {
        let count = keys.len();
        output::note(&format!(
            "{count} projects hold this key; --project names one of them"
        ));
    }
    Ok(())
}

/// JSON form of a key that was just made.
#[derive(Serialize)]
struct MadeJson<'a> {
    #[serde(flatten)]
    key: KeyJson<'a>,
    value: &'a str,
    /// The key that it replaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<KeyJson<'a>>,
}

/// Prints a key with its value as JSON. If that fails, the value is lost, and the error carries `remedy`.
pub(super) fn show_once(
    key: &Key,
    replaces: Option<&Key>,
    value: &KeyValue,
    now: Timestamp,
    remedy: &str,
) -> anyhow::Result<()> {
    let made = MadeJson {
        key: KeyJson::new(key, now),
        value: value.expose(),
        replaces: replaces.map(|key| KeyJson::new(key, now)),
    };
    output::once_json(&made, remedy)
}

/// Returns the status, `valid`, `revoked` or `expired`.
pub(in crate::cli) fn status(key: &Key, now: Timestamp) -> &'static str {
    match key.why_invalid(now) {
        None => "valid",
        Some(WhyInvalid::ManuallyRevoked) => "revoked",
        Some(WhyInvalid::Expired) => "expired",
    }
}

/// Returns the redacted form, such as `rsc_sk_…wxyz`.
pub(super) fn redacted(key: &Key) -> String {
    format!("{}…{}", key.prefix, key.last_four)
}

/// Columns of [`row`].
pub(super) const HEADER: &[&str] = &[
    "ID",
    "KEY",
    "STATUS",
    "KIND",
    "OWNER",
    "CREATED",
    "EXPIRES",
    "DESCRIPTION",
];

/// Returns a key's cells, in the order of [`HEADER`].
pub(super) fn row(key: &Key, now: Timestamp) -> Vec<String> {
    vec![
        key.id.to_string(),
        redacted(key),
        status(key, now).to_owned(),
        kind(key).to_owned(),
        owner(key),
        time(Some(key.created_at)),
        time(key.expires_at),
        key.description.clone(),
    ]
}

/// Returns a key's fields as pairs of name and value.
pub(super) fn lines(key: &Key, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("id", key.id.to_string()),
        ("key", redacted(key)),
        ("status", status(key, now).to_owned()),
        ("kind", kind(key).to_owned()),
        ("format", key.format.clone()),
        ("project", key.project.clone()),
        ("owner", owner(key)),
        ("description", key.description.clone()),
        ("created", time(Some(key.created_at))),
        (
            "expires",
            key.expires_at
                .map_or_else(|| "never".to_owned(), |at| time(Some(at))),
        ),
    ];
    let optional = [
        ("revoked", key.revoked_at),
        ("first seen in public", key.exposed_at),
    ];
    let set = optional.into_iter().filter(|(_, at)| at.is_some());
    lines.extend(set.map(|(name, at)| (name, time(at))));
    lines.extend(key.policy.clone().map(|policy| ("policy", policy)));
    lines.extend(key.replaced_by.map(|id| ("replaced by", id.to_string())));
    lines
}

fn kind(key: &Key) -> &'static str {
    if key.is_public { "public" } else { "secret" }
}

fn owner(key: &Key) -> String {
    format!("{} {}", key.owner.kind.name(), key.owner.id)
}
