//! Keys in names: of files and folders, branches and tags, and authors. The daemon finds them in a push; each way to
//! scan finds them, too.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rescind::keyformat::KeyValue;
use serde_json::Value;

use super::{commit, folder, git, repository, rows, scan, secret, text, write};

/// The rows of what stands in names.
#[track_caller]
fn in_names(root: &Path, way: &[&str], keys: &[&KeyValue]) -> Vec<Value> {
    let output = scan(root, &[way, &["--report", "jsonl"]].concat());
    assert_eq!(output.status.code(), Some(1), "{way:?}: {}", text(&output));
    for form in ["text", "json", "jsonl", "sarif"] {
        let output = scan(root, &[way, &["--report", form]].concat());
        for key in keys {
            let said = text(&output);
            assert!(!said.contains(key.expose()), "{way:?} {form}: {said}");
        }
    }
    let mut rows = rows(&output);
    rows.retain(|row| row["in"] == "name");
    for row in &rows {
        assert_eq!(row.get("line"), None, "{row}");
    }
    rows
}

fn paths(rows: &[Value]) -> Vec<&str> {
    let paths = rows.iter().map(|row| row["path"].as_str().expect("a path"));
    paths.collect()
}

#[test]
fn a_key_in_the_name_of_a_file_or_a_folder_is_found_in_every_way() {
    let folder = repository();
    let root = folder.path();
    let (file, above) = (secret(), secret());
    let encoded = URL_SAFE_NO_PAD.encode(format!("x{}", above.expose()));
    commit(root, "Begin");
    write(root, &format!("src/{}.txt", file.expose()), "nothing\n");
    for name in ["a", "b", "sub/c"] {
        write(root, &format!("src/{encoded}/{name}"), format!("{name}\n"));
    }
    git(root, &["add", "--all"]);
    let keys = [&file, &above];
    let expected = |prefix: &str| {
        let mut paths = [
            format!("{prefix}src/{}.txt", file.redacted("rsc_sk_")),
            // The first character holds bits of what stands before the key.
            format!("{prefix}src/e{}", above.redacted("rsc_sk_")),
        ];
        paths.sort();
        paths
    };
    // Once for each name, and not for each file below it.
    let mut found = in_names(root, &["--staged"], &keys);
    assert_eq!(paths(&found), expected(""));
    found = in_names(root, &["."], &keys);
    assert_eq!(paths(&found), expected("./"));
    let added = commit(root, "Add");
    // Each change beside it makes another folder with the same names.
    for line in ["one\n", "two\n"] {
        write(root, "src/other", line);
        commit(root, line);
    }
    for way in [&["--git", "."][..], &["--since", "HEAD~3"]] {
        found = in_names(root, way, &keys);
        assert_eq!(paths(&found), expected(""), "{way:?}");
        for row in &found {
            assert_eq!(row["object"]["kind"], "tree", "{row}");
            assert_eq!(row["object"]["commit"], *added, "{row}");
        }
    }
    let shown = text(&scan(root, &["."]));
    let line = format!(
        "./src/{}.txt:1:1: {} rescind_secret utf8 in the name",
        file.redacted("rsc_sk_"),
        file.redacted("rsc_sk_")
    );
    assert!(shown.contains(&line), "{line} in {shown}");
    // Neither is new any more, and a name that stays is not what a commit adds.
    assert_eq!(scan(root, &["--staged"]).status.code(), Some(0));
    assert_eq!(scan(root, &["--since", "HEAD~2"]).status.code(), Some(0));
    // A file that is named itself has a name as well.
    let named = format!("src/{}.txt", file.expose());
    assert_eq!(in_names(root, &[&named], &keys).len(), 1);
}

#[test]
fn a_key_in_the_name_of_a_link_a_submodule_or_a_conflict_is_found_once() {
    let folder = repository();
    let root = folder.path();
    let keys: Vec<KeyValue> = (0..3).map(|_| secret()).collect();
    write(root, keys[2].expose(), "one\n");
    commit(root, "Begin");
    git(root, &["checkout", "--quiet", "-b", "theirs"]);
    let module = format!("160000,{},{}", "2".repeat(40), keys[0].expose());
    git(root, &["update-index", "--add", "--cacheinfo", &module]);
    let blob = git(root, &["hash-object", "-w", keys[2].expose()]);
    let link = format!("120000,{blob},sub/{}", keys[1].expose());
    git(root, &["update-index", "--add", "--cacheinfo", &link]);
    let keys: Vec<&KeyValue> = keys.iter().collect();
    assert_eq!(in_names(root, &["--staged"], &keys).len(), 2);
    // Both sides of a conflict are entries of the index, and neither is in the commit.
    let name = secret();
    for stage in ["2", "3"] {
        let entry = format!("100644 {blob} {stage}\t{}\n", name.expose());
        let mut update = super::without_git_variables(std::process::Command::new("git"));
        update
            .args(["update-index", "--index-info"])
            .current_dir(root);
        let updated = super::run(&mut update, entry.as_bytes());
        assert!(updated.status.success(), "{}", text(&updated));
    }
    assert_eq!(in_names(root, &["--staged"], &keys).len(), 3);
}

#[test]
fn a_key_in_the_name_of_a_branch_a_tag_or_an_author_is_found() {
    let folder = repository();
    let root = folder.path();
    let (branch, tag, author, annotated) = (secret(), secret(), secret(), secret());
    let keys = [&branch, &tag, &author, &annotated];
    commit(root, "Begin");
    git(root, &["checkout", "--quiet", "-b", branch.expose()]);
    git(root, &["tag", &format!("v1/{}", tag.expose())]);
    let by = format!("{} <a@example.com>", author.expose());
    let line = ["commit", "--quiet", "--allow-empty", "--message", "x"];
    git(root, &[&line[..], &["--author", &by]].concat());
    git(
        root,
        &["tag", "--annotate", annotated.expose(), "--message", "v1"],
    );
    let kinds = |way: &[&str]| {
        let output = scan(root, &[way, &["--report", "jsonl"]].concat());
        let rows = rows(&output);
        let kinds = rows.iter().map(|row| {
            let object = &row["object"];
            assert_ne!(object["id"], Value::Null, "{row}");
            object["kind"].as_str().expect("a kind").to_owned()
        });
        let mut kinds: Vec<_> = kinds.collect();
        kinds.sort();
        (kinds, rows)
    };
    let (all, rows) = kinds(&["--git", "."]);
    // The annotated tag says its name itself, too.
    assert_eq!(
        all,
        ["commit", "reference", "reference", "reference", "tag"],
        "{rows:?}"
    );
    let shown = format!("refs/heads/{}", branch.redacted("rsc_sk_"));
    let is_told = |row: &Value| row["object"]["id"] == *shown && row["in"] == "name";
    assert!(rows.iter().any(is_told), "{shown} in {rows:?}");
    let (since, rows) = kinds(&["--since", "HEAD~1"]);
    assert_eq!(since, ["commit", "reference"], "{rows:?}");
    let said = text(&scan(root, &["--git", "."]));
    let line = format!("reference {shown}:1:1: ");
    assert!(said.contains(&line), "{line} in {said}");
    assert_eq!(in_names(root, &["--git", "."], &keys).len(), 3);
}

#[test]
fn what_ignore_files_list_has_no_names() {
    let folder = folder();
    let root = folder.path();
    write(root, &format!("out/{}", secret().expose()), "nothing\n");
    write(root, ".gitignore", "out\n");
    let output = scan(root, &["."]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}
