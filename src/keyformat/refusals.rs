//! Tests of the loader's refusals, a table of faults with the message and position of each.

use super::FormatSet;

pub(super) const SOUND: &str = r#"[[format]]
id = "acme"
visibility = "secret"
prefix = "acme_sk_"
body = { alphabet = "base62", length = 30 }
checksum = { algorithm = "crc32", encoding = "base62", length = 6, over = "body" }
on_leak = "revoke"
"#;

pub(super) const SOUND_REGEX: &str = r#"[[format]]
id = "other"
visibility = "secret"
anchor = "anchor7"
regex = 'k_[0-9a-z]{20}anchor7[0-9a-f]{8}'
checksum = { algorithm = "crc32", encoding = "hex", length = 8, over = "preceding" }
"#;

/// Returns the messages about one file, a line per problem.
fn said(text: &str) -> String {
    FormatSet::parse(&[("f.toml", text)])
        .expect_err("it is to be refused")
        .to_string()
}

/// Replaces `from` with `to` in a sound file and compares the start of the resulting messages.
fn assert_said(sound: &str, from: &str, to: &str, expected: &str) {
    assert!(sound.contains(from), "{from} is not in the file");
    let said = said(&sound.replacen(from, to, 1));
    // A list of names is whole.
    let is_said = said
        .strip_prefix(expected)
        .is_some_and(|rest| !rest.starts_with(", `"));
    assert!(
        is_said,
        "{to:.80}\n  said:     {said}\n  expected: {expected}"
    );
    for line in said.lines() {
        assert!(line.contains("; "), "there is no remedy in: {line}");
    }
}

#[test]
fn literals() {
    for (from, to, expected) in [
        (
            "acme_sk_",
            "ac",
            "f.toml:4: acme: `prefix` is \"ac\", a literal under 3 characters; ",
        ),
        (
            "acme_sk_",
            "",
            "f.toml:4: acme: `prefix` is \"\", a literal under 3 characters; ",
        ),
        (
            "acme_sk_",
            "acmé",
            "f.toml:4: acme: `prefix` is \"acmé\", which is not all printable",
        ),
        (
            "acme_sk_",
            "ac me",
            "f.toml:4: acme: `prefix` is \"ac me\", which is not all printable",
        ),
    ] {
        assert_said(SOUND, from, to, expected);
    }
    assert_said(
        SOUND_REGEX,
        "\"anchor7\"",
        "\"a7\"",
        "f.toml:4: other: `anchor` is \"a7\", a literal under 3 characters; ",
    );
    let long = "a".repeat(65);
    assert_said(
        SOUND,
        "acme_sk_",
        &long,
        "f.toml:4: acme: `prefix` is 65 characters long; ",
    );
}

