//! OpenAPI document of the whole HTTP interface, generated from the handlers.

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::api::{
    formats, health, import, incidents, intake, keys, revocations, sources, webhooks,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Rescind",
        description = "Mints API keys that scanners can find, and revokes those that leak. Keys are in \
            Stack Auth's wire format. Every error is `{code, error, details}`, with the code repeated \
            in the header `x-stack-known-error`.",
        license(name = "MIT OR Apache-2.0"),
    ),
    paths(
        keys::create, keys::list, keys::check, keys::show, keys::update, keys::rotate,
        import::import, incidents::list, incidents::show,
        revocations::list, revocations::verify, revocations::export, formats::list,
        sources::list, sources::dead_letters, sources::requeue,
        intake::self_report, intake::github, intake::gitlab, intake::depsdev,
        intake::revocable_types, intake::revoke_tokens,
        webhooks::github, webhooks::gitlab, webhooks::gitea, webhooks::bitbucket,
        health::healthz, health::readyz,
    ),
    tags(
        (name = "Keys", description = "Issue, change and check keys"),
        (name = "Operators", description = "Incidents, revocation log, imports"),
        (name = "Intake", description = "Reports of leaks"),
        (name = "Health", description = "For whatever keeps the process running"),
    ),
    modifiers(&AccessTokens),
    security(("bearer" = []), ("stack_auth" = []), ("hexclave" = [])),
)]
struct Description;

/// Security schemes for the three headers that carry an access token.
struct AccessTokens;

impl Modify for AccessTokens {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        for (name, header) in [
            ("stack_auth", "x-stack-secret-server-key"),
            ("hexclave", "x-hexclave-secret-server-key"),
        ] {
            let key = ApiKey::Header(ApiKeyValue::new(header));
            components.add_security_scheme(name, SecurityScheme::ApiKey(key));
        }
    }
}

/// OpenAPI document as JSON.
pub(super) static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let mut document = serde_json::to_value(Description::openapi()).unwrap_or_default();
    add_team_paths(&mut document);
    open_to_all(&mut document);
    Bytes::from(document.to_string())
});

/// Adds the endpoints for keys of teams, which are the same as those for keys of users.
fn add_team_paths(document: &mut Value) {
    let for_teams = |item: &Value| {
        let text = item
            .to_string()
            .replace("_user_", "_team_")
            .replace("user_id", "team_id")
            .replace("schemas/CreateKey", "schemas/CreateTeamKey");
        serde_json::from_str(&text).unwrap_or_default()
    };
    let schemas = &mut document["components"]["schemas"];
    schemas["CreateTeamKey"] = for_teams(&schemas["CreateKey"]);
    if let Some(paths) = document["paths"].as_object_mut() {
        let team_paths: Vec<(String, Value)> = paths
            .iter()
            .filter(|(path, _)| path.contains("/user-api-keys"))
            .map(|(path, item)| {
                (
                    path.replace("/user-api-keys", "/team-api-keys"),
                    for_teams(item),
                )
            })
            .collect();
        paths.extend(team_paths);
    }
}

/// Marks the endpoints that need no access token.
fn open_to_all(document: &mut Value) {
    let Some(paths) = document["paths"].as_object_mut() else {
        return;
    };
    let open = |path: &str| {
        let shown = ["/webhooks/", "/v1/"];
        path == "/healthz" || path == "/readyz" || shown.iter().any(|start| path.starts_with(start))
    };
    for (_, operations) in paths.iter_mut().filter(|(path, _)| open(path)) {
        for operation in operations.as_object_mut().into_iter().flatten() {
            operation.1["security"] = json!([]);
        }
    }
}

/// Serves the OpenAPI document.
pub(super) async fn serve() -> impl IntoResponse {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], DOCUMENT.clone())
}

#[cfg(test)]
mod tests {
    /// A route whose handler is not among the `paths` above would have no description.
    #[test]
    fn every_handler_of_the_router_is_described() {
        let (router, document) = (include_str!("router.rs"), include_str!("openapi.rs"));
        let handler = regex::Regex::new(r"(?:get|post|put|patch|delete)\((\w+::\w+)").unwrap();
        let mut handlers = 0;
        for (_, [handler]) in handler.captures_iter(router).map(|found| found.extract()) {
            let is_described = document.contains(&format!("{handler},"));
            assert!(is_described || handler == "openapi::serve", "{handler}");
            handlers += 1;
        }
        assert!(handlers > 20, "{handlers}");
    }
}
