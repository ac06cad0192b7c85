//! Repositories whose names and paths take time or memory: a name may have as many bytes as a folder.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::bombs::{committed, folder, rows};
use super::scan_bounded;
use crate::scan::{commit, git, repository, run, secret, text, write};

/// Maximum address space of a scan, in KiB.
const MEMORY: u64 = 768 << 10;

/// The same, where what would be held takes less. The program, its threads and git take some without any scan.
const LITTLE_MEMORY: u64 = 320 << 10;

fn blob(root: &Path) -> String {
    write(root, "contents", "contents\n");
    git(root, &["hash-object", "-w", "contents"])
}

/// Makes a folder of one file.
fn named(root: &Path, name: &[u8]) -> String {
    let hash = hex::decode(blob(root)).expect("a hash");
    let entry = [b"100644 ", name, b"\0", &hash].concat();
    let mut hash_object = Command::new("git");
    hash_object
        .args(["hash-object", "-w", "-t", "tree", "--literally", "--stdin"])
        .current_dir(root);
    let made = run(&mut hash_object, &entry);
    assert!(made.status.success(), "{}", text(&made));
    String::from_utf8(made.stdout)
        .expect("UTF-8")
        .trim()
        .to_owned()
}

#[test]
fn long_names_of_nested_folders_are_not_held_for_each_of_them() {
    let repository = repository();
    let root = repository.path();
    let first = commit(root, "Begin");
    let key = secret();
    write(root, "key", key.expose());
    let blob = git(root, &["hash-object", "-w", "key"]);
    let mut top = folder(root, &format!("100644 blob {blob}\tf\n"));
    for n in 0..250 {
        let name = format!("{n:0<65000}");
        top = folder(root, &format!("040000 tree {top}\t{name}\n"));
    }
    top = folder(root, &format!("040000 tree {top}\td\n"));
    committed(root, &top, &[&first]);
    for way in [&["--since", &first][..], &["--git", "."]] {
        let output = scan_bounded(root, &[way, &["--report", "jsonl"]].concat(), Some(MEMORY));
        let rows = rows(&output);
        // Only what is shown of the path is cut.
        assert_eq!(rows.len(), 1, "{way:?}");
        assert_eq!(rows[0]["path"], "d/…", "{way:?}");
    }
}

#[test]
fn large_folders_of_the_parents_of_a_merge_are_held_one_at_a_time() {
    let repository = repository();
    let root = repository.path();
    let first = commit(root, "Begin");
    let parents: Vec<String> = (0..30)
        .map(|n| {
            let name = format!("{n}{}", "x".repeat(12 << 20));
            committed(root, &named(root, name.as_bytes()), &[&first])
        })
        .collect();
    let parents: Vec<&str> = parents.iter().map(String::as_str).collect();
    // What they added themselves is not scanned.
    let known = committed(root, &named(root, b"known"), &parents);
    let key = secret();
    write(root, "key", key.expose());
    let blob = git(root, &["hash-object", "-w", "key"]);
    let merged = folder(root, &format!("100644 blob {blob}\tf\n"));
    committed(root, &merged, &parents);
    let way = ["--since", &known, "--report", "jsonl"];
    let output = scan_bounded(root, &way, Some(LITTLE_MEMORY));
    assert_eq!(rows(&output).len(), 1, "{}", text(&output));
}

#[test]
fn a_key_that_a_name_repeats_is_told_once_and_soon() {
    let repository = repository();
    let root = repository.path();
    let first = commit(root, "Begin");
    let (key, other) = (secret(), secret());
    let name = format!("{} ", key.expose()).repeat((1 << 20) / 44);
    let name = format!("{name}{}", other.expose());
    committed(root, &named(root, name.as_bytes()), &[&first]);
    for way in [&["--since", &first][..], &["--git", "."]] {
        let output = scan_bounded(root, &[way, &["--report", "jsonl"]].concat(), Some(MEMORY));
        let rows = rows(&output);
        let in_names = rows.iter().filter(|row| row["in"] == "name").count();
        assert_eq!((rows.len(), in_names), (2, 2), "{way:?}");
        // Its beginning would end in that of a key.
        assert!(rows.iter().all(|row| row["path"] == "…"), "{way:?}");
    }
}

/// An index of the fourth version, in which a path takes as much as it differs from the one before
/// (`gitformat-index`).
fn index(blob: &str, folders: &str, files: u32) -> Vec<u8> {
    let mut index = [b"DIRC", &4_u32.to_be_bytes()[..], &files.to_be_bytes()].concat();
    for n in 0..files {
        // Times, device, inode, mode, owner and size.
        let mut entry = [[0; 4]; 10];
        entry[6] = 0o100_644_u32.to_be_bytes();
        index.extend(entry.concat());
        index.extend(hex::decode(blob).expect("a hash"));
        // Of its flags the length, which is at its maximum.
        index.extend(0xfff_u16.to_be_bytes());
        let name = format!("{n:06}");
        if n == 0 {
            index.push(0);
            index.extend(folders.bytes());
        } else {
            index.push(6);
        }
        index.extend(name.bytes());
        index.push(0);
    }
    // Nobody checks the digest that follows.
    index.extend([0; 20]);
    index
}

#[test]
fn what_is_staged_is_read_in_time_in_proportion_to_its_paths() {
    let repository = repository();
    let root = repository.path();
    commit(root, "Begin");
    let key = secret();
    write(root, "key", key.expose());
    let blob = git(root, &["hash-object", "-w", "key"]);
    let folders = "d/".repeat(8_000);
    fs::write(root.join(".git/index"), index(&blob, &folders, 4_000)).expect("an index");
    let output = scan_bounded(root, &["--staged", "--report", "jsonl"], Some(MEMORY));
    let rows = rows(&output);
    assert_eq!(rows.len(), 1, "{}", text(&output));
    assert_eq!(rows[0]["path"], *format!("{folders}000000"));
}
