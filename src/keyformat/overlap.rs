//! Refuses two formats that could claim the same string: then it would not be clear whose key it is.
//!
//! The test is exact about shapes and blind to checksums: each format's keys are a finite regular
//! language, and two of them are refused exactly when their intersection is not empty. Most pairs are
//! told apart at once by their lengths or first characters; for the others the product of the two
//! automata is searched.

use std::borrow::Cow;

use super::KeyFormat;
use super::automaton::Automaton;
use super::fields::Located;
use super::format::{Body, Shape};
use super::load::Draft;
use super::problem::Problem;
use super::shape;

/// Adds a problem for every format that could claim a string which an earlier one could claim too.
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

fn could_claim_the_same(a: &KeyFormat, b: &KeyFormat) -> bool {
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
        // Cannot happen: a prefix format is a short regular expression. If it did, refusing is safe.
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
