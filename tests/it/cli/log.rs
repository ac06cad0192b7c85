//! The revocation log on the command line.

use super::Binary;

/// A database with three entries in its log.
fn with_entries() -> Binary {
    let binary = Binary::new();
    for user in ["u1", "u2", "u3"] {
        let value = binary
            .run(&format!("keys create --user {user} --description x"))
            .ok();
        binary
            .run_with(["keys", "revoke", "--value-stdin"], &value)
            .ok();
    }
    binary
}

#[test]
fn an_export_verifies_offline_and_a_flipped_byte_is_named() {
    let binary = with_entries();
    let database = binary.run("log verify").ok();
    assert!(database.starts_with("ok: 3 entries, head "), "{database}");

    binary
        .run("log export --format jsonl --output log.jsonl")
        .ok();
    let export = std::fs::read_to_string(binary.path("log.jsonl")).expect("the export");
    assert_eq!(
        binary.run("log export").ok(),
        export,
        "the same on standard output"
    );
    assert_eq!(export.lines().count(), 3);

    // Offline: in a folder without database, from a file and from standard input.
    let elsewhere = Binary::new();
    elsewhere.write("log.jsonl", &export);
    assert_eq!(elsewhere.run("log verify log.jsonl").ok(), database);
    assert_eq!(
        elsewhere.run_with(["log", "verify", "-"], &export).ok(),
        database
    );
    assert!(!elsewhere.path("data").exists());

    let flipped = export.replacen("\"u2\"", "\"u7\"", 1);
    let ran = elsewhere.run_with(["log", "verify", "-"], &flipped);
    ran.fails(1, &[]);
    assert!(ran.stdout.contains("entry 2"), "{ran:?}");
    let (_, missing) = export.split_once('\n').expect("lines");
    elsewhere
        .run_with(["log", "verify", "-"], missing)
        .fails(1, &[]);
    elsewhere
        .run_with(["log", "verify", "-"], "not a log\n")
        .fails(1, &[]);
}

/// Whoever keeps an export wants to know that it is not there.
#[test]
fn an_export_to_a_closed_standard_output_says_so() {
    let binary = with_entries();
    let export = |redirected: &str| {
        let mut shell = std::process::Command::new("/bin/sh");
        let line = format!("exec \"$0\" log export {redirected}");
        shell.args(["-c", &line]).arg(env!("CARGO_BIN_EXE_rescind"));
        shell.current_dir(binary.path(".")).env_clear();
        super::Ran::from(shell.output().expect("a shell"))
    };
    let told = "standard output is closed or the null device";
    for (redirected, is_told) in [
        (">&-", true),
        ("--format csv >&-", true),
        // As programs open it that start another one and care for nothing it says.
        ("1<>/dev/null", true),
        (">/dev/null", false),
        (">&- --output log.jsonl", false),
        (">log2.jsonl", false),
    ] {
        let ran = export(redirected);
        assert_eq!(ran.stderr.contains(told), is_told, "{redirected}");
        ran.ok();
    }
    let written = ["log.jsonl", "log2.jsonl"].map(|file| {
        let text = std::fs::read_to_string(binary.path(file));
        text.expect("an export").lines().count()
    });
    assert_eq!(written, [3, 3]);
}

#[test]
fn entries_are_listed_shown_and_exported() {
    let binary = with_entries();
    let entries: Vec<serde_json::Value> = binary
        .run("log list --json --limit 2")
        .ok()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let numbers: Vec<_> = entries.iter().map(|entry| entry["seq"].clone()).collect();
    assert_eq!(numbers, [3, 2]);
    let key = entries[0]["key_id"].as_str().expect("an id");
    let of_key = binary.run(&format!("log list --key {key}")).ok();
    assert_eq!(
        of_key.lines().count(),
        2,
        "a header and one entry: {of_key}"
    );

    let shown = binary.run("log show 3").ok();
    assert!(shown.contains(key) && shown.contains("manual"), "{shown}");
    let shown: serde_json::Value =
        serde_json::from_str(&binary.run("log show 3 --json").ok()).expect("JSON");
    assert_eq!(shown, entries[0]);
    binary.run("log show 4").fails(2, &["no entry 4"]);

    let csv = binary.run("log export --format csv").ok();
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(reader.headers().expect("a header").get(0), Some("seq"));
    assert_eq!(reader.records().filter_map(Result::ok).count(), 3);
}

