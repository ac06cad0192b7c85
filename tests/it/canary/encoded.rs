//! The same for keys that are written in an encoding.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Caller, Planted, cli_outputs, holds};
use crate::support::world::{Home, World};

fn percent(text: &str) -> String {
    let digits = hex::encode_upper(text);
    let digits = digits.as_bytes().chunks(2).map(String::from_utf8_lossy);
    digits.flat_map(|digits| ["%".into(), digits]).collect()
}

/// A key in each way that a name or a link may hold it.
fn written(key: &Planted) -> Vec<String> {
    let value = &key.value;
    let base64 = URL_SAFE_NO_PAD.encode(value);
    vec![
        base64.clone(),
        URL_SAFE_NO_PAD.encode(format!("a{value}b")),
        STANDARD.encode(format!("ab{value}")).replace('=', ""),
        percent(value),
        percent(&percent(value)),
        percent(&base64),
        percent(&value.chars().flat_map(|c| [c, '\0']).collect::<String>()),
        percent(value).replace('%', "%252525"),
        URL_SAFE_NO_PAD.encode(
            value
                .encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<_>>(),
        ),
        URL_SAFE_NO_PAD.encode(percent(value)),
        percent(value).replace('%', "%u00"),
        percent(value).replace('%', "\\u00"),
        format!("{};", &percent(value).replace('%', ";&#x")[1..]),
        format!("{}%0D%0A%20{}", &base64[..15], &base64[15..]),
        format!("{} {}", &base64[..31], &base64[31..]),
    ]
}

/// Returns the traces that a key leaves if one of its encodings is stored, however that is quoted.
fn traces(key: &Planted) -> Vec<Vec<u8>> {
    let written = written(key).into_iter();
    let bare = written.map(|way| bare(way.as_bytes()));
    bare.map(|way| way[way.len() / 2..][..20].to_vec())
        .collect()
}

/// `bytes` without what quotes a text.
fn bare(bytes: &[u8]) -> Vec<u8> {
    let bytes = bytes.iter().copied();
    bytes.filter(|byte| !b" \\".contains(byte)).collect()
}

fn says(text: &[u8], key: &Planted, traces: &[Vec<u8>]) -> bool {
    let bare = bare(text);
    let mut traces = traces.iter();
    holds(text, key) || traces.any(|trace| memchr::memmem::find(&bare, trace).is_some())
}

/// Looks into every file below `folder`.
fn says_in_files(folder: &Path, key: &Planted, traces: &[Vec<u8>]) -> bool {
    fs::read_dir(folder).expect("a folder").any(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            says_in_files(&path, key, traces)
        } else {
            says(&fs::read(&path).expect("a file"), key, traces)
        }
    })
}

const HOOK_SECRET: &str = "It is a secret to nobody here";

