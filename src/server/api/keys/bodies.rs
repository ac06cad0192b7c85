//! Bodies of the requests about keys.

use std::time::Duration;

use jiff::Timestamp;
use utoipa::ToSchema;

use crate::issuer::IssueRequest;
use crate::keyformat::KeyValue;
use crate::server::error::{ApiError, ApiResult};
use crate::server::fields::{Fields, JsonBody};
use crate::store::{Owner, OwnerType};

/// Maximum length of a description, in characters.
const MAX_DESCRIPTION: usize = 1000;

/// Maximum length of the identifier of a user or team, in characters.
const MAX_OWNER_ID: usize = 255;

/// Maximum number of addresses to notify per key.
const MAX_EMAILS: usize = 20;

/// Maximum length of an e-mail address (RFC 5321, section 4.5.3.1.3: a path of 256 with its angle brackets).
const MAX_EMAIL: usize = 254;

/// Maximum overlap of a rotation, in seconds: a year.
const MAX_OVERLAP: u64 = 365 * 24 * 3600;

/// Request to create a key for an owner of one type.
pub(super) trait CreateBody: JsonBody {
    /// Returns the request to the issuer for a key of this project.
    fn into_request(self, project: String) -> IssueRequest;
}

/// Defines the bodies for keys of users and of teams, which differ in the field that identifies the owner.
macro_rules! create_body {
    ($(#[$doc:meta])* $Body:ident, $owner:ident, $type:expr) => {
        $(#[$doc])*
        #[derive(ToSchema)]
        #[serde(deny_unknown_fields)]
        pub(in crate::server) struct $Body {
            /// Owner of the key.
            #[schema(min_length = 1, max_length = 255, example = "o-1")]
            $owner: String,
            /// Purpose of the key.
            #[schema(min_length = 1, max_length = 1000, example = "CI")]
            description: String,
            /// Expiry in milliseconds since 1970, or null for a key that never expires, as is any from the year 9999 on.
            #[schema(
                required = true, value_type = Option<i64>, minimum = 0,
                example = json!(null),
            )]
            expires_at_millis: Option<Timestamp>,
            /// `true` for keys in client-side code, which are never scanned for and never revoked by a report; `false` if absent.
            #[schema(value_type = bool, required = false, example = false)]
            is_public: bool,
            /// Action to take when the key leaks. This version supports `revoke`.
            #[schema(nullable = false, min_length = 1, max_length = 64, example = "revoke")]
            policy: Option<String>,
            /// E-mail addresses that are notified of a leak.
            #[schema(value_type = Vec<String>, required = false, max_items = 20, example = json!(["o@example.com"]))]
            notify_emails: Vec<String>,
        }

        impl JsonBody for $Body {
            fn take(fields: &mut Fields<'_>) -> ApiResult<Self> {
                Ok(Self {
                    $owner: fields.required_text(stringify!($owner), MAX_OWNER_ID)?,
                    description: fields.required_text("description", MAX_DESCRIPTION)?,
                    expires_at_millis: fields.millis("expires_at_millis")?.ok_or_else(|| {
                        ApiError::schema(
                            "expires_at_millis",
                            "is required; send null for a key that never ends",
                        )
                    })?,
                    is_public: fields.flag("is_public")?.unwrap_or(false),
                    policy: policy(fields)?,
                    notify_emails: emails(fields)?,
                })
            }
        }

        impl CreateBody for $Body {
            fn into_request(self, project: String) -> IssueRequest {
                IssueRequest {
                    project,
                    owner: Owner {
                        kind: $type,
                        id: self.$owner,
                    },
                    description: self.description,
                    expires_at: self.expires_at_millis,
                    is_public: self.is_public,
                    policy: self.policy,
                    notify_emails: self.notify_emails,
                }
            }
        }
    };
}

create_body! {
    /// Request to create a key of a user.
    CreateUserKey, user_id, OwnerType::User
}

create_body! {
    /// Request to create a key of a team.
    CreateTeamKey, team_id, OwnerType::Team
}

fn policy(fields: &mut Fields<'_>) -> ApiResult<Option<String>> {
    let policy = fields.text("policy", 64)?;
    match policy.as_deref() {
        None | Some("revoke") => Ok(policy),
        Some(_) => Err(ApiError::schema(
            "policy",
            "can only be `revoke` in this version; leave it out for the configured policy",
        )),
    }
}

