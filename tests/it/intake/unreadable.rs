//! Reports that are no array of rows, and tokens that are a key and something else.

use rescind::keyformat::{FormatSet, Sha256Digest};
use serde_json::{Value, json};

use super::signer::{Origin, Signer};
use crate::api::harness::{Reply, Setup, TestServer};
use crate::support::databases::on_both_databases;

const URL: &str = "https://github.com/octocat/hello/issues/7";
const REVOKE: &str = "/api/v1/integrations/credential-scanning/revoke";
const TOKEN: &str = "agreed";

struct World {
    server: TestServer,
    signer: Signer,
    _origin: Origin,
}

impl World {
    async fn start() -> Self {
        let signer = Signer::new("k1");
        let origin = Origin::start(&[signer.listed()]).await;
        let setup = Setup {
            revocation_tokens: vec![TOKEN],
            ..origin.setup()
        };
        Self {
            server: TestServer::start_with(setup).await,
            signer,
            _origin: origin,
        }
    }

    async fn create(&self) -> (String, Value) {
        let key = self.server.admin().await.create(json!({})).await;
        (key["value"].as_str().unwrap().to_owned(), key["id"].clone())
    }

    /// Returns the entry of the revocation log about a key.
    async fn entry(&self, id: &Value) -> Option<Value> {
        let log = self.server.admin().await.get("/api/v1/revocations").await;
        let log = log.json();
        let mut entries = log["items"].as_array().unwrap().iter();
        entries.find(|entry| entry["key_id"] == *id).cloned()
    }

    async fn gitlab(&self, body: Vec<u8>) -> Reply {
        let request = self.server.http.post(self.server.url("/v1/revoke_tokens"));
        Reply::of(request.header("authorization", TOKEN).body(body)).await
    }
}

fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(unit).collect()
}

