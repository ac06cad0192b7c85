//! Folders that take long to compare: one name many times, and one large folder in many places.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use super::bombs::{committed, folder, rows};
use super::forged::{entry, object};
use super::scan_bounded;
use crate::scan::{commit, git, repository, run, secret, text};

/// Makes a folder of 8 MiB with as many files as that has room for.
fn crowded(root: &Path, blob: &str) -> String {
    let entries = (0..230_000).map(|n| entry("100644", &format!("{n:08}"), blob));
    object(root, "tree", &entries.collect::<Vec<_>>().concat())
}

/// Makes a folder of 12 MiB with a file, and another one whose name takes them.
fn with_long_name(root: &Path, blob: &str, n: usize) -> String {
    let long = format!("{n}{}", "x".repeat(12 << 20));
    let entries = [entry("100644", &long, blob), entry("100644", "f", blob)];
    object(root, "tree", &entries.concat())
}

/// Stages `f` in each of so many folders.
fn stage(root: &Path, blob: &str, folders: usize) {
    let mut list = String::new();
    for n in 0..folders {
        writeln!(list, "100644 {blob}\td{n:04}/f").expect("a string");
    }
    git(root, &["read-tree", "--empty"]);
    let mut update = Command::new("git");
    update
        .args(["update-index", "--index-info"])
        .current_dir(root);
    let updated = run(&mut update, list.as_bytes());
    assert!(updated.status.success(), "{}", text(&updated));
}

/// Makes a folder that has each of these in a place of its own.
fn in_places(root: &Path, folders: &[&str]) -> String {
    let mut entries = String::new();
    for (n, id) in folders.iter().enumerate() {
        writeln!(entries, "040000 tree {id}\td{n:04}").expect("a string");
    }
    folder(root, &entries)
}

#[test]
fn a_name_that_folders_repeat_is_looked_up() {
    let repository = repository();
    let root = repository.path();
    let blob = object(root, "blob", b"x\n");
    let same = entry("100644", "a", &blob).repeat(100_000);
    let leak = object(root, "blob", secret().expose().as_bytes());
    let other = [same.clone(), entry("100644", "b", &blob)].concat();
    let first = committed(root, &object(root, "tree", &other), &[]);
    let same = [same, entry("100644", "c", &leak)].concat();
    committed(root, &object(root, "tree", &same), &[&first]);
    let output = scan_bounded(root, &["--since", &first, "--report", "jsonl"], None);
    assert_eq!(rows(&output).len(), 1, "{}", text(&output));
}

