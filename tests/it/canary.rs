//! Keys are planted everywhere, also where they do not belong; afterward nothing that Rescind wrote or said
//! may hold one of them.

mod encoded;

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::support::eventually::eventually;
use crate::support::http::Ask as _;
use crate::support::world::{Home, World};

/// A key as it could be written down: in all the forms that a careless program might leave behind.
struct Planted {
    what: &'static str,
    id: String,
    value: String,
}

impl Planted {
    /// The part that nothing but the key itself contains: without prefix and last four.
    fn body(&self) -> &str {
        let start = self.value.rfind('_').expect("a prefix") + 1;
        &self.value[start..self.value.len() - 4]
    }

    fn forms(&self) -> Vec<Vec<u8>> {
        let utf16 = self
            .body()
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let hex = hex::encode(self.body()).into_bytes();
        let mut forms = vec![self.body().as_bytes().to_vec(), utf16, hex];
        // Base64 is written in three ways, depending on how much stands before the key, in two alphabets.
        for before in 0..3 {
            let bytes = [&[0; 3][..before], self.body().as_bytes()].concat();
            let whole = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
            for encoded in [STANDARD.encode(&bytes), URL_SAFE.encode(&bytes)] {
                forms.push(encoded.as_bytes()[whole.clone()].to_vec());
            }
        }
        forms
    }
}

/// API client that records every response, for tests that look for keys in them.
struct Caller {
    client: Client,
    url: String,
    token: String,
    answers: Vec<(String, String)>,
}

impl Caller {
    async fn send(&mut self, what: &str, request: reqwest::RequestBuilder) -> (StatusCode, String) {
        let answer = request.ask().await.expect("an answer");
        let status = answer.status();
        let headers = format!("{:?}", answer.headers());
        let body = answer.text().await.expect("a body");
        self.answers
            .push((what.to_owned(), format!("{status} {headers}\n{body}")));
        (status, body)
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client
            .get(format!("{}{path}", self.url))
            .bearer_auth(&self.token)
    }

    fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.client
            .post(format!("{}{path}", self.url))
            .bearer_auth(&self.token)
            .json(body)
    }

    /// Mints a key. Its first view is the one answer that may hold it.
    async fn mint(&self, what: &'static str, public: bool) -> Planted {
        let body = json!({
            "user_id": "canary",
            "description": what,
            "expires_at_millis": null,
            "is_public": public,
        });
        let answer = self
            .post("/api/v1/user-api-keys", &body)
            .ask()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "a key is minted");
        let answer: Value = answer.json().await.expect("JSON");
        Planted {
            what,
            id: answer["id"].as_str().expect("an id").to_owned(),
            value: answer["value"].as_str().expect("a value").to_owned(),
        }
    }

    async fn is_revoked(&self, key: &Planted) -> bool {
        let path = format!("/api/v1/user-api-keys/{}", key.id);
        let answer = self.get(&path).ask().await.expect("an answer");
        let answer: Value = answer.json().await.expect("JSON");
        answer.get("manually_revoked_at_millis").is_some()
    }

    async fn wait_until_revoked(&self, keys: &[&Planted]) {
        for key in keys {
            let what = format!("{} is revoked", key.what);
            eventually(&what, async || self.is_revoked(key).await).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_value_is_left_anywhere() {
    let world = World::new().await;
    let home = Home::new(|database| world.config(database));
    let daemon = home.serve();
    let mut caller = Caller {
        client: rescind::fetch::http_client().expect("an HTTP client"),
        url: daemon.url.clone(),
        token: daemon
            .token
            .clone()
            .expect("the admin token of a first start"),
        answers: Vec::new(),
    };

    let plain = caller.mint("pushed in plain text", false).await;
    let base64 = caller.mint("pushed in base64", false).await;
    let utf16 = caller.mint("pushed in UTF-16", false).await;
    let in_path = caller.mint("in the name of a pushed file", false).await;
    let in_message = caller.mint("in a commit message", false).await;
    let reported = caller.mint("in a partner report", false).await;
    let in_report_url = caller
        .mint("in the URL of a partner report's row", false)
        .await;
    let self_reported = caller.mint("in a self-report", false).await;
    let public = caller.mint("public, pushed in plain text", true).await;
    let misplaced = caller.mint("where a key does not belong", false).await;

    push(
        &world,
        &[&plain, &base64, &utf16, &in_path, &in_message, &public],
    );
    report(&mut caller, &world, &reported, &in_report_url).await;
    let path = "/api/v1/integrations/credential-scanning/revoke";
    let found_at = format!("https://example.com/paste?key={}", self_reported.value);
    let body = json!({ "api_key": self_reported.value, "url": found_at });
    let (status, _) = caller.send("self-report", caller.post(path, &body)).await;
    assert_eq!(status, StatusCode::OK);
    caller
        .wait_until_revoked(&[
            &plain,
            &base64,
            &utf16,
            &in_message,
            &reported,
            &self_reported,
        ])
        .await;
    misplace(&mut caller, &misplaced).await;
    read_everything(&mut caller).await;
    assert!(
        !caller.is_revoked(&public).await,
        "a public key is never touched"
    );

    let written = cli_outputs(&home);
    let ended = daemon.stop();
    assert!(
        ended.success(),
        "the daemon ends well on SIGTERM: {ended:?}"
    );

    let planted = [
        &plain,
        &base64,
        &utf16,
        &in_path,
        &in_message,
        &reported,
        &in_report_url,
        &self_reported,
        &public,
        &misplaced,
    ];
    assert!(
        found_in_files(world.folder(), &plain),
        "the search itself finds planted keys"
    );
    for key in planted {
        assert!(
            !found_in_files(home.folder.path(), key),
            "left in a file: {}",
            key.what
        );
        for (what, text) in caller.answers.iter().chain(&written) {
            assert!(
                !holds(text.as_bytes(), key),
                "left in the answer to {what}: {}",
                key.what
            );
        }
    }
    let token = Planted {
        what: "admin token",
        id: String::new(),
        value: caller.token.clone(),
    };
    assert!(
        !found_in_files(home.folder.path(), &token),
        "the admin token is left in a file"
    );
}

fn push(world: &World, keys: &[&Planted; 6]) {
    let [plain, base64, utf16, in_path, in_message, public] = keys;
    let wide: Vec<u8> = format!("\u{feff}key={}\r\n", utf16.value)
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    world.push(
        &[
            (".env", format!("KEY={}\n", plain.value).into_bytes()),
            (
                "secret.yaml",
                format!("key: {}\n", STANDARD.encode(&base64.value)).into_bytes(),
            ),
            ("settings.ini", wide),
            (
                &format!("keys/{}.txt", in_path.value),
                format!("{}\n", in_path.value).into_bytes(),
            ),
            (
                "app.js",
                format!("const key = '{}'", public.value).into_bytes(),
            ),
        ],
        &format!("Use the key {}", in_message.value),
    );
}

async fn report(caller: &mut Caller, world: &World, reported: &Planted, in_url: &Planted) {
    let body = json!([
        {
            "token": reported.value,
            "type": format!("type-{}", reported.value),
            "url": format!("https://example.com/{}", in_url.value),
            "source": format!("commit {}", in_url.value),
        },
        { "token": 7, "type": reported.value },
        [reported.value],
    ]);
    let body = serde_json::to_vec(&body).expect("JSON");
    let request = caller
        .client
        .post(format!("{}/webhooks/github/secret-scanning", caller.url))
        .header("github-public-key-identifier", world.partner.identifier())
        .header("github-public-key-signature", world.partner.sign(&body))
        .body(body);
    let answer = request.ask().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    // Feedback repeats `type` as it was sent, which the protocol asks for; so this one answer is not kept.
    let rows: Vec<Value> = answer.json().await.expect("JSON");
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0]["label"], "true_positive");
    let unsigned = caller
        .client
        .post(format!("{}/webhooks/github/secret-scanning", caller.url))
        .header("github-public-key-identifier", &in_url.value)
        .header("github-public-key-signature", &in_url.value)
        .body(in_url.value.clone());
    let (status, _) = caller.send("an unsigned report", unsigned).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

/// Puts a key into every part of a request where it has no business.
async fn misplace(caller: &mut Caller, key: &Planted) {
    let value = &key.value;
    let requests = [
        ("a path", caller.get(&format!("/api/v1/user-api-keys/{value}"))),
        ("an unknown path", caller.get(&format!("/{value}/{value}?{value}={value}"))),
        ("a query", caller.get(&format!("/api/v1/user-api-keys?user_id={value}&x={value}"))),
        ("a cursor", caller.get(&format!("/api/v1/user-api-keys?user_id=a&cursor={value}"))),
        ("an incident filter", caller.get(&format!("/api/v1/incidents?q={value}&status={value}"))),
        ("a bearer token", caller.client.get(format!("{}/api/v1/incidents", caller.url)).bearer_auth(value)),
        ("headers", caller.get("/healthz").header("x-request-id", value).header("user-agent", value).header("x-forwarded-for", value)),
        ("a method", caller.client.request(
            reqwest::Method::from_bytes(value.as_bytes()).expect("a method"),
            format!("{}/healthz", caller.url),
        )),
        ("a description", caller.post("/api/v1/user-api-keys", &json!({
            "user_id": "canary", "description": format!("my key is {value}"), "expires_at_millis": null,
        }))),
        ("an owner", caller.post("/api/v1/user-api-keys", &json!({
            "user_id": value, "description": "d", "expires_at_millis": null,
        }))),
        ("an unknown field", caller.post("/api/v1/user-api-keys", &json!({ value.as_str(): 1 }))),
        ("a wrong type", caller.post("/api/v1/user-api-keys", &json!({
            "user_id": "a", "description": "d", "expires_at_millis": value,
        }))),
        ("a body that is no JSON", caller.post("/api/v1/user-api-keys/check", &json!({})).body(format!("{{\"api_key\": {value}"))),
        ("an import", caller.post("/api/v1/keys/import", &json!({})).body(format!("{value},user,x,{value},rescind_secret,wxyz,,"))),
    ];
    for (what, request) in requests {
        let (status, _) = caller.send(what, request).await;
        assert!(
            !status.is_server_error(),
            "{what} is answered with {status}"
        );
    }
}

async fn read_everything(caller: &mut Caller) {
    for path in [
        "/api/v1/user-api-keys?user_id=canary",
        "/api/v1/incidents",
        "/api/v1/revocations",
        "/api/v1/revocations/verify",
        "/api/v1/revocations/export?format=csv",
        "/api/v1/revocations/export?format=jsonl",
        "/api/v1/formats",
        "/openapi.json",
        "/healthz",
        "/readyz",
    ] {
        let (status, body) = caller.send(path, caller.get(path)).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
    }
    let incidents: Value = serde_json::from_str(
        &caller
            .get("/api/v1/incidents")
            .ask()
            .await
            .expect("an answer")
            .text()
            .await
            .expect("text"),
    )
    .expect("JSON");
    let incidents = incidents["items"].as_array().expect("items").clone();
    assert!(
        incidents.len() >= 6,
        "there are {} incidents",
        incidents.len()
    );
    for incident in incidents {
        let path = format!(
            "/api/v1/incidents/{}",
            incident["id"].as_str().expect("an id")
        );
        let (status, _) = caller.send(&path, caller.get(&path)).await;
        assert_eq!(status, StatusCode::OK);
    }
}

/// Returns the output of the commands, all of which must succeed.
fn cli_outputs(home: &Home) -> Vec<(String, String)> {
    [
        &["log", "list"][..],
        &["log", "export", "--format", "jsonl"],
        &["log", "export", "--format", "csv"],
        &["log", "verify"],
        &["keys", "list"],
        &["tokens", "list"],
        &["config", "show"],
    ]
    .into_iter()
    .map(|arguments| {
        let output = home.rescind(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {text}");
        (arguments.join(" "), text)
    })
    .collect()
}

/// Returns whether a key can be read from `bytes`, even by undoing percent-encoding any number of times.
fn holds(bytes: &[u8], key: &Planted) -> bool {
    let forms = key.forms();
    let mut text = bytes.to_vec();
    loop {
        if forms
            .iter()
            .any(|form| memchr::memmem::find(&text, form).is_some())
        {
            return true;
        }
        let decoded = percent_decoded(&text);
        if decoded.len() == text.len() {
            return false;
        }
        text = decoded;
    }
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, more)) = rest.split_first() {
        let byte = more.get(..2).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)
        });
        let byte = byte.filter(|_| *first == b'%');
        rest = if byte.is_some() { &more[2..] } else { more };
        decoded.push(byte.unwrap_or(*first));
    }
    decoded
}

/// Looks into every file below `folder`, whatever it is: database, write-ahead log, log files.
fn found_in_files(folder: &Path, key: &Planted) -> bool {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry"))
        {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if holds(&fs::read(&path).expect("a file"), key) {
                eprintln!("found: {} in {}", key.what, path.display());
                return true;
            }
        }
    }
    false
}
