//! Objects that git reads otherwise than they look: lines that resemble headers, modes that no git writes.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::bombs::{committed, folder, rows};
use super::scan_bounded;
use crate::scan::{commit, git, repository, run, secret, text};

/// Writes an object, whatever is in it, and returns its name.
pub(super) fn object(root: &Path, kind: &str, contents: &[u8]) -> String {
    let mut hash_object = Command::new("git");
    hash_object
        .args(["hash-object", "-w", "-t", kind, "--literally", "--stdin"])
        .current_dir(root);
    let made = run(&mut hash_object, contents);
    assert!(made.status.success(), "{}", text(&made));
    String::from_utf8(made.stdout)
        .expect("UTF-8")
        .trim()
        .to_owned()
}

/// Returns an entry of a folder.
pub(super) fn entry(mode: &str, name: &str, id: &str) -> Vec<u8> {
    let hash = hex::decode(id).expect("a hash");
    [mode.as_bytes(), b" ", name.as_bytes(), b"\0", &hash].concat()
}

/// Commits a folder, with a line after the genuine headers, and moves the branch there.
fn forged(root: &Path, folder: &str, parent: &str, line: &str) -> String {
    let person = "a <a@example.com> 1700000000 +0000";
    let commit = format!(
        "tree {folder}\nparent {parent}\nauthor {person}\ncommitter {person}\n{line}\n\nx\n"
    );
    let commit = object(root, "commit", commit.as_bytes());
    git(root, &["update-ref", "refs/heads/main", &commit]);
    commit
}

/// Makes a folder with a key in a file, and returns both.
fn with_key(root: &Path, name: &str) -> (String, String) {
    let blob = object(root, "blob", secret().expose().as_bytes());
    let entry = format!("100644 blob {blob}\t{name}\n");
    (folder(root, &entry), blob)
}

#[test]
fn a_parent_that_git_does_not_follow_is_none() {
    let repository = repository();
    let root = repository.path();
    let first = commit(root, "Begin");
    let (leak, _) = with_key(root, "f");
    let bait = committed(root, &leak, &[]);
    forged(root, &leak, &first, &format!("parent {bait}"));
    let output = scan_bounded(root, &["--since", &first, "--report", "jsonl"], None);
    assert_eq!(rows(&output).len(), 1, "{}", text(&output));
}

#[test]
fn a_missing_parent_that_git_does_not_follow_cuts_no_history() {
    let repository = repository();
    let root = repository.path();
    let first = commit(root, "Begin");
    let (leak, _) = with_key(root, "f");
    let second = committed(root, &leak, &[&first]);
    let clean = folder(root, "");
    let missing = "1".repeat(40);
    let third = forged(root, &clean, &second, &format!("parent {missing}"));
    fs::write(root.join(".git/shallow"), format!("{third}\n")).expect("a file");
    for way in [&["--git", "."][..], &["--since", &first]] {
        let output = scan_bounded(root, &[way, &["--report", "jsonl"]].concat(), None);
        assert_eq!(rows(&output).len(), 1, "{way:?}: {}", text(&output));
    }
}

#[test]
fn modes_mean_what_they_mean_to_git() {
    for mode in ["40755", "0040000"] {
        let repository = repository();
        let root = repository.path();
        let first = commit(root, "Begin");
        let (leak, blob) = with_key(root, "f");
        let top = object(root, "tree", &entry(mode, "d", &leak));
        let last = committed(root, &top, &[&first]);
        for way in [&["--git", "."][..], &["--since", &first]] {
            let output = scan_bounded(root, &[way, &["--report", "jsonl"]].concat(), None);
            let rows = rows(&output);
            assert_eq!(
                (rows.len(), &rows[0]["path"]),
                (1, &"d/f".into()),
                "{way:?}"
            );
        }
        // What is a folder for git is not the file that is staged in its place.
        let bogus = object(root, "tree", &entry(mode, "k", &blob));
        committed(root, &bogus, &[&last]);
        git(root, &["read-tree", "--empty"]);
        let staged = format!("100644,{blob},k");
        git(root, &["update-index", "--add", "--cacheinfo", &staged]);
        let output = scan_bounded(root, &["--staged", "--report", "jsonl"], None);
        assert_eq!(rows(&output).len(), 1, "{}", text(&output));
    }
}

#[test]
fn what_a_folder_has_under_a_mode_of_no_type_is_scanned_once() {
    let repository = repository();
    let root = repository.path();
    let first = commit(root, "Begin");
    let mut last = first.clone();
    let leak = object(root, "blob", secret().expose().as_bytes());
    for mode in ["0", "140000", "20000", "170000"] {
        let top = object(root, "tree", &entry(mode, "f", &leak));
        last = committed(root, &top, &[&last]);
    }
    for way in [&["--git", "."][..], &["--since", &first]] {
        let output = scan_bounded(root, &[way, &["--report", "jsonl"]].concat(), None);
        let rows = rows(&output);
        assert_eq!((rows.len(), &rows[0]["path"]), (1, &"f".into()), "{way:?}");
    }
    // It may be a folder, or missing.
    for is_folder in [true, false] {
        let other = crate::scan::repository();
        let root = other.path();
        let first = commit(root, "Begin");
        let hidden = object(root, "blob", secret().expose().as_bytes());
        let within = object(root, "tree", &entry("100644", "f", &hidden));
        let leads_to = if is_folder { within } else { "1".repeat(40) };
        let top = object(root, "tree", &entry("140000", "g", &leads_to));
        committed(root, &top, &[&first]);
        let output = scan_bounded(root, &["--git", "."], None);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    }
}

#[test]
fn commits_that_are_listed_as_cut_off_may_have_few_parents() {
    let repository = repository();
    let root = repository.path();
    let first = commit(root, "Begin");
    let (leak, _) = with_key(root, "f");
    committed(root, &leak, &[&first]);
    let empty = folder(root, "");
    let person = "a <a@example.com> 1700000000 +0000";
    let parents: Vec<String> = (1..=20_000).map(|n| format!("parent {n:040x}\n")).collect();
    let parents = parents.concat();
    let listed: Vec<String> = (0..8)
        .map(|n| {
            let commit =
                format!("tree {empty}\n{parents}author {person}\ncommitter {person}\n\n{n}\n");
            object(root, "commit", commit.as_bytes())
        })
        .collect();
    fs::write(root.join(".git/shallow"), listed.join("\n")).expect("a file");
    for way in [&["--git", "."][..], &["--since", &first]] {
        let output = scan_bounded(root, way, Some(512 << 10));
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{way:?}: {said}");
        assert!(said.contains("too many parents"), "{way:?}: {said}");
        assert!(said.contains("1 not scanned"), "{way:?}: {said}");
    }
}
