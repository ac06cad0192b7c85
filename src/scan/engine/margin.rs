//! Margins: bytes that may stand between two lines of base64 that belong together.

use super::literal::base64_value;

/// Maximum length of what stands between two lines of base64 if it is [`Margin::Wide`], in bytes.
pub(super) const WIDEST: usize = 64;

/// Text that may stand between a line of base64 and the next one.
///
/// Where marks of lines are characters of base64 as well, a text can be read in several ways. Each of them is tried, since
/// none is right everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Margin {
    /// A line break, and blanks.
    Blank,
    /// A line break, blanks, and `+` or `-` as in the output of `git log -p`, or any number of `>` as in quotations.
    Marked,
    /// Anything but letters, digits, `_` and `=`, if there is a line break in it, as itself or escaped as in JSON. The
    /// `+`, `-` and `/` at the end of it are marks up to this number, and characters of base64 beyond it.
    Wide(usize),
}

impl Margin {
    /// All margins, in the order in which they are tried: `++` marks what merges add, `//` comments, `+//` a comment that
    /// was added. No key of letters and digits has a `+` or `/` in base64 where a line begins, so that the last one finds
    /// it however many there are.
    pub(super) const ALL: [Self; 6] = [
        Self::Blank,
        Self::Marked,
        Self::Wide(0),
        Self::Wide(1),
        Self::Wide(2),
        Self::Wide(WIDEST),
    ];

    /// Returns the margins with which a text may be read in different ways. Whoever writes a text decides what is in it, so
    /// that each byte is looked at once for all of them.
    pub(super) fn that_differ(text: &[u8]) -> impl Iterator<Item = Self> {
        let (mut differ, mut at) = ([true, false, false, false, false, false], 0);
        while let Some(found) = memchr::memchr3(b'\n', b'\r', b'\\', &text[at..]) {
            let start = start_of_run(&text[at..], found) + at;
            let run = Run::of(&text[start..], usize::MAX);
            if run.is_broken {
                let is_wide = run.length > WIDEST || run.length != Self::Blank.fold(&text[start..]);
                differ[2] |= is_wide;
                differ[3] |= run.marks >= 1;
                differ[4] |= run.marks >= 2;
                differ[5] |= run.marks >= 3;
            }
            at = (start + run.length + run.marks).max(at + found + 1);
        }
        let is_marked = |at: usize| marked(&text[at + 1..]) > blanks(&text[at + 1..]);
        differ[1] = memchr::memchr_iter(b'\n', text).any(is_marked);
        let all = Self::ALL.into_iter().zip(differ);
        all.filter_map(|(margin, differs)| differs.then_some(margin))
    }

    /// Returns the length of what stands between two lines at the start of `text`, or 0.
    pub(super) fn fold(self, text: &[u8]) -> usize {
        let line_break = || match text {
            [b'\n', ..] => Some(1),
            [b'\r', b'\n', ..] => Some(2),
            _ => None,
        };
        let after = |margin: fn(&[u8]) -> usize| {
            line_break().map_or(0, |length| length + margin(&text[length..]))
        };
        match self {
            Self::Blank => after(blanks),
            Self::Marked => after(marked),
            Self::Wide(marks) => Run::of(text, WIDEST).with(marks),
        }
    }

    /// Returns the length of what stands between two lines and ends at `end`, or 0.
    pub(super) fn fold_before(self, text: &[u8], end: usize) -> usize {
        let start = match self {
            Self::Blank => before_break(without(&text[..end], b" \t")),
            Self::Marked => before_break(without_mark(&text[..end])),
            Self::Wide(marks) => wide_start(text, end, marks),
        };
        // Of several marks only the first is one.
        match start.map(|start| end - start) {
            Some(length) if self.fold(&text[end - length..]) == length => length,
            _ => 0,
        }
    }
}

