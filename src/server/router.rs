//! Routes and their handlers.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use super::api::keys::{self, Kind, Team, User};
use super::api::{formats, health, import, incidents, intake, revocations, sources, webhooks};
use super::error::ApiError;
use super::{AppState, layers, openapi};
use crate::forge::Forge;
use crate::intake::PartnerName;

/// Returns the whole HTTP interface, for [`serve`](super::serve()). Handlers need what `serve` adds to a request: the
/// client's address and a [`Finisher`](super::Finisher).
pub fn router(state: AppState) -> Router {
    let api = Router::new()
        .merge(key_routes::<User>("user-api-keys"))
        .merge(key_routes::<Team>("team-api-keys"))
        .route("/keys/import", post(import::import))
        .route("/incidents", get(incidents::list))
        .route("/incidents/{id}", get(incidents::show))
        .route("/revocations", get(revocations::list))
        .route("/revocations/verify", get(revocations::verify))
        .route("/revocations/export", get(revocations::export))
        .route("/formats", get(formats::list))
        .route("/sources", get(sources::list))
        .route("/sources/{name}/dead-letters", get(sources::dead_letters))
        .route(
            "/sources/{name}/dead-letters/requeue",
            post(sources::requeue),
        )
        .route(
            "/integrations/credential-scanning/revoke",
            post(intake::self_report),
        )
        .route("/openapi.json", get(openapi::serve));
    let mut router = Router::new()
        .nest("/api/v1", api)
        .route("/openapi.json", get(openapi::serve))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz));
    for partner in &state.0.intake.partners {
        router = router.route(
            partner.name().endpoint(),
            match partner.name() {
                PartnerName::GitHub => post(intake::github),
                PartnerName::GitLab => post(intake::gitlab),
                PartnerName::DepsDev => post(intake::depsdev),
            },
        );
    }
    if state.0.intake.revocation.is_some() {
        router = router
            .route("/v1/revocable_token_types", get(intake::revocable_types))
            .route("/v1/revoke_tokens", post(intake::revoke_tokens));
    }
    for webhook in &state.0.intake.webhooks {
        let path = format!("/webhooks/{}", webhook.forge().name());
        router = router.route(
            &path,
            match webhook.forge() {
                Forge::GitHub => post(webhooks::github),
                Forge::GitLab => post(webhooks::gitlab),
                Forge::Gitea => post(webhooks::gitea),
                Forge::Bitbucket => post(webhooks::bitbucket),
            },
        );
    }
    router
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        // Bodies are bounded where they are read, each by the limit of its endpoint.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(state.clone(), layers::surround))
        .with_state(state)
}

fn key_routes<K: Kind>(name: &str) -> Router<AppState> {
    Router::new()
        .route(
            &format!("/{name}"),
            post(keys::create::<K>).get(keys::list::<K>),
        )
        .route(&format!("/{name}/check"), post(keys::check::<K>))
        .route(
            &format!("/{name}/{{id}}"),
            get(keys::show::<K>).patch(keys::update::<K>),
        )
        .route(&format!("/{name}/{{id}}/rotate"), post(keys::rotate::<K>))
}

async fn no_route() -> ApiError {
    ApiError::not_found("Route")
}

async fn wrong_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "METHOD_NOT_ALLOWED",
        "This route does not take this method; the header `allow` lists those it takes.",
    )
}
