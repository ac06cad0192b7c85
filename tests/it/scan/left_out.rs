//! What ignore files leave out is counted, and they leave out neither what is named nor what git tracks.

use std::fs;

use serde_json::Value;

use super::{commit, folder, git, program, repository, rows, run, scan, secret, text, write};

#[test]
fn a_folder_that_is_named_is_scanned_whatever_ignore_files_above_it_say() {
    for (pattern, arguments) in [
        ("dist/*", "dist"),
        ("dist/", "dist"),
        ("/dist/**", "dist"),
        ("dist/*/", "dist"),
        ("*", "dist"),
        ("dist/*", "dist/deep"),
    ] {
        let folder = repository();
        let root = folder.path();
        write(root, ".gitignore", format!("{pattern}\n"));
        write(root, "dist/deep/key.env", secret().expose());
        let output = scan(root, &[arguments]);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{pattern}: {}",
            text(&output)
        );
        // The same folder, from within.
        let output = scan(&root.join("dist"), &["."]);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{pattern}: {}",
            text(&output)
        );
        let whole = scan(root, &["."]);
        assert_eq!(whole.status.code(), Some(0), "{pattern}: {}", text(&whole));
    }
    // What lists only some of what is in the folder counts, and so does what is in the folder itself.
    let folder = repository();
    let root = folder.path();
    write(root, ".gitignore", "*.env\n");
    write(root, "dist/.gitignore", "*.key\n");
    write(root, "dist/a.env", secret().expose());
    write(root, "dist/b.key", secret().expose());
    let output = scan(root, &["dist"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let said = "2 left out by ignore files (--no-ignore scans them)";
    assert!(text(&output).contains(said), "{}", text(&output));
}

#[test]
fn what_ignore_files_leave_out_is_in_the_summary() {
    let folder = folder();
    let root = folder.path();
    write(root, ".gitignore", "*.env\nout\n");
    for name in ["a.env", "sub/b.env", "out/c", "out/d", "kept"] {
        write(root, name, "nothing\n");
    }
    let output = scan(root, &[".", "--report", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    // A folder is one.
    assert_eq!(report["summary"]["ignored_left_out"], 3, "{report:#}");
    assert!(
        text(&output).contains("3 left out by ignore files"),
        "{}",
        text(&output)
    );
    let all = scan(root, &[".", "--no-ignore"]);
    assert!(!text(&all).contains("left out by"), "{}", text(&all));
}

#[test]
fn what_git_tracks_is_never_left_out() {
    let folder = repository();
    let root = folder.path();
    write(root, "out/deep/tracked.env", secret().expose());
    write(root, "tracked.env", secret().expose());
    commit(root, "Add");
    write(root, ".gitignore", "*.env\nout\n/all\n");
    write(root, "untracked.env", secret().expose());
    write(root, "out/deep/untracked.env", secret().expose());
    write(root, "out/untracked", secret().expose());
    // A repository within another one has an index of its own.
    write(root, "inner/inner.env", secret().expose());
    git(&root.join("inner"), &["init", "--quiet"]);
    git(&root.join("inner"), &["add", "--all"]);
    for (start, expected, left_out) in [
        (
            ".",
            &[
                "./inner/inner.env",
                "./out/deep/tracked.env",
                "./tracked.env",
            ][..],
            Some(3),
        ),
        // The file that lists what is named does not count at all.
        (
            "out",
            &[
                "out/deep/tracked.env",
                "out/deep/untracked.env",
                "out/untracked",
            ],
            None,
        ),
        ("inner", &["inner/inner.env"], None),
    ] {
        let output = scan(root, &[start, "--report", "jsonl"]);
        let rows = rows(&output);
        let found: Vec<_> = rows.iter().map(|row| &row["path"]).collect();
        assert_eq!(found, expected, "{start}: {}", text(&output));
        let said = match left_out {
            Some(count) => format!("{count} left out by ignore files"),
            None => format!("{} candidates", expected.len()),
        };
        assert!(text(&output).contains(&said), "{}", text(&output));
        let is_counted = text(&output).contains("left out by");
        assert_eq!(is_counted, left_out.is_some(), "{}", text(&output));
    }
}

#[test]
fn whether_git_tracks_something_is_asked_only_where_it_can_be_told() {
    // What is called `.git` is no repository.
    let folder = folder();
    let root = folder.path();
    write(root, ".git/note", "no repository\n");
    write(root, ".gitignore", "*.env\n");
    write(root, "a.env", secret().expose());
    let output = scan(root, &["."]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(!text(&output).contains("not obeyed"), "{}", text(&output));
    // One whose index is damaged may track anything.
    let folder = repository();
    let root = folder.path();
    write(root, ".gitignore", "*.env\n");
    commit(root, "Begin");
    write(root, "a.env", secret().expose());
    fs::write(root.join(".git/index"), "damaged").expect("a file");
    let output = scan(root, &["."]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("none is left out"),
        "{}",
        text(&output)
    );
    // Without git there is no index.
    let folder = repository();
    let root = folder.path();
    write(root, ".gitignore", "*.env\n");
    write(root, "a.env", secret().expose());
    let mut command = program();
    command
        .args(["scan", "."])
        .current_dir(root)
        .env("PATH", root);
    let output = run(&mut command, b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    for said in ["install git", "1 left out by ignore files"] {
        assert!(text(&output).contains(said), "{}", text(&output));
    }
}

#[test]
fn what_a_sparse_index_has_as_a_whole_is_tracked() {
    let folder = repository();
    let root = folder.path();
    write(root, "d/key.env", secret().expose());
    write(root, "other/x", "x\n");
    write(root, ".gitignore", "d\n*.log\n");
    git(root, &["add", "--force", "--all"]);
    commit(root, "Add");
    git(
        root,
        &["config", "sparse.expectFilesOutsideOfPatterns", "true"],
    );
    let cone = [
        "sparse-checkout",
        "set",
        "--cone",
        "--sparse-index",
        "other",
    ];
    git(root, &cone);
    let listed = git(root, &["ls-files", "--sparse"]);
    assert!(listed.lines().any(|entry| entry == "d/"), "{listed}");
    write(root, "d/key.env", secret().expose());
    write(root, "key.log", secret().expose());
    let output = scan(root, &[".", "--report", "jsonl"]);
    let rows = rows(&output);
    let found: Vec<_> = rows.iter().map(|row| &row["path"]).collect();
    assert_eq!(found, ["./d/key.env"], "{}", text(&output));
}

#[test]
fn nothing_is_left_out_where_paths_of_the_index_are_those_of_another_folder() {
    let folder = repository();
    let root = folder.path();
    write(root, ".gitignore", "inner\n");
    write(root, "inner/key", secret().expose());
    git(root, &["config", "core.worktree", "../inner"]);
    git(&root.join("inner"), &["--git-dir", "../.git", "add", "key"]);
    let output = scan(root, &["."]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("its working tree is another folder"),
        "{said}"
    );
}

#[test]
fn nothing_is_left_out_of_a_repository_that_git_cannot_read() {
    let folder = repository();
    let root = folder.path();
    write(root, ".gitignore", "*.env\n");
    write(root, "a.env", secret().expose());
    git(root, &["add", "--force", "a.env"]);
    for settings in [
        &[["core.repositoryFormatVersion", "99"]][..],
        // Git complains of the value, in its words for that there is no repository.
        &[
            ["core.repositoryFormatVersion", "0"],
            ["core.bare", "not a git repository"],
        ],
    ] {
        for [name, value] in settings {
            git(root, &["config", "--file", ".git/config", name, value]);
        }
        let output = scan(root, &["."]);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("none is left out"), "{said}");
    }
}

#[test]
fn a_repository_within_another_one_hides_nothing_that_either_tracks() {
    let folder = repository();
    let root = folder.path();
    write(root, ".gitignore", "*.env\n/sub\n");
    write(root, "plain/outer.env", secret().expose());
    git(root, &["add", "--force", "plain/outer.env"]);
    commit(root, "Add");
    // It tracks nothing.
    git(&root.join("plain"), &["init", "--quiet"]);
    write(root, "plain/untracked.env", secret().expose());
    // As a submodule, which is listed as a whole.
    write(root, "sub/inner.env", secret().expose());
    git(&root.join("sub"), &["init", "--quiet"]);
    git(&root.join("sub"), &["add", "--force", "inner.env"]);
    commit(&root.join("sub"), "Add");
    let inner = git(&root.join("sub"), &["rev-parse", "HEAD"]);
    let module = format!("160000,{inner},sub");
    git(root, &["update-index", "--add", "--cacheinfo", &module]);
    write(root, "sub/untracked.env", secret().expose());
    let output = scan(root, &[".", "--report", "jsonl"]);
    let found: Vec<_> = rows(&output)
        .iter()
        .map(|row| row["path"].clone())
        .collect();
    let expected = ["./plain/outer.env", "./sub/inner.env"];
    assert_eq!(found, expected, "{}", text(&output));
    // The same from within one of them.
    let output = scan(&root.join("plain"), &["."]);
    assert!(text(&output).contains("./outer.env:1"), "{}", text(&output));
}