#[cfg(test)]
thread_local! {
    /// Number of bytes of runs that were looked at.
    static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Bytes that may stand in a [`Margin::Wide`].
struct Run {
    /// Length up to the marks that may be characters, in bytes.
    length: usize,
    /// Number of these.
    marks: usize,
    /// `true` if there is a line break in it.
    is_broken: bool,
}

impl Run {
    /// Returns the run at the start of `text`, up to the first byte beyond `most`. A mark at the start is a character.
    fn of(text: &[u8], most: usize) -> Self {
        let (mut at, mut length, mut is_broken) = (0, 0, false);
        while at <= most {
            match text.get(at..).unwrap_or_default() {
                [b'\\', b'n' | b'r', ..] => (is_broken, length) = (true, at + 2),
                [b'\\', b't', ..] => length = at + 2,
                [b'\n' | b'\r', ..] => (is_broken, length) = (true, at + 1),
                [byte, ..] if is_mark(*byte) && at > 0 => {}
                [byte, ..] if is_between(*byte) && !is_mark(*byte) => length = at + 1,
                _ => break,
            }
            at = length.max(at + 1);
        }
        #[cfg(test)]
        LOOKED_AT.set(LOOKED_AT.get() + at);
        Self {
            length,
            marks: at - length,
            is_broken,
        }
    }

    /// Returns the length of the margin if so many marks are none of base64, or 0 if it is none.
    fn with(&self, marks: usize) -> usize {
        let is_margin = self.is_broken && self.length + self.marks <= WIDEST;
        if is_margin {
            self.length + self.marks.min(marks)
        } else {
            0
        }
    }
}

/// Returns the place at which the run begins that has a line break or a backslash at `at`, the first one of `text`.
fn start_of_run(text: &[u8], at: usize) -> usize {
    let before = text[..at].iter().rev();
    let start = at - before.take_while(|byte| is_between(**byte)).count();
    let marks = text[start..at].iter().take_while(|byte| is_mark(**byte));
    start + marks.count()
}

/// Returns the place at which the margin begins that ends at `end`, with this number of marks at most.
fn wide_start(text: &[u8], end: usize, marks: usize) -> Option<usize> {
    let at_marks = text[..end].iter().rev().take(marks);
    let marked = end - at_marks.take_while(|byte| is_mark(**byte)).count();
    let following = text[end..].iter().take(WIDEST);
    let length = end - marked + following.take_while(|byte| is_mark(**byte)).count();
    let (mut at, mut start) = (marked, None);
    loop {
        at -= match &text[..at] {
            [.., b'\\', b'n' | b'r' | b't'] => 2,
            [.., byte] if is_between(*byte) => 1,
            _ => return start,
        };
        if marked - at + length > WIDEST {
            return start;
        }
        // Marks before the first other byte are characters of the line before.
        if !is_mark(text[at]) {
            start = Some(at);
        }
        // It does not end in a mark beyond those.
        start?;
    }
}

/// Returns whether what stands between two lines may begin at `at`, whatever the margin.
pub(super) fn may_begin(text: &[u8], at: usize) -> bool {
    text.get(at)
        .is_some_and(|byte| base64_value(*byte).is_none())
}

/// Returns whether what stands between two lines may end at `at`, whatever the margin.
pub(super) fn may_end(text: &[u8], at: usize) -> bool {
    match &text[..at] {
        [.., b'\\', b'n' | b'r' | b't'] => true,
        before => before.last().is_some_and(|byte| is_between(*byte)),
    }
}

/// Returns the place of the line break at the end of `text`.
fn before_break(text: &[u8]) -> Option<usize> {
    match text {
        [start @ .., b'\r', b'\n'] | [start @ .., b'\n'] => Some(start.len()),
        _ => None,
    }
}

/// Returns the start of a text that ends with blanks and the mark of a line.
fn without_mark(text: &[u8]) -> &[u8] {
    let rest = without(text, b" \t");
    match rest {
        [rest @ .., b'+' | b'-'] => without(rest, b" \t"),
        [.., b'>'] => without(rest, b"> \t"),
        _ => rest,
    }
}

/// Returns the start of a text whose end has only these bytes.
fn without<'t>(text: &'t [u8], bytes: &[u8]) -> &'t [u8] {
    let last = text.iter().rposition(|byte| !bytes.contains(byte));
    &text[..last.map_or(0, |last| last + 1)]
}

/// Returns the length of the blanks at the start of a line.
fn blanks(line: &[u8]) -> usize {
    line.iter().take_while(|byte| is_blank(**byte)).count()
}

/// Returns the length of the blanks and of the mark at the start of a line.
fn marked(line: &[u8]) -> usize {
    let before = blanks(line);
    match line.get(before) {
        Some(b'+' | b'-') => before + 1 + blanks(&line[before + 1..]),
        Some(b'>') => {
            let quoted = line[before..].iter();
            before
                + quoted
                    .take_while(|byte| is_blank(**byte) || **byte == b'>')
                    .count()
        }
        _ => before,
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Returns whether this may be the mark of a line as well as a character of base64.
fn is_mark(byte: u8) -> bool {
    matches!(byte, b'+' | b'-' | b'/')
}

/// Returns whether this may stand in a wide margin: padding ends what is encoded.
fn is_between(byte: u8) -> bool {
    byte != b'=' && (is_mark(byte) || base64_value(byte).is_none())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::keyformat::FormatSet;
    use crate::scan::{Encodings, Engine};

    /// Else a text of 4 MB takes 24 s.
    #[test]
    fn no_text_is_looked_at_more_often_than_there_are_hits_around_it() {
        let formats = FormatSet::builtin();
        let engine = Engine::new(&formats, Encodings::ALL);
        let literal = &STANDARD.encode("rsc_sk_0")[..10];
        for between in ["\\", "\n", "\r\n", "\\n", "\\/", "+\n", ">\n+"] {
            for times in [1, 20, 55, 120] {
                let text = format!("{literal}{}", between.repeat(times)).repeat(500);
                LOOKED_AT.set(0);
                engine.scan(text.as_bytes());
                // In each of six readings, a few runs around the literal are gone through in both directions.
                let most = 500 * (2 * engine.longest_match() + 6 * 8 * WIDEST);
                let looked_at = LOOKED_AT.get();
                assert!(looked_at <= most, "{between:?} {times}: {looked_at} {most}");
            }
        }
    }
}
