//! Codes of errors, each of which has one status.

use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

named! {
    /// Code of an error, for programs. Those that Stack Auth has too mean the same there.
    #[derive(Serialize, ToSchema)]
    #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
    pub enum ErrorCode {
        /// A field or query parameter is missing, invalid or unknown.
        SchemaError = "SCHEMA_ERROR",
        /// The body is not valid JSON, or ended early.
        BodyParsingError = "BODY_PARSING_ERROR",
        /// A team's key was sent to the endpoint for users' keys, or the reverse.
        WrongApiKeyType = "WRONG_API_KEY_TYPE",
        /// Public keys are not revoked by a report.
        PublicApiKeyCannotBeRevoked = "PUBLIC_API_KEY_CANNOT_BE_REVOKED",
        /// No access token was sent.
        AccessTokenRequired = "ACCESS_TOKEN_REQUIRED",
        /// The access token is unknown, expired or revoked.
        AccessTokenInvalid = "ACCESS_TOKEN_INVALID",
        /// The key is revoked.
        ApiKeyRevoked = "API_KEY_REVOKED",
        /// The key is expired.
        ApiKeyExpired = "API_KEY_EXPIRED",
        /// The proof of a report or delivery is missing or invalid.
        SignatureInvalid = "SIGNATURE_INVALID",
        /// The token of the token revocation API is missing or wrong.
        AuthorizationInvalid = "AUTHORIZATION_INVALID",
        /// The role of the access token lacks the permission.
        InsufficientRole = "INSUFFICIENT_ROLE",
        /// The project of the access token lacks the permission.
        WrongProject = "WRONG_PROJECT",
        /// No such key in the caller's project.
        ApiKeyNotFound = "API_KEY_NOT_FOUND",
        /// No such object or route.
        NotFound = "NOT_FOUND",
        /// The route has no such method.
        MethodNotAllowed = "METHOD_NOT_ALLOWED",
        /// The body took too long to arrive.
        RequestTimeout = "REQUEST_TIMEOUT",
        /// The state of the object does not permit the change.
        Conflict = "CONFLICT",
        /// The `Idempotency-Key` was sent with another request before.
        IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED",
        /// The body is too large.
        PayloadTooLarge = "PAYLOAD_TOO_LARGE",
        /// The body is declared with another content type than those that are read.
        UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE",
        /// Too many requests.
        RateLimited = "RATE_LIMITED",
        /// A fault of the program.
        InternalError = "INTERNAL_ERROR",
        /// A dependency is unavailable, or too much is asked for at once.
        ServiceUnavailable = "SERVICE_UNAVAILABLE",
    }
}

impl ErrorCode {
    /// Returns the HTTP status of every response with this code.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::SchemaError
            | Self::BodyParsingError
            | Self::WrongApiKeyType
            | Self::PublicApiKeyCannotBeRevoked => StatusCode::BAD_REQUEST,
            Self::AccessTokenRequired
            | Self::AccessTokenInvalid
            | Self::ApiKeyRevoked
            | Self::ApiKeyExpired
            | Self::SignatureInvalid
            | Self::AuthorizationInvalid => StatusCode::UNAUTHORIZED,
            Self::InsufficientRole | Self::WrongProject => StatusCode::FORBIDDEN,
            Self::ApiKeyNotFound | Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_one_name_and_stands_in_the_documentation_with_its_status() {
        let table = include_str!("../../../docs/api.md");
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
            let row = |line: &&str| line.contains(&format!("`{}`", code.name()));
            let status = format!("| {} |", code.status().as_u16());
            let mut rows = table.lines().filter(row);
            assert!(rows.any(|row| row.starts_with(&status)), "{}", code.name());
        }
    }
}
