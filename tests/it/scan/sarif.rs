//! `rescind scan --report sarif` is what the schema of SARIF 2.1.0 asks for, and says what was found where.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonschema::Validator;
use rescind::keyformat::KeyValue;
use serde_json::{Value, json};

use super::{commit, folder, git, repository, rescind, scan, secret, text, wide, write};
use crate::support::snapshot::steady;

/// See `fixtures/sarif/README.md`.
const SCHEMA: &str = include_str!("../../../fixtures/sarif/sarif-schema-2.1.0.json");

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    // One of its patterns is no regular expression in strict readers' eyes: a bracket closes nothing.
    let stray = "^[a-zA-Z]{2}|^[a-zA-Z]{2}-[a-zA-Z]{2}]?$";
    assert!(SCHEMA.contains(stray));
    let schema = SCHEMA.replace(stray, "^[a-zA-Z]{2}(-[a-zA-Z]{2})?$");
    let schema = serde_json::from_str(&schema).expect("the schema is JSON");
    jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .expect("the schema is one")
});

fn problems(log: &Value) -> Vec<String> {
    let errors = VALIDATOR.iter_errors(log);
    let errors = errors.map(|error| format!("{}: {error}", error.instance_path()));
    errors.collect()
}

/// The log, which is valid and shows none of these keys.
#[track_caller]
fn log(output: &Output, keys: &[&KeyValue]) -> Value {
    let log: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(problems(&log), Vec::<String>::new(), "{log:#}");
    for key in keys {
        let digest = key.sha256().to_hex();
        for secret in [key.expose(), &digest] {
            assert!(
                !text(output).contains(secret),
                "{secret} in {}",
                text(output)
            );
        }
    }
    check_rules(&log["runs"][0]);
    check_ingestion(&log["runs"][0]);
    log
}

/// Checks what GitHub asks for beyond the schema
/// (<https://docs.github.com/en/code-security/reference/code-scanning/sarif-files/sarif-support-for-code-scanning>): it
/// refuses a log as a whole if one location has no file or no line.
#[track_caller]
fn check_ingestion(run: &Value) {
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let driver = &run["tool"]["driver"];
    let about = driver["informationUri"].as_str().expect("a URI");
    assert_eq!(about, "https://crates.io/crates/rescind");
    for rule in driver["rules"].as_array().expect("rules") {
        for (at, most) in [
            ("/id", 255),
            ("/name", 255),
            ("/shortDescription/text", 1024),
            ("/fullDescription/text", 1024),
            ("/help/text", usize::MAX),
            ("/help/markdown", usize::MAX),
        ] {
            let text = rule.pointer(at).and_then(Value::as_str).expect(at);
            assert!(!text.is_empty() && text.len() <= most, "{at}: {text}");
        }
        let severity = rule["properties"]["security-severity"].as_str();
        let severity: f64 = severity
            .and_then(|text| text.parse().ok())
            .expect("a number");
        assert!((0.0..=10.0).contains(&severity), "{severity}");
    }
    for result in run["results"].as_array().expect("results") {
        let locations = result["locations"].as_array().expect("locations");
        assert!(!locations.is_empty(), "{result:#}");
        for location in locations {
            let place = &location["physicalLocation"];
            assert!(is_text(&place["artifactLocation"]["uri"]), "{result:#}");
            let line = place["region"]["startLine"].as_u64();
            assert!(line.is_some_and(|line| line > 0), "{result:#}");
        }
        assert!(is_text(&result["message"]["text"]), "{result:#}");
        let prints = &result["partialFingerprints"];
        // The only one that GitHub looks at.
        assert!(is_text(&prints["primaryLocationLineHash"]), "{result:#}");
    }
}

