//! Rejection of formats that could claim the same string, which would leave the key's format ambiguous.
//!
//! The test is exact about shapes and ignores checksums: each format's keys are a finite regular
//! language, and two formats are rejected exactly if their intersection is not empty. Most pairs are told
//! apart at once by their lengths or first characters; for the others the product of the two automata is
//! searched.

use std::borrow::Cow;

use super::KeyFormat;
use super::automaton::Automaton;
use super::fields::Located;
use super::load::Draft;
use super::problem::Problem;
use super::shape::{self, Body, Shape};

/// Adds a problem for every format that could claim a string which an earlier format could also claim.
pub(super) fn refuse_overlaps(drafts: &[Draft], problems: &mut Vec<Problem>) {
    let formats: Vec<_> = drafts
        .iter()
        .filter_map(|draft| Some((draft.file.as_str(), draft.format.as_ref()?)))
        .collect();
    for (at, (file, format)) in formats.iter().enumerate() {
        for (other_file, other) in &formats[..at] {
            if format.value.id != other.value.id
                && could_claim_the_same(&format.value, &other.value)
            {
                problems.push(problem(file, format, other_file, other));
            }
        }
    }
}

fn problem(
    file: &str,
    format: &Located<KeyFormat>,
    other_file: &str,
    other: &Located<KeyFormat>,
) -> Problem {
    Problem {
        file: file.to_owned(),
        line: Some(format.line),
        format: Some(format.value.id.clone()),
        message: format!(
            "it could claim the same string as `{}` ({other_file}:{})",
            other.value.id, other.line
        ),
        remedy: "make their literals or lengths differ, or remove one".to_owned(),
    }
}

/// Returns whether there is a string that has the shape of keys of both formats.
pub(super) fn could_claim_the_same(a: &KeyFormat, b: &KeyFormat) -> bool {
    if a.max_len() < b.min_len() || b.max_len() < a.min_len() {
        return false;
    }
    if let (Shape::Prefix(_), Shape::Prefix(_)) = (&a.shape, &b.shape)
        && !a.literal.starts_with(&b.literal)
        && !b.literal.starts_with(&a.literal)
    {
        return false;
    }
    match (automaton(a), automaton(b)) {
        (Some(a), Some(b)) => a.intersects(&b),
        // Cannot happen: a prefix format is a short regular expression. If it did, rejecting is safe.
        _ => true,
    }
}

fn automaton(format: &KeyFormat) -> Option<Cow<'_, Automaton>> {
    match &format.shape {
        Shape::Prefix(body) => shape::compile(&prefix_regex(format, *body))
            .ok()
            .map(Cow::Owned),
        Shape::Regex(regex) => Some(Cow::Borrowed(regex.automaton())),
    }
}

fn prefix_regex(format: &KeyFormat, body: Body) -> String {
    let class = |alphabet: super::Alphabet, length: usize| {
        let chars = String::from_utf8_lossy(alphabet.chars());
        format!("[{}]{{{length}}}", regex_syntax::escape(&chars))
    };
    let checksum = format
        .checksum
        .map(|checksum| class(checksum.encoding.alphabet(), checksum.encoding.length()));
    format!(
        "{}{}{}",
        regex_syntax::escape(&format.literal),
        class(body.alphabet, body.length),
        checksum.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use crate::keyformat::FormatSet;
    use crate::keyformat::refusals::SOUND;

    /// Loads [`SOUND`] and a changed copy of it, whose id is `another` unless `change` replaces it.
    fn with_another(change: &[(&str, &str)]) -> Result<FormatSet, String> {
        let another = change.iter().fold(
            SOUND.replace("\"acme\"", "\"another\""),
            |text, (from, to)| text.replace(from, to),
        );
        FormatSet::parse(&[("a.toml", SOUND), ("b.toml", &another)])
            .map_err(|error| error.to_string())
    }

    #[test]
    fn formats_that_could_claim_the_same_string() {
        let refusal = "b.toml:4: another: it could claim the same string as `acme` (a.toml:4); make their literals or lengths differ, or remove one";
        for change in [
            &[][..],
            // A different alphabet, checksum or visibility does not help: the shapes have strings in
            // common.
            &[("\"base62\", length = 30", "\"base64url\", length = 30")],
            &[("over = \"body\"", "over = \"preceding\"")],
            &[("\"secret\"", "\"public\""), ("on_leak = \"revoke\"", "")],
            // One literal extends the other, and the total length is the same.
            &[("acme_sk_", "acme_sk_live"), ("length = 30", "length = 26")],
            &[
                ("\"acme_sk_\"", "\"acme_s\""),
                ("\"base62\", length = 30", "\"base64url\", length = 32"),
            ],
            // A regular expression of the same shape.
            &[
                ("prefix = \"acme_sk_\"", "anchor = \"sk_\""),
                (
                    "body = { alphabet = \"base62\", length = 30 }",
                    "regex = '[a-z]+?_sk_[0-9a-zA-Z]{36}'",
                ),
                ("+?", "{1,8}"),
                ("over = \"body\"", "over = \"preceding\""),
            ],
        ] {
            assert_eq!(
                with_another(change).expect_err(&format!("{change:?}")),
                refusal
            );
        }
    }

    #[test]
    fn formats_that_only_look_alike_live_together() {
        for change in [
            &[("acme_sk_", "acme_pk_")][..],
            &[("length = 30", "length = 31")],
            // The underscore of the longer literal is not in the shorter one's alphabet.
            &[
                ("acme_sk_", "acme_sk_live_"),
                ("length = 30", "length = 25"),
            ],
            // A key of one may be contained in a key of the other: they are different strings.
            &[("acme_sk_", "my_acme_sk_")],
            &[
                ("prefix = \"acme_sk_\"", "anchor = \"sk_\""),
                (
                    "body = { alphabet = \"base62\", length = 30 }",
                    "regex = '[A-Z]{1,8}_sk_[0-9a-zA-Z]{36}'",
                ),
                ("over = \"body\"", "over = \"preceding\""),
            ],
        ] {
            with_another(change).unwrap_or_else(|error| panic!("{change:?}: {error}"));
        }
    }
}