#[test]
fn a_large_folder_that_many_are_compared_with_is_read_once() {
    let repository = repository();
    let root = repository.path();
    let blob = object(root, "blob", b"x\n");
    let leak = object(root, "blob", secret().expose().as_bytes());
    let crowded = crowded(root, &blob);
    let first = committed(root, &crowded, &[]);
    let children: Vec<String> = (0..200)
        .map(|n| {
            let entries = format!("100644 blob {blob}\tf{n}\n100644 blob {leak}\tg\n");
            committed(root, &folder(root, &entries), &[&first])
        })
        .collect();
    let children: Vec<&str> = children.iter().map(String::as_str).collect();
    committed(root, &folder(root, ""), &children);
    let output = scan_bounded(root, &["--since", &first, "--report", "jsonl"], None);
    assert_eq!(rows(&output).len(), 1, "{}", text(&output));
    // The same of what is staged, each in the place of the large one.
    let clean = object(root, "blob", b"y\n");
    committed(root, &in_places(root, &[crowded.as_str(); 200]), &[]);
    stage(root, &clean, 200);
    let output = scan_bounded(root, &["--staged"], None);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn once_large_folders_were_read_too_often_all_counts_as_new() {
    let repository = repository();
    let root = repository.path();
    let leak = object(root, "blob", secret().expose().as_bytes());
    let large = [0, 1].map(|n| with_long_name(root, &leak, n));
    let begun = commit(root, "Begin");
    let parents = large
        .each_ref()
        .map(|folder| committed(root, folder, &[&begun]));
    let before = committed(
        root,
        &folder(root, ""),
        &parents.each_ref().map(String::as_str),
    );
    let since = |times: usize| {
        let mut children = vec![before.clone()];
        for n in 0..times {
            let blob = object(root, "blob", b"x\n");
            let entries = format!("100644 blob {leak}\tf\n100644 blob {blob}\tg{n}\n");
            children.push(committed(root, &folder(root, &entries), &[&parents[n % 2]]));
        }
        let children: Vec<&str> = children.iter().map(String::as_str).collect();
        committed(root, &folder(root, ""), &children);
        scan_bounded(root, &["--since", &before, "--report", "jsonl"], None)
    };
    let few = since(4);
    assert_eq!(few.status.code(), Some(0), "{}", text(&few));
    let many = since(40);
    assert_eq!(rows(&many).len(), 1, "{}", text(&many));

    let staged = |times: usize| {
        let folders: Vec<&str> = (0..times).map(|n| large[n % 2].as_str()).collect();
        committed(root, &in_places(root, &folders), &[]);
        stage(root, &leak, times);
        scan_bounded(root, &["--staged"], None)
    };
    let few = staged(4);
    assert_eq!(few.status.code(), Some(0), "{}", text(&few));
    let many = staged(40);
    assert_eq!(many.status.code(), Some(1), "{}", text(&many));
    let said = text(&many);
    assert!(said.contains("they take too much to read"), "{said}");
}

/// Makes so many merges of all of these commits, and scans them. Each has a key in `f`, where all of these have it, too.
fn scan_merges(root: &Path, parents: &[String], leak: &str, times: usize) -> Output {
    let parents: Vec<&str> = parents.iter().map(String::as_str).collect();
    let before = committed(root, &folder(root, ""), &parents);
    let mut tips = vec![before.clone()];
    let blob = object(root, "blob", b"x\n");
    tips.extend((0..times).map(|n| {
        let entries = format!("100644 blob {leak}\tf\n100644 blob {blob}\tg{n}\n");
        committed(root, &folder(root, &entries), &parents)
    }));
    let tips: Vec<&str> = tips.iter().map(String::as_str).collect();
    committed(root, &folder(root, ""), &tips);
    scan_bounded(root, &["--since", &before, "--report", "jsonl"], None)
}

#[test]
fn once_small_folders_of_parents_were_read_too_often_all_counts_as_new() {
    let repository = repository();
    let root = repository.path();
    let leak = object(root, "blob", secret().expose().as_bytes());
    let begun = commit(root, "Begin");
    let parents: Vec<String> = (0..60)
        .map(|n| {
            let long = format!("{n}{}", "x".repeat(60_000));
            let entries = [entry("100644", &long, &leak), entry("100644", "f", &leak)];
            committed(root, &object(root, "tree", &entries.concat()), &[&begun])
        })
        .collect();
    let few = scan_merges(root, &parents, &leak, 10);
    assert_eq!(few.status.code(), Some(0), "{}", text(&few));
    let many = scan_merges(root, &parents, &leak, 100);
    assert_eq!(rows(&many).len(), 1, "{}", text(&many));
}

#[test]
fn once_large_parents_were_read_too_often_all_counts_as_new() {
    let repository = repository();
    let root = repository.path();
    let leak = object(root, "blob", secret().expose().as_bytes());
    let tree = folder(root, &format!("100644 blob {leak}\tf\n"));
    let person = "a <a@example.com> 1700000000 +0000";
    let message = "x".repeat(5 << 20);
    let parents: Vec<String> = (0..16)
        .map(|n| {
            let commit =
                format!("tree {tree}\nauthor {person}\ncommitter {person}\n\n{n}{message}\n");
            object(root, "commit", commit.as_bytes())
        })
        .collect();
    let few = scan_merges(root, &parents, &leak, 2);
    assert_eq!(few.status.code(), Some(0), "{}", text(&few));
    let many = scan_merges(root, &parents, &leak, 8);
    assert_eq!(rows(&many).len(), 1, "{}", text(&many));
}
