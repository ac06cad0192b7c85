//! Patterns of ignore files, with git's semantics. They match byte by byte without being compiled: the memory of a
//! pattern is its own length, whatever it contains, and the steps of a match are counted.

/// Remaining budget of matching steps.
#[derive(Debug)]
pub(super) struct Steps(u32);

/// Error of a match that took too many steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exhausted;

impl Steps {
    pub(super) const fn new(limit: u32) -> Self {
        Self(limit)
    }

    pub(super) fn take(&mut self, steps: usize) -> Result<(), Exhausted> {
        let steps = u32::try_from(steps).map_err(|_| Exhausted)?;
        self.0 = self.0.checked_sub(steps).ok_or(Exhausted)?;
        Ok(())
    }
}

/// Line of an ignore file.
#[derive(Debug)]
pub(super) struct Pattern {
    /// `true` if the line takes back what earlier lines list.
    pub(super) is_negated: bool,
    only_folders: bool,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    /// The last component of the path equals this.
    Name(Box<[u8]>),
    /// The last component of the path ends with this.
    Ending(Box<[u8]>),
    /// The last component of the path matches this glob.
    Glob(Box<[u8]>),
    /// The whole path matches these globs, which are separated by slashes.
    Path(Box<[u8]>),
}

impl Pattern {
    /// Parses a line. Returns `None` for a comment, an empty line, and a pattern that matches nothing.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        if line.starts_with(b"#") {
            return None;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut text = if line.ends_with(b"\\ ") {
            line
        } else {
            line.trim_ascii_end()
        };
        let is_negated = text.starts_with(b"!");
        if is_negated {
            text = &text[1..];
        }
        let only_folders = text.ends_with(b"/");
        if only_folders {
            text = without_escape(&text[..text.len() - 1]);
        }
        let is_anchored = text.contains(&b'/');
        text = text.strip_prefix(b"/").unwrap_or(text);
        if text.is_empty() || without_escape(text).len() < text.len() {
            return None;
        }
        let text = escape_unclosed(text);
        Some(Self {
            is_negated,
            only_folders,
            shape: Shape::of(text, is_anchored),
        })
    }

    /// Returns whether the pattern matches `path`, which is relative to the folder of the ignore file.
    pub(super) fn matches(
        &self,
        path: &[u8],
        is_folder: bool,
        steps: &mut Steps,
    ) -> Result<bool, Exhausted> {
        steps.take(1)?;
        if self.only_folders && !is_folder {
            return Ok(false);
        }
        match &self.shape {
            Shape::Name(name) => Ok(last(path) == &**name),
            Shape::Ending(end) => Ok(last(path).ends_with(end)),
            Shape::Glob(glob) => component_matches(glob, last(path), steps),
            Shape::Path(globs) => {
                // Git compares the literal prefix separately, so that `a**/b` means `a` followed by `**/b`.
                let is_special = |byte: &u8| b"*?[\\".contains(byte);
                let literal = globs.iter().position(is_special);
                let (literal, globs) = globs.split_at(literal.unwrap_or(globs.len()));
                match path.strip_prefix(literal) {
                    Some(path) => path_matches(globs, path, steps),
                    None => Ok(false),
                }
            }
        }
    }
}

impl Shape {
    fn of(text: Vec<u8>, is_anchored: bool) -> Self {
        let is_plain = |text: &[u8]| !text.iter().any(|byte| b"*?[\\".contains(byte));
        if is_anchored {
            return Self::Path(text.into());
        }
        match text.strip_prefix(b"*") {
            Some(end) if is_plain(end) => Self::Ending(end.into()),
            None if is_plain(&text) => Self::Name(text.into()),
            _ => Self::Glob(text.into()),
        }
    }
}

/// Returns the last component of a path.
fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// Returns a text without an unpaired backslash at its end.
fn without_escape(text: &[u8]) -> &[u8] {
    let backslashes = text.iter().rev().take_while(|byte| **byte == b'\\').count();
    &text[..text.len() - backslashes % 2]
}

/// Escapes every `[` that has no matching `]`, so that matching does not search for it again and again.
fn escape_unclosed(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    let mut may_close = true;
    while let Some(&byte) = text.get(at) {
        let length = match byte {
            b'\\' => 2.min(text.len() - at),
            b'/' => {
                may_close = true;
                1
            }
            b'[' => {
                let class = may_close.then(|| class(&text[at..])).flatten();
                // If nothing closes this one, nothing closes those after it.
                may_close = class.is_some();
                if class.is_none() {
                    out.push(b'\\');
                }
                class.map_or(1, |class| class.length)
            }
            _ => 1,
        };
        out.extend_from_slice(&text[at..at + length]);
        at += length;
    }
    out
}

