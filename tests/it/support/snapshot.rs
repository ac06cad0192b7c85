//! Removal of all that differs from run to run in an output that is compared with a snapshot.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

static RANDOM: LazyLock<[(Regex, &'static str); 4]> = LazyLock::new(|| {
    let pattern = |pattern| Regex::new(pattern).expect("a pattern");
    [
        (
            pattern("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"),
            "[uuid]",
        ),
        (pattern("[0-9a-f]{64}"), "[sha256]"),
        (
            pattern(r#""last_four": "[0-9A-Za-z]{4}""#),
            r#""last_four": "[four]""#,
        ),
        (pattern("rsc_sk_…[0-9A-Za-z]{4}"), "rsc_sk_…[four]"),
    ]
});

/// Replaces identifiers, digests and parts of keys, which are random.
pub(crate) fn steady(text: &str) -> String {
    RANDOM
        .iter()
        .fold(Cow::Borrowed(text), |text, (pattern, name)| {
            Cow::Owned(pattern.replace_all(&text, *name).into_owned())
        })
        .into_owned()
}
