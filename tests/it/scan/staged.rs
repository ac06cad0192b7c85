//! `rescind scan --staged`: what the next commit would add, and nothing else.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{
    commit, folder, git, key, program, repository, rescind, rows, run, scan, secret, text, try_git,
    wide, write,
};

/// Path and line of everything that is found, in the order of the paths.
fn found(output: &Output) -> Vec<(String, u64)> {
    let rows = rows(output).into_iter().map(|row| {
        (
            row["path"].as_str().expect("a path").to_owned(),
            row["line"].as_u64().expect("a line"),
        )
    });
    rows.collect()
}

#[track_caller]
fn staged(folder: &Path, arguments: &[&str]) -> Vec<(String, u64)> {
    let output = scan(
        folder,
        &[&["--staged", "--report", "jsonl"], arguments].concat(),
    );
    let found = found(&output);
    let expected = i32::from(!found.is_empty());
    assert_eq!(output.status.code(), Some(expected), "{}", text(&output));
    found
}

#[test]
fn what_is_staged_counts_and_not_the_files() {
    let folder = repository();
    let root = folder.path();
    let key = secret();
    write(root, "src/clean.rs", "fn main() {}\n");
    commit(root, "Begin");
    assert_eq!(staged(root, &[]), [], "nothing is staged");
    write(
        root,
        "src/app.env",
        format!("A=1\nB=2\nKEY={}\n", key.expose()),
    );
    assert_eq!(staged(root, &[]), [], "the file is not staged");
    git(root, &["add", "src/app.env"]);
    write(root, "src/app.env", "A=1\n");
    let expected = [("src/app.env".to_owned(), 3)];
    assert_eq!(staged(root, &[]), expected);
    assert_eq!(staged(&root.join("src"), &[]), expected, "a folder inside");
    assert_eq!(staged(Path::new("/"), &[root.to_str().unwrap()]), expected);
    assert_eq!(
        staged(root, &["src/clean.rs"]),
        expected,
        "a file names its repository"
    );
    let output = scan(root, &["--staged"]);
    let line = format!("src/app.env:3:5: {}", key.redacted("rsc_sk_"));
    for said in [line.as_str(), "git reset -- FILE"] {
        assert!(text(&output).contains(said), "{said} in {}", text(&output));
    }
    assert!(!text(&output).contains(key.expose()));
    git(root, &["reset", "--quiet"]);
    write(root, "src/app.env", key.expose());
    assert_eq!(staged(root, &[]), []);
}

#[test]
fn only_what_head_does_not_have_is_scanned() {
    let folder = repository();
    let root = folder.path();
    assert_eq!(staged(root, &[]), [], "there is not even an index");
    write(root, "old.env", secret().expose());
    write(root, "moved.env", secret().expose());
    git(root, &["add", "--all"]);
    let first = [("moved.env".to_owned(), 1), ("old.env".to_owned(), 1)];
    assert_eq!(
        staged(root, &[]),
        first,
        "before the first commit, everything"
    );
    commit(root, "Begin");
    write(root, "other", "nothing here");
    git(root, &["add", "--all"]);
    assert_eq!(staged(root, &[]), [], "old.env is as it was");
    git(root, &["mv", "moved.env", "new place.env"]);
    git(root, &["rm", "--quiet", "old.env"]);
    // Settings of the repository make no difference.
    git(root, &["config", "diff.relative", "true"]);
    git(root, &["config", "diff.renames", "copies"]);
    git(root, &["config", "diff.external", "false"]);
    fs::create_dir(root.join("inside")).expect("a folder");
    let moved = [("new place.env".to_owned(), 1)];
    assert_eq!(staged(&root.join("inside"), &[]), moved);
}

