//! Frame of the OpenAPI document, whose routes `router` adds, and the endpoints that serve it.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::AppState;
use super::error::{ErrorBody, Refusals};

/// Document without its routes, which the router adds.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Rescind",
        description = "Mints API keys that scanners can find, and revokes those that leak. Keys are in \
            Stack Auth's wire format. Every error has the same form, also on routes that do not exist (404) and \
            methods that a route does not have (405). Endpoints under `/webhooks` and `/v1` exist (404 otherwise) \
            where their sender is configured.",
        license(name = "MIT OR Apache-2.0"),
    ),
    components(schemas(ErrorBody)),
    tags(
        (name = "Keys", description = "Issue, change and check keys"),
        (name = "Operators", description = "Incidents, revocation log, imports"),
        (name = "Intake", description = "Reports of leaks"),
        (name = "Health", description = "For whatever keeps the process running"),
        (name = "Description", description = "This document"),
    ),
    modifiers(&AccessTokens),
    security(("bearer" = []), ("stack_auth" = []), ("hexclave" = [])),
)]
pub(super) struct Description;

/// Security schemes: the three headers that carry an access token, and the token of the token revocation API.
struct AccessTokens;

impl Modify for AccessTokens {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        for (name, header, description) in [
            ("stack_auth", "x-stack-secret-server-key", "Access token"),
            ("hexclave", "x-hexclave-secret-server-key", "Access token"),
            (
                "gitlab_revocation",
                "authorization",
                "The pre-shared token, as it is or behind `Bearer`",
            ),
        ] {
            let key = ApiKey::Header(ApiKeyValue::with_description(header, description));
            components.add_security_scheme(name, SecurityScheme::ApiKey(key));
        }
    }
}

/// Returns the document as JSON, for those who generate clients from it: objects that are components are referred to
/// rather than repeated, since a type of its own would come of each place, and no parameter is null, since none can be
/// sent so.
pub(super) fn written(document: &utoipa::openapi::OpenApi) -> Bytes {
    let mut document = serde_json::to_value(document).unwrap_or_default();
    let components = document["components"]["schemas"].take();
    let mut objects = components.clone();
    if let Some(objects) = objects.as_object_mut() {
        objects.retain(|_, schema| schema["properties"].is_object());
        objects.values_mut().for_each(strip_description);
    }
    tidy(&mut document["paths"], &objects);
    let mut components = components;
    for schema in components
        .as_object_mut()
        .into_iter()
        .flat_map(Map::values_mut)
    {
        // Not the component itself.
        for part in schema.as_object_mut().into_iter().flat_map(Map::values_mut) {
            tidy(part, &objects);
        }
    }
    document["components"]["schemas"] = components;
    Bytes::from(serde_json::to_vec(&document).unwrap_or_default())
}

fn tidy(value: &mut Value, objects: &Value) {
    if value["properties"].is_object() {
        let mut bare = value.clone();
        strip_description(&mut bare);
        let mut named = objects.as_object().into_iter().flatten();
        if let Some((name, _)) = named.find(|(_, object)| **object == bare) {
            *value = json!({ "$ref": format!("#/components/schemas/{name}") });
            return;
        }
    }
    match value {
        Value::Object(fields) => {
            let is_parameter = fields.get("in").is_some_and(Value::is_string);
            if is_parameter
                && let Some(kind) = fields
                    .get_mut("schema")
                    .and_then(|schema| schema.get_mut("type"))
            {
                without_null(kind);
            }
            fields.values_mut().for_each(|field| tidy(field, objects));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| tidy(value, objects)),
        _ => {}
    }
}

fn without_null(kind: &mut Value) {
    if let Value::Array(types) = kind {
        types.retain(|one| one != "null");
        if let [one] = &types[..] {
            *kind = one.clone();
        }
    }
}

fn strip_description(schema: &mut Value) {
    if let Some(fields) = schema.as_object_mut() {
        fields.remove("description");
    }
}

/// Describe every endpoint.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "openapi", tag = "Description", security(()),
    responses((status = 200, description = "This document", body = Object), Refusals),
)]
pub(super) async fn serve(State(state): State<AppState>) -> impl IntoResponse {
    answer(&state)
}

/// Describe every endpoint, for clients that know the base path only.
#[utoipa::path(
    get, path = "/api/v1/openapi.json", operation_id = "openapi_of_api", tag = "Description", security(()),
    responses((status = 200, description = "This document", body = Object), Refusals),
)]
pub(super) async fn serve_in_api(State(state): State<AppState>) -> impl IntoResponse {
    answer(&state)
}

fn answer(state: &AppState) -> ([(header::HeaderName, HeaderValue); 1], Bytes) {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], state.0.document.clone())
}
