//! Health, self-description, and what every answer has.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rescind::forge::Forge;
use rescind::intake::PartnerName;
use rescind::keyformat::Sha256Digest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::{Setup, TestServer};
use crate::support::databases::{Kind, TestDatabase};

#[tokio::test]
async fn health_and_readiness() {
    let server = TestServer::start().await;
    let client = server.anonymous();
    assert_eq!(client.get("/healthz").await.json(), json!({"status": "ok"}));
    assert_eq!(client.get("/readyz").await.json(), json!({"status": "ok"}));
    server.store.close().await;
    let down = client.get("/readyz").await;
    down.error(503, "SERVICE_UNAVAILABLE");
    assert!(down.header("retry-after").is_some());
    assert_eq!(client.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_database_that_is_down_is_a_503_everywhere() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    server.store.close().await;
    let key = server.mint();
    for (path, body) in [
        (
            "/api/v1/user-api-keys/check",
            json!({"api_key": key.expose()}),
        ),
        (
            "/api/v1/integrations/credential-scanning/revoke",
            json!({"api_key": key.expose()}),
        ),
    ] {
        let reply = admin.post(path, body).await;
        reply.error(503, "SERVICE_UNAVAILABLE");
        assert!(!reply.text.contains("rescind.db"), "{}", reply.text);
    }
    admin
        .get("/api/v1/revocations/export")
        .await
        .error(503, "SERVICE_UNAVAILABLE");
}

#[tokio::test]
async fn unmigrated_is_not_ready_and_says_what_to_do() {
    let database = TestDatabase::new(Kind::Sqlite).await;
    let server = TestServer::on(&database, Setup::default()).await;
    // As if a newer program with one more migration had been installed before `rescind migrate`.
    database.run("DELETE FROM _sqlx_migrations").await.unwrap();
    let error = server
        .anonymous()
        .get("/readyz")
        .await
        .error(503, "SERVICE_UNAVAILABLE");
    assert!(
        error["error"].as_str().unwrap().contains("rescind migrate"),
        "{error}"
    );
}

#[tokio::test]
async fn every_answer_has_an_identifier_and_is_not_stored() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let mut ids = BTreeSet::new();
    for path in [
        "/healthz",
        "/api/v1/formats",
        "/nothing",
        "/api/v1/incidents/x",
    ] {
        let request = admin.request("GET", path).header("x-request-id", "mine");
        let reply = super::harness::Reply::of(request).await;
        assert!(ids.insert(reply.header("x-request-id").unwrap().to_owned()));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    }
    assert!(!ids.contains("mine"));
}

#[tokio::test]
async fn unknown_routes_and_methods_are_answered_in_json() {
    let server = TestServer::start().await;
    let admin = server.admin().await;
    let value = server.mint();
    for path in [
        "/",
        "/api",
        "/api/v1",
        "/api/v1/nothing",
        "/metrics",
        "/api/v1/user-api-keys/x/y/z",
    ] {
        admin.get(path).await.error(404, "NOT_FOUND");
    }
    let reply = admin
        .get(&format!("/{}?{}", value.expose(), value.expose()))
        .await;
    reply.error(404, "NOT_FOUND");
    assert!(!reply.text.contains(value.expose()));
    // No partner is configured, so their endpoint does not exist.
    admin
        .post("/webhooks/github/secret-scanning", json!([]))
        .await
        .error(404, "NOT_FOUND");
    for (method, path) in [
        ("DELETE", "/api/v1/user-api-keys"),
        ("PUT", "/api/v1/user-api-keys/x"),
        ("GET", "/api/v1/user-api-keys/x/rotate"),
        ("POST", "/healthz"),
        ("BREW", "/api/v1/revocations"),
    ] {
        let reply = super::harness::Reply::of(admin.request(method, path)).await;
        reply.error(405, "METHOD_NOT_ALLOWED");
        assert!(reply.header("allow").is_some(), "{method} {path}");
    }
}

