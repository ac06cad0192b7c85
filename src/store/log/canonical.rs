//! Canonical JSON (RFC 8785), the form in which entries are hashed.

use std::fmt::Write as _;

use serde_json::Value;

/// Returns `value` in the canonical form of RFC 8785: no white space, members sorted by the UTF-16 code units of their
/// names, shortest escapes. The numbers in a log entry are integers; others are written as `serde_json` writes them,
/// which differs from the RFC for very large and very small ones.
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_value(value, &mut text);
    text
}

fn write_value(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            text.push('{');
            for (at, (name, value)) in members.into_iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                write_string(name, text);
                text.push(':');
                write_value(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                write_value(item, text);
            }
            text.push(']');
        }
        Value::String(string) => write_string(string, text),
        other => {
            // Writing into a String cannot fail.
            let _ = write!(text, "{other}");
        }
    }
}

/// Writes a string as defined in RFC 8785, section 3.2.2.2: two-character escapes where JSON has them, `\u00xx` in
/// lower case for the other control characters, and everything else unchanged.
fn write_string(string: &str, text: &mut String) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{8}' => text.push_str("\\b"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\u{c}' => text.push_str("\\f"),
            '\r' => text.push_str("\\r"),
            c if c < ' ' => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn canonical_json_is_that_of_rfc_8785() {
        // Section 3.2.3: members are sorted by UTF-16 code units, not by characters.
        let sorted = json!({
            "\u{20ac}": "Euro Sign",
            "\r": "Carriage Return",
            "\u{fb33}": "Hebrew Letter Dalet With Dagesh",
            "1": "One",
            "\u{1f600}": "Emoji: Grinning Face",
            "\u{80}": "Control",
            "\u{f6}": "Latin Small Letter O With Diaeresis"
        });
        assert_eq!(
            canonical_json(&sorted),
            "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\
             \"\u{f6}\":\"Latin Small Letter O With Diaeresis\",\"\u{20ac}\":\"Euro Sign\",\
             \"\u{1f600}\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}"
        );
        // Section 3.2.2, without its floating-point numbers.
        let sample: Value = serde_json::from_str(
            r#"{"string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"#,
        )
        .unwrap();
        assert_eq!(
            canonical_json(&sample),
            r#"{"literals":[null,true,false],"string":"€$\u000f\nA'B\"\\\\\"/"}"#
        );
        let nested =
            json!({"b": {}, "a": [], "c": [{"y": 1, "x": -2}], "": 9_007_199_254_740_991_u64});
        assert_eq!(
            canonical_json(&nested),
            r#"{"":9007199254740991,"a":[],"b":{},"c":[{"x":-2,"y":1}]}"#
        );
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let text = prop::collection::vec(
            prop_oneof![
                any::<char>(),
                prop::char::range('\0', '\u{ff}'),
                prop::char::range('\u{e000}', '\u{10ffff}'),
                Just('"'),
                Just('\\'),
            ],
            0..8,
        )
        .prop_map(String::from_iter);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-(1_i64 << 53)..1 << 53).prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((text.clone(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn canonical_json_is_what_another_implementation_writes(value in any_value()) {
            let canonical = canonical_json(&value);
            prop_assert_eq!(&canonical, &serde_json_canonicalizer::to_string(&value).unwrap());
            prop_assert_eq!(serde_json::from_str::<Value>(&canonical).unwrap(), value);
        }
    }
}
