//! `rescind scan --since REV`: what each commit since then added.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::{commit, folder, git, repository, rows, scan, secret, text, try_git, write};

#[track_caller]
fn since(folder: &Path, revision: &str) -> Vec<Value> {
    let output = scan(folder, &["--since", revision, "--report", "jsonl"]);
    let rows = rows(&output);
    let expected = i32::from(!rows.is_empty());
    assert_eq!(output.status.code(), Some(expected), "{}", text(&output));
    rows
}

fn refused(output: &Output, said: &str) {
    assert_eq!(output.status.code(), Some(2), "{}", text(output));
    assert!(text(output).contains(said), "{said} in {}", text(output));
}

#[test]
fn what_was_added_and_taken_away_again_is_found() {
    let folder = repository();
    let root = folder.path();
    let (before, gone, message) = (secret(), secret(), secret());
    write(root, "before.env", before.expose());
    let base = commit(root, "Begin");
    git(root, &["tag", "v1"]);
    assert_eq!(since(root, "HEAD"), Vec::<Value>::new());
    write(root, "a b/gone.env", format!("\n{}\n", gone.expose()));
    let added = commit(root, "Add");
    git(root, &["mv", "a b/gone.env", "moved.env"]);
    commit(root, "Move");
    git(root, &["rm", "--quiet", "moved.env"]);
    let removed = commit(root, &format!("Take {} out", message.expose()));
    for revision in ["v1", "HEAD~3", &base, ":/Begin"] {
        for folder in [root, &root.join(".git")] {
            let rows = since(folder, revision);
            assert_eq!(rows.len(), 2, "{revision}: {rows:?}");
            assert_eq!(rows[0]["path"], "a b/gone.env");
            assert_eq!(rows[0]["line"], 2);
            assert_eq!(rows[0]["object"]["commit"], *added);
            assert_eq!(rows[1]["object"]["kind"], "commit");
            assert_eq!(rows[1]["object"]["commit"], *removed);
        }
    }
    // A file that only moved is added where it is now.
    assert_eq!(since(root, &added)[0]["path"], "moved.env");
    assert_eq!(since(root, "HEAD~1").len(), 1, "the message alone");
    // Contents of an older commit count as added if a newer one adds them again.
    write(root, "again.env", before.expose());
    commit(root, "Again");
    assert_eq!(since(root, "HEAD~1")[0]["path"], "again.env");
}

#[test]
fn merges_count_for_what_their_parents_do_not_have() {
    let folder = repository();
    let root = folder.path();
    write(root, "a.env", "one\n");
    commit(root, "Begin");
    git(root, &["checkout", "--quiet", "-b", "feature"]);
    write(root, "b.env", "two\n");
    commit(root, "Feature");
    git(root, &["checkout", "--quiet", "main"]);
    write(root, "main.env", secret().expose());
    commit(root, "Main");
    git(root, &["checkout", "--quiet", "feature"]);
    git(root, &["merge", "--quiet", "--no-edit", "main"]);
    assert_eq!(
        since(root, "main"),
        Vec::<Value>::new(),
        "main has it already"
    );
    git(root, &["reset", "--quiet", "--hard", "HEAD~1"]);
    git(root, &["merge", "--quiet", "--no-commit", "main"]);
    write(root, "a.env", format!("one\n{}\n", secret().expose()));
    let merge = commit(root, "Merge, and more");
    let rows = since(root, "main");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["path"], "a.env");
    assert_eq!(rows[0]["object"]["commit"], *merge);
}

#[test]
fn a_revision_that_is_none_is_refused() {
    let folder = repository();
    let root = folder.path();
    refused(&scan(root, &["--since", "HEAD"]), "no commit");
    commit(root, "Begin");
    let blob = git(root, &["rev-parse", "HEAD^{tree}"]);
    for revision in ["no-such-branch", "HEAD~9", "HEAD..HEAD", &blob, "^HEAD"] {
        let output = scan(root, &["--since", revision]);
        refused(&output, "there is no commit");
        assert!(text(&output).contains("git log"), "{}", text(&output));
    }
    // An option to git is none to us.
    let output = root.join("output");
    let option = format!("--since=--output={}", output.display());
    refused(&scan(root, &[&option]), "--since");
    for option in ["--since=-x", "--since=", "--since"] {
        refused(&scan(root, &[option]), "--since");
    }
    assert!(!output.exists());
    // The current branch is a new one.
    git(root, &["checkout", "--quiet", "--orphan", "empty"]);
    refused(&scan(root, &["--since", "main"]), "no commits yet");
}

#[test]
fn a_shallow_clone_says_what_it_lacks() {
    let folder = folder();
    let root = folder.path();
    git(root, &["init", "--quiet", "--initial-branch=main", "full"]);
    let full = root.join("full");
    let first = commit(&full, "Begin");
    write(&full, ".env", secret().expose());
    commit(&full, "Leak");
    let url = format!("file://{}", full.display());
    let clone = ["clone", "--quiet", "--depth=1", &url, "shallow"];
    assert!(try_git(root, &clone).status.success());
    let output = scan(root, &["--since", &first, "shallow"]);
    refused(&output, "git fetch --unshallow");
    assert_eq!(since(&full, &first).len(), 1);
}