fn emails(fields: &mut Fields<'_>) -> ApiResult<Vec<String>> {
    let emails = fields.texts("notify_emails", MAX_EMAILS, MAX_EMAIL)?;
    if emails.iter().all(|email| is_email(email)) {
        Ok(emails)
    } else {
        Err(ApiError::schema(
            "notify_emails",
            "has an entry that is no e-mail address",
        ))
    }
}

/// Returns whether a text has the form of an address that mail can be sent to: one `@`, a dot-separated domain, and
/// none of the characters that could smuggle in a header or a second recipient.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    let harmless = |c: char| !c.is_whitespace() && !c.is_control() && !"<>()[]\\,;:\"@".contains(c);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    !local.is_empty()
        && local.len() <= 64
        && local.chars().all(harmless)
        && domain.split('.').all(label)
}

/// Request to change a key. Absent fields stay unchanged.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct PatchKey {
    /// New description.
    #[schema(
        nullable = false,
        min_length = 1,
        max_length = 1000,
        example = "CI of the shop"
    )]
    pub(super) description: Option<String>,
    /// New expiry in milliseconds since 1970, or null for never.
    #[schema(
        required = false, value_type = Option<i64>, minimum = 0,
        example = json!(null),
    )]
    #[expect(
        clippy::option_option,
        reason = "absent, null and a time are three things"
    )]
    pub(super) expires_at_millis: Option<Option<Timestamp>>,
    /// Only `true`: revocation is permanent. Revoking a key again keeps the first time.
    #[schema(schema_with = only_true, required = false)]
    pub(super) revoked: bool,
}

/// Returns the schema of a field that can only be `true`.
fn only_true() -> utoipa::openapi::Object {
    utoipa::openapi::ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::Type::Boolean)
        .enum_values(Some([true]))
        .description(Some(
            "Only `true`: revocation is permanent. Revoking a key again keeps the first time.",
        ))
        .examples([true])
        .build()
}

impl JsonBody for PatchKey {
    fn take(fields: &mut Fields<'_>) -> ApiResult<Self> {
        Ok(Self {
            description: fields.text("description", MAX_DESCRIPTION)?,
            expires_at_millis: fields.millis("expires_at_millis")?,
            revoked: match fields.flag("revoked")? {
                Some(false) => {
                    let problem = "can only be true: a revoked key never becomes valid again";
                    return Err(ApiError::schema("revoked", problem));
                }
                revoked => revoked.is_some(),
            },
        })
    }
}

/// Request to check a key.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct CheckKey {
    /// The whole value.
    #[schema(value_type = String, min_length = 1, example = "the whole key")]
    pub(super) api_key: KeyValue,
}

impl JsonBody for CheckKey {
    fn take(fields: &mut Fields<'_>) -> ApiResult<Self> {
        Ok(Self {
            api_key: fields.key("api_key")?,
        })
    }
}

/// Request to rotate a key.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct RotateKey {
    /// Time that the old key stays valid beside the new one, in seconds; at most a year.
    #[schema(value_type = u64, maximum = 31_536_000, example = 86_400)]
    pub(super) overlap_seconds: Duration,
}

impl JsonBody for RotateKey {
    fn take(fields: &mut Fields<'_>) -> ApiResult<Self> {
        let overlap = fields.count("overlap_seconds")?.ok_or_else(|| {
            ApiError::schema("overlap_seconds", "is required; 0 ends the old key at once")
        })?;
        if overlap > MAX_OVERLAP {
            let problem = format!("may be at most {MAX_OVERLAP}, which is a year");
            return Err(ApiError::schema("overlap_seconds", &problem));
        }
        Ok(Self {
            overlap_seconds: Duration::from_secs(overlap),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_other_text() {
        for good in [
            "a@example.com",
            "a.b+c@sub.example.co",
            "ö@exämple.com",
            "root@localhost",
        ] {
            assert!(is_email(good), "{good}");
        }
        for bad in [
            "a",
            "@",
            "a@",
            "@b.c",
            "a@b@c.d",
            "a b@c.d",
            "<a@b.c>",
            "a@b.c,d@e.f",
            "a@b..c",
            "a@-b.c",
            "a@b.c\nbcc:x@y.z",
            "a@[127.0.0.1]",
        ] {
            assert!(!is_email(bad), "{bad}");
        }
    }
}
