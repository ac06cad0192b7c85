//! Requests of any shape, made from the server's own description of its interface: none is answered with an
//! error of the server, and every refusal has the shape that clients rely on.

use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Map, Value, json};

use crate::api::harness::{Client, Reply, TestServer};
use crate::webhooks::sender;

/// Cases of each operation.
const CASES: u64 = 120;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_of_any_shape_is_the_servers_fault() {
    let server = TestServer::start_with(sender::all()).await;
    let admin = server.admin().await;
    let key = admin.create(json!({})).await;
    let description = admin.get("/openapi.json").await.json();
    let mut cases = 0;
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            for number in 0..CASES {
                // The same cases in each run, so that what fails once can be looked at.
                let random = StdRng::seed_from_u64(number);
                let mut shape = Shape {
                    random,
                    description: &description,
                    key: &key,
                };
                shape.send(&admin, method, path, operation).await;
                cases += 1;
            }
        }
    }
    assert!(cases >= 3_200, "{cases} cases");
    let check = json!({ "api_key": admin.create(json!({})).await["value"] });
    assert_eq!(
        admin
            .post("/api/v1/user-api-keys/check", check)
            .await
            .status,
        200
    );
}

/// Makes requests up.
struct Shape<'a> {
    random: StdRng,
    description: &'a Value,
    /// One that exists, for identifiers that lead somewhere.
    key: &'a Value,
}

impl Shape<'_> {
    async fn send(&mut self, client: &Client<'_>, method: &str, path: &str, operation: &Value) {
        let mut path = path.to_owned();
        let mut query = Vec::new();
        let mut headers = Vec::new();
        let parameters = operation["parameters"].as_array();
        for parameter in parameters.into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            let value = self.text();
            match parameter["in"].as_str() {
                Some("path") => {
                    path = path.replace(&format!("{{{name}}}"), &percent_encoded(&value));
                }
                Some("query") if self.random.random_bool(0.6) => query.push((name, value)),
                Some("header") => headers.push((name.to_owned(), value)),
                _ => {}
            }
        }
        if self.random.random_bool(0.1) {
            query.push(("unheard-of", self.text()));
        }
        if !query.is_empty() {
            let url = reqwest::Url::parse_with_params("http://query/", &query).unwrap();
            path = format!("{path}?{}", url.query().unwrap_or_default());
        }
        let mut request = client.request(&method.to_uppercase(), &path);
        for (name, value) in headers {
            if let Ok(value) = reqwest::header::HeaderValue::from_bytes(value.as_bytes()) {
                request = request.header(name, value);
            }
        }
        if let Some((kind, body)) = self.body(operation) {
            request = request.header("content-type", kind).body(body);
        }
        let reply = Reply::of(request).await;
        let what = format!("{method} {path}: {} {}", reply.status, reply.text);
        assert!(reply.status < 500, "{what}");
        // Of a head that is too large nothing is read, so nobody can say in which words to answer.
        let is_large = what.len() > 2 * 1024 && reply.status == 431;
        if reply.status >= 400 && !is_large {
            let code = reply.json()["code"].clone();
            assert_eq!(reply.header("x-stack-known-error"), code.as_str(), "{what}");
        }
    }

    fn body(&mut self, operation: &Value) -> Option<(String, Vec<u8>)> {
        let (kind, content) = operation["requestBody"]["content"]
            .as_object()?
            .iter()
            .next()?;
        let kind = match self.random.random_range(0..10) {
            0 => "text/plain".to_owned(),
            _ => kind.clone(),
        };
        let body = match self.random.random_range(0..10) {
            0 => Vec::new(),
            1 => (0..self.random.random_range(1..200))
                .map(|_| self.random.random())
                .collect(),
            2 => self.value(3).to_string().into_bytes(),
            3 => {
                let whole = self.fields(&content["schema"]).to_string().into_bytes();
                whole[..whole.len() / 2].to_vec()
            }
            _ => self.fields(&content["schema"]).to_string().into_bytes(),
        };
        Some((kind, body))
    }

    /// An object with some of the fields that a schema names, of any type.
    fn fields(&mut self, schema: &Value) -> Value {
        let schema = match schema["$ref"].as_str() {
            Some(reference) => {
                let pointer = reference.trim_start_matches('#');
                self.description
                    .pointer(pointer)
                    .cloned()
                    .unwrap_or_default()
            }
            None => schema.clone(),
        };
        let mut fields = Map::new();
        let none = Map::new();
        for name in schema["properties"].as_object().unwrap_or(&none).keys() {
            if self.random.random_bool(0.8) {
                fields.insert(name.clone(), self.value(2));
            }
        }
        if self.random.random_bool(0.1) {
            fields.insert("unheard-of".to_owned(), self.value(1));
        }
        Value::Object(fields)
    }

    fn value(&mut self, depth: u32) -> Value {
        match self.random.random_range(0..if depth == 0 { 6 } else { 8 }) {
            0 => Value::Null,
            1 => json!(self.random.random::<bool>()),
            2 => json!(self.random.random::<i64>()),
            3 => json!(self.random.random_range(0..4_102_444_800_000_i64)),
            4 => json!(f64::from_bits(self.random.random())),
            5 => json!(self.text()),
            6 => (0..self.random.random_range(0..4))
                .map(|_| self.value(depth - 1))
                .collect(),
            _ => {
                let names = (0..self.random.random_range(0..4))
                    .map(|_| self.text())
                    .collect::<Vec<_>>();
                names
                    .into_iter()
                    .map(|name| (name, self.value(depth - 1)))
                    .collect()
            }
        }
    }

    /// Returns a text as people, and others, may enter it.
    fn text(&mut self) -> String {
        let long = "x".repeat(self.random.random_range(0..5_000));
        let texts = [
            self.key["id"].as_str().unwrap(),
            self.key["value"].as_str().unwrap(),
            "user-1",
            "",
            " ",
            "0",
            "-1",
            "18446744073709551616",
            "00000000-0000-0000-0000-000000000000",
            "open",
            "2026-11-22T20:46:15Z",
            "9999-12-31T23:59:59.999999999Z",
            "\u{0}",
            "a\u{301}\u{202e}\u{feff}",
            "%00%ff",
            "' OR 1=1; --",
            "{\"$gt\": \"\"}",
            "../../../etc/passwd",
            "jsonl",
            "csv",
            &long,
        ];
        (*texts.choose(&mut self.random).unwrap()).to_owned()
    }
}

fn percent_encoded(text: &str) -> String {
    let encode = |mut encoded: String, byte: u8| {
        let _ = write!(encoded, "%{byte:02X}");
        encoded
    };
    text.bytes().fold(String::new(), encode)
}
