//! Git bombs: a few objects that name more files than anybody can list.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::scan_bounded;
use crate::scan::{commit, git, repository, run, secret, text, write};

/// Maximum address space of a scan, in KiB. Git has some of its own.
const MEMORY: u64 = 1 << 20;

/// Number of folders in each other, each of which has the next one ten times.
const LAYERS: usize = 10;

/// Makes a folder of these entries, with git's own words.
pub(super) fn folder(root: &Path, entries: &str) -> String {
    let mut mktree = Command::new("git");
    mktree.args(["mktree"]).current_dir(root);
    let made = run(&mut mktree, entries.as_bytes());
    assert!(made.status.success(), "{}", text(&made));
    String::from_utf8(made.stdout)
        .expect("UTF-8")
        .trim()
        .to_owned()
}

/// Makes a folder that names 10^10 files with these contents, and returns it.
fn bomb(root: &Path, contents: &str, name: &str) -> String {
    write(root, "contents", contents);
    let blob = git(root, &["hash-object", "-w", "contents"]);
    let ten = |entry: &str| -> String {
        let entries: Vec<String> = (0..10).map(|n| format!("{entry}{n}\n")).collect();
        entries.concat()
    };
    let mut top = folder(root, &ten(&format!("100644 blob {blob}\t{name}")));
    for _ in 1..LAYERS {
        top = folder(root, &ten(&format!("040000 tree {top}\td")));
    }
    top
}

/// Commits a folder on top of another commit.
pub(super) fn committed(root: &Path, folder: &str, parents: &[&str]) -> String {
    let parents = parents.iter().flat_map(|parent| ["-p", parent]);
    let line = ["commit-tree", folder, "-m", "x"]
        .into_iter()
        .chain(parents);
    let commit = git(root, &line.collect::<Vec<_>>());
    git(root, &["update-ref", "refs/heads/main", &commit]);
    commit
}

#[track_caller]
pub(super) fn rows(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(1), "{}", text(output));
    let rows = String::from_utf8_lossy(&output.stdout);
    let rows = rows
        .lines()
        .map(|row| serde_json::from_str(row).expect("JSON"));
    rows.collect()
}

#[test]
fn each_object_of_a_bomb_is_read_once_in_every_way() {
    let repository = repository();
    let root = repository.path();
    let first = commit(root, "Begin");
    let name = secret();
    let top = bomb(root, secret().expose(), &format!("{}.", name.expose()));
    let second = committed(root, &top, &[&first]);
    // Another one that differs from it in everything, and a merge of both.
    let other = bomb(root, secret().expose(), "f");
    let third = committed(root, &other, &[&second]);
    let both = format!("040000 tree {top}\ta\n040000 tree {other}\tb\n");
    committed(root, &folder(root, &both), &[&third, &second]);
    git(root, &["read-tree", "--empty"]);
    for way in [&["--git", "."][..], &["--since", &first]] {
        let output = scan_bounded(root, &[way, &["--report", "jsonl"]].concat(), Some(MEMORY));
        let rows = rows(&output);
        let contents = rows.iter().filter(|row| row["object"]["kind"] == "blob");
        assert_eq!(contents.count(), 2, "{way:?}: {rows:?}");
        let names = rows.iter().filter(|row| row["in"] == "name");
        assert_eq!(names.count(), 10, "each name once: {way:?}: {rows:?}");
    }
    // The index has none of that, and nothing is staged but what takes it away.
    let output = scan_bounded(root, &["--staged"], Some(MEMORY));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let plain = scan_bounded(root, &["."], Some(MEMORY));
    assert_eq!(plain.status.code(), Some(1), "{}", text(&plain));
}

#[test]
fn a_bomb_in_a_sparse_index_is_read_once() {
    let repository = repository();
    let root = repository.path();
    write(root, "in/a", "a\n");
    write(root, "out/b", "b\n");
    let first = commit(root, "Begin");
    let top = bomb(root, secret().expose(), "f");
    let kept = git(root, &["rev-parse", "HEAD:in"]);
    let both = format!("040000 tree {kept}\tin\n040000 tree {top}\tout\n");
    let second = committed(root, &folder(root, &both), &[&first]);
    let cone = ["sparse-checkout", "set", "--cone", "--sparse-index", "in"];
    git(root, &["update-ref", "refs/heads/main", &first]);
    git(root, &cone);
    // As a whole, without looking into it.
    git(
        root,
        &["-c", "index.sparse=true", "read-tree", "-m", &second],
    );
    let listed = git(root, &["ls-files", "--sparse"]);
    assert!(listed.lines().any(|entry| entry == "out/"), "{listed}");
    let way = ["--staged", "--report", "jsonl"];
    let output = scan_bounded(root, &way, Some(MEMORY));
    assert_eq!(rows(&output).len(), 1, "{}", text(&output));
}

#[test]
fn a_folder_that_is_compared_with_many_others_is_read_a_few_times() {
    let repository = repository();
    let root = repository.path();
    let first = commit(root, "Begin");
    let key = secret();
    let last = bomb(root, key.expose(), "f");
    // Each commit has the same folder in another place, where the one before has another.
    let mut tip = first.clone();
    for n in 0..40 {
        let filler = folder(root, &format!("040000 tree {last}\td{n}\n"));
        let swapped = if n % 2 == 0 {
            format!("040000 tree {filler}\ta\n040000 tree {last}\tb\n")
        } else {
            format!("040000 tree {last}\ta\n040000 tree {filler}\tb\n")
        };
        tip = committed(root, &folder(root, &swapped), &[&tip]);
    }
    let way = ["--since", &first, "--report", "jsonl"];
    let output = scan_bounded(root, &way, Some(MEMORY));
    assert_eq!(rows(&output).len(), 1, "{}", text(&output));
}