#[cfg(unix)]
#[test]
fn odd_names_links_binaries_and_submodules_are_no_trouble() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = repository();
    let root = folder.path();
    for name in [
        &b"a b"[..],
        b"line\nbreak",
        b"odd-\xff",
        b":(top)x",
        b"tab\there",
        b"\"quoted\"",
    ] {
        let path = root.join(std::ffi::OsStr::from_bytes(name));
        fs::write(path, format!("\n{}", secret().expose())).expect("a file");
    }
    let binary = [
        &[0, 159, 146, 150, 0][..],
        secret().expose().as_bytes(),
        &[0; 64],
    ]
    .concat();
    write(root, "picture.png", binary);
    write(
        root,
        "wide.txt",
        wide(&format!("\n\n{}", secret().expose())),
    );
    std::os::unix::fs::symlink(secret().expose(), root.join("link")).expect("a link");
    write(root, "public.js", key("rescind_public").expose());
    git(root, &["add", "--all"]);
    let module = "160000,1234567890123456789012345678901234567890,module";
    git(root, &["update-index", "--add", "--cacheinfo", module]);
    write(root, "announced", secret().expose());
    git(root, &["add", "--intent-to-add", "announced"]);
    let output = scan(root, &["--staged", "--report", "jsonl"]);
    let expected = [
        ("\"quoted\"", 2),
        (":(top)x", 2),
        ("a b", 2),
        ("line\nbreak", 2),
        ("link", 1),
        ("odd-\u{fffd}", 2),
        ("picture.png", 1),
        ("tab\there", 2),
        ("wide.txt", 3),
    ];
    let mut found = found(&output);
    found.sort();
    let expected = expected.map(|(path, line)| (path.to_owned(), line));
    assert_eq!(found, expected, "{}", text(&output));
    assert!(text(&output).contains("10 scanned"), "{}", text(&output));
    assert!(!text(&output).contains("not scanned"), "{}", text(&output));
    let rows = rows(&output);
    let odd = rows.iter().find(|row| row.get("path_base64").is_some());
    let odd = odd.expect("the path that is not UTF-8");
    assert_eq!(odd["path_base64"], STANDARD.encode(b"odd-\xff"));
}

#[test]
fn both_sides_of_a_conflict_are_scanned() {
    let folder = repository();
    let root = folder.path();
    write(root, "sub/a.env", "one\n");
    commit(root, "Begin");
    git(root, &["checkout", "--quiet", "-b", "theirs"]);
    let theirs = secret();
    write(root, "sub/a.env", format!("\n\n{}\n", theirs.expose()));
    commit(root, "Theirs");
    git(root, &["checkout", "--quiet", "main"]);
    // Ours has a candidate too, but it is in HEAD and so not what is added.
    write(root, "sub/a.env", format!("\n{}\n", secret().expose()));
    commit(root, "Ours");
    assert!(!try_git(root, &["merge", "theirs"]).status.success());
    for folder in [root, &root.join("sub")] {
        assert_eq!(staged(folder, &[]), [("sub/a.env".to_owned(), 3)]);
    }
}