/// Class of bytes, `[…]`.
struct Class<'a> {
    is_negated: bool,
    members: &'a [u8],
    length: usize,
}

/// Parses the class at the start of a glob. A class does not extend across a slash.
fn class(glob: &[u8]) -> Option<Class<'_>> {
    let is_negated = matches!(glob.get(1), Some(b'!' | b'^'));
    let start = 1 + usize::from(is_negated);
    let mut end = start;
    loop {
        match glob.get(end)? {
            b'/' => return None,
            b']' if end > start => break,
            b'\\' if glob.get(end + 1) != Some(&b'/') => end += 2,
            _ => end += 1,
        }
    }
    Some(Class {
        is_negated,
        members: &glob[start..end],
        length: end + 1,
    })
}

impl Class<'_> {
    fn has(&self, byte: u8) -> bool {
        let mut rest = self.members;
        let mut found = false;
        while let Some((first, behind)) = member(rest) {
            rest = behind;
            let mut last = first;
            if let Some(range) = rest.strip_prefix(b"-")
                && let Some((end, behind)) = member(range)
            {
                (last, rest) = (end, behind);
            }
            found |= (first..=last).contains(&byte);
        }
        found != self.is_negated
    }
}

fn member(members: &[u8]) -> Option<(u8, &[u8])> {
    match members {
        [b'\\', byte, rest @ ..] | [byte, rest @ ..] => Some((*byte, rest)),
        [] => None,
    }
}

/// Returns whether globs separated by slashes match a path. Backtracks only to the last `**`, which is enough: the
/// matches of the ones before it can stay as they are.
fn path_matches(globs: &[u8], path: &[u8], steps: &mut Steps) -> Result<bool, Exhausted> {
    let (mut globs, mut path) = (Some(globs), Some(path));
    let mut back: Option<(Option<&[u8]>, &[u8])> = None;
    loop {
        steps.take(1)?;
        let (glob, behind) = match globs {
            Some(globs) => {
                let (glob, behind) = split(globs);
                (Some(glob), behind)
            }
            None => (None, None),
        };
        if glob.is_some_and(is_any_depth) {
            let Some(rest) = path else {
                // Matches the contents of a folder, but not the folder itself unless another glob follows.
                return Ok(false);
            };
            if behind.is_none() {
                return Ok(true);
            }
            back = Some((behind, rest));
            globs = behind;
            continue;
        }
        let fits = match (glob, path) {
            (None, None) => return Ok(true),
            (Some(glob), Some(rest)) => {
                let (name, left) = split(rest);
                let fits = component_matches(without_escape(glob), name, steps)?;
                (globs, path) = (behind, left);
                fits
            }
            _ => false,
        };
        if fits {
            continue;
        }
        // Retry with one more component for the last `**`.
        let Some((behind, rest)) = back else {
            return Ok(false);
        };
        let (_, Some(left)) = split(rest) else {
            return Ok(false);
        };
        back = Some((behind, left));
        (globs, path) = (behind, Some(left));
    }
}

/// Returns whether a component matches any number of folders: `**`, or more stars.
fn is_any_depth(glob: &[u8]) -> bool {
    glob.len() > 1 && glob.iter().all(|byte| *byte == b'*')
}

/// Returns the part before the first slash, and the part after it if there is a slash.
fn split(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|byte| *byte == b'/') {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    }
}

/// Returns whether a glob matches a component of a path. Backtracks only to the last `*`, as [`path_matches`] does
/// for `**`.
fn component_matches(glob: &[u8], name: &[u8], steps: &mut Steps) -> Result<bool, Exhausted> {
    let (mut at, mut read) = (0, 0);
    let mut back = None;
    loop {
        steps.take(1)?;
        if glob.get(at) == Some(&b'*') {
            at += 1;
            back = Some((at, read));
            continue;
        }
        match (glob.get(at), name.get(read)) {
            (None, None) => return Ok(true),
            (Some(_), Some(byte)) => {
                let (fits, length) = first_matches(&glob[at..], *byte);
                steps.take(length)?;
                if fits {
                    at += length;
                    read += 1;
                    continue;
                }
            }
            _ => {}
        }
        match back {
            Some((behind, from)) if from < name.len() => {
                back = Some((behind, from + 1));
                (at, read) = (behind, from + 1);
            }
            _ => return Ok(false),
        }
    }
}

/// Returns whether the first element of a glob, which is not `*`, matches a byte, and the length of that element.
fn first_matches(glob: &[u8], byte: u8) -> (bool, usize) {
    match glob {
        [b'?', ..] => (true, 1),
        [b'\\', escaped, ..] => (*escaped == byte, 2),
        [b'[', ..] => match class(glob) {
            Some(class) => (class.has(byte), class.length),
            None => (byte == b'[', 1),
        },
        _ => (glob[0] == byte, 1),
    }
}
