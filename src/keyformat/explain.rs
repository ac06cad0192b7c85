//! Step-by-step explanations of why a string is or is not a key of a format.

use super::format::KeyFormat;
use super::shape::{Body, RegexShape, Shape};

/// Result of one check of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Name of the check, such as `length`.
    pub what: String,
    /// `true` if the candidate passed the check.
    pub ok: bool,
    /// Finding in words. It reveals no more of the candidate than one character that does not fit, and
    /// the checksum.
    pub detail: String,
}

impl Step {
    fn new(what: &str, ok: bool, detail: impl Into<String>) -> Self {
        Self {
            what: what.to_owned(),
            ok,
            detail: detail.into(),
        }
    }
}

impl KeyFormat {
    /// Checks the whole of `candidate` and returns one step per check.
    ///
    /// The candidate is a key of this format if and only if every step is `ok`. Once a step leaves
    /// nothing further to check, the remaining steps are omitted.
    pub fn explain(&self, candidate: &str) -> Vec<Step> {
        let mut steps = match &self.shape {
            Shape::Prefix(body) => self.explain_prefix(candidate, *body),
            Shape::Regex(regex) => self.explain_regex(candidate, regex),
        };
        if steps.iter().all(|step| step.ok) {
            steps.push(self.explain_checksum(candidate));
        }
        steps
    }

    fn explain_prefix(&self, candidate: &str, body: Body) -> Vec<Step> {
        let literal = &self.literal;
        let Some(rest) = candidate.strip_prefix(literal.as_str()) else {
            let detail = match candidate.find(literal.as_str()) {
                Some(at) => format!(
                    "`{literal}` stands at character {}, not at the start",
                    at + 1
                ),
                None => format!("it does not start with `{literal}`"),
            };
            return vec![Step::new("prefix", false, detail)];
        };
        let body_text = rest.chars().take(body.length);
        let misfit = body_text.enumerate().find(|(_, found)| {
            !u8::try_from(*found).is_ok_and(|byte| body.alphabet.contains(byte))
        });
        let alphabet = body.alphabet.name();
        vec![
            Step::new("prefix", true, format!("it starts with `{literal}`")),
            self.explain_length(candidate),
            match misfit {
                None => Step::new(
                    "body",
                    true,
                    format!(
                        "the {} characters after the prefix are all {alphabet}",
                        body.length.min(rest.len())
                    ),
                ),
                Some((at, found)) => Step::new(
                    "body",
                    false,
                    format!(
                        "character {} is {found:?}, which is not {alphabet}",
                        literal.len() + at + 1
                    ),
                ),
            },
        ]
    }

    fn explain_regex(&self, candidate: &str, regex: &RegexShape) -> Vec<Step> {
        let literal = &self.literal;
        let Some(at) = candidate.find(literal.as_str()) else {
            return vec![Step::new(
                "anchor",
                false,
                format!("it does not contain `{literal}`"),
            )];
        };
        let fits = regex.fits(candidate.as_bytes());
        let fitting = regex.fitting_prefix(candidate.as_bytes());
        let detail = if fits {
            "all of it fits the regular expression".to_owned()
        } else if fitting < candidate.len() {
            format!(
                "it does not fit the regular expression from character {} on",
                fitting + 1
            )
        } else {
            "it is only the beginning of what the regular expression describes".to_owned()
        };
        vec![
            Step::new(
                "anchor",
                true,
                format!("`{literal}` stands at character {}", at + 1),
            ),
            self.explain_length(candidate),
            Step::new("shape", fits, detail),
        ]
    }

    fn explain_length(&self, candidate: &str) -> Step {
        let (min, max, found) = (self.min_len(), self.max_len(), candidate.len());
        let wanted = if min == max {
            min.to_string()
        } else {
            format!("{min} to {max}")
        };
        if (min..=max).contains(&found) {
            return Step::new("length", true, format!("{found} characters"));
        }
        let detail = format!("{found} characters; a key of this format has {wanted}");
        Step::new("length", false, detail)
    }

    /// Checks the checksum of a candidate that has the right shape.
    fn explain_checksum(&self, candidate: &str) -> Step {
        let Some(checksum) = self.checksum else {
            return Step::new(
                "checksum",
                true,
                "the format has none: the shape alone decides",
            );
        };
        let length = checksum.encoding.length();
        let Some((preceding, found)) = candidate.split_at_checked(candidate.len() - length) else {
            let detail = format!("the last {length} characters are not a checksum");
            return Step::new("checksum", false, detail);
        };
        let expected = checksum
            .encoding
            .encode(checksum.compute(preceding.as_bytes(), self.body_at()));
        if expected == found {
            return Step::new("checksum", true, format!("`{found}` is right"));
        }
        let found = found.escape_debug();
        Step::new(
            "checksum",
            false,
            format!("expected `{expected}`, found `{found}`"),
        )
    }
}
