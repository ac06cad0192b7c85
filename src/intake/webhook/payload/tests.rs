use serde_json::json;

use super::*;

fn kept(json: &str) -> Fields {
    fields(json.as_bytes()).unwrap()
}

#[test]
fn keeps_what_tells_of_pushes() {
    let body = json!({"ref": "r", "sender": {"ref": 1}, "repository": {"id": 7, "owner": {"x": [true, null]}},
        "push": {"changes": [{"commits": [{"hash": "x"}], "old": null, "f": 1.5, "n": -1}]}});
    let expected = json!({"ref": "r", "repository": {"id": 7, "owner": {"x": [true, null]}},
        "push": {"changes": [{"old": null, "f": 1.5, "n": -1}]}});
    let read = kept(&body.to_string());
    assert_eq!((Value::Object(read.kept), read.left_out), (expected, None));
}

#[test]
fn what_is_no_object_is_refused_in_words() {
    let cases: [(&[u8], &str); 6] = [
        (b"[]", "is no JSON object"),
        (b"null", "is no JSON object"),
        (b"7", "is no JSON object"),
        (b"{", "line 1, column 1"),
        (b"{}x", "line 1, column 3"),
        (b"{\n\"a\":tru}", "line 2"),
    ];
    for (body, expected) in cases {
        let error = fields(body).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_field_may_say_the_same_twice_and_otherwise_says_nothing() {
    for same in ["1", "-1", "0.5", "true", r#""x""#, r#"[1,{"b":[]}]"#, "{}"] {
        let value: Value = serde_json::from_str(same).unwrap();
        let read = kept(&format!(
            r#"{{"push":{{"a":{same},"b":1,"\u0061":{same}}}}}"#
        ));
        assert_eq!((&read.kept["push"]["a"], read.left_out), (&value, None));
        let read = kept(&format!(r#"{{"push":{{"a":{same},"b":1,"a":"other"}}}}"#));
        let push = json!({"a": null, "b": 1});
        assert_eq!(
            (&read.kept["push"], read.left_out),
            (&push, Some(AMBIGUOUS))
        );
    }
    let read = kept(r#"{"x":1,"x":2,"ref":"r"}"#);
    assert_eq!((&read.kept["ref"], read.left_out), (&json!("r"), None));
}

#[test]
fn of_too_much_the_beginning_is_kept() {
    let many = "0,".repeat(MAX_KEPT / VALUE);
    let read = kept(&format!(
        r#"{{"repository":{{"topics":[{many}0],"id":7}},"ref":"r"}}"#
    ));
    assert_eq!(
        read.kept["repository"]["topics"].as_array().unwrap().len(),
        MAX_LIST
    );
    assert_eq!(
        (&read.kept["repository"]["id"], &read.kept["ref"]),
        (&json!(7), &json!("r"))
    );
    assert_eq!(read.left_out, None);
    let names: Vec<_> = (0..MAX_KEPT / FIELD)
        .map(|n| format!(r#""{n}":0"#))
        .collect();
    let read = kept(&format!(
        r#"{{"ref":"r","push":{{{}}},"after":"a"}}"#,
        names.join(",")
    ));
    let most = MAX_KEPT / (FIELD + 4);
    assert!((1..most).contains(&read.kept["push"].as_object().unwrap().len()));
    assert_eq!((read.kept.len(), read.left_out), (2, Some(TOO_MUCH)));
}

/// An object of seven bytes takes a hundred times as much.
#[test]
fn what_is_kept_has_a_size_however_short_its_text_is() {
    let list = format!("[{}0]", r#"{"":0},"#.repeat(MAX_LIST));
    let body = format!(
        r#"{{"changes":[{}0],"ref":"r"}}"#,
        format!("{list},").repeat(49)
    );
    let read = kept(&body);
    assert_eq!(read.left_out, Some(TOO_MUCH));
    let changes = read.kept["changes"].as_array().unwrap();
    let objects = changes.iter().filter_map(Value::as_array).flatten();
    let objects =
        objects.filter(|value| value.as_object().is_some_and(|object| !object.is_empty()));
    assert!(objects.count() <= MAX_KEPT / (OBJECT + FIELD));
    for (length, is_kept) in [(MAX_TEXT, true), (MAX_TEXT + 1, false)] {
        let read = kept(&format!(r#"{{"ref":"{}"}}"#, "x".repeat(length)));
        assert_eq!(
            (read.kept["ref"].is_string(), read.left_out.is_none()),
            (is_kept, is_kept)
        );
    }
}

/// A server of Bitbucket tells of each with two objects.
#[test]
fn a_push_of_a_thousand_references_is_kept_whole() {
    let hash = "0123456789".repeat(4);
    let change = json!({"ref": {"id": "refs/heads/feature/number", "displayId": "feature/number", "type": "BRANCH"},
        "refId": "refs/heads/feature/number", "fromHash": hash, "toHash": hash, "type": "UPDATE"});
    let body = json!({"changes": vec![change.clone(); 1000], "repository": {"id": 7}});
    let read = kept(&body.to_string());
    assert_eq!(read.left_out, None);
    assert_eq!(read.kept["changes"].as_array().unwrap()[999], change);
}

#[test]
fn texts_are_left_of_whatever_is_no_payload() {
    let form = HeaderMap::from_iter([(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    )]);
    for (headers, body, expected) in [
        (&HeaderMap::new(), r#"{"a":"x\n\u0061"#, "{\"a\":\"x\na"),
        (&HeaderMap::new(), "{\0\"\0a\0", "{\0\"\0a\0"),
        (&form, "other=%7B%0Ax", "other={\nx"),
        (&form, "payload=%7B%0Ax%zz", "{\nx%zz"),
    ] {
        let (texts, read) = read(headers, body.as_bytes().to_vec());
        assert!(read.is_err(), "{body}");
        let Texts::Plain(text) = texts else {
            panic!("{body} is no JSON");
        };
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}

#[test]
fn forms_are_decoded() {
    for (form, expected) in [
        (
            "payload=%7B%22a%22%3A+%22%C3%A4%22%7d",
            Some("{\"a\": \"ä\"}"),
        ),
        ("x=1&payload={}&y=2", Some("{}")),
        ("payload=", Some("")),
        ("payloads={}", None),
        ("payload=%7", Some("%7")),
        ("payload=%", Some("%")),
        ("payload=%zz%7b", Some("%zz{")),
        ("", None),
    ] {
        let decoded = form_payload(form.as_bytes());
        assert_eq!(decoded.as_deref(), expected.map(str::as_bytes), "{form}");
    }
}