/// Checks what the schema cannot express: results refer to existing rules.
fn check_rules(run: &Value) {
    let rules = &run["tool"]["driver"]["rules"];
    let formats = rescind::keyformat::FormatSet::builtin();
    let expected: Vec<_> = formats.secret().map(|(_, format)| format.id()).collect();
    let ids: Vec<_> = rules
        .as_array()
        .expect("rules")
        .iter()
        .map(|rule| rule["id"].as_str().expect("an id"))
        .collect();
    assert_eq!(ids, expected);
    for result in run["results"].as_array().expect("results") {
        let index = result["ruleIndex"].as_u64().expect("an index");
        assert_eq!(
            rules[usize::try_from(index).unwrap()]["id"],
            result["ruleId"]
        );
        assert_eq!(result["level"], "error");
    }
}

fn sarif(folder: &Path, arguments: &[&str]) -> Output {
    scan(folder, &[&["--report", "sarif"], arguments].concat())
}

/// The results of a log in the order of their files.
fn results(log: &Value) -> Vec<Value> {
    let results = log["runs"][0]["results"].as_array();
    let mut results = results.expect("results").clone();
    results.sort_by_key(|result| uri(result).to_string());
    results
}

fn uri(result: &Value) -> &Value {
    &result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
}

fn region(result: &Value) -> &Value {
    &result["locations"][0]["physicalLocation"]["region"]
}

fn fingerprint(result: &Value) -> &str {
    let fingerprint = &result["partialFingerprints"]["rescindCandidate/v1"];
    fingerprint.as_str().expect("a fingerprint")
}

#[test]
fn a_log_has_the_reviewed_form() {
    let folder = folder();
    let secret = secret();
    write(
        folder.path(),
        "deploy/a.env",
        format!("KEY={}\n", secret.expose()),
    );
    let log = log(&sarif(folder.path(), &["deploy"]), &[&secret]);
    insta::assert_snapshot!(steady(&format!("{log:#}")));
}

/// Makes a good log a bad one.
type Break = fn(&mut Value);

#[test]
fn the_validator_refuses_what_is_not_a_log() {
    let folder = folder();
    write(folder.path(), "a.env", secret().expose());
    let good = log(&sarif(folder.path(), &["."]), &[]);
    let broken: [(&str, Break); 8] = [
        ("/version", |log| log["version"] = json!("2.0.0")),
        ("", |log| log["extra"] = json!(1)),
        ("/runs/0", |log| log["runs"][0]["tool"] = Value::Null),
        ("/runs/0/results/0", |log| {
            log["runs"][0]["results"][0]["message"] = json!("text");
        }),
        ("/runs/0/results/0/level", |log| {
            log["runs"][0]["results"][0]["level"] = json!("critical");
        }),
        ("/runs/0/results/0/locations/0", |log| {
            log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"]["startLine"] =
                json!(0);
        }),
        ("/runs/0/results/0/locations/0", |log| {
            log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
                ["uri"] = json!("a b");
        }),
        ("/runs/0/columnKind", |log| {
            log["runs"][0]["columnKind"] = json!("bytes");
        }),
    ];
    for (place, change) in broken {
        let mut log = good.clone();
        change(&mut log);
        let problems = problems(&log);
        assert!(
            problems.iter().any(|problem| problem.starts_with(place)),
            "{place}: {problems:?}"
        );
    }
}