#[test]
fn nothing_is_skipped_silently() {
    let folder = repository();
    let root = folder.path();
    // Over the limit for contents that are fetched into memory: what is local has none.
    let mut huge = vec![b'x'; 33 << 20];
    huge.extend(format!("\n{}\n", secret().expose()).as_bytes());
    write(root, "huge.txt", huge);
    git(root, &["add", "--all"]);
    let missing = "100644,1234567890123456789012345678901234567890,missing.txt";
    git(root, &["update-index", "--add", "--cacheinfo", missing]);
    let output = scan(root, &["--staged"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    for said in [
        "huge.txt:2:1:",
        "not scanned: missing.txt: the repository lacks this object",
        "1 not scanned",
    ] {
        assert!(text(&output).contains(said), "{said} in {}", text(&output));
    }
}

#[test]
fn the_environment_says_where_unless_the_path_is_elsewhere() {
    let folder = folder();
    let root = folder.path();
    let (outer, inner) = (root.join("outer"), root.join("outer/inner"));
    for (repository, name) in [(&outer, "outer.env"), (&inner, "inner.env")] {
        fs::create_dir_all(repository).expect("a folder");
        git(repository, &["init", "--quiet", "--initial-branch=main"]);
        write(repository, name, secret().expose());
        git(repository, &["add", name]);
    }
    write(&outer, "other.env", secret().expose());
    let index = outer.join(".git/other-index");
    fs::copy(outer.join(".git/index"), &index).expect("an index");
    let add = Command::new("git")
        .current_dir(&outer)
        .env("GIT_INDEX_FILE", &index)
        .args(["add", "other.env"])
        .status();
    assert!(add.expect("git runs").success());
    let paths = |folder: &Path, path: &[&str], variables: &[(&str, &Path)]| {
        let mut command = program();
        command
            .args(["scan", "--staged", "--report", "jsonl"])
            .args(path)
            .current_dir(folder)
            .envs(variables.iter().copied());
        let output = run(&mut command, b"");
        let found = found(&output).into_iter().map(|(path, _)| path);
        found.collect::<Vec<_>>().join(" ")
    };
    let other_index = [("GIT_INDEX_FILE", index.as_path())];
    assert_eq!(paths(&outer, &[], &other_index), "other.env outer.env");
    assert_eq!(paths(&outer, &["."], &other_index), "other.env outer.env");
    assert_eq!(paths(&outer, &["inner"], &other_index), "inner.env");
    // As git itself says it: relative to the top folder.
    let relative = [("GIT_INDEX_FILE", Path::new(".git/other-index"))];
    assert_eq!(paths(&outer, &["."], &relative), "other.env outer.env");
    let dir = outer.join(".git");
    let work_tree = [("GIT_DIR", dir.as_path()), ("GIT_WORK_TREE", &outer)];
    assert_eq!(paths(root, &[], &work_tree), "outer.env");
    assert_eq!(paths(root, &["outer/inner"], &work_tree), "inner.env");
    assert_eq!(paths(root, &["outer"], &work_tree), "outer.env");
}

/// Installs a hook that runs the binary, as the documentation says.
#[cfg(unix)]
fn install_hook(root: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let hook = root.join(".git/hooks/pre-commit");
    let binary = env!("CARGO_BIN_EXE_rescind");
    fs::create_dir_all(root.join(".git/hooks")).expect("a folder");
    fs::write(&hook, format!("#!/bin/sh\nexec '{binary}' scan --staged\n")).expect("a hook");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("an executable hook");
}

#[cfg(unix)]
#[test]
fn a_hook_refuses_a_commit_with_a_key_and_lets_a_clean_one_pass() {
    let folder = repository();
    let root = folder.path().join("main");
    fs::create_dir(&root).expect("a folder");
    git(&root, &["init", "--quiet", "--initial-branch=main"]);
    install_hook(&root);
    let key = secret();
    let try_commit = |folder: &Path, arguments: &[&str]| {
        let line = [&["commit", "--quiet", "--message", "x"], arguments].concat();
        let output = try_git(folder, &line);
        assert!(!text(&output).contains(key.expose()), "{}", text(&output));
        (output.status.success(), text(&output))
    };
    write(&root, ".env", format!("KEY={}\n", key.expose()));
    git(&root, &["add", ".env"]);
    let (passed, said) = try_commit(&root, &[]);
    assert!(!passed && said.contains(".env:1:5: rsc_sk_…"), "{said}");
    assert!(!try_git(&root, &["rev-parse", "HEAD"]).status.success());
    write(&root, ".env", "KEY=\n");
    git(&root, &["add", ".env"]);
    let (passed, said) = try_commit(&root, &[]);
    assert!(passed, "{said}");
    // `--all` and a path stage into a temporary index that is known only to the hook.
    write(&root, ".env", key.expose());
    for arguments in [&["--all"][..], &[".env"], &["--amend", "--all"]] {
        let (passed, said) = try_commit(&root, arguments);
        assert!(
            !passed && said.contains(".env:1:1"),
            "{arguments:?}: {said}"
        );
    }
    write(&root, "clean", "clean\n");
    git(&root, &["add", "clean"]);
    let (passed, said) = try_commit(&root, &["clean"]);
    assert!(passed, "the key is in a file that is not committed: {said}");
    // A linked work tree has an index of its own, and the same hooks.
    git(&root, &["worktree", "add", "--quiet", "../linked"]);
    let linked = folder.path().join("linked");
    write(&linked, "sub/.env", key.expose());
    git(&linked, &["add", "--all"]);
    let (passed, said) = try_commit(&linked.join("sub"), &[]);
    assert!(!passed && said.contains("sub/.env:1:1"), "{said}");
    assert_eq!(staged(&linked, &[]), [("sub/.env".to_owned(), 1)]);
    assert_eq!(staged(&root, &[]), []);
    git(&linked, &["rm", "--quiet", "--cached", "-r", "sub"]);
    let (passed, said) = try_commit(&linked, &["--allow-empty"]);
    assert!(passed, "{said}");
}

#[test]
fn wrong_usage_is_2_and_says_what_to_do() {
    let folder = folder();
    let root = folder.path();
    write(root, "plain/file", secret().expose());
    git(root, &["init", "--quiet", "--bare", "bare.git"]);
    for (arguments, said) in [
        (&["--staged", "plain"][..], "not in a git repository"),
        (&["--staged"], "not in a git repository"),
        (&["--staged", "no-such-folder"], "no-such-folder"),
        (&["--staged", "bare.git"], "bare repository"),
        (&["--staged", "--git", "."], "cannot be used with"),
        (&["--staged", "--since", "HEAD"], "cannot be used with"),
        (&["--staged", "--no-ignore"], "cannot be used with"),
        (&["--staged", "-"], "--staged needs a repository"),
        (&["--since", "HEAD", "-"], "--since needs a repository"),
        (&["--git", "-"], "--git needs a repository"),
        (&["--staged", ".", "plain"], "take one path"),
    ] {
        let output = scan(root, arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            text(&output)
        );
        assert!(
            text(&output).contains(said),
            "{arguments:?}: {}",
            text(&output)
        );
    }
}

#[test]
fn without_git_it_could_not_run() {
    let folder = repository();
    for arguments in [&["--staged"][..], &["--since", "HEAD"], &["--git", "."]] {
        let mut command = program();
        command.args(["scan"]).args(arguments);
        command
            .current_dir(folder.path())
            .env("PATH", folder.path());
        let output = run(&mut command, b"");
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        assert!(text(&output).contains("install git"), "{}", text(&output));
    }
}

/// It has a folder outside of the cone as one entry.
#[test]
fn what_a_sparse_index_has_as_a_folder_is_read() {
    let folder = repository();
    let root = folder.path();
    let key = secret();
    write(root, "in/a", "a\n");
    write(root, "out/b", "b\n");
    commit(root, "Begin");
    write(root, "out/deep/leak.env", format!("KEY={}\n", key.expose()));
    commit(root, "Leak");
    git(
        root,
        &["sparse-checkout", "set", "--cone", "--sparse-index", "in"],
    );
    git(root, &["reset", "--quiet", "--soft", "HEAD~1"]);
    let index = git(root, &["ls-files", "--sparse"]);
    assert!(index.lines().any(|entry| entry == "out/"), "{index}");
    assert_eq!(staged(root, &[]), [("out/deep/leak.env".to_owned(), 1)]);
}

#[test]
fn what_is_staged_is_looked_up_in_the_key_store() {
    let folder = repository();
    let root = folder.path();
    let database = format!("sqlite://{}", root.join("keys.db").display());
    write(
        root,
        "config.toml",
        format!("[database]\nurl = \"{database}\"\n"),
    );
    let create = ["keys", "create", "--user", "alice", "--description", "d"];
    let created = rescind(root, &create, b"");
    assert!(created.status.success(), "{}", text(&created));
    write(root, "leak.env", &created.stdout);
    git(root, &["add", "leak.env"]);
    let output = scan(root, &["--staged", "--match", "--report", "jsonl"]);
    assert_eq!(
        rows(&output)[0]["key"]["owner_id"],
        "alice",
        "{}",
        text(&output)
    );
}
