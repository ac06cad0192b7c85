//! Parser of the changes that `git diff-tree` and `git diff-index` list with `--raw -z`.

use std::io::{self, BufRead};
use std::path::PathBuf;

use crate::tree::open::path_of;

/// Mode of a submodule, whose contents belong to another repository.
const SUBMODULE: &[u8] = b"160000";

/// Changes listed by a git command, one after another.
#[derive(Debug)]
pub(super) struct Changes<R> {
    output: R,
    token: Vec<u8>,
    /// Commit of the changes that follow.
    commit: Option<String>,
}

/// Change of one path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Commit that made the change, if commits are compared.
    pub(super) commit: Option<String>,
    /// Object that the path had before, as a hash in hexadecimal; all zeros if none.
    pub(super) before: String,
    /// Object that the path has now.
    pub(super) after: After,
    pub(super) path: PathBuf,
}

/// State of a path after a change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum After {
    /// File or link with these contents, as a hash in hexadecimal.
    Blob(String),
    /// No contents in this repository: the path was removed, or is a submodule.
    Nothing,
    /// Several versions that a merge could not combine.
    Unmerged,
}

impl<R: BufRead> Changes<R> {
    pub(super) fn new(output: R) -> Self {
        Self {
            output,
            token: Vec::new(),
            commit: None,
        }
    }

    /// Returns the next change, or `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Change>> {
        while self.read_token()? {
            if !self.token.starts_with(b":") {
                let id = self.token.split(|byte| *byte == b' ').next();
                self.commit = Some(text(id));
                continue;
            }
            let (before, after) = sides(&self.token);
            self.read_token()?;
            return Ok(Some(Change {
                commit: self.commit.clone(),
                before,
                after,
                path: path_of(&self.token),
            }));
        }
        Ok(None)
    }

    /// Reads up to the next zero byte. Returns `false` at the end.
    fn read_token(&mut self) -> io::Result<bool> {
        self.token.clear();
        let read = self.output.read_until(0, &mut self.token)?;
        self.token.pop_if(|byte| *byte == 0);
        Ok(read > 0)
    }
}

/// Returns the object that a path had at the first parent, and the state that it has. A change relative to several
/// parents starts with a colon for each, followed by a mode for each and for the result, the objects likewise, and
/// the kind of change.
fn sides(change: &[u8]) -> (String, After) {
    let parents = change.iter().take_while(|byte| **byte == b':').count();
    let words: Vec<_> = change[parents..].split(|byte| *byte == b' ').collect();
    let word = |at: usize| words.get(at).copied();
    let mode = word(parents).unwrap_or_default();
    let object = text(word(2 * parents + 1));
    let after = match word(2 * parents + 2) {
        Some(kind) if kind.contains(&b'U') => After::Unmerged,
        _ if mode == SUBMODULE || object.bytes().all(|digit| digit == b'0') => After::Nothing,
        _ => After::Blob(object),
    };
    (text(word(parents + 1)), after)
}

fn text(word: Option<&[u8]>) -> String {
    String::from_utf8_lossy(word.unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &[u8]) -> Vec<Change> {
        let mut changes = Changes::new(output);
        std::iter::from_fn(|| changes.next().expect("a slice is readable")).collect()
    }

    #[test]
    fn reads_commits_merges_and_odd_paths() {
        let changes = read(
            b"c1\0:100644 100644 aa bb M\0a\nb\0:100644 000000 aa 00 D\0gone\0\
              c2\0::100644 100644 100755 aa bb cc MM\0both ways\0:000000 160000 00 dd A\0module\0",
        );
        let after: Vec<_> = changes.iter().map(|change| &change.after).collect();
        assert_eq!(
            after,
            [
                &After::Blob("bb".to_owned()),
                &After::Nothing,
                &After::Blob("cc".to_owned()),
                &After::Nothing
            ]
        );
        assert_eq!(changes[0].path, PathBuf::from("a\nb"));
        assert_eq!(changes[2].path, PathBuf::from("both ways"));
        assert_eq!(changes[2].before, "aa");
        assert_eq!(changes[0].commit.as_deref(), Some("c1"));
        assert_eq!(changes[3].commit.as_deref(), Some("c2"));
    }

    #[test]
    fn an_unmerged_path_is_one_and_what_is_cut_off_is_no_panic() {
        let changes = read(b":100644 000000 aa 00 U\0a\0");
        assert_eq!(changes[0].after, After::Unmerged);
        assert_eq!(changes[0].commit, None);
        assert_eq!(read(b":::")[0].after, After::Nothing);
        assert_eq!(read(b""), []);
    }
}
