//! Reading of one row.

use jiff::Timestamp;

use super::super::given;
use super::values::Values;
use super::{COLUMNS, ImportRow, RowError, wrong};
use crate::keyformat::Sha256Digest;
use crate::scan::Redactor;
use crate::store::{Owner, OwnerType, micros};

/// Maximum length of the identifier of an owner or a format, in characters.
const MAX_ID: usize = 255;

/// Expiries of keys that never expire. The second one is PostgreSQL's.
const NEVER: [&str; 2] = ["never", "infinity"];

/// Maximum length of a description, in characters.
const MAX_DESCRIPTION: usize = 1000;

/// Reads the values of a row. Each has to be one that a key may have, and none may hold a key.
pub(super) fn read_row(
    line: u64,
    values: Values,
    redactor: &Redactor,
) -> Result<ImportRow, RowError> {
    for (value, name) in values.iter().zip(COLUMNS) {
        let is_digest = |value: &str| Sha256Digest::from_hex(value).is_some();
        if let Some(value) = value
            && !is_digest(value)
            && redactor.holds_key(value)
        {
            return Err(wrong(
                line,
                Some(name),
                "contains an API key; import its SHA-256 only, and treat that key as leaked",
            ));
        }
    }
    let [
        sha256,
        owner_type,
        owner_id,
        description,
        format,
        last_four,
        created_at,
        expires_at,
    ] = values;
    let digest = sha256
        .as_deref()
        .and_then(Sha256Digest::from_hex)
        .ok_or_else(|| wrong(line, Some("sha256"), "has to be 64 hexadecimal digits"))?;
    let kind = match owner_type.as_deref() {
        Some("user") => OwnerType::User,
        Some("team") => OwnerType::Team,
        _ => {
            return Err(wrong(
                line,
                Some("owner_type"),
                "has to be `user` or `team`",
            ));
        }
    };
    let id = text(line, "owner_id", owner_id, MAX_ID)?
        .ok_or_else(|| wrong(line, Some("owner_id"), "is required"))?;
    let last_four = text(line, "last_four", last_four, 4)?;
    let created_at = time(line, "created_at", created_at.as_deref())?;
    let is_far = |at: Timestamp| given::end_at(at).is_none();
    if created_at.is_some_and(is_far) {
        return Err(wrong(line, Some("created_at"), NO_TIME));
    }
    let expires_at = expires_at.as_deref().filter(|end| !NEVER.contains(end));
    let expires_at = time(line, "expires_at", expires_at)?.and_then(given::end_at);
    if let (Some(begin), Some(end)) = (created_at, expires_at)
        && end <= begin
    {
        return Err(wrong(
            line,
            Some("expires_at"),
            "has to be later than `created_at`",
        ));
    }
    Ok(ImportRow {
        line,
        digest,
        owner: Owner { kind, id },
        description: text(line, "description", description, MAX_DESCRIPTION)?.unwrap_or_default(),
        format: text(line, "format", format, MAX_ID)?,
        last_four,
        created_at,
        expires_at,
    })
}

fn text(
    line: u64,
    field: &'static str,
    value: Option<String>,
    longest: usize,
) -> Result<Option<String>, RowError> {
    let Some(value) = value else { return Ok(None) };
    // A key that was not imported would not be revoked when it leaks: a blank description is none.
    if given::is_blank(&value) {
        return Ok(None);
    }
    if value.chars().count() > longest {
        return Err(wrong(
            line,
            Some(field),
            format!("has more than {longest} characters"),
        ));
    }
    if value
        .chars()
        .any(|c| c.is_control() && c != '\n' && c != '\t')
    {
        return Err(wrong(line, Some(field), "has control characters"));
    }
    Ok(Some(value))
}

fn time(
    line: u64,
    field: &'static str,
    value: Option<&str>,
) -> Result<Option<Timestamp>, RowError> {
    let Some(value) = value else { return Ok(None) };
    given::time(value)
        .filter(|at| *at >= Timestamp::UNIX_EPOCH)
        .map(|at| Some(micros(at)))
        .ok_or_else(|| wrong(line, Some(field), NO_TIME))
}

const NO_TIME: &str = "has to be a time such as 2026-11-22T20:46:15Z";