#[test]
fn regexes() {
    for (from, to, expected) in [
        (
            "{20}",
            "+",
            "`regex` is unbounded: it matches strings of any length; ",
        ),
        ("{20}", "{20,}", "`regex` is unbounded"),
        (
            "{20}",
            "{2000}",
            "`regex` matches strings of up to 2017 characters; ",
        ),
        (
            "{20}",
            "{1000000000}",
            "`regex` matches strings of up to 1000000017 characters; ",
        ),
        (
            "[0-9a-z]{20}anchor7",
            "[0-9]{20}anchr7",
            "`regex` matches no string that contains the anchor `anchor7`; ",
        ),
        (
            "anchor7[",
            "anchr7[",
            "`regex` also matches strings without the anchor `anchor7`",
        ),
        (
            "anchor7[",
            "(?:anchor7|lost)[",
            "`regex` also matches strings without the anchor `anchor7`",
        ),
        ("'k_", "'^k_", "`regex` contains an assertion"),
        ("'k_", r"'\bk_", "`regex` contains an assertion"),
        (
            "'k_",
            "'(k_",
            "`regex` is not a regular expression: unclosed group (at its character 1); ",
        ),
        (
            "[0-9a-z]",
            r"\p{Greek}",
            "`regex` is not a regular expression: Unicode not allowed here",
        ),
        ("'k_", "'[a&&b]k_", "`regex` matches no string at all; "),
        (
            "[0-9a-z]",
            ".",
            "`regex` lets a key contain the control character 0x00; ",
        ),
        (
            "[0-9a-z]",
            r"[\n-z]",
            "`regex` lets a key contain a line break; ",
        ),
        (
            "[0-9a-z]",
            r"[a-z ]",
            "`regex` lets a key contain a space; ",
        ),
        (
            "[0-9a-z]",
            "ä",
            "`regex` lets a key contain characters outside ASCII; ",
        ),
        (
            "k_[0-9a-z]{20}",
            "(?:[ab]{0,400}a[ab]{400})",
            "`regex` is too complex to be compiled; ",
        ),
        (
            "k_",
            "((((((((((((((((((((((((((((((((((k_))))))))))))))))))))))))))))))))))",
            "`regex` is not a regular expression: exceed the maximum number",
        ),
        (
            "[0-9a-f]{8}",
            "[0-9a-f]{6}",
            "`regex` leaves no room for the checksum; end it in [0-9a-f]{8}",
        ),
        (
            "[0-9a-f]{8}",
            "[0-9A-F]{8}g",
            "`regex` leaves no room for the checksum; ",
        ),
    ] {
        assert_said(
            SOUND_REGEX,
            from,
            to,
            &format!("f.toml:5: other: {expected}"),
        );
    }
    let long = format!("'{}k_", "(?:)".repeat(1100));
    assert_said(
        SOUND_REGEX,
        "'k_",
        &long,
        "f.toml:5: other: `regex` is 4432 characters long; ",
    );
}

#[test]
fn entropy_and_length() {
    for (from, to, expected) in [
        (
            "length = 30",
            "length = 21",
            "21 characters of base62 have 125 bits of entropy, under 128; set body.length to 22 or more",
        ),
        (
            "\"base62\", length = 30",
            "\"hex\", length = 31",
            "31 characters of hex have 124 bits of entropy, under 128; set body.length to 32",
        ),
        (
            "length = 30",
            "length = 1011",
            "a key would be 1025 characters long; ",
        ),
        (
            "length = 30",
            "length = 0",
            "`body.length` is 0; write a whole number from 1 on",
        ),
        ("length = 30", "length = -30", "`body.length` is -30; "),
        (
            "length = 30",
            "length = 99999999999999999999999",
            "`body.length` is 99999999999999999999999; ",
        ),
        (
            "length = 30",
            "length = 30.5",
            "`body.length` is of the type float; ",
        ),
        (
            "\"base62\", l",
            "\"base63\", l",
            "`body.alphabet` is \"base63\"; this version knows `base62`, `base58`, `base32_crockford`, `hex`, `base64url`",
        ),
    ] {
        assert_said(SOUND, from, to, &format!("f.toml:5: acme: {expected}"));
    }
}

#[test]
fn checksums() {
    for (from, to, expected) in [
        (
            "length = 6",
            "length = 7",
            "`checksum.length` is 7; CRC-32 in this encoding takes exactly 6 characters",
        ),
        (
            "\"base62\", length = 6",
            "\"hex\", length = 6",
            "`checksum.length` is 6; CRC-32 in this encoding takes exactly 8 characters",
        ),
        (
            "crc32",
            "crc16",
            "`checksum.algorithm` is \"crc16\"; this version knows `crc32`",
        ),
        (
            "\"base62\", length = 6",
            "\"base58\", length = 6",
            "`checksum.encoding` is \"base58\"; this version knows `base62`, `hex`",
        ),
        (
            "over = \"body\"",
            "over = \"all\"",
            "`checksum.over` is \"all\"; this version knows `body`, `preceding`",
        ),
        (
            ", over = \"body\"",
            "",
            "`checksum.over` is missing; add for example over = \"body\"",
        ),
        (
            "length = 6, ",
            "length = 6, salt = 1, ",
            "unknown key `checksum.salt`; the keys known here are `algorithm`, `encoding`, `length`, `over`",
        ),
        (
            "{ algorithm = \"crc32\", encoding = \"base62\", length = 6, over = \"body\" }",
            "6",
            "`checksum` is 6; write a table",
        ),
    ] {
        assert_said(SOUND, from, to, &format!("f.toml:6: acme: {expected}"));
    }
    assert_said(
        SOUND_REGEX,
        "preceding",
        "body",
        "f.toml:6: other: `checksum.over` is \"body\", but a format with `regex` has no body; ",
    );
}