/// The forms of forges are often filled in with one, as are the base addresses of clients.
#[tokio::test]
async fn slashes_too_many_in_a_path_make_no_difference() {
    let server = TestServer::start().await;
    let client = server.anonymous();
    assert_eq!(client.get("/readyz/").await.status, 200);
    let key = server.admin().await.create(json!({})).await;
    let path = "/api/v1/integrations/credential-scanning/revoke/";
    let body = json!({"api_key": key["value"]});
    assert_eq!(client.post(path, body).await.status, 200);
    client.get("/nothing/").await.error(404, "NOT_FOUND");

    assert_eq!(client.get("//healthz").await.status, 200);
    let key = server.admin().await.create(json!({})).await;
    let path = "//api/v1//integrations/credential-scanning/revoke";
    let body = json!({"api_key": key["value"]});
    assert_eq!(client.post(path, body).await.status, 200);
    // An identifier that is missing leads to nothing else.
    let admin = server.admin().await;
    let missing = "/api/v1/user-api-keys//rotate";
    let reply = admin.post(missing, json!({"overlap_seconds": 0})).await;
    reply.error(405, "METHOD_NOT_ALLOWED");
}

#[tokio::test]
async fn the_description_names_every_endpoint() {
    // With everything that has an endpoint only when it is configured.
    let nowhere = || "http://127.0.0.1:1/keys".to_owned();
    let setup = super::harness::Setup {
        partners: PartnerName::ALL.map(|name| (name, nowhere())).to_vec(),
        revocation_tokens: vec!["token"],
        ..crate::webhooks::sender::all()
    };
    let server = TestServer::start_with(setup).await;
    let client = server.anonymous();
    let description = client.get("/openapi.json").await.json();
    assert_eq!(client.get("/api/v1/openapi.json").await.json(), description);
    assert_eq!(description["info"]["title"], "Rescind");
    assert!(description["openapi"].as_str().unwrap().starts_with("3."));
    let paths = description["paths"].as_object().unwrap();
    let mut described = BTreeSet::new();
    for (path, item) in paths {
        for method in item.as_object().unwrap().keys() {
            described.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let mut expected = BTreeSet::new();
    for kind in ["user", "team"] {
        for route in [
            "POST ",
            "GET ",
            "POST /check",
            "GET /{id}",
            "PATCH /{id}",
            "POST /{id}/rotate",
        ] {
            let (method, rest) = route.split_once(' ').unwrap();
            expected.insert(format!("{method} /api/v1/{kind}-api-keys{rest}"));
        }
    }
    for route in [
        "POST /api/v1/keys/import",
        "GET /api/v1/incidents",
        "GET /api/v1/incidents/{id}",
        "GET /api/v1/revocations",
        "GET /api/v1/revocations/verify",
        "GET /api/v1/revocations/export",
        "GET /api/v1/formats",
        "GET /api/v1/stats",
        "GET /api/v1/sources",
        "GET /api/v1/sources/{name}/dead-letters",
        "POST /api/v1/sources/{name}/dead-letters/requeue",
        "POST /api/v1/integrations/credential-scanning/revoke",
        "GET /v1/revocable_token_types",
        "POST /v1/revoke_tokens",
        "GET /healthz",
        "GET /readyz",
        "GET /openapi.json",
        "GET /api/v1/openapi.json",
        "GET /docs",
    ] {
        expected.insert(route.to_owned());
    }
    expected.extend(PartnerName::ALL.map(|partner| format!("POST {}", partner.endpoint())));
    expected.extend(Forge::ALL.map(|forge| format!("POST /webhooks/{}", forge.name())));
    let differ: Vec<_> = described.symmetric_difference(&expected).collect();
    assert!(differ.is_empty(), "not on both lists: {differ:?}");
    // Every described route exists: it asks for a token or answers, but is never unknown.
    for route in &described {
        let (method, path) = route.split_once(' ').unwrap();
        let path = path.replace("{id}", "x").replace("{name}", "x");
        let reply = super::harness::Reply::of(client.request(method, &path)).await;
        assert!(reply.status != 405, "{route}");
        assert!(!reply.text.contains("Route not found"), "{route}");
        // A route that the description does not open to all takes a token, and stands in the table of roles.
        let item = &description["paths"][route.split_once(' ').unwrap().1];
        if item[method.to_lowercase()].get("security").is_none() {
            assert_eq!(reply.status, 401, "{route} takes no token");
            assert!(is_in_the_table_of_roles(route), "{route}");
        }
    }
    assert_references_resolve(&description, &description);
    let team = &description["paths"]["/api/v1/team-api-keys"]["post"]["requestBody"];
    assert!(team.to_string().contains("CreateTeamKey"), "{team}");
    assert!(
        description["components"]["schemas"]["CreateTeamKey"]["properties"]
            .get("team_id")
            .is_some()
    );
}

#[tokio::test]
async fn the_page_of_the_description_has_every_endpoint_and_nothing_from_elsewhere() {
    let server = TestServer::start().await;
    let client = server.anonymous();
    let page = client.get("/docs").await;
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    for (method, path, operation) in super::described::operations() {
        let method = method.to_uppercase();
        let heading = format!("<span class=\"method\">{method}</span> <code>{path}</code>");
        assert!(page.text.contains(&heading), "{method} {path}");
        for (status, _) in operation["responses"].as_object().unwrap() {
            assert!(page.text.contains(&format!("<td>{status}</td>")));
        }
    }
    let objects = super::described::DOCUMENT["components"]["schemas"].as_object();
    for name in objects.unwrap().keys() {
        assert!(page.text.contains(&format!("<h3 id=\"{name}\">")), "{name}");
    }
    // The one link leads to the document, the others to objects on the page.
    for link in page.text.split("href=\"").skip(1) {
        let target = link.split('"').next().unwrap();
        match target.strip_prefix('#') {
            Some(name) => assert!(page.text.contains(&format!("id=\"{name}\"")), "{name}"),
            None => assert_eq!(target, "/openapi.json"),
        }
    }
    for foreign in ["<script", "<link", "<img", "src=", "@import", "url("] {
        assert!(!page.text.contains(foreign), "{foreign}");
    }
    // No script may run, and no style but the page's own, which has this digest.
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-"),
        "{policy}"
    );
    assert!(
        !policy.contains("unsafe") && !policy.contains("script-src"),
        "{policy}"
    );
    let style = page.text.split("<style>").nth(1).unwrap();
    let style = style.split("</style>").next().unwrap();
    let digest = Sha256Digest::of(style.as_bytes());
    let digest = STANDARD.encode(digest.0);
    assert!(policy.contains(&format!("'sha256-{digest}'")), "{policy}");
}

fn is_in_the_table_of_roles(route: &str) -> bool {
    let is_like = |path: &str, described: &str| {
        let path = path.split('?').next().unwrap_or_default().split('/');
        let described = described.split('/');
        path.clone().count() == described.clone().count()
            && path
                .zip(described)
                .all(|(part, like)| like.starts_with('{') || part == like)
    };
    let (method, described) = route.split_once(' ').unwrap();
    // The test of the roles sends the import by itself, since its body is no JSON.
    let import = ("POST", "/api/v1/keys/import".to_owned());
    let endpoints = super::roles::endpoints("x").into_iter();
    let endpoints = endpoints.map(|(method, path, ..)| (method, path));
    let mut endpoints = endpoints.chain([import]);
    endpoints.any(|(of, path)| of == method && is_like(&path, described))
}

fn assert_references_resolve(value: &Value, document: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
            fields
                .values()
                .for_each(|value| assert_references_resolve(value, document));
        }
        Value::Array(items) => items
            .iter()
            .for_each(|value| assert_references_resolve(value, document)),
        _ => {}
    }
}

#[tokio::test]
async fn requests_in_flight_finish_when_the_server_stops() {
    let server = TestServer::start().await;
    let token = server.token(rescind::store::Role::Viewer).await;
    let mut stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let request =
        format!("GET /api/v1/formats HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    // The answer has begun before the server is told to stop.
    let mut first = [0];
    stream.read_exact(&mut first).await.unwrap();
    server.stop().await;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    let text = String::from_utf8(rest).unwrap();
    assert!(
        text.starts_with("TTP/1.1 200") && text.trim_end().ends_with('}'),
        "{text}"
    );
}

#[tokio::test]
async fn whoever_shows_no_token_is_told_each_header_that_may_have_one() {
    let server = TestServer::start().await;
    let reply = server.anonymous().get("/api/v1/stats").await;
    let error = reply.error(401, "ACCESS_TOKEN_REQUIRED");
    for header in [
        "authorization: Bearer",
        "x-stack-secret-server-key",
        "x-hexclave-secret-server-key",
    ] {
        assert!(error["error"].as_str().unwrap().contains(header), "{error}");
    }
}
