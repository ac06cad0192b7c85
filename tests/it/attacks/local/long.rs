//! Repositories whose names and paths take time or memory: a name may have as many bytes as a folder.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::bombs::{committed, folder, rows};
use super::forged::{entry, object};
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

/// An index of the second version, in which each path is whole, of any paths in any order.
fn index_of(blob: &str, paths: &[String]) -> Vec<u8> {
    let files = u32::try_from(paths.len()).expect("few");
    let mut index = [b"DIRC", &2_u32.to_be_bytes()[..], &files.to_be_bytes()].concat();
    for path in paths {
        let mut entry = head_of_entry(blob);
        entry.extend(path.bytes());
        // One to eight bytes, so that the next one begins at a multiple of eight.
        entry.resize(entry.len() / 8 * 8 + 8, 0);
        index.extend(entry);
    }
    index.extend([0; 20]);
    index
}

fn head_of_entry(blob: &str) -> Vec<u8> {
    // Times, device, inode, mode, owner and size.
    let mut entry = [[0; 4]; 10];
    entry[6] = 0o100_644_u32.to_be_bytes();
    let hash = hex::decode(blob).expect("a hash");
    // Of its flags the length, which is at its maximum.
    [&entry.concat()[..], &hash, &0xfff_u16.to_be_bytes()].concat()
}

/// An index of the fourth version, in which a path takes as much as it differs from the one before
/// (`gitformat-index`).
fn index(blob: &str, folders: &str, files: u32) -> Vec<u8> {
    let mut index = [b"DIRC", &4_u32.to_be_bytes()[..], &files.to_be_bytes()].concat();
    for n in 0..files {
        index.extend(head_of_entry(blob));
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

#[test]
fn a_path_in_the_index_that_is_too_long_is_named() {
    let repository = repository();
    let root = repository.path();
    commit(root, "Begin");
    let key = secret();
    write(root, "key", key.expose());
    let blob = git(root, &["hash-object", "-w", "key"]);
    let paths = ["x".repeat(3 << 20)];
    fs::write(root.join(".git/index"), index_of(&blob, &paths)).expect("an index");
    let output = scan_bounded(root, &["--staged"], Some(MEMORY));
    let said = text(&output);
    // Its contents are scanned.
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("its path has more than 1024 KiB"), "{said}");
}

#[test]
fn folders_of_head_are_read_again_as_often_as_there_is_time() {
    let repository = repository();
    let root = repository.path();
    let blob = blob(root);
    let filler = entry("100644", &"z".repeat(60_000), &blob);
    let mut deep = object(root, "tree", &filler);
    for _ in 0..20 {
        deep = object(
            root,
            "tree",
            &[entry("40000", "d", &deep), filler.clone()].concat(),
        );
    }
    let two = format!("040000 tree {deep}\ta\n040000 tree {deep}\tb\n");
    committed(root, &folder(root, &two), &[]);
    let mut paths: Vec<String> = (0..1_000)
        .map(|n| format!("{}{}/{n:06}", ["a", "b"][n % 2], "/d".repeat(20)))
        .collect();
    let staged = |paths: &[String]| {
        fs::write(root.join(".git/index"), index_of(&blob, paths)).expect("an index");
        scan_bounded(root, &["--staged"], Some(MEMORY))
    };
    let mixed = staged(&paths);
    assert_eq!(mixed.status.code(), Some(3), "{}", text(&mixed));
    let said = "its folders cannot be read: they take too much to read";
    assert!(text(&mixed).contains(said), "{}", text(&mixed));
    // In the order in which git has it, each is read once.
    paths.sort();
    let sorted = staged(&paths);
    assert_eq!(sorted.status.code(), Some(0), "{}", text(&sorted));
}

#[test]
fn what_git_tracks_is_read_in_time_in_proportion_to_its_paths() {
    let repository = repository();
    let root = repository.path();
    write(root, ".gitignore", "x\n");
    write(root, "x", secret().expose());
    let blob = blob(root);
    let paths = [format!("{}f", "a/".repeat(500_000)), "x".to_owned()];
    fs::write(root.join(".git/index"), index_of(&blob, &paths[..1])).expect("an index");
    let output = scan_bounded(root, &["."], Some(MEMORY));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    fs::write(root.join(".git/index"), index_of(&blob, &paths)).expect("an index");
    let output = scan_bounded(root, &["."], Some(MEMORY));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
}

#[test]
fn what_repositories_within_each_other_track_has_one_room() {
    let repository = repository();
    let root = repository.path();
    let blob = blob(root);
    // Two million folders.
    let paths: Vec<String> = (0..1_000)
        .map(|n| format!("{n:06}{}/f", "/a".repeat(2_000)))
        .collect();
    fs::write(root.join(".git/index"), index_of(&blob, &paths)).expect("an index");
    write(root, ".gitignore", "x\n");
    write(root, "x", "x\n");
    let link = format!("gitdir: {}/.git\n", root.display());
    write(root, "inner/.git", &link);
    write(root, "inner/x", secret().expose());
    let output = scan_bounded(&root.join("inner"), &["."], Some(MEMORY));
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("none is left out: there are too many"),
        "{said}"
    );
}

#[test]
fn repositories_within_each_other_are_asked_up_to_a_number() {
    let outer = repository();
    write(outer.path(), ".gitignore", "x\n");
    let mut root = outer.path().to_owned();
    for _ in 0..16 {
        root.push("r");
        fs::create_dir(&root).expect("a folder");
        git(&root, &["init", "--quiet"]);
    }
    write(&root, "x", secret().expose());
    let output = scan_bounded(outer.path(), &["."], None);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    root.push("r");
    fs::create_dir(&root).expect("a folder");
    git(&root, &["init", "--quiet"]);
    write(&root, "x", secret().expose());
    let output = scan_bounded(outer.path(), &["."], None);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("more than 16 repositories"), "{said}");
}

#[test]
fn names_of_references_that_are_too_long_are_counted() {
    let repository = repository();
    let root = repository.path();
    let head = commit(root, "Begin");
    let long = format!("refs/heads{}", format!("/{}", "a".repeat(200)).repeat(40));
    let key = secret();
    let packed = format!(
        "# pack-refs with: peeled fully-peeled sorted \n\
         {head} {long}\n{head} {long}b\n{head} refs/heads/{}\n",
        key.expose()
    );
    fs::write(root.join(".git/packed-refs"), packed).expect("a file");
    let output = scan_bounded(root, &["--git", "."], None);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("more than 4 KiB: 2"), "{said}");
}

#[test]
fn stashes_that_are_too_many_are_not_held() {
    let repository = repository();
    let root = repository.path();
    let head = commit(root, "Begin");
    fs::write(root.join(".git/refs/stash"), format!("{head}\n")).expect("a file");
    fs::create_dir_all(root.join(".git/logs/refs")).expect("a folder");
    let line = format!("{head} {head} a <a@example.com> 1700000000 +0000\tx\n");
    let log = |lines: usize| {
        fs::write(root.join(".git/logs/refs/stash"), line.repeat(lines)).expect("a file");
        scan_bounded(root, &["--git", "."], None)
    };
    let many = log(100_100);
    assert_eq!(many.status.code(), Some(3), "{}", text(&many));
    let said = "stashes beyond the latest 100000";
    assert!(text(&many).contains(said), "{}", text(&many));
    let few = log(1_000);
    assert_eq!(few.status.code(), Some(0), "{}", text(&few));
}