#[test]
fn a_log_says_where_candidates_stand_in_characters() {
    let folder = folder();
    let keys: Vec<KeyValue> = (0..4).map(|_| secret()).collect();
    let line = |key: &KeyValue| format!("\u{1f511}=é\n  ключ🔑 = {} # €\n", key.expose());
    write(folder.path(), "a b/ü.env", line(&keys[0]));
    write(folder.path(), "wide.ini", wide(&line(&keys[1])));
    let encoded = STANDARD.encode(format!("é{}", keys[2].expose()));
    write(folder.path(), "x.yaml", format!("é: {encoded}\n"));
    // A key in a name is redacted.
    write(
        folder.path(),
        &format!("z {}", keys[3].expose()),
        keys[3].expose(),
    );
    let keys: Vec<&KeyValue> = keys.iter().collect();
    let log = log(&sarif(folder.path(), &["."]), &keys);
    let results = results(&log);
    let length = keys[0].expose().len();
    assert_eq!(*uri(&results[0]), "a%20b/%C3%BC.env");
    for result in &results[..2] {
        let expected = json!({"startLine": 2, "startColumn": 11, "endColumn": 11 + length});
        assert_eq!(*region(result), expected, "{result:#}");
    }
    // It starts with the third byte that is encoded, in the third character of six bits.
    assert_eq!(
        *region(&results[2]),
        json!({"startLine": 1, "startColumn": 6})
    );
    let redacted = uri(&results[3]).as_str().expect("a URI");
    assert!(redacted.starts_with("z%20rsc_sk_%E2%80%A6"), "{redacted}");
    for result in &results {
        let place = &result["locations"][0]["physicalLocation"]["artifactLocation"];
        assert_eq!(place["uriBaseId"], "SRCROOT");
    }
}

#[test]
fn a_clean_scan_and_one_that_failed_are_logs_too() {
    let folder = folder();
    write(folder.path(), "clean.txt", "nothing here");
    let clean = sarif(folder.path(), &["."]);
    assert_eq!(clean.status.code(), Some(0), "{}", text(&clean));
    let clean = log(&clean, &[]);
    assert_eq!(clean["runs"][0]["results"], json!([]));
    let invocation = &clean["runs"][0]["invocations"][0];
    assert_eq!(invocation["executionSuccessful"], true);
    assert_eq!(invocation["toolExecutionNotifications"], json!([]));
    assert_eq!(invocation["properties"]["scanned"], 1);
    let key = secret();
    for arguments in [
        &["--since", key.expose(), "."][..],
        &["--git", "."],
        &["no-such-file"],
    ] {
        let failed = sarif(folder.path(), arguments);
        assert_eq!(failed.status.code(), Some(2), "{}", text(&failed));
        let failed = log(&failed, &[&key]);
        let invocation = &failed["runs"][0]["invocations"][0];
        assert_eq!(invocation["executionSuccessful"], false, "{failed:#}");
        assert_eq!(
            invocation["toolExecutionNotifications"][0]["level"],
            "error"
        );
    }
}

#[cfg(unix)]
#[test]
fn what_was_not_scanned_is_a_notification() {
    let folder = folder();
    let pipe = std::process::Command::new("mkfifo")
        .arg(folder.path().join("a pipe"))
        .status();
    assert!(pipe.expect("mkfifo runs").success());
    let log = log(&sarif(folder.path(), &["."]), &[]);
    let notifications = &log["runs"][0]["invocations"][0]["toolExecutionNotifications"];
    assert_eq!(notifications[0]["level"], "warning", "{log:#}");
    assert_eq!(uri(&notifications[0]), "a%20pipe");
}

