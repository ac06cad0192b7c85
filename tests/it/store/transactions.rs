//! Every change runs in `retried`, wherever in the sources its transaction begins.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the source files below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns the name of the function that surrounds a place, and its text up to there.
fn function(text: &str, at: usize) -> (&str, &str) {
    let start = text[..at].rfind("fn ").unwrap();
    let name = text[start + 3..].split(['(', '<']).next().unwrap();
    (name, &text[start..at])
}

/// Returns the names of the functions that begin a transaction and are to be retried by their callers.
fn begun(file: &Path, text: &str, wrong: &mut Vec<String>) -> Vec<String> {
    let mut once = Vec::new();
    for (at, begins) in text.match_indices(".begin()") {
        // Others begin, too: an hour, which waits for nothing, and a sitting.
        let waits = text[at + begins.len()..].trim_start().starts_with(".await");
        if !waits || text[..at].ends_with("sitting") {
            continue;
        }
        let (name, before) = function(text, at);
        if name.ends_with("_once") {
            once.push(name.to_owned());
        } else if !before.contains("retried(|| async") {
            wrong.push(format!("{}: {name}", file.display()));
        }
    }
    once
}

#[test]
fn every_transaction_is_retried() {
    let mut files = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut files,
    );
    let (mut wrong, mut once) = (Vec::new(), Vec::new());
    let mut texts = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
        once.extend(begun(file, &code, &mut wrong));
        texts.push(code);
    }
    assert!(once.len() > 5, "they are found: {once:?}");
    for name in once {
        let count =
            |what: &str| -> usize { texts.iter().map(|text| text.matches(what).count()).sum() };
        let (calls, retried) = (
            count(&format!("self.{name}(")),
            count(&format!("retried(|| self.{name}(")),
        );
        if calls != retried || calls == 0 {
            wrong.push(format!("{name}: {calls} calls, {retried} of them retried"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
