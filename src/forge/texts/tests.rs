use std::fmt::Write as _;

use serde_json::json;

use super::*;
use crate::keyformat::FormatSet;
use crate::scan::Encodings;

fn found(json: &[u8]) -> Result<Vec<(String, Option<String>)>, serde_json::Error> {
    let engine = Engine::new(&FormatSet::builtin(), Encodings::ALL);
    let mut found = Vec::new();
    scan_texts(&engine, json, |candidate, link| {
        let value = candidate.value.expose().to_owned();
        found.push((value, link.map(|link| link.text.clone())));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

fn key() -> String {
    let formats = FormatSet::builtin();
    let key = formats.get("rescind_secret").unwrap().mint().unwrap();
    key.expose().to_owned()
}

#[test]
fn finds_a_key_wherever_it_stands_and_its_nearest_link() {
    let key = key();
    let here = "https://forge.example/issues/7";
    let body = format!("look: {key}.");
    for (message, link) in [
        (json!(key), None),
        (json!({ &key: 1 }), None),
        (json!([[1, null, { "a": [true, body] }]]), None),
        (
            json!({"html_url": here, "issue": {"body": body}}),
            Some(here),
        ),
        (
            json!({"url": here, "object_attributes": {"url": 5, "note": body}}),
            Some(here),
        ),
        (
            json!({"html_url": "x", "links": {"html": {"href": here}}, "body": body}),
            None,
        ),
        (
            json!({"links": {"html": {"href": here}}, "body": body}),
            Some(here),
        ),
    ] {
        let expected = vec![(key.clone(), link.map(str::to_owned))];
        assert_eq!(
            found(message.to_string().as_bytes()).unwrap(),
            expected,
            "{message}"
        );
    }
}

#[test]
fn links_are_bounded_and_so_are_candidates_without_one() {
    let key = key();
    let long = format!("https://forge.example/{}", "x".repeat(20_000));
    let many = vec![key.clone(); 10_000];
    let message = json!({"texts": many, "url": long}).to_string();
    let found = found(message.as_bytes()).unwrap();
    assert_eq!(found.len(), 10_000);
    assert_eq!(found.last().unwrap().1.as_ref().unwrap().len(), MAX_LINK);
    assert_eq!(found[0].1, None);
}

#[test]
fn ends_where_it_is_broken_off() {
    let keys: Vec<_> = (0..9_000).map(|_| key()).collect();
    let parts: Vec<_> = keys.chunks(700).map(|keys| keys.join(" ")).collect();
    let engine = Engine::new(&FormatSet::builtin(), Encodings::ALL);
    let json = json!(parts).to_string();
    for texts in [json.as_bytes(), keys.join("\n").as_bytes()] {
        for wanted in [1, 2_500, 5_000] {
            let mut all = Vec::new();
            let found = |candidate: Candidate, _: Option<&Arc<Link>>| {
                all.push(candidate.value.expose().to_owned());
                if all.len() < wanted {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            };
            if texts.starts_with(b"[") {
                scan_texts(&engine, texts, found).unwrap();
            } else {
                scan_plain(&engine, texts, found);
            }
            assert_eq!(all, keys[..wanted]);
        }
    }
}

#[test]
fn finds_a_key_behind_escapes() {
    let key = key();
    let mut escaped = String::new();
    for c in key.chars() {
        let _ = write!(escaped, "\\u{:04x}", u32::from(c));
    }
    let json = format!("{{\"body\":\"{escaped}\"}}");
    assert_eq!(found(json.as_bytes()).unwrap().len(), 1);
}

#[test]
fn what_is_no_json_is_an_error_and_deep_nesting_no_overflow() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for json in ["", "{", "[1,]", "\"\\ud800\"", "{} {}", &deep] {
        assert!(found(json.as_bytes()).is_err(), "{json:.20}");
    }
}