#[test]
fn what_is_in_a_repository_names_object_and_commit() {
    let folder = repository();
    let root = folder.path();
    let (old, message, staged) = (secret(), secret(), secret());
    let keys = [&old, &message, &staged];
    commit(root, "Begin");
    write(root, "sub/old.env", old.expose());
    let added = commit(root, &format!("Add\n\nwith {}", message.expose()));
    for arguments in [&["--git", "."][..], &["--since", "HEAD~1"]] {
        let log = log(&sarif(root, arguments), &keys);
        let results = results(&log);
        assert_eq!(results.len(), 2, "{log:#}");
        assert_eq!(*uri(&results[1]), "sub/old.env");
        assert_eq!(results[1]["properties"]["commit"], *added);
        // A message is in no file but the one in which git may keep it.
        let place = format!(".git/objects/{}/{}", &added[..2], &added[2..]);
        assert_eq!(*uri(&results[0]), place);
        assert_eq!(region(&results[0])["startColumn"], 6);
        let place = &results[0]["locations"][0]["logicalLocations"][0];
        assert_eq!(place["fullyQualifiedName"], format!("commit {added}"));
    }
    write(root, "new.env", staged.expose());
    git(root, &["add", "--all"]);
    let output = sarif(&root.join("sub"), &["--staged"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let log = log(&output, &keys);
    assert_eq!(*uri(&results(&log)[0]), "new.env");
    assert_eq!(results(&log)[0]["properties"]["object"]["kind"], "blob");
}

#[test]
fn whatever_is_in_no_file_is_in_one_for_services_that_ask_for_it() {
    let folder = repository();
    let root = folder.path();
    let (message, branch, tag, name) = (secret(), secret(), secret(), secret());
    let keys = [&message, &branch, &tag, &name];
    write(root, &format!("sub/{}.txt", name.expose()), "nothing\n");
    let commit = commit(root, message.expose());
    git(root, &["branch", branch.expose()]);
    git(
        root,
        &["tag", "--annotate", "v1", "--message", tag.expose()],
    );
    let log = log(&sarif(root, &["--git", "."]), &keys);
    let results = results(&log);
    let uris: Vec<_> = results.iter().map(|result| uri(result).as_str()).collect();
    let tagged = git(root, &["rev-parse", "v1"]);
    let object = |id: &str| format!(".git/objects/{}/{}", &id[..2], &id[2..]);
    let shown = |key: &KeyValue| format!("rsc_sk_%E2%80%A6{}", key.last_four());
    let mut expected = [
        object(&commit),
        object(&tagged),
        format!(".git/refs/heads/{}", shown(&branch)),
        format!("sub/{}.txt", shown(&name)),
    ];
    expected.sort();
    assert_eq!(
        uris,
        expected.iter().map(|uri| Some(&**uri)).collect::<Vec<_>>()
    );
}

#[test]
fn a_fingerprint_stays_when_a_file_changes_elsewhere() {
    let folder = folder();
    let (key, other) = (secret(), secret());
    let prints = |contents: &str| {
        write(folder.path(), "a.env", contents);
        write(folder.path(), "b.env", key.expose());
        let log = log(&sarif(folder.path(), &["."]), &[&key, &other]);
        let prints = results(&log);
        prints
            .iter()
            .map(|result| fingerprint(result).to_owned())
            .collect::<Vec<_>>()
    };
    let before = prints(key.expose());
    let after = prints(&format!(
        "{}\n\n{}\n{}",
        other.expose(),
        key.expose(),
        key.expose()
    ));
    assert!(after[1..3].contains(&before[0]), "{before:?} {after:?}");
    assert_eq!(before[1], after[3]);
    let mut all = after.clone();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 4, "each is another: {after:?}");
}

/// Else all alerts are closed and opened anew when somebody writes the command in another way.
#[test]
fn a_fingerprint_stays_however_the_path_is_written() {
    let folder = folder();
    let key = secret();
    write(folder.path(), "a.env", key.expose());
    let print = |paths: &[&str]| {
        let log = log(&sarif(folder.path(), paths), &[&key]);
        fingerprint(&results(&log)[0]).to_owned()
    };
    let named = print(&["a.env"]);
    for paths in [&["."][..], &["./a.env"], &["././."], &[]] {
        assert_eq!(print(paths), named, "{paths:?}");
    }
}

#[test]
fn standard_input_and_matches_are_in_the_log() {
    let folder = folder();
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
    let arguments = ["scan", "--report", "sarif", "--match", "-"];
    let stranger = secret();
    let input = [&created.stdout, stranger.expose().as_bytes()].concat();
    let log = log(&rescind(root, &arguments, &input), &[&stranger]);
    let results = log["runs"][0]["results"].as_array().expect("results");
    assert_eq!(*uri(&results[0]), "file:///dev/stdin");
    assert_eq!(results[0]["properties"]["key"]["owner_id"], "alice");
    assert_eq!(results[1]["properties"]["key"], Value::Null);
    assert_eq!(region(&results[1])["startLine"], 2);
    fs::remove_file(root.join("keys.db")).expect("the database");
}
