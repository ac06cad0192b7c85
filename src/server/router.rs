//! Routes. Each is mounted by `routes!`, which takes method, path and description from the handler.

use std::sync::LazyLock;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::keys::{team, user};
use super::api::{
    formats, health, import, incidents, intake, revocations, sources, stats, webhooks,
};
use super::docs::{self, Page};
use super::error::{ApiError, ErrorCode};
use super::openapi::{self, Description};
use super::{AppState, layers};
use crate::forge::Forge;
use crate::intake::{Partner, PartnerName};

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let described = with_senders(routes(), PartnerName::ALL, true, Forge::ALL).into_openapi();
    openapi::written(&described)
});

/// Returns the OpenAPI document, as JSON. It describes the endpoints of all senders, whether or not they are
/// configured.
pub fn document() -> Bytes {
    DOCUMENT.clone()
}

/// Returns that document as a page for people.
pub(super) fn page() -> Page {
    static PAGE: LazyLock<Page> = LazyLock::new(|| docs::page(&document()));
    PAGE.clone()
}

/// Returns the whole HTTP interface, for [`serve`](super::serve()). Handlers need what `serve` adds to a request: the
/// client's address and a [`Finisher`](super::Finisher).
pub fn router(state: AppState) -> Router {
    let configured = &state.0.intake;
    let partners = configured.partners.iter().map(Partner::name);
    let forges = configured.webhooks.iter().map(|webhook| webhook.forge());
    let has_revocation = configured.revocation.is_some();
    let router = with_senders(routes(), partners, has_revocation, forges);
    Router::from(router)
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        // Bodies are bounded where they are read, each by the limit of its endpoint.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(state.clone(), layers::surround))
        .with_state(state)
}

/// Returns the routes that always exist. The handlers in one `routes!` have the same path.
fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(user::create, user::list))
        .routes(routes!(user::check))
        .routes(routes!(user::show, user::update))
        .routes(routes!(user::rotate))
        .routes(routes!(team::create, team::list))
        .routes(routes!(team::check))
        .routes(routes!(team::show, team::update))
        .routes(routes!(team::rotate))
        .routes(routes!(import::import))
        .routes(routes!(incidents::list))
        .routes(routes!(incidents::show))
        .routes(routes!(revocations::list))
        .routes(routes!(revocations::verify))
        .routes(routes!(revocations::export))
        .routes(routes!(formats::list))
        .routes(routes!(sources::list))
        .routes(routes!(sources::dead_letters))
        .routes(routes!(sources::requeue))
        .routes(routes!(stats::stats))
        .routes(routes!(intake::self_report))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(openapi::serve))
        .routes(routes!(openapi::serve_in_api))
        .routes(routes!(docs::serve))
}

/// Adds the routes of these senders.
fn with_senders(
    mut router: OpenApiRouter<AppState>,
    partners: impl IntoIterator<Item = PartnerName>,
    has_revocation: bool,
    forges: impl IntoIterator<Item = Forge>,
) -> OpenApiRouter<AppState> {
    for partner in partners {
        router = router.routes(match partner {
            PartnerName::GitHub => routes!(intake::github),
            PartnerName::GitLab => routes!(intake::gitlab),
            PartnerName::DepsDev => routes!(intake::depsdev),
        });
    }
    if has_revocation {
        router = router
            .routes(routes!(intake::revocable_types))
            .routes(routes!(intake::revoke_tokens));
    }
    for forge in forges {
        router = router.routes(match forge {
            Forge::GitHub => routes!(webhooks::github),
            Forge::GitLab => routes!(webhooks::gitlab),
            Forge::Gitea => routes!(webhooks::gitea),
            Forge::Bitbucket => routes!(webhooks::bitbucket),
        });
    }
    router
}

async fn no_route() -> ApiError {
    ApiError::not_found("Route")
}

async fn wrong_method() -> ApiError {
    ApiError::new(
        ErrorCode::MethodNotAllowed,
        "This route does not take this method; the header `allow` lists those it takes.",
    )
}
