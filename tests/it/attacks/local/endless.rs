//! Pipes, sockets, devices and links to them where a scan, or git, expects a file: nothing waits for them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Instant;

use super::scan_bounded;
use crate::scan::{commit, folder, git, program, repository, run, secret, text, write};

/// The ways to be no file, and what each is called.
const KINDS: [(&str, &str); 4] = [
    ("pipe", "a named pipe"),
    ("socket", "a socket"),
    ("link to a device", "a device"),
    ("link to a pipe", "a named pipe"),
];

/// The ways to scan a repository.
const WAYS: [&[&str]; 3] = [&["--git", "."], &["--staged"], &["--since", "HEAD~1"]];

/// Puts something there that is no file, whatever is there.
fn plant(kind: &str, path: &Path) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    let _ = fs::remove_file(path);
    match kind {
        "pipe" => pipe(path),
        "socket" => drop(UnixListener::bind(path).expect("a socket")),
        "link to a device" => symlink("/dev/zero", path).expect("a link"),
        "link to a pipe" => {
            let away = path.with_extension("elsewhere");
            pipe(&away);
            symlink(away.file_name().expect("a name"), path).expect("a link");
        }
        _ => unreachable!("{kind}"),
    }
}

fn pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo runs").success());
}

/// Scans; a scan that does not end has no exit code.
fn scan(root: &Path, arguments: &[&str]) -> Output {
    scan_bounded(root, arguments, None)
}

/// Asserts that each way to scan ends, with words on a path and what it is.
#[track_caller]
fn refused(root: &Path, path: &str, what: &str) {
    for arguments in WAYS {
        let output = scan(root, arguments);
        let said = text(&output);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{path}, {arguments:?}: {said}"
        );
        let words = format!("{path}: it is {what} and not a file");
        assert!(said.contains(&words), "{path}, {arguments:?}: {said}");
    }
}

/// A repository of two commits, a tag, a stash, and something staged.
fn rig() -> tempfile::TempDir {
    let folder = repository();
    let root = folder.path();
    write(root, "a.txt", "one\n");
    commit(root, "Begin");
    write(root, "b.txt", "two\n");
    commit(root, "Add");
    git(root, &["tag", "v1"]);
    write(root, "a.txt", "three\n");
    git(root, &["stash"]);
    write(root, "c.env", secret().expose());
    git(root, &["add", "--all"]);
    folder
}

#[test]
fn what_git_would_wait_for_is_named_before_git_starts() {
    let kinds = KINDS.into_iter().enumerate();
    for (n, (kind, what)) in kinds {
        let all = [
            "HEAD",
            "config",
            "index",
            "packed-refs",
            "shallow",
            "info/exclude",
            "info/attributes",
            "info/grafts",
            "objects/info/alternates",
            "objects/info/commit-graph",
            "objects/pack/pack-0000000000000000000000000000000000000000.idx",
            "objects/ab/cdef00000000000000000000000000000000000000",
            "refs/heads/main",
            "refs/deep/er/one",
            "logs/HEAD",
            "logs/refs/stash",
            "MERGE_HEAD",
            "commondir",
            "worktrees/w/HEAD",
            "config.worktree",
        ];
        // Each file with pipes, the others with some of them.
        for name in all.into_iter().skip(n).step_by(1 + 3 * n.min(1)) {
            let folder = rig();
            plant(kind, &folder.path().join(".git").join(name));
            refused(folder.path(), &format!(".git/{name}"), what);
        }
    }
}

