//! Published, revoked tokens of other issuers and the expected verdicts on them. The tokens are stored in
//! parts in `fixtures/token_formats.json`, so that no scanner reports them.

use serde_json::Value;

use super::{ChecksumState, FormatSet, Verdict, Visibility};

/// GitHub's classic tokens, described as in a pattern file.
const GITHUB: &str = r#"
[[format]]
id = "github_classic"
visibility = "secret"
prefix = "ghp_"
body = { alphabet = "base62", length = 30 }
checksum = { algorithm = "crc32", encoding = "base62", length = 6, over = "body" }

[[format]]
id = "long_prefix"
visibility = "secret"
prefix = "MoreThanFour_"
body = { alphabet = "base62", length = 30 }
checksum = { algorithm = "crc32", encoding = "base62", length = 6, over = "body" }
"#;

const VALID: Verdict = Verdict::Match {
    checksum: ChecksumState::Valid,
};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../fixtures/token_formats.json")).unwrap()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap()
}

#[test]
fn github_classic_tokens_verify() {
    let formats = FormatSet::parse(&[("github.toml", GITHUB)]).unwrap();
    let github = formats.get("github_classic").unwrap();
    let vectors = vectors();
    let tokens = vectors["github_classic"]["vectors"].as_array().unwrap();
    assert_eq!(tokens.len(), 6);
    for token in tokens {
        let (entropy, checksum) = (text(token, "entropy"), text(token, "checksum"));
        let key = [text(token, "prefix"), entropy, checksum].concat();
        assert_eq!(github.judge(key.as_bytes()), VALID);
        assert_eq!(
            formats.identify(&key).map(super::KeyFormat::id),
            Some("github_classic")
        );
        let in_text = format!("token: \"{key}\"");
        assert_eq!(github.match_at(in_text.as_bytes(), 8), Some(8..48));
        let reversed: String = checksum.chars().rev().collect();
        let wrong = [text(token, "prefix"), entropy, &reversed].concat();
        assert_eq!(github.judge(wrong.as_bytes()), Verdict::WrongChecksum);
    }
}

#[test]
fn longer_prefixes_verify_by_the_same_scheme() {
    let formats = FormatSet::parse(&[("github.toml", GITHUB)]).unwrap();
    let vectors = vectors();
    let parts = vectors["github_classic"]["long_prefix_ok"]
        .as_array()
        .unwrap();
    let key: String = parts.iter().map(|part| part.as_str().unwrap()).collect();
    assert_eq!(
        formats.get("long_prefix").unwrap().judge(key.as_bytes()),
        VALID
    );
    assert_eq!(
        formats.get("github_classic").unwrap().judge(key.as_bytes()),
        Verdict::WrongShape
    );
}

#[test]
fn stack_auth_keys_are_told_apart_by_their_flag() {
    let formats = FormatSet::builtin();
    let vectors = vectors();
    let keys = vectors["stack_auth_style"]["vectors"].as_array().unwrap();
    assert_eq!(keys.len(), 8);
    for vector in keys {
        let key = [text(vector, "body"), text(vector, "checksum")].concat();
        let is_public = vector["is_public"].as_bool().unwrap();
        let (id, other, visibility) = if is_public {
            ("stack_auth_public", "stack_auth_secret", Visibility::Public)
        } else {
            ("stack_auth_secret", "stack_auth_public", Visibility::Secret)
        };
        let format = formats.get(id).unwrap();
        assert_eq!(format.visibility(), visibility);
        assert_eq!(format.judge(key.as_bytes()), VALID);
        assert_eq!(
            formats.get(other).unwrap().judge(key.as_bytes()),
            Verdict::WrongShape
        );
        assert_eq!(formats.identify(&key).map(super::KeyFormat::id), Some(id));

        let in_text = format!("STACK_KEY='{key}'\n");
        let literal_at = in_text.find(format.literal()).unwrap();
        assert_eq!(
            format.match_at(in_text.as_bytes(), literal_at),
            Some(11..11 + key.len())
        );
        let broken = [text(vector, "body"), "00000000"].concat();
        assert_eq!(format.judge(broken.as_bytes()), Verdict::WrongChecksum);
    }
}
