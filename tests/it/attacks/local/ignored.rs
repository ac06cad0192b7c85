//! Ignore files that have no end, wait for ever, or take more memory than there is: they are not obeyed, so that more
//! is scanned and not less.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use super::scan_bounded;
use crate::scan::{commit, folder, git, repository, secret, text, write};

/// Maximum address space of a scan, in KiB. Includes the program itself, stacks, and untouched pages.
const MEMORY: u64 = 512 << 10;

/// Kinds of invalid ignore files, and the message for each.
const KINDS: [(&str, &str); 4] = [
    ("link", "not a regular file"),
    ("pipe", "not a regular file"),
    ("large", "larger than 1 MiB"),
    ("lines", "more than 10000 lines"),
];

/// Patterns that take much memory when they are compiled.
fn globs(count: usize) -> String {
    let mut globs = String::new();
    for n in 0..count {
        writeln!(globs, "*a{n}*?b?[c-d]*.x{n}").expect("a string takes all");
    }
    globs
}

fn plant(kind: &str, path: &Path) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    match kind {
        "link" => symlink("/dev/zero", path).expect("a link"),
        "pipe" => {
            let made = Command::new("mkfifo").arg(path).status();
            assert!(made.expect("mkfifo runs").success());
        }
        // Other tools would read these as patterns that exclude everything.
        "large" => fs::write(path, format!("*\n{}", globs(400_000))).expect("a file"),
        "lines" => fs::write(path, format!("*\n{}", globs(10_001))).expect("a file"),
        _ => unreachable!("{kind}"),
    }
}

/// Scans within bounds of memory and time.
fn scan_small(root: &Path, arguments: &[&str]) -> Output {
    scan_bounded(root, arguments, Some(MEMORY))
}

/// Asserts that a scan found the key in the file, and said what of the ignore file.
#[track_caller]
fn finds(output: &Output, file: &str, ignore_file: &str, reason: &str) {
    let said = text(output);
    // A pipe is nothing that can be scanned, but a key that is found counts for more.
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("{file}:1:")), "no {file} in {said}");
    let note = format!("ignore file not obeyed: {ignore_file}: {reason}");
    assert!(said.contains(&note), "no {note:?} in {said}");
}

fn planted_key(root: &Path, name: &str) {
    write(root, name, format!("{}\n", secret().expose()));
}

#[test]
fn hostile_ignore_files_are_not_obeyed_wherever_they_are() {
    for (kind, reason) in KINDS {
        for name in [".gitignore", ".ignore", ".git/info/exclude"] {
            let folder = folder();
            let root = folder.path();
            planted_key(root, "top/key.env");
            planted_key(root, "top/deep/key.env");
            let what = format!("{kind} as {name}");
            // At the root of a scan, above it, and below it.
            plant(kind, &root.join("top").join(name));
            let at_root = scan_small(&root.join("top"), &["."]);
            finds(&at_root, "./key.env", &format!("./{name}"), reason);
            finds(&at_root, "./deep/key.env", &format!("./{name}"), reason);
            let above = scan_small(&root.join("top/deep"), &["."]);
            let absolute = fs::canonicalize(root)
                .expect("it is there")
                .join("top")
                .join(name);
            finds(&above, "./key.env", &absolute.display().to_string(), reason);
            let below = scan_small(root, &["."]);
            finds(&below, "./top/key.env", &format!("./top/{name}"), reason);
            // Nothing is said where ignore files do not count anyway.
            let all = scan_small(&root.join("top"), &[".", "--no-ignore"]);
            assert_eq!(all.status.code(), Some(1), "{what}: {}", text(&all));
            assert!(!text(&all).contains("not obeyed"), "{what}: {}", text(&all));
        }
    }
}