#[test]
fn bare_repositories_working_trees_and_what_they_borrow_from_are_looked_at_too() {
    // A bare one, from within.
    let main = rig();
    let bare = folder();
    let (from, to) = (main.path().display(), bare.path().join("bare"));
    git(
        bare.path(),
        &["clone", "--quiet", "--bare", &from.to_string(), "bare"],
    );
    plant("pipe", &to.join("packed-refs"));
    let output = scan(&to, &["--git", "."]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    // A folder that only looks like one, on the way up.
    let sub = main.path().join("sub");
    plant("pipe", &sub.join("HEAD"));
    let output = scan(&sub, &["--staged"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    // A working tree of its own: what it has, and what it shares.
    for name in [
        "worktrees/tree/index",
        "packed-refs",
        "worktrees/tree/commondir",
    ] {
        let main = rig();
        let trees = folder();
        let tree = trees.path().join("tree");
        git(
            main.path(),
            &["worktree", "add", "--quiet", &tree.display().to_string()],
        );
        plant("pipe", &main.path().join(".git").join(name));
        refused(&tree, name, "a named pipe");
    }
    // An alternate of an alternate.
    let (first, second, third) = (rig(), rig(), rig());
    for (borrower, lender) in [(&first, &second), (&second, &third)] {
        let objects = lender.path().join(".git/objects").display().to_string();
        write(
            borrower.path(),
            ".git/objects/info/alternates",
            format!("# near\n{objects}\n"),
        );
    }
    plant("pipe", &third.path().join(".git/objects/pack/pack-1.idx"));
    refused(first.path(), "objects/pack/pack-1.idx", "a named pipe");
    // A folder of references that is a link, and one that leads around in a circle.
    let linked = rig();
    let away = folder();
    plant("pipe", &away.path().join("topic"));
    symlink(
        linked.path().join(".git"),
        linked.path().join(".git/refs/circle"),
    )
    .expect("a link");
    symlink(away.path(), linked.path().join(".git/refs/heads/away")).expect("a link");
    refused(linked.path(), "refs/heads/away/topic", "a named pipe");
}

#[test]
fn what_is_nobodys_business_hinders_no_scan() {
    let rig = rig();
    let root = rig.path();
    plant("socket", &root.join(".git/fsmonitor--daemon.ipc"));
    plant("pipe", &root.join(".git/hooks/pipe"));
    symlink("nowhere", root.join(".git/refs/heads/broken")).expect("a link");
    fs::remove_file(root.join(".git/refs/heads/broken")).expect("a link");
    symlink(root.join(".git"), root.join(".git/circle")).expect("a link");
    let output = scan(root, &["--staged"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("c.env:1:1: rsc_sk_…"),
        "{}",
        text(&output)
    );
}

/// Files that only a configuration names cannot be found beforehand.
#[test]
fn a_git_that_waits_without_end_is_ended() {
    let waits = |arguments: &'static [&str]| {
        move || {
            let rig = rig();
            let root = rig.path();
            pipe(&root.join("included"));
            let config = fs::read_to_string(root.join(".git/config")).expect("a configuration");
            write(
                root,
                ".git/config",
                format!("{config}[include]\n\tpath = ../included\n"),
            );
            let began = Instant::now();
            let output = scan(root, arguments);
            let said = text(&output);
            assert_eq!(output.status.code(), Some(3), "{arguments:?}: {said}");
            assert!(
                said.contains("it said and did nothing for 10 s"),
                "{arguments:?}: {said}"
            );
            assert!(
                began.elapsed().as_secs() < 45,
                "{arguments:?}: {:?}",
                began.elapsed()
            );
        }
    };
    let all = WAYS.map(|arguments| thread::spawn(waits(arguments)));
    for one in all {
        one.join().expect("it ends");
    }
}

/// Nor is one ended that works without a word, be it behind a script of the same name.
#[test]
fn a_git_that_works_in_silence_is_waited_for() {
    let rig = rig();
    let bin = folder();
    let search = std::env::var_os("PATH").expect("a search path");
    let mut real = std::env::split_paths(&search).map(|folder| folder.join("git"));
    let real = real.find(|git| git.is_file()).expect("git is installed");
    // The first of them works for longer than any may be silent.
    let script = format!(
        "#!/bin/sh\nif mkdir '{}' 2>/dev/null; then end=$(($(date +%s) + 14)); \
         while [ $(date +%s) -lt $end ]; do :; done; fi\n'{}' \"$@\"\n",
        bin.path().join("first").display(),
        real.display()
    );
    let path = bin.path().join("git");
    fs::write(&path, script).expect("a program");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("an executable program");
    let folders = std::iter::once(bin.path().to_owned()).chain(std::env::split_paths(&search));
    let search = std::env::join_paths(folders).expect("a search path");
    let mut command = program();
    command.args(["scan", "--staged"]).current_dir(rig.path());
    let output = run(command.env("PATH", search), b"");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
}

#[test]
fn a_list_of_cut_commits_is_bounded() {
    let rig = rig();
    let names: Vec<_> = (0..60_000).map(|n| format!("{n:040x}")).collect();
    write(rig.path(), ".git/shallow", names.join("\n"));
    for arguments in WAYS {
        let output = scan(rig.path(), arguments);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {said}");
        assert!(
            said.contains("`shallow` cannot be read: it is larger than 2 MiB"),
            "{said}"
        );
    }
}

#[test]
fn files_that_have_no_end_are_named_and_others_scanned() {
    let folder = folder();
    let root = folder.path();
    write(root, "z/key.env", secret().expose());
    plant("pipe", &root.join("a"));
    plant("socket", &root.join("b"));
    plant("link to a device", &root.join("c"));
    plant("pipe", &root.join("sub/.git"));
    for name in ["d/.gitignore", "d/.ignore", "e/.git/info/exclude"] {
        plant("socket", &root.join(name));
    }
    let mut devices = 0;
    let made = Command::new("mknod")
        .arg(root.join("device"))
        .args(["c", "1", "5"])
        .status();
    if made.is_ok_and(|made| made.success()) {
        devices = 1;
    }
    let output = scan(root, &["."]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("./z/key.env:1:1: rsc_sk_…"), "{said}");
    for named in [
        "./a: a named pipe, not opened",
        "./b: a socket, not opened",
        "./sub/.git: a named pipe",
    ] {
        assert!(said.contains(named), "no {named} in {said}");
    }
    for name in ["./d/.gitignore", "./d/.ignore", "./e/.git/info/exclude"] {
        let note = format!("ignore file not obeyed: {name}: not a regular file");
        assert!(said.contains(&note), "no {note} in {said}");
    }
    // The ignore files that are sockets are files as well.
    let unread = 5 + devices;
    assert!(said.contains(&format!("{unread} not scanned")), "{said}");
    assert!(said.contains("1 symbolic links not followed"), "{said}");
}

/// A scan reads what is in the current folder as its configuration, whoever put it there.
#[test]
fn a_configuration_without_an_end_is_waited_for_by_nobody() {
    for (kind, _) in KINDS {
        let folder = folder();
        write(folder.path(), "key.env", secret().expose());
        plant(kind, &folder.path().join("config.toml"));
        let output = scan(folder.path(), &["."]);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{kind}: {said}");
        assert!(said.contains("is left aside"), "{kind}: {said}");
    }
    let folder = folder();
    for name in ["pipe.toml", "secret"] {
        pipe(&folder.path().join(name));
    }
    write(folder.path(), "config.toml", "[formats]\ndir = \".\"\n");
    let output = scan(folder.path(), &["."]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("not a regular file"), "{said}");

    // A secret that the scan does not need is not opened, and as a file of the folder it is named.
    let names_it = "[keys]\npeppers = [{ file = \"secret\" }]\n";
    write(folder.path(), "config.toml", names_it);
    let output = scan(folder.path(), &["."]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("./secret: a named pipe, not opened"),
        "{said}"
    );
}

/// Folders stay open while their entries are visited, and take files from those that are to be read.
#[test]
fn nested_folders_leave_files_to_be_opened_where_few_may_be() {
    let folder = folder();
    let nested = |depth: usize| "d/".repeat(depth);
    for depth in 0..200 {
        write(
            folder.path(),
            &format!("{}a", nested(depth)),
            secret().expose().as_bytes(),
        );
        // The folder below is visited before what is left of this one.
        write(
            folder.path(),
            &format!("{}z", nested(depth)),
            secret().expose().as_bytes(),
        );
    }
    let program = program();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 64; exec \"$0\" scan ."]);
    limited
        .arg(program.get_program())
        .current_dir(folder.path());
    let output = run(&mut limited, b"");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("400 scanned"), "{said}");
    assert!(said.contains("400 candidates"), "{said}");
}