/// Every input that recognizes a plain key must recognize its encodings as well: none of them may be stored or logged.
#[tokio::test(flavor = "multi_thread")]
async fn no_encoded_key_is_left_anywhere() {
    let world = World::new().await;
    let home = Home::new(|database| {
        let forge = world.forge.url();
        format!(
            "{}\n[webhooks.gitea]\nsecrets = [\"{HOOK_SECRET}\"]\nclone_hosts = [\"{forge}\", \"https://git.example\"]\n",
            world.config(database)
        )
    });
    let daemon = home.serve();
    let mut caller = Caller {
        client: rescind::fetch::http_client().expect("an HTTP client"),
        url: daemon.url.clone(),
        token: daemon.token.clone().expect("the admin token"),
        answers: Vec::new(),
    };
    // One that is found because it stands in a file whose name says another one.
    let found = caller.mint("in files with odd names", false).await;
    let in_names = caller.mint("encoded in names of files", false).await;
    let in_links = caller.mint("encoded in links of reports", false).await;
    let in_hooks = caller.mint("encoded in deliveries", false).await;
    let misplaced = caller.mint("encoded where no key belongs", false).await;
    for way in written(&in_names).iter().chain(&written(&misplaced)) {
        let sample = format!("x {way} y");
        let is_seen = [&in_names, &misplaced]
            .iter()
            .any(|key| says(sample.as_bytes(), key, &traces(key)));
        assert!(is_seen, "the search itself reads {way}");
    }
    let names = written(&in_names).into_iter().enumerate();
    let names: Vec<String> = names
        .map(|(number, way)| format!("{number}/{}.txt", way.replace('/', "_")))
        .filter(|name| name.split('/').all(|part| part.len() < 250))
        .collect();
    let text = format!("{}\n", found.value).into_bytes();
    let files: Vec<(&str, Vec<u8>)> = names
        .iter()
        .map(|name| (name.as_str(), text.clone()))
        .collect();
    world.push(&files, &format!("Add {}", STANDARD.encode(&in_names.value)));
    report_encoded(&mut caller, &world, &found, &in_links).await;
    for way in written(&in_hooks) {
        deliver(&mut caller, &way).await;
    }
    for way in written(&misplaced) {
        misplace_encoded(&mut caller, &way).await;
    }
    caller.wait_until_revoked(&[&found, &in_names]).await;
    read_pages(&mut caller).await;
    let said = cli_outputs(&home);
    assert!(daemon.stop().success());
    for key in [&found, &in_names, &in_links, &in_hooks, &misplaced] {
        let traces = traces(key);
        assert!(
            !says_in_files(home.folder.path(), key, &traces),
            "left in a file: {}",
            key.what
        );
        for (what, text) in caller.answers.iter().chain(&said) {
            assert!(
                !says(text.as_bytes(), key, &traces),
                "left in the answer to {what}: {}",
                key.what
            );
        }
    }
}

async fn report_encoded(
    caller: &mut Caller,
    world: &World,
    reported: &Planted,
    in_links: &Planted,
) {
    let rows: Vec<Value> = written(in_links)
        .into_iter()
        .map(|way| {
            json!({
                "token": reported.value, "type": "x", "source": way,
                "url": format!("https://github.com/acme/{way}/blob/{}/{way}?x={way}#L7", "a".repeat(40)),
            })
        })
        .collect();
    let body = serde_json::to_vec(&rows).expect("JSON");
    let request = caller
        .client
        .post(format!("{}/webhooks/github/secret-scanning", caller.url))
        .header("github-public-key-identifier", world.partner.identifier())
        .header("github-public-key-signature", world.partner.sign(&body))
        .body(body);
    let (status, _) = caller.send("a report", request).await;
    assert_eq!(status, StatusCode::OK);
    for way in written(in_links) {
        let body =
            json!({ "api_key": reported.value, "url": format!("https://example.com/?k={way}") });
        let path = "/api/v1/integrations/credential-scanning/revoke";
        let (status, _) = caller.send("self-report", caller.post(path, &body)).await;
        assert_eq!(status, StatusCode::OK, "{way}");
    }
}

