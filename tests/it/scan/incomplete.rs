//! Objects missing from a repository are named, and the scan does not succeed.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use super::{commit, folder, git, repository, rows, scan, secret, text, write};

/// A repository of two commits, and its objects by what they are called here.
fn rig() -> tempfile::TempDir {
    let folder = repository();
    let root = folder.path();
    write(root, "a.txt", "one\n");
    write(root, "sub/b.txt", "two\n");
    commit(root, "Begin");
    write(root, "sub/c.txt", "three\n");
    commit(root, "Add");
    git(root, &["tag", "--annotate", "v1", "--message", "v1"]);
    folder
}

fn id(root: &Path, name: &str) -> String {
    git(root, &["rev-parse", name])
}

fn object(root: &Path, id: &str) -> std::path::PathBuf {
    root.join(".git/objects").join(&id[..2]).join(&id[2..])
}

fn lose(root: &Path, id: &str) {
    fs::remove_file(object(root, id)).expect("a loose object");
}

/// Checks that a scan ends with 3, or 0 if that is allowed, and what it names as not scanned.
#[track_caller]
fn incomplete(root: &Path, arguments: &[&str]) -> Vec<Value> {
    let with = |more: &[&str]| scan(root, &[arguments, more].concat());
    let output = with(&["--report", "jsonl"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let said = text(&output);
    assert!(said.contains("--allow-incomplete"), "{said}");
    let rows = rows(&output);
    assert!(
        said.contains(&format!("{} not scanned", rows.len())),
        "{said}"
    );
    let allowed = with(&["--allow-incomplete"]);
    assert_eq!(allowed.status.code(), Some(0), "{}", text(&allowed));
    assert!(
        text(&allowed).contains("not scanned: "),
        "{}",
        text(&allowed)
    );
    rows.into_iter()
        .map(|row| row["not_scanned"].clone())
        .collect()
}

fn lacks(kind: &str, id: &str, path: Option<&str>) -> Value {
    let mut lacks = json!({
        "object": {"kind": kind, "id": id},
        "reason": "the repository lacks this object",
    });
    if let Some(path) = path {
        lacks["path"] = path.into();
    }
    lacks
}

#[test]
fn an_object_of_any_kind_that_is_missing_is_named() {
    for (name, kind, path) in [
        ("HEAD:a.txt", "blob", Some("a.txt")),
        ("HEAD:sub/c.txt", "blob", Some("sub/c.txt")),
        ("HEAD:sub", "tree", Some("sub")),
        ("HEAD^{tree}", "tree", None),
        ("HEAD~1", "commit", None),
        ("HEAD", "commit", None),
        // The branch leads to the commit, but not to the tag.
        ("v1", "object", None),
    ] {
        let folder = rig();
        let root = folder.path();
        assert_eq!(scan(root, &["--git", "."]).status.code(), Some(0));
        let id = id(root, name);
        lose(root, &id);
        assert_eq!(
            incomplete(root, &["--git", "."]),
            [lacks(kind, &id, path)],
            "{name}"
        );
        let text = text(&scan(root, &["--git", "."]));
        assert!(text.contains(&format!("{kind} {id}")), "{name}: {text}");
    }
}

#[test]
fn what_is_there_is_scanned_and_sarif_names_the_rest() {
    let folder = rig();
    let root = folder.path();
    write(root, "leak.env", secret().expose());
    commit(root, "Leak");
    let lost = id(root, "HEAD:a.txt");
    lose(root, &lost);
    let output = scan(root, &["--git", ".", "--report", "sarif"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let log: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let run = &log["runs"][0];
    assert_eq!(run["results"].as_array().map(Vec::len), Some(1));
    let location = &run["invocations"][0]["toolExecutionNotifications"][0]["locations"][0];
    assert_eq!(
        location["physicalLocation"]["artifactLocation"]["uri"],
        "a.txt"
    );
    let named = &location["logicalLocations"][0]["fullyQualifiedName"];
    assert_eq!(*named, format!("blob {lost}"));
}

/// What stands behind it is read all the same, whatever leads there.
#[test]
fn a_damaged_object_is_named_and_costs_no_other() {
    // Nothing says what a commit is where git cannot list the history.
    for (name, kind) in [
        ("HEAD:a.txt", "blob"),
        ("HEAD:sub", "tree"),
        ("HEAD", "object"),
        ("HEAD~1", "object"),
    ] {
        let folder = rig();
        let root = folder.path();
        let id = id(root, name);
        write_over(&object(root, &id), b"garbage");
        let output = scan(root, &["--git", "."]);
        assert_eq!(output.status.code(), Some(3), "{name}: {}", text(&output));
        let named = format!("{kind} {id}");
        assert!(text(&output).contains(&named), "{name}: {}", text(&output));
        let allowed = scan(root, &["--git", ".", "--allow-incomplete"]);
        assert_eq!(allowed.status.code(), Some(0), "{name}: {}", text(&allowed));
    }
}

fn write_over(file: &Path, bytes: &[u8]) {
    fs::remove_file(file).expect("a file");
    fs::write(file, bytes).expect("a file");
}

/// Packs what is new. Returns the path of the pack.
fn pack(root: &Path) -> std::path::PathBuf {
    let packs = || -> Vec<std::path::PathBuf> {
        let files = fs::read_dir(root.join(".git/objects/pack"));
        let files = files.into_iter().flatten();
        let paths = files.map(|file| file.expect("a file").path());
        paths
            .filter(|path| path.extension().is_some_and(|end| end == "pack"))
            .collect()
    };
    let before = packs();
    git(root, &["repack", "--quiet", "-d"]);
    let new = packs().into_iter().find(|pack| !before.contains(pack));
    new.expect("a pack")
}

/// Returns the place of an object in its pack.
fn place_in(root: &Path, pack: &Path, id: &str) -> usize {
    let index = pack.with_extension("idx");
    let listed = git(root, &["verify-pack", "-v", index.to_str().expect("UTF-8")]);
    let line = listed.lines().find(|line| line.starts_with(id));
    let place = line.and_then(|line| line.split_ascii_whitespace().nth(4));
    place.and_then(|place| place.parse().ok()).expect("a place")
}

/// The objects of the found candidates, and the rows of what was not scanned.
fn found_and_not(output: &Output) -> (Vec<String>, Vec<Value>) {
    let (lost, found): (Vec<Value>, Vec<Value>) = rows(output)
        .into_iter()
        .partition(|row| row.get("not_scanned").is_some());
    let object = |row: Value| row["object"]["id"].as_str().expect("an object").to_owned();
    let lost = lost.into_iter().map(|row| row["not_scanned"].clone());
    (found.into_iter().map(object).collect(), lost.collect())
}

#[test]
fn what_other_packs_hold_than_a_damaged_one_is_scanned() {
    type Damage = fn(&mut Vec<u8>);
    let garbled: Damage = |pack| {
        pack.iter_mut()
            .skip(20)
            .step_by(16)
            .for_each(|b| *b ^= 0x55);
    };
    let cut: Damage = |pack| pack.truncate(pack.len() / 2);
    let headless: Damage = |pack| pack[..4].copy_from_slice(b"XXXX");
    for (damage, how) in [(garbled, "garbled"), (cut, "cut"), (headless, "headless")] {
        for leaks in [true, false] {
            let folder = repository();
            let root = folder.path();
            let value = secret();
            let leak = if leaks { value.expose() } else { "nothing" };
            let mut blobs = Vec::new();
            let mut packs = Vec::new();
            for number in 0..3 {
                write(root, "leak.env", format!("{number} {leak}"));
                commit(root, "Leak");
                blobs.push(id(root, "HEAD:leak.env"));
                packs.push(pack(root));
            }
            let mut bytes = fs::read(&packs[1]).expect("a pack");
            damage(&mut bytes);
            write_over(&packs[1], &bytes);
            let output = scan(root, &["--git", ".", "--report", "jsonl"]);
            let (mut found, lost) = found_and_not(&output);
            let lost: Vec<String> = lost.iter().map(Value::to_string).collect();
            let is_named = lost.iter().any(|lost| lost.contains(&blobs[1]));
            assert!(is_named, "{how}: {}", text(&output));
            let code = if leaks { 1 } else { 3 };
            assert_eq!(output.status.code(), Some(code), "{how}: {}", text(&output));
            blobs.remove(1);
            found.sort();
            blobs.sort();
            assert_eq!(found, if leaks { blobs } else { vec![] }, "{how}");
        }
    }
}

#[test]
fn files_behind_a_damaged_one_keep_their_places() {
    let folder = repository();
    let root = folder.path();
    write(root, "a.txt", "x\n".repeat(100));
    write(root, "sub/b.env", secret().expose());
    let first = commit(root, "Leak");
    let pack = pack(root);
    let damaged = id(root, "HEAD:a.txt");
    let place = place_in(root, &pack, &damaged);
    let mut bytes = fs::read(&pack).expect("a pack");
    bytes[place + 2..place + 8].fill(0xff);
    write_over(&pack, &bytes);
    let output = scan(root, &["--git", ".", "--report", "jsonl"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let rows = rows(&output);
    let leak = rows.iter().find(|row| row.get("not_scanned").is_none());
    let leak = leak.expect("a finding");
    assert_eq!(leak["path"], "sub/b.env");
    assert_eq!(leak["object"]["commit"], *first);
    let (_, lost) = found_and_not(&output);
    let of_file = lost.iter().find(|lost| lost["path"] == "a.txt");
    let of_file = of_file.expect("the damaged file");
    assert_eq!(of_file["object"], json!({"kind": "blob", "id": damaged}));
    assert!(
        of_file["reason"].to_string().contains("corrupt"),
        "{of_file}"
    );
}

/// The same of the contents that a commit will have.
#[test]
fn a_damaged_file_that_is_staged_costs_no_other() {
    let folder = rig();
    let root = folder.path();
    write(root, "d.txt", "four\n");
    write(root, "leak.env", secret().expose());
    git(root, &["add", "--all"]);
    let damaged = id(root, ":d.txt");
    let pack = pack_all(root);
    let place = place_in(root, &pack, &damaged);
    let mut bytes = fs::read(&pack).expect("a pack");
    bytes[place + 2..place + 8].fill(0xff);
    write_over(&pack, &bytes);
    let output = scan(root, &["--staged", "--report", "jsonl"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let (found, lost) = found_and_not(&output);
    assert_eq!((found.len(), lost.len()), (1, 1), "{}", text(&output));
    assert_eq!(lost[0]["path"], "d.txt");
}

/// Packs the only loose objects, staged ones among them, and returns the path of the pack.
fn pack_all(root: &Path) -> std::path::PathBuf {
    git(root, &["repack", "--quiet", "-d", "-a", "-k"]);
    let files = fs::read_dir(root.join(".git/objects/pack")).expect("a folder");
    let paths = files.map(|file| file.expect("a file").path());
    let mut packs = paths.filter(|path| path.extension().is_some_and(|end| end == "pack"));
    packs.next().expect("a pack")
}

#[test]
fn a_range_of_a_history_that_cannot_be_read_is_no_wrong_usage() {
    let folder = rig();
    let root = folder.path();
    let head = id(root, "HEAD");
    lose(root, &head);
    for arguments in [
        &["--since", "HEAD~1"][..],
        &["--since", "v1", "--allow-incomplete"],
    ] {
        let output = scan(root, arguments);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        assert!(text(&output).contains(&head), "{}", text(&output));
    }
}

#[test]
fn a_reference_that_leads_nowhere_is_named() {
    let folder = rig();
    let root = folder.path();
    let nowhere = "1".repeat(40);
    write(root, ".git/refs/heads/nowhere", format!("{nowhere}\n"));
    assert_eq!(
        incomplete(root, &["--git", "."]),
        [lacks("object", &nowhere, None)]
    );
    write(root, ".git/refs/heads/nowhere", "garbage\n");
    let rows = incomplete(root, &["--git", "."]);
    assert!(
        rows[0]["reason"].to_string().contains("refs/heads/nowhere"),
        "{rows:?}"
    );
    fs::remove_file(root.join(".git/refs/heads/nowhere")).expect("a file");
    // A dangling remote branch loses nothing.
    git(
        root,
        &[
            "symbolic-ref",
            "refs/remotes/origin/HEAD",
            "refs/remotes/origin/gone",
        ],
    );
    assert_eq!(scan(root, &["--git", "."]).status.code(), Some(0));
}

fn clone(root: &Path, arguments: &[&str]) {
    let url = format!("file://{}", root.join("full").display());
    git(
        root,
        &[&["clone", "--quiet"], arguments, &[&url, "clone"]].concat(),
    );
}

/// A repository `full` of three commits, the first of which holds a candidate that a later one takes away.
fn full(root: &Path) -> String {
    git(root, &["init", "--quiet", "--initial-branch=main", "full"]);
    let full = root.join("full");
    git(&full, &["config", "uploadpack.allowFilter", "true"]);
    write(&full, ".env", secret().expose());
    write(&full, "kept.txt", "kept\n");
    commit(&full, "Leak");
    git(&full, &["rm", "--quiet", ".env"]);
    let second = commit(&full, "Take it away");
    write(&full, "late.txt", "late\n");
    commit(&full, "Go on");
    second
}

#[test]
fn a_shallow_clone_lacks_the_commits_it_was_cut_at() {
    let folder = folder();
    let root = folder.path();
    let second = full(root);
    clone(root, &["--depth=1"]);
    let clone = root.join("clone");
    assert_eq!(
        incomplete(&clone, &["--git", "."]),
        [lacks("commit", &second, None)]
    );
    // A whole history that is called shallow is a whole one.
    let full = root.join("full");
    let head = id(&full, "HEAD");
    write(&full, ".git/shallow", format!("{head}\n"));
    let output = scan(&full, &["--git", "."]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(!text(&output).contains("not scanned"), "{}", text(&output));
    let since = scan(&full, &["--since", "HEAD"]);
    assert_eq!(since.status.code(), Some(0), "{}", text(&since));
    // A file without end is not read.
    #[cfg(unix)]
    {
        fs::remove_file(full.join(".git/shallow")).expect("a file");
        std::os::unix::fs::symlink("/dev/zero", full.join(".git/shallow")).expect("a link");
        for arguments in [&["--git", "."][..], &["--staged"], &["--since", "HEAD"]] {
            let output = scan(&full, arguments);
            assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        }
    }
}

#[test]
fn a_range_that_leaves_a_shallow_clone_is_incomplete() {
    let folder = folder();
    let root = folder.path();
    let second = full(root);
    clone(root, &["--depth=1"]);
    let clone = root.join("clone");
    // The commit to compare with is there, but not what lies between.
    git(
        &clone,
        &[
            "fetch",
            "--quiet",
            "--depth=1",
            "origin",
            &id(&root.join("full"), "HEAD~2"),
        ],
    );
    let base = git(&clone, &["rev-parse", "FETCH_HEAD"]);
    assert_eq!(
        incomplete(&clone, &["--since", &base]),
        [lacks("commit", &second, None)]
    );
    assert_eq!(scan(&clone, &["--since", "HEAD"]).status.code(), Some(0));
}

#[test]
fn a_partial_clone_lacks_contents_and_nothing_is_fetched() {
    let folder = folder();
    let root = folder.path();
    full(root);
    clone(root, &["--filter=blob:none", "--no-checkout"]);
    let clone = root.join("clone");
    let full = root.join("full");
    let lost = [
        ("HEAD~2:.env", ".env"),
        ("HEAD:kept.txt", "kept.txt"),
        ("HEAD:late.txt", "late.txt"),
    ];
    let mut expected = lost.map(|(name, path)| lacks("blob", &id(&full, name), Some(path)));
    expected.sort_by_key(|lacks| lacks["object"]["id"].to_string());
    assert_eq!(incomplete(&clone, &["--git", "."]), expected);
    let late = lacks("blob", &id(&full, "HEAD:late.txt"), Some("late.txt"));
    assert_eq!(incomplete(&clone, &["--since", "HEAD~1"]), [late]);
}

#[test]
fn a_range_or_an_index_without_its_folders_is_scanned_as_far_as_possible() {
    let folder = rig();
    let root = folder.path();
    write(root, "leak.env", secret().expose());
    let leak = commit(root, "Leak");
    let tree = id(root, "HEAD~1^{tree}");
    let middle = id(root, "HEAD~1");
    write(root, "last.env", secret().expose());
    commit(root, "Leak again");
    lose(root, &tree);
    // The commit, and the one that is compared with it.
    let output = scan(root, &["--since", "HEAD~3", "--report", "jsonl"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let rows = rows(&output);
    let found: Vec<_> = rows
        .iter()
        .filter(|row| row["path"] == "last.env")
        .collect();
    assert_eq!(found.len(), 1, "{rows:?}");
    for commit in [&middle, &leak] {
        let named = rows
            .iter()
            .any(|row| row["not_scanned"]["object"]["id"] == **commit);
        assert!(named, "{commit} in {rows:?}");
    }
    // Likewise what is staged, all of which counts as new.
    let folder = rig();
    let root = folder.path();
    write(root, "new.env", secret().expose());
    git(root, &["add", "--all"]);
    lose(root, &id(root, "HEAD^{tree}"));
    let output = scan(root, &["--staged"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("new.env:1:1"), "{}", text(&output));
    assert!(text(&output).contains("1 not scanned"), "{}", text(&output));
    git(root, &["rm", "--quiet", "--cached", "new.env"]);
    incomplete(root, &["--staged"]);
}

#[test]
fn submodules_are_not_missing() {
    let folder = rig();
    let root = folder.path();
    let elsewhere = "2".repeat(40);
    let entry = format!("160000,{elsewhere},module");
    git(root, &["update-index", "--add", "--cacheinfo", &entry]);
    let clean = |output: Output| assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    clean(scan(root, &["--staged"]));
    git(root, &["commit", "--quiet", "--message", "Add a submodule"]);
    clean(scan(root, &["--git", "."]));
    clean(scan(root, &["--since", "HEAD~1"]));
    // Nor are they taken for what is missing when something else is.
    let lost = id(root, "HEAD:a.txt");
    lose(root, &lost);
    assert_eq!(
        incomplete(root, &["--git", "."]),
        [lacks("blob", &lost, Some("a.txt"))]
    );
}