#[test]
fn keys_that_are_missing_unknown_or_wrong() {
    for (from, to, expected) in [
        ("id = \"acme\"\n", "", "f.toml:1: `id` is missing; "),
        (
            "\"acme\"",
            "\"Acme Key\"",
            "f.toml:2: `id` is \"Acme Key\"; use 1 to 64 characters of a-z",
        ),
        (
            "\"acme\"",
            "7",
            "f.toml:2: `id` is 7; write a string in quotes",
        ),
        (
            "visibility = \"secret\"\n",
            "",
            "f.toml:1: acme: `visibility` is missing; ",
        ),
        (
            "\"secret\"",
            "\"hidden\"",
            "f.toml:3: acme: `visibility` is \"hidden\"; this version knows `secret`, `public`",
        ),
        (
            "visibility",
            "visiblity",
            "f.toml:1: acme: `visibility` is missing; add for example visibility = \"secret\"\nf.toml:3: acme: unknown key `visiblity`; the keys known here are `id`, `description`, `visibility`, `prefix`, `body`, `anchor`, `regex`, `checksum`, `on_leak`, `retired`",
        ),
        (
            "prefix = \"acme_sk_\"\n",
            "",
            "f.toml:1: acme: `prefix` is missing; ",
        ),
        (
            "body = { alphabet = \"base62\", length = 30 }\n",
            "",
            "f.toml:1: acme: `body` is missing; ",
        ),
        (
            "on_leak",
            "regex = 'x'\non_leak",
            "f.toml:1: acme: the format is described in two ways at once; give either",
        ),
        (
            "\"revoke\"",
            "\"grace:24h\"",
            "f.toml:7: acme: `on_leak` is \"grace:24h\"; this version knows `revoke`",
        ),
        (
            "\"secret\"",
            "\"public\"",
            "f.toml:7: acme: `on_leak` is given for a public format",
        ),
        (
            "on_leak",
            "description = \"a\\nb\"\non_leak",
            "f.toml:7: acme: `description` is too long or has control characters; ",
        ),
        (
            "[[format]]",
            "[format]",
            "f.toml:1: `format` is not a list of tables; start every format with a line [[format]]",
        ),
        (
            "[[format]]",
            "[[formats]]",
            "f.toml:1: unknown key `formats`; the keys known here are `format`",
        ),
        (
            SOUND,
            "format = [1]",
            "f.toml:1: `format` is not a list of tables; ",
        ),
        (SOUND, "", "f.toml: there is no format in it; "),
        (
            SOUND,
            "[[format]]\nid = \"bare\"\nvisibility = \"public\"",
            "f.toml:1: bare: the format does not say what its keys look like; ",
        ),
        (
            "prefix = \"acme_sk_\"",
            "prefix = \"acme_sk_",
            "f.toml:4: not TOML: ",
        ),
        (
            "\"secret\"",
            "\"secret\"\nvisibility = \"secret\"",
            "f.toml:4: not TOML: duplicate key; ",
        ),
        (SOUND, "# \u{e4}\n\n= 1\n[x", "f.toml:3: not TOML: "),
    ] {
        assert_said(SOUND, from, to, expected);
    }
}