#[test]
fn a_clone_brings_hostile_ignore_files_and_good_ones_still_count() {
    let origin = repository();
    plant("link", &origin.path().join("a/.gitignore"));
    plant("link", &origin.path().join("b/.ignore"));
    plant("large", &origin.path().join("c/.ignore"));
    write(origin.path(), "good/.gitignore", "*.env\n!kept.env\n");
    for name in ["a/key.env", "b/key.env", "c/key.env", "good/kept.env"] {
        planted_key(origin.path(), name);
    }
    git(origin.path(), &["add", "--force", "--all"]);
    commit(origin.path(), "Add");
    let clones = folder();
    let from = origin.path().display().to_string();
    git(clones.path(), &["clone", "--quiet", &from, "clone"]);
    let root = clones.path().join("clone");
    // What git tracks would not be left out.
    planted_key(&root, "good/deep/left-out.env");
    let output = scan_small(&root, &["."]);
    finds(
        &output,
        "./a/key.env",
        "./a/.gitignore",
        "not a regular file",
    );
    finds(&output, "./b/key.env", "./b/.ignore", "not a regular file");
    finds(&output, "./c/key.env", "./c/.ignore", "larger than 1 MiB");
    let said = text(&output);
    assert!(said.contains("./good/kept.env:1:"), "{said}");
    assert!(!said.contains("left-out.env"), "{said}");
    assert!(said.contains("4 candidates"), "{said}");
}

#[test]
fn an_ignore_file_that_is_not_obeyed_makes_no_scan_incomplete() {
    let folder = folder();
    plant("large", &folder.path().join(".gitignore"));
    let output = scan_small(folder.path(), &["."]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("not obeyed"), "{}", text(&output));
}

#[test]
fn a_file_named_git_cannot_name_what_has_no_end() {
    for kind in ["link", "pipe"] {
        let folder = folder();
        let root = folder.path();
        plant(kind, &root.join("elsewhere/commondir"));
        write(
            root,
            "linked/.git",
            format!("gitdir: {}/elsewhere\n", root.display()),
        );
        planted_key(root, "linked/key.env");
        plant(kind, &root.join("endless/.git"));
        planted_key(root, "endless/key.env");
        let output = scan_small(root, &["."]);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for found in ["./linked/key.env:1:", "./endless/key.env:1:"] {
            assert!(said.contains(found), "{kind}: no {found} in {said}");
        }
    }
}

#[test]
fn ignore_files_of_a_working_tree_of_its_own_and_of_parents_count() {
    let main = repository();
    write(main.path(), "base.txt", "nothing\n");
    commit(main.path(), "Begin");
    write(main.path(), ".git/info/exclude", "/excluded.env\n");
    let trees = folder();
    let tree = trees.path().join("tree");
    git(
        main.path(),
        &["worktree", "add", "--quiet", &tree.display().to_string()],
    );
    write(trees.path(), ".gitignore", "/tree/deep/above.env\n");
    write(trees.path(), ".ignore", "!named.env\n");
    write(&tree, ".gitignore", "named.env\n");
    for name in [
        "excluded.env",
        "deep/above.env",
        "named.env",
        "deep/excluded.env",
    ] {
        planted_key(&tree, name);
    }
    let output = scan_small(&tree, &["."]);
    let said = text(&output);
    // Any `.ignore` comes before any `.gitignore`.
    assert!(said.contains("./named.env:1:"), "{said}");
    assert!(said.contains("./deep/excluded.env:1:"), "{said}");
    assert!(said.contains("2 candidates"), "{said}");
    let deep = scan_small(&tree.join("deep"), &["."]);
    assert!(text(&deep).contains("1 candidates"), "{}", text(&deep));
}

#[test]
fn many_ignore_files_on_one_path_take_no_more_memory_than_one_may() {
    let folder = folder();
    let globs = globs(9_000);
    let mut path = String::from(".");
    for depth in 0..50 {
        write(folder.path(), &format!("{path}/.gitignore"), &globs);
        write(
            folder.path(),
            &format!("{path}/.ignore"),
            format!("*?a?????????{depth}\n"),
        );
        path.push_str("/aaaaaaaaaaaaaa");
    }
    planted_key(folder.path(), &format!("{path}/key.env"));
    let output = scan_small(folder.path(), &["."]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("take more than 16 MiB"), "{said}");
}
