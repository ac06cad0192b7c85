//! `rescind scan` through the real binary: files, folders, standard input, histories.

mod incomplete;
mod left_out;
mod names;
mod sarif;
mod since;
mod staged;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rescind::keyformat::{FormatSet, KeyValue};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) fn key(format: &str) -> KeyValue {
    let formats = FormatSet::builtin();
    let format = formats.get(format).expect("a built-in format");
    format.mint().expect("a key")
}

pub(crate) fn secret() -> KeyValue {
    key("rescind_secret")
}

pub(crate) fn folder() -> TempDir {
    TempDir::new().expect("a temporary folder")
}

pub(crate) fn write(folder: &Path, name: &str, contents: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    fs::write(path, contents).expect("a file");
}

fn rescind(folder: &Path, arguments: &[&str], input: &[u8]) -> Output {
    run(program().args(arguments).current_dir(folder), input)
}

/// The binary, which is not told of a repository by the environment of these tests.
pub(crate) fn program() -> Command {
    without_git_variables(Command::new(env!("CARGO_BIN_EXE_rescind")))
}

fn without_git_variables(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"GIT_") {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the rescind binary runs");
    let mut stdin = child.stdin.take().expect("a standard input");
    // A command that never reads its input may be gone already.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

pub(crate) fn scan(folder: &Path, arguments: &[&str]) -> Output {
    rescind(folder, &[&["scan"], arguments].concat(), b"")
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

pub(crate) fn rows(output: &Output) -> Vec<Value> {
    let stdout = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    let mut rows: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect();
    rows.sort_by_key(|row| row["path"].to_string());
    rows
}

fn wide(text: &str) -> Vec<u8> {
    format!("\u{feff}{text}")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect()
}

#[test]
fn every_form_is_found_with_line_and_column_and_shown_redacted() {
    let folder = folder();
    let keys: Vec<KeyValue> = (0..4).map(|_| secret()).collect();
    write(
        folder.path(),
        "a.env",
        format!("PORT=1\nKEY={}\n", keys[0].expose()),
    );
    let encoded = STANDARD.encode(format!("x{}", keys[1].expose()));
    write(folder.path(), "b.yaml", format!("data: {encoded}\n"));
    write(
        folder.path(),
        "c.ini",
        wide(&format!("\r\n  {}\r\n", keys[2].expose())),
    );
    write(
        folder.path(),
        ".hidden/d",
        format!("{}{}", "x".repeat(1 << 20), keys[3].expose()),
    );
    write(folder.path(), "public.js", key("rescind_public").expose());
    let output = scan(folder.path(), &[".", "--report", "jsonl"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let rows = rows(&output);
    let seen: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row["encoding"].as_str().expect("an encoding"),
                row["line"].as_u64(),
                row["column"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("utf8", Some(1), Some((1 << 20) + 1)),
            ("utf8", Some(2), Some(5)),
            ("base64", Some(1), Some(8)),
            ("utf16le", Some(2), Some(3)),
        ]
    );
    for (row, key) in rows.iter().zip([&keys[3], &keys[0], &keys[1], &keys[2]]) {
        assert_eq!(row["candidate"], key.redacted("rsc_sk_").as_str());
        assert_eq!(row["format"], "rescind_secret");
    }
    for key in &keys {
        assert!(
            !text(&output).contains(key.expose()),
            "a key is shown whole"
        );
    }
}

#[test]
fn exit_codes_and_reports_are_those_of_the_contract() {
    let folder = folder();
    write(folder.path(), "clean.txt", "nothing here");
    let clean = scan(folder.path(), &["clean.txt"]);
    assert_eq!(clean.status.code(), Some(0), "{}", text(&clean));
    assert!(clean.stdout.is_empty(), "data only on standard output");
    let json = scan(folder.path(), &[".", "--report", "json"]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("one JSON document");
    assert_eq!(json["candidates"], Value::Array(Vec::new()));
    assert_eq!(json["summary"]["scanned"], 1);
    let missing = scan(folder.path(), &["no-such-file"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(
        text(&missing).contains("no-such-file"),
        "{}",
        text(&missing)
    );
    let key = secret();
    let found = rescind(folder.path(), &["scan", "-"], key.expose().as_bytes());
    assert_eq!(found.status.code(), Some(1), "{}", text(&found));
    let line = format!(
        "(standard input):1:1: {} rescind_secret utf8",
        key.redacted("rsc_sk_")
    );
    assert!(text(&found).contains(&line), "{}", text(&found));
    let form = scan(folder.path(), &[".", "--report", "xml"]);
    assert_eq!(form.status.code(), Some(2));
}

#[test]
fn ignore_files_count_unless_told_otherwise_and_nothing_is_skipped_silently() {
    let folder = folder();
    write(folder.path(), ".gitignore", "ignored.env\n");
    write(folder.path(), "ignored.env", secret().expose());
    assert_eq!(scan(folder.path(), &["."]).status.code(), Some(0));
    let all = scan(folder.path(), &[".", "--no-ignore"]);
    assert_eq!(all.status.code(), Some(1), "{}", text(&all));
    #[cfg(unix)]
    {
        let pipe = Command::new("mkfifo")
            .arg(folder.path().join("pipe"))
            .status();
        assert!(pipe.expect("mkfifo runs").success());
        let output = scan(folder.path(), &["."]);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        let allowed = scan(folder.path(), &[".", "--allow-incomplete"]);
        assert_eq!(allowed.status.code(), Some(0), "{}", text(&allowed));
        for what in ["a named pipe, not opened", "1 not scanned"] {
            assert!(
                text(&output).contains(what),
                "no {what:?} in {}",
                text(&output)
            );
        }
    }
}

/// As in a repository, where it is what the link contains.
#[cfg(unix)]
#[test]
fn the_target_of_a_link_is_a_text_and_is_not_followed() {
    use std::os::unix::fs::symlink;
    let (folder, elsewhere) = (folder(), folder());
    let (key, other) = (secret(), secret());
    let root = folder.path();
    write(elsewhere.path(), "key.env", other.expose());
    symlink(format!("gone/{}", key.expose()), root.join("broken")).expect("a link");
    symlink(elsewhere.path(), root.join("folder")).expect("a link");
    symlink(elsewhere.path().join("key.env"), root.join("file")).expect("a link");
    symlink("/dev/zero", root.join("device")).expect("a link");
    let output = scan(root, &["."]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("./broken:1:6: rsc_sk_…"), "{said}");
    assert_eq!(said.matches("rsc_sk_…").count(), 1, "{said}");
    assert!(said.contains("4 symbolic links not followed"), "{said}");
    assert!(!said.contains("not scanned"), "{said}");
    // It is the same text everywhere.
    git(root, &["init", "--quiet"]);
    commit(root, "Begin");
    let found = |way: &[&str]| {
        let rows = rows(&scan(root, &[way, &["--report", "jsonl"]].concat()));
        let found = rows
            .iter()
            .map(|row| (row["line"].clone(), row["column"].clone()));
        found.collect::<Vec<_>>()
    };
    assert_eq!(found(&["."]), found(&["--git", "."]));
}

#[cfg(unix)]
#[test]
fn paths_need_not_be_utf8_and_keys_in_them_are_redacted() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = folder();
    let key = secret();
    let odd = folder
        .path()
        .join(std::ffi::OsStr::from_bytes(b"odd-\xff.txt"));
    fs::write(odd, key.expose()).expect("a file");
    write(
        folder.path(),
        &format!("{}.txt", key.expose()),
        key.expose(),
    );
    let output = scan(folder.path(), &[".", "--report", "jsonl"]);
    // One of them is in a name.
    assert_eq!(rows(&output).len(), 3, "{}", text(&output));
    assert!(!text(&output).contains(key.expose()));
}

/// Runs git, which has to succeed, and returns what it prints.
#[track_caller]
pub(crate) fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = try_git(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    String::from_utf8(output.stdout)
        .expect("UTF-8")
        .trim_end()
        .to_owned()
}

pub(crate) fn try_git(folder: &Path, arguments: &[&str]) -> Output {
    without_git_variables(Command::new("git"))
        .current_dir(folder)
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.com"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git runs")
}

/// A folder with an empty repository in it.
pub(crate) fn repository() -> TempDir {
    let folder = folder();
    git(folder.path(), &["init", "--quiet", "--initial-branch=main"]);
    folder
}

/// Commits all files as they are and returns the commit.
pub(crate) fn commit(folder: &Path, message: &str) -> String {
    git(folder, &["add", "--all"]);
    git(
        folder,
        &["commit", "--quiet", "--allow-empty", "--message", message],
    );
    git(folder, &["rev-parse", "HEAD"])
}

#[test]
fn a_history_holds_what_was_removed_and_what_stands_in_messages() {
    let folder = folder();
    let repository = folder.path().join("repository");
    fs::create_dir(&repository).expect("a folder");
    git(&repository, &["init", "--quiet", "--initial-branch=main"]);
    let (removed, message, tag) = (secret(), secret(), secret());
    write(
        &repository,
        "src/debug.py",
        format!("key = '{}'\n", removed.expose()),
    );
    write(
        &repository,
        "copy.py",
        format!("key = '{}'\n", removed.expose()),
    );
    git(&repository, &["add", "--all"]);
    git(&repository, &["commit", "--quiet", "--message", "Begin"]);
    git(&repository, &["rm", "--quiet", "src/debug.py", "copy.py"]);
    git(
        &repository,
        &[
            "commit",
            "--quiet",
            "--message",
            &format!("Take {} out", message.expose()),
        ],
    );
    git(
        &repository,
        &["tag", "--annotate", "v1", "--message", tag.expose()],
    );
    let tree = scan(folder.path(), &["repository"]);
    assert_eq!(
        tree.status.code(),
        Some(0),
        "the files hold none: {}",
        text(&tree)
    );
    let bare = folder.path().join("bare.git");
    let source = repository.to_str().expect("UTF-8");
    git(
        folder.path(),
        &[
            "clone",
            "--quiet",
            "--bare",
            source,
            bare.to_str().expect("UTF-8"),
        ],
    );
    for name in ["repository", "bare.git"] {
        let output = scan(folder.path(), &[name, "--git", "--report", "jsonl"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        let rows = rows(&output);
        let mut kinds: Vec<_> = rows
            .iter()
            .map(|row| row["object"]["kind"].as_str().expect("a kind"))
            .collect();
        kinds.sort_unstable();
        assert_eq!(
            kinds,
            ["blob", "commit", "tag"],
            "each blob once: {}",
            text(&output)
        );
        let blob = rows
            .iter()
            .find(|row| row["object"]["kind"] == "blob")
            .expect("a blob");
        assert_eq!(
            blob["object"]["commit"].as_str().map(str::len),
            Some(40),
            "{blob}"
        );
        for key in [&removed, &message, &tag] {
            assert!(!text(&output).contains(key.expose()));
        }
    }
    write(folder.path(), "plain/file", "no repository");
    let plain = scan(folder.path(), &["plain", "--git"]);
    assert_eq!(plain.status.code(), Some(2), "{}", text(&plain));
}

/// Of each place of a line break in the encoded key: what a file is, a patch and a quotation show as well.
#[test]
fn base64_in_lines_is_found_in_patches_and_quotations() {
    let folder = repository();
    let root = folder.path();
    let key = secret();
    let mut lines = Vec::new();
    for before in 0..60 {
        let encoded = STANDARD.encode(format!(
            "{}{}. And so on.",
            "x".repeat(before),
            key.expose()
        ));
        let width = if before % 2 == 0 { 64 } else { 76 };
        let pieces = encoded
            .as_bytes()
            .chunks(width)
            .map(String::from_utf8_lossy);
        lines.push(format!(
            "data:\n{}\n",
            pieces.collect::<Vec<_>>().join("\n")
        ));
    }
    write(root, "data", lines.concat());
    commit(root, "Add");
    fs::remove_file(root.join("data")).expect("a file");
    commit(root, "Take it away");
    let patches = git(root, &["log", "-p"]);
    for (what, input, expected) in [
        ("file", lines.concat(), 60),
        ("patches", patches.clone(), 120),
        ("indented", patches.replace('\n', "\n    "), 120),
        ("quoted", lines.concat().replace('\n', "\n> "), 60),
        ("quoted twice", lines.concat().replace('\n', "\n> > "), 60),
    ] {
        let output = rescind(root, &["scan", "--report", "jsonl", "-"], input.as_bytes());
        assert_eq!(rows(&output).len(), expected, "{what}");
    }
}

#[test]
fn candidates_are_looked_up_in_the_key_store() {
    let folder = folder();
    let database = format!("sqlite://{}", folder.path().join("keys.db").display());
    write(
        folder.path(),
        "config.toml",
        format!("[database]\nurl = \"{database}\"\n"),
    );
    let create = [
        "keys",
        "create",
        "--user",
        "alice",
        "--description",
        "d",
        "--expires",
        "never",
    ];
    let created = rescind(folder.path(), &create, b"");
    assert!(created.status.success(), "{}", text(&created));
    let ours = String::from_utf8(created.stdout)
        .expect("UTF-8")
        .trim()
        .to_owned();
    let stranger = secret();
    write(
        folder.path(),
        "leak/.env",
        format!("{ours}\n{}\n", stranger.expose()),
    );
    let output = scan(folder.path(), &["leak", "--match", "--report", "jsonl"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let mut rows = rows(&output);
    rows.sort_by_key(|row| row["line"].as_u64());
    assert_eq!(rows[0]["key"]["owner_id"], "alice");
    assert_eq!(rows[0]["key"]["state"], "valid");
    assert!(
        rows[1].get("key").is_some_and(Value::is_null),
        "{}",
        rows[1]
    );
    let revoked = rescind(
        folder.path(),
        &["keys", "revoke", "--value-stdin"],
        ours.as_bytes(),
    );
    assert!(revoked.status.success(), "{}", text(&revoked));
    let output = scan(folder.path(), &["leak", "--match"]);
    assert!(text(&output).contains("revoked key"), "{}", text(&output));
}

#[test]
fn several_paths_and_none_are_scanned() {
    let folder = folder();
    for name in ["a/x", "b/y", "c/z"] {
        write(folder.path(), name, secret().expose());
    }
    let paths = |arguments: &[&str], code: i32| {
        let output = scan(folder.path(), &[&["--report", "jsonl"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
        let mut paths: Vec<String> = rows(&output)
            .iter()
            .filter_map(|row| row["path"].as_str().map(str::to_owned))
            .collect();
        paths.sort();
        paths
    };
    assert_eq!(paths(&[], 1), ["./a/x", "./b/y", "./c/z"]);
    assert_eq!(paths(&["a", "c/z", "a"], 1), ["a/x", "c/z"]);
    // What is behind a path that cannot be scanned is scanned as well, and the failure told.
    assert_eq!(paths(&["a", "gone", "b"], 2), ["a/x", "b/y"]);
    let mixed = run(
        program()
            .args(["scan", "--report", "jsonl", "b", "-"])
            .current_dir(folder.path()),
        secret().expose().as_bytes(),
    );
    assert_eq!(rows(&mixed).len(), 2, "{}", text(&mixed));
}