/// Bodies in which one row, with the token `K`, can be read, and how many rows there are.
fn with_a_row() -> Vec<(Vec<u8>, usize)> {
    let row = format!(r#"{{"token":"K","type":"t","url":"{URL}"}}"#);
    let other = r#"{"token":"foreign","type":"o"}"#;
    let array = format!("[{row}]");
    vec![
        (format!("[{row},]").into(), 1),
        (format!("[{row},{other}").into(), 2),
        (format!("[{row},{{\"token\":\"fore").into(), 1),
        (format!("[{row}][{other}]").into(), 2),
        (row.clone().into(), 1),
        (format!("{row}\n{other}\n").into(), 2),
        (format!("{{\"secrets\":[{row}]}}").into(), 1),
        (format!("\0[\0{row}\0]\0\0").into(), 1),
        (utf16(&array, u16::to_le_bytes), 1),
        (utf16(&array, u16::to_be_bytes), 1),
        (utf16(&format!("\u{feff}{array}"), u16::to_le_bytes), 1),
        (utf16(&format!("\u{feff}{row}\n"), u16::to_be_bytes), 1),
    ]
}

fn with_key(body: &[u8], key: &str) -> Vec<u8> {
    let is_wide = body.split(|byte| *byte == 0).count() > body.len() / 3;
    if !is_wide {
        let body = String::from_utf8(body.to_vec()).unwrap();
        return body.replace("\"K\"", &format!("\"{key}\"")).into_bytes();
    }
    let at = body.iter().position(|byte| *byte == b'K').unwrap();
    let is_little = body[at + 1] == 0 && at % 2 == 0;
    let unit = if is_little {
        u16::to_le_bytes
    } else {
        u16::to_be_bytes
    };
    let start = if is_little { at } else { at - 1 };
    [&body[..start], &utf16(key, unit), &body[start + 2..]].concat()
}

#[tokio::test]
async fn rows_that_can_be_read_are_answered_whatever_is_wrong_with_the_rest() {
    let world = World::start().await;
    for (body, rows) in with_a_row() {
        let (key, id) = world.create().await;
        let body = with_key(&body, &key);
        let shown = String::from_utf8_lossy(&body).into_owned();
        let reply = world.signer.send(&world.server, body).await;
        assert_eq!(reply.status, 200, "{shown}: {}", reply.text);
        let answer = reply.json();
        assert_eq!(answer.as_array().unwrap().len(), rows, "{shown}");
        let hash = Sha256Digest::of(key.as_bytes()).to_hex();
        let expected = json!({"token_hash": hash, "token_type": "t", "label": "true_positive"});
        assert_eq!(answer[0], expected, "{shown}");
        let entry = world.entry(&id).await.unwrap_or_else(|| panic!("{shown}"));
        assert_eq!(entry["actor"], "partner:github", "{shown}");
        assert_eq!(entry["occurrence"]["url"], URL, "{shown}");
    }
    world.server.stop().await;
}

#[tokio::test]
async fn what_is_no_row_is_searched_for_keys_of_ours() {
    let world = World::start().await;
    let url = format!("\"url\":\"{URL}\"");
    for (body, linked) in [
        (format!("[{{\"token\":\"K\",{url}"), true),
        (format!("[{{{url},\"token\":\"K"), true),
        (format!("[{{\"token\":\"K\" {url}}}]"), true),
        ("K".to_owned(), false),
        ("[\"K\",]".to_owned(), false),
        ("{\"note\":\"\\nK\"}".to_owned(), false),
        ("token=K&type=t".to_owned(), false),
        // `\r` is no carriage return here.
        ("found in C:\\K".to_owned(), false),
    ] {
        for is_gitlab in [false, true] {
            let (key, id) = world.create().await;
            let body = body.replace('K', &key).into_bytes();
            let shown = String::from_utf8_lossy(&body).into_owned();
            let (reply, actor) = if is_gitlab {
                (world.gitlab(body).await, "partner:gitlab")
            } else {
                (
                    world.signer.send(&world.server, body).await,
                    "partner:github",
                )
            };
            let error = reply.error(400, "SCHEMA_ERROR");
            let told = error["error"].as_str().unwrap();
            assert!(told.contains("no row of it could be read"), "{told}");
            assert!(told.contains("1 were revoked"), "{told}");
            assert!(!reply.text.contains(&key));
            let entry = world.entry(&id).await.unwrap_or_else(|| panic!("{shown}"));
            assert_eq!(entry["actor"], actor, "{shown}");
            let expected = if linked { json!(URL) } else { Value::Null };
            assert_eq!(entry["occurrence"]["url"], expected, "{shown}");
        }
    }
    world.server.stop().await;
}

/// Rows beside it are answered, and a malformed row of an array as before.
#[tokio::test]
async fn keys_beside_rows_and_in_malformed_ones_are_revoked() {
    let world = World::start().await;
    for body in [
        "[{\"token\":\"x\"},{\"token\":\"K",
        "[{\"token\":\"x\"}] K",
        "[{\"token\":\"x\"},\"K\"]",
        "[{\"token\":\"x\"},[{\"token\":\"K\"}]]",
        "[{\"token\":\"x\"},{\"token\":[\"K\"]}]",
        "[{\"token\":\"x\"},{\"type\":\"t\",\"token\":{\"value\":\"K\"}}]",
        "[{\"token\":\"x\"},{\"token\":\"key=K\"}]",
        // A token that is no key does not hide what stands beside it.
        "[{\"token\":\"x\",\"more\":[{\"token\":\"K\"}]}]",
        "[{\"token\":\" x\\n\",\"token_raw\":\"K\"}]",
        "[{\"token\":\"x\",\"url\":\"https://e.example/?k=K\"}]",
        "[{\"token\":\"x\",\"K\":1}]",
        "{\"token\":\"x\",\"rows\":[{\"token\":\"K\"}]}",
        "[{\"token\":\"\\u0000\",\"x\":\"\\ud800K\\udc00\"}]",
        // Nor does a second one.
        "[{\"token\":\"K\",\"token\":\"x\"}]",
        "[{\"token\":\"K\",\"token\":\" \"}]",
        "[{\"token\":\"K\",\"token\":\"\\u0000\"}]",
        "[{\"token\":\"K\",\"tok\\u0065n\":\"x\"}]",
        "[{\"token\":\"x\",\"token\":[\"K\"]}]",
        "{\"token\":\"K\",\"token\":\"x\"}",
    ] {
        let (key, id) = world.create().await;
        let reply = world
            .signer
            .send(&world.server, body.replace('K', &key))
            .await;
        assert_eq!(reply.status, 200, "{body}: {}", reply.text);
        let labels = reply.json();
        let mut labels = labels.as_array().unwrap().iter();
        assert!(labels.all(|row| row["label"] == "false_positive"), "{body}");
        assert!(world.entry(&id).await.is_some(), "{body}");
    }
    world.server.stop().await;
}

/// Keys of an unknown format are found by their digests only.
#[tokio::test]
async fn every_token_of_a_row_is_looked_up() {
    let world = World::start().await;
    let admin = world.server.admin().await;
    let mut entries = 0;
    for (body, label) in [
        (
            r#"[{"token":"foreign-1","token":"OURS","token":"x"}]"#,
            "false_positive",
        ),
        (
            r#"[{"token":"\u0066oreign-3","token":"OURS"}]"#,
            "true_positive",
        ),
        (
            r#"[{"token":" foreign-5\n","token":7,"token":"OURS"}]"#,
            "true_positive",
        ),
    ] {
        let (key, id) = world.create().await;
        let foreign = format!("foreign-{}", entries + 1);
        let digest = Sha256Digest::of(foreign.as_bytes()).to_hex();
        let csv = format!("sha256,owner_type,owner_id\n{digest},user,u");
        let import = admin.request("POST", "/api/v1/keys/import");
        let import = import.header("content-type", "text/csv").body(csv);
        assert_eq!(Reply::of(import).await.json()["imported"], 1);
        let reply = world
            .signer
            .send(&world.server, body.replace("OURS", &key))
            .await;
        assert_eq!(reply.status, 200, "{body}: {}", reply.text);
        assert_eq!(reply.json()[0]["label"], label, "{body}");
        assert!(world.entry(&id).await.is_some(), "{body}");
        entries += 2;
        let logged = world.server.store.log_head().await.unwrap().seq;
        assert_eq!(logged, entries, "{body}");
    }
    world.server.stop().await;
}

/// Else one row with some 5,500 tokens of two letters is enough for keys in others to be left out.
#[tokio::test]
async fn many_tokens_of_a_row_take_no_room_from_keys_in_others() {
    let world = World::start().await;
    let letters: Vec<char> = ('a'..='z').chain('A'..='Z').chain('0'..='9').collect();
    let pairs = letters.iter().flat_map(|first| {
        let pair = move |second| format!(r#""token":"{first}{second}""#);
        letters.iter().map(pair)
    });
    let tokens: Vec<String> = pairs.cycle().take(12_000).collect();
    for behind in [
        r#"},{"x":"OURS"}]"#,
        r#"},{"token":"key=OURS"}]"#,
        r#","x":"OURS"}]"#,
    ] {
        let (key, id) = world.create().await;
        let body = format!("[{{{}{}", tokens.join(","), behind.replace("OURS", &key));
        let reply = world.signer.send(&world.server, body).await;
        assert_eq!(reply.status, 200, "{behind}: {}", reply.text);
        assert!(world.entry(&id).await.is_some(), "{behind}");
    }
    world.server.stop().await;
}

/// It is valid UTF-8, too: each second byte is a NUL.
#[tokio::test]
async fn keys_in_utf16_amid_utf8_are_revoked() {
    let world = World::start().await;
    for (before, behind) in [
        ("[{\"token\":\"", "\"}]"),
        ("[{\"x\":\"", "\"}]"),
        ("{\"x\":\"", ""),
        ("{\"x\":\"a\",", ""),
        ("{\"token\":\"x\"}\n", "\n"),
    ] {
        for unit in [u16::to_le_bytes, u16::to_be_bytes] {
            let (key, id) = world.create().await;
            let body = [before.as_bytes(), &utf16(&key, unit), behind.as_bytes()].concat();
            let reply = world.signer.send(&world.server, body).await;
            assert!([200, 400].contains(&reply.status), "{}", reply.text);
            assert!(world.entry(&id).await.is_some(), "{before}");
        }
    }
    world.server.stop().await;
}

/// Else whoever can write where a partner looks would hide a leaked key behind others that nobody holds.
#[tokio::test]
async fn keys_that_nobody_holds_take_no_room_from_ours() {
    let world = World::start().await;
    let formats = FormatSet::builtin();
    let format = formats.get("rescind_secret").unwrap();
    let nobodys = (0..1_200).map(|_| format.mint().unwrap().expose().to_owned());
    let nobodys: Vec<String> = nobodys.collect();
    let row = |token: &String| json!({"token": format!("API_KEY={token}"), "url": URL});
    let one_by_one = |keys: &[String]| keys.iter().map(row).collect::<Value>();
    let in_one_list = |keys: &[String]| json!([{"tokens": keys, "url": URL}]);
    let in_one_text = |keys: &[String]| json!([{"token": keys.join(" "), "url": URL}]);
    for shape in 0..3 {
        let mut keys = nobodys.clone();
        let mut ours = Vec::new();
        for _ in 0..3 {
            let (key, id) = world.create().await;
            keys.push(key);
            ours.push(id);
        }
        // Named again, it is found once.
        keys.push(keys[1_200].clone());
        let sent = match shape {
            0 => one_by_one(&keys),
            1 => in_one_list(&keys),
            _ => in_one_text(&keys),
        };
        let reply = world.signer.send(&world.server, sent.to_string()).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        for id in ours {
            let entry = world.entry(&id).await.expect("it is revoked");
            assert_eq!(entry["actor"], "partner:github");
            assert_eq!(entry["occurrence"]["url"], URL);
        }
    }
    world.server.stop().await;
}

on_both_databases! {
    /// Each is a true positive with the hash of the token as sent.
    async fn a_token_is_the_key_that_it_holds_and_nothing_else(database) {
        let signer = Signer::new("k1");
        let origin = Origin::start(&[signer.listed()]).await;
        let server = TestServer::on(database, origin.setup()).await;
        let admin = server.admin().await;
        for (sent, told) in [
            (r" K\n", " K\n"),
            (r#"\"K\""#, "\"K\""),
            (r"K\u0000", "K\0"),
            (r"K\ud83d", "K\u{fffd}"),
            (r"\ufeffK", "\u{feff}K"),
            (r"(K),", "(K),"),
        ] {
            let key = admin.create(json!({})).await;
            let value = key["value"].as_str().unwrap();
            let body = format!(r#"[{{"token":"{}"}}]"#, sent.replace('K', value));
            let reply = signer.send(&server, body).await;
            let hash = Sha256Digest::of(told.replace('K', value).as_bytes()).to_hex();
            assert_eq!(reply.json(), json!([{"token_hash": hash, "token_type": "unknown", "label": "true_positive"}]), "{sent}");
            let path = format!("/api/v1/user-api-keys/{}", key["id"].as_str().unwrap());
            assert!(admin.get(&path).await.json()["manually_revoked_at_millis"].is_u64(), "{sent}");
        }
        // What merely holds one is none.
        let key = admin.create(json!({})).await;
        let body = json!([{"token": format!("a {}", key["value"].as_str().unwrap())}]);
        let reply = signer.send(&server, body.to_string()).await;
        assert_eq!(reply.json()[0]["label"], "false_positive");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_self_report_may_have_a_line_break_behind_the_key() {
    let world = World::start().await;
    let stranger = world.server.anonymous();
    for sent in ["K\n", " \"K\"", "K\u{fffd}"] {
        let (key, id) = world.create().await;
        let body = json!({"api_key": sent.replace('K', &key)});
        let reply = stranger.post(REVOKE, body).await;
        assert_eq!(
            (reply.status, reply.json()),
            (200, json!({"success": true})),
            "{sent}"
        );
        assert!(world.entry(&id).await.is_some(), "{sent}");
    }
    let (key, id) = world.create().await;
    let reply = stranger
        .post(REVOKE, json!({"api_key": format!("my key {key}")}))
        .await;
    reply.error(404, "API_KEY_NOT_FOUND");
    assert!(world.entry(&id).await.is_none());
    world.server.stop().await;
}