#[test]
fn an_export_that_cannot_be_written_leaves_nothing() {
    let binary = with_entries();
    binary
        .run("log export --output nowhere/log.jsonl")
        .fails(2, &["nowhere/log.jsonl"]);
    assert!(!binary.path("nowhere").exists());
}

#[test]
fn a_folder_is_no_export_and_is_named() {
    let binary = Binary::new();
    std::fs::create_dir(binary.path("a-folder")).expect("a folder");
    let ran = binary.run("log verify a-folder");
    ran.fails(2, &["a-folder: it is a folder", "rescind log export"]);
}

#[test]
fn an_empty_log_holds() {
    let binary = Binary::new();
    binary.run("migrate").ok();
    let verified = binary.run("log verify").ok();
    assert!(verified.starts_with("ok: 0 entries"), "{verified}");
    assert_eq!(binary.run("log export").ok(), "");
}

#[test]
fn a_key_in_what_is_no_log_is_not_repeated() {
    let binary = Binary::new();
    let key = binary.run("keys create --user u --description x").ok();
    let key = key.trim();
    for text in [
        format!("{{\"seq\":\"{key}\"}}"),
        format!("{{\"{key}\":1}}"),
        format!("\"{key}\""),
        key.to_owned(),
    ] {
        let ran = binary.run_with(["log", "verify", "-"], &text);
        ran.fails(1, &[]);
        assert!(
            ran.stdout.contains("entry 1") && !ran.stdout.contains(key),
            "{ran:?}"
        );
    }
}

#[test]
fn entries_are_filtered_as_by_the_api() {
    let binary = with_entries();
    let value = binary
        .run("keys create --user u4 --description x --project acme")
        .ok();
    let listed = binary.run("keys list --json --project acme").ok();
    let key: serde_json::Value = serde_json::from_str(listed.trim()).expect("one key");
    let id = key["id"].as_str().expect("an id");
    binary.run(&format!("keys rotate {id} --overlap 1h")).ok();
    assert!(!value.is_empty());
    let numbers = |options: &str| {
        let listed = binary.run(&format!("log list --json {options}")).ok();
        let entries = listed.lines().map(|line| {
            let entry: serde_json::Value = serde_json::from_str(line).expect("JSON");
            entry["seq"].as_u64().expect("a number")
        });
        entries.collect::<Vec<_>>()
    };
    assert_eq!(numbers("--all"), [4, 3, 2, 1]);
    assert_eq!(numbers("--action rotated"), [4]);
    assert_eq!(numbers("--action revoked --limit 2"), [3, 2]);
    assert_eq!(numbers("--reason manual"), [3, 2, 1]);
    assert_eq!(numbers("--project acme"), [4]);
    assert_eq!(numbers(&format!("--key-id {id} --reason manual")), [0; 0]);
    let shown = binary.run("log show 3 --json").ok();
    let entry: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let at = entry["at"].as_str().expect("a time");
    assert_eq!(numbers(&format!("--since {at}")), [4, 3]);
    assert_eq!(numbers(&format!("--until {at}")), [2, 1]);
    assert_eq!(numbers("--until 9999-12-31T23:59:59Z"), [4, 3, 2, 1]);
    assert_eq!(numbers("--since 9999-12-31"), [0; 0]);
    let more = binary.run("log list --limit 2");
    more.fails(0, &["there are more entries", "--all"]);
}

#[test]
fn an_entry_names_the_user_of_the_system() {
    let binary = with_entries()
        .with("USER", "mallory")
        .with("LOGNAME", "mallory");
    let key = binary.run("keys create --user u --description x").ok();
    binary
        .run_with(["keys", "revoke", "--value-stdin"], &key)
        .ok();
    let id = |option: &str| {
        let ran = std::process::Command::new("id")
            .arg(option)
            .output()
            .expect("id");
        String::from_utf8(ran.stdout)
            .expect("a user")
            .trim()
            .to_owned()
    };
    let shown = binary.run("log show 4 --json").ok();
    let entry: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let names = [id("-run"), id("-ru")].map(|name| format!("cli:{name}"));
    let actor = entry["actor"].as_str().expect("an actor");
    assert!(
        names.iter().any(|name| name == actor),
        "{actor}, not {names:?}"
    );
    binary.run("log verify").ok();
}