/// Sends signed pushes that hold a key wherever a delivery has a text that is kept.
async fn deliver(caller: &mut Caller, way: &str) {
    use hmac::{KeyInit as _, Mac as _};
    // A name has no line breaks, and with other letters in their place it is no key.
    let name = |name: &str| {
        let joined = name.replace("%0D%0A%20", "");
        joined.replace(['%', '/'], "_")
    };
    for (reference, repository, host, id) in [
        (
            format!("refs/heads/{way}"),
            "acme/ref".to_owned(),
            "https://git.example".to_owned(),
            "1".to_owned(),
        ),
        (
            "refs/heads/main".to_owned(),
            format!("acme/{}", name(way)),
            "https://git.example".to_owned(),
            "2".to_owned(),
        ),
        (
            "refs/heads/main".to_owned(),
            "acme/url".to_owned(),
            format!("https://git.example/{way}"),
            "3".to_owned(),
        ),
        (
            "refs/heads/main".to_owned(),
            "acme/host".to_owned(),
            format!("https://{}.example", name(way).replace('_', "-")),
            "4".to_owned(),
        ),
        (
            "refs/heads/main".to_owned(),
            "acme/id".to_owned(),
            "https://git.example".to_owned(),
            way.to_owned(),
        ),
    ] {
        let body = json!({
            "ref": reference, "before": "0".repeat(40), "after": "7a8f3ac80e2ad2f6842cb86f576d4bfe2c03e300",
            "repository": {"id": 7, "full_name": repository, "html_url": format!("{host}/{repository}"),
                "clone_url": format!("{host}/{repository}.git")},
        })
        .to_string();
        let mut mac =
            hmac::Hmac::<sha2::Sha256>::new_from_slice(HOOK_SECRET.as_bytes()).expect("a key");
        mac.update(body.as_bytes());
        let request = caller
            .client
            .post(format!("{}/webhooks/gitea", caller.url))
            .header("content-type", "application/json")
            .header("X-Gitea-Event", "push")
            .header("X-Gitea-Delivery", id)
            .header(
                "X-Gitea-Signature",
                hex::encode(mac.finalize().into_bytes()),
            )
            .body(body);
        let (status, text) = caller.send("a delivery", request).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{text}");
    }
}

/// Puts an encoded key into every part of a request that might be kept or repeated.
async fn misplace_encoded(caller: &mut Caller, way: &str) {
    let key = |fields: Value| {
        let mut body = json!({"user_id": "a", "description": "d", "expires_at_millis": null});
        for (name, field) in fields.as_object().expect("an object") {
            body[name] = field.clone();
        }
        body
    };
    let keys = "/api/v1/user-api-keys";
    let import = format!(
        "sha256,owner_type,owner_id,description\n{},user,{way},{way}\n",
        "ab".repeat(32)
    );
    let import = caller
        .client
        .post(format!("{}/api/v1/keys/import", caller.url))
        .bearer_auth(&caller.token)
        .header("content-type", "text/csv")
        .body(import);
    let requests = [
        (
            "a description",
            caller.post(keys, &key(json!({ "description": way }))),
        ),
        (
            "an owner",
            caller.post(keys, &key(json!({ "user_id": way }))),
        ),
        (
            "an address",
            caller.post(keys, &key(json!({ "notify_emails": [way] }))),
        ),
        ("an unknown field", caller.post(keys, &json!({ way: 1 }))),
        ("a path", caller.get(&format!("{keys}/{way}"))),
        (
            "a query",
            caller.get(&format!("{keys}?user_id={way}&{way}=1")),
        ),
        (
            "a cursor",
            caller.get(&format!("{keys}?user_id=a&cursor={way}")),
        ),
        (
            "headers",
            caller
                .get("/healthz")
                .header("x-request-id", way)
                .header("user-agent", way),
        ),
        ("an import", import),
    ];
    for (what, request) in requests {
        let (status, _) = caller.send(what, request).await;
        assert!(!status.is_server_error(), "{what}: {status}");
    }
}

async fn read_pages(caller: &mut Caller) {
    for path in [
        "/api/v1/user-api-keys?user_id=canary",
        "/api/v1/incidents",
        "/api/v1/revocations",
        "/api/v1/revocations/export?format=csv",
        "/api/v1/revocations/export?format=jsonl",
        "/api/v1/sources",
    ] {
        let (status, body) = caller.send(path, caller.get(path)).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        if path.ends_with("incidents") {
            let incidents: Value = serde_json::from_str(&body).expect("JSON");
            for incident in incidents["items"].as_array().expect("items") {
                let path = format!("{path}/{}", incident["id"].as_str().expect("an id"));
                let (status, _) = caller.send(&path, caller.get(&path)).await;
                assert_eq!(status, StatusCode::OK);
            }
        }
    }
}
