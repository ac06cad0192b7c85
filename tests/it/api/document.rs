//! The description of the interface: it is the reviewed one, and the server reads what it describes, no more and no
//! less. That the server answers as described is checked in every test, by [`described`].

use std::collections::BTreeSet;

use rescind::intake::{PartnerName, parse_report};
use serde_json::{Map, Value, json};

use super::described::{self, DOCUMENT, operations, resolved};
use super::harness::{Client, Reply, Setup, TestServer};

/// A server with every endpoint, whatever is configured.
async fn server() -> TestServer {
    let nowhere = || "http://127.0.0.1:1/keys".to_owned();
    let setup = Setup {
        partners: PartnerName::ALL.map(|name| (name, nowhere())).to_vec(),
        revocation_tokens: vec!["token"],
        ..crate::webhooks::sender::all()
    };
    TestServer::start_with(setup).await
}

/// An error stands with its codes alone: what else it has is the same everywhere.
#[test]
fn the_description_is_the_reviewed_one() {
    let mut document = DOCUMENT.clone();
    let mut errors = BTreeSet::new();
    for item in document["paths"].as_object_mut().unwrap().values_mut() {
        for operation in item.as_object_mut().unwrap().values_mut() {
            let responses = operation["responses"].as_object_mut().unwrap();
            for (status, response) in responses {
                if status.starts_with(['4', '5']) {
                    errors.insert(response["content"].to_string());
                    *response = response["description"].take();
                }
            }
        }
    }
    let error = json!({"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}});
    assert_eq!(errors, BTreeSet::from([error.to_string()]));
    insta::assert_snapshot!(format!("{document:#}"));
}

/// Anything but `routes!` would mount a handler without its description.
#[test]
fn routes_are_mounted_together_with_their_description() {
    let router = include_str!("../../../src/server/router.rs");
    for other in [
        ".route(",
        ".route_service(",
        ".nest(",
        ".nest_service(",
        ".merge(",
    ] {
        assert!(!router.contains(other), "{other}");
    }
}

#[tokio::test]
async fn a_route_has_the_described_methods_and_no_others() {
    let server = server().await;
    let client = server.anonymous();
    let described: BTreeSet<_> = operations()
        .map(|(method, path, _)| (method.to_uppercase(), path))
        .collect();
    let paths: BTreeSet<_> = described.iter().map(|(_, path)| *path).collect();
    for path in paths {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let filled = path.replace("{id}", "x").replace("{name}", "x");
            let reply = Reply::of(client.request(method, &filled)).await;
            let is_described = described.contains(&(method.to_owned(), path));
            assert_eq!(reply.status != 405, is_described, "{method} {path}");
            assert!(!reply.text.contains("Route not found"), "{method} {path}");
        }
    }
}

/// Returns an object with the examples of a schema's fields.
fn example(schema: &'static Value) -> Map<String, Value> {
    let properties = schema["properties"].as_object().expect("properties").iter();
    let example =
        properties.filter_map(|(name, field)| Some((name.clone(), field.get("example")?.clone())));
    example.collect()
}

async fn post(client: &Client<'_>, method: &str, path: &str, body: Map<String, Value>) -> Reply {
    let id = uuid::Uuid::now_v7().to_string();
    let path = path.replace("{id}", &id).replace("{name}", "nobody");
    let request = client.request(&method.to_uppercase(), &path);
    Reply::of(request.json(&Value::Object(body))).await
}

/// Asserts that the endpoint knows the field, and finds it wrong.
fn assert_refuses(reply: &Reply, field: &str, what: &str) {
    let error = reply.error(400, "SCHEMA_ERROR");
    assert_eq!(error["details"]["field"], field, "{what}: {error}");
    assert!(
        !reply.text.contains("of this request"),
        "{what} is not read: {error}"
    );
}

#[tokio::test]
async fn each_described_field_of_a_body_is_read_and_no_other() {
    let server = server().await;
    let client = server.admin().await;
    let mut bodies = 0;
    for (method, path, operation) in operations() {
        let schema = resolved(&operation["requestBody"]["content"]["application/json"]["schema"]);
        // A payload of somebody else's, or rows of which any is read.
        if schema.get("properties").is_none() {
            continue;
        }
        bodies += 1;
        let whole = example(schema);
        let reply = post(&client, method, path, whole.clone()).await;
        assert!(
            reply.status == 200 || reply.status == 404,
            "the example of {method} {path}: {}",
            reply.text
        );
        for field in schema["properties"].as_object().unwrap().keys() {
            let what = format!("{method} {path} {field}");
            let mut body = whole.clone();
            body.insert(field.clone(), json!({"not": "this"}));
            let reply = post(&client, method, path, body).await;
            // Of a self-report it decides nothing.
            if path.ends_with("/credential-scanning/revoke") && field == "url" {
                assert_ne!(reply.status, 400, "{what}: {}", reply.text);
            } else {
                assert_refuses(&reply, field, &what);
            }
            let mut body = whole.clone();
            body.remove(field);
            let reply = post(&client, method, path, body).await;
            if schema["required"]
                .as_array()
                .is_some_and(|all| all.contains(&json!(field)))
            {
                assert_refuses(&reply, field, &what);
            } else {
                assert_ne!(reply.status, 400, "{what}: {}", reply.text);
            }
        }
        assert_eq!(schema["additionalProperties"], false, "{method} {path}");
        let mut body = whole;
        body.insert("unheard_of".to_owned(), json!(1));
        let reply = post(&client, method, path, body).await;
        let error = reply.error(400, "SCHEMA_ERROR");
        assert_eq!(error["details"]["field"], "unheard_of", "{method} {path}");
    }
    assert!(bodies >= 10, "{bodies}");
}

#[tokio::test]
async fn each_described_parameter_of_a_query_is_read_and_no_other() {
    let server = server().await;
    let client = server.admin().await;
    let mut queries = 0;
    for (_, path, operation) in operations().filter(|(method, ..)| *method == "get") {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let parameters: Vec<_> = parameters.filter(|one| one["in"] == "query").collect();
        let filled = path.replace("{id}", "x").replace("{name}", "x");
        let ask = async |name: &str, value: &str| {
            let required = parameters.iter().filter(|one| one["required"] == true);
            let required = required.map(|one| (one["name"].as_str().unwrap(), "x"));
            let query: Vec<_> = required
                .filter(|(other, _)| *other != name)
                .chain([(name, value)])
                .collect();
            let url = reqwest::Url::parse_with_params("http://query/", &query).unwrap();
            let path = format!("{filled}?{}", url.query().unwrap());
            client.get(&path).await
        };
        for parameter in &parameters {
            queries += 1;
            let name = parameter["name"].as_str().unwrap();
            // No text may have a control character.
            let what = format!("{path} {name}");
            assert_refuses(&ask(name, "\u{1}").await, name, &what);
        }
        if !parameters.is_empty() {
            let error = ask("unheard_of", "1").await.error(400, "SCHEMA_ERROR");
            assert_eq!(error["details"]["field"], "unheard_of", "{path}");
        }
    }
    assert!(queries >= 20, "{queries}");
}

#[tokio::test]
async fn the_described_rows_are_read() {
    let mut reports = 0;
    for (_, path, operation) in operations() {
        let content = &operation["requestBody"]["content"]["application/json"];
        if content["schema"]["type"] != "array" {
            continue;
        }
        reports += 1;
        let row = match content.get("example") {
            Some(rows) => rows[0].clone(),
            None => Value::Object(example(resolved(&content["schema"]["items"]))),
        };
        let rows = parse_report(json!([row]).to_string().as_bytes()).unwrap();
        let token = rows[0]
            .token
            .as_ref()
            .map(|token| token.expose().to_owned());
        assert_eq!(token.as_deref(), row["token"].as_str(), "{path}");
        assert_eq!(Some(&*rows[0].token_type), row["type"].as_str(), "{path}");
        let place = row.get("url").unwrap_or(&row["location"]);
        assert_eq!(rows[0].url.as_deref(), place.as_str(), "{path}");
        assert_eq!(rows[0].source.as_deref(), row["source"].as_str(), "{path}");
    }
    // And the self-report's.
    assert_eq!(reports, PartnerName::ALL.len() + 1);
}

#[tokio::test]
async fn the_described_imports_are_read() {
    let server = TestServer::start().await;
    let client = server.admin().await;
    let import = &DOCUMENT["paths"]["/api/v1/keys/import"]["post"];
    let contents = import["requestBody"]["content"].as_object().unwrap();
    for (kind, content) in contents {
        let request = client.request("POST", "/api/v1/keys/import");
        let body = content["example"].as_str().unwrap();
        let request = request.header("content-type", kind).body(body);
        let imported = json!({"imported": 1, "duplicates": 0, "failed": 0, "errors": []});
        assert_eq!(Reply::of(request).await.json(), imported, "{kind}");
    }
    assert_eq!(contents.len(), 2);
}

/// The check of every answer rests on this: an answer that is not described does not pass.
#[test]
fn an_answer_that_is_not_described_is_noticed() {
    let reply = |status: u16, kind: &str, text: &str| {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("content-type", kind.parse().unwrap());
        Reply {
            status,
            headers,
            text: text.to_owned(),
        }
    };
    let passes = |reply: Reply| {
        let check = || described::check("GET", "/api/v1/formats", &reply);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_ok()
    };
    let list = r#"{"items": [], "is_paginated": true, "pagination": {"next_cursor": null}}"#;
    assert!(passes(reply(200, "application/json", list)));
    assert!(passes(reply(
        403,
        "application/json",
        r#"{"code": "INSUFFICIENT_ROLE", "error": "x", "details": {}}"#
    )));
    for (status, kind, text) in [
        (201, "application/json", list),
        (200, "text/plain", list),
        (200, "application/json", r#"{"items": []}"#),
        (200, "application/json", &list.replace("null", "1")),
        (
            200,
            "application/json",
            &list.replace("{\"items", "{\"more\": 1, \"items"),
        ),
        (
            403,
            "application/json",
            r#"{"code": "WRONG_PROJECT", "error": "x", "details": {}}"#,
        ),
        (
            403,
            "application/json",
            r#"{"code": "INSUFFICIENT_ROLE", "details": {}}"#,
        ),
        (
            403,
            "application/json",
            r#"{"code": "INSUFFICIENT_ROLE", "error": "x"}"#,
        ),
    ] {
        assert!(!passes(reply(status, kind, text)), "{status} {kind} {text}");
    }
}
