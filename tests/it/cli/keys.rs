//! Keys and access tokens on the command line.

use serde_json::Value;

use super::Binary;

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(json).collect()
}

/// Creates a key and gives its value.
fn create(binary: &Binary, options: &str) -> String {
    let line = format!("keys create {options}");
    let stdout = binary.run(&line).ok();
    assert_eq!(stdout.lines().count(), 1, "the value alone: {stdout}");
    stdout.trim().to_owned()
}

fn list(binary: &Binary, options: &str) -> Vec<Value> {
    lines(&binary.run(&format!("keys list --json {options}")).ok())
}

#[test]
fn a_key_lives_and_dies() {
    let binary = Binary::new();
    let value = create(&binary, "--user u_1 --description laptop --expires 90d");
    assert!(value.starts_with("rsc_sk_"), "{value}");

    let keys = list(&binary, "");
    assert_eq!(keys.len(), 1);
    let key = &keys[0];
    assert_eq!(key["status"], "valid");
    assert_eq!(key["owner_type"], "user");
    assert_eq!(key["owner_id"], "u_1");
    assert_eq!(key["description"], "laptop");
    assert_eq!(key["project"], "default");
    assert_eq!(key["is_public"], false);
    assert_eq!(key["last_four"], value[value.len() - 4..]);
    assert!(key["expires_at"].is_string() && key["revoked_at"].is_null());
    let id = key["id"].as_str().expect("an id");

    let checked = binary.run_with(["keys", "check", "--json"], &format!("{value}\n"));
    assert_eq!(json(&checked.ok())["id"], *id);
    let shown = binary.run(&format!("keys show {id}")).ok();
    assert!(
        shown.contains("status") && shown.contains("valid"),
        "{shown}"
    );

    let revoked = binary
        .run_with(["keys", "revoke", "--value-stdin", "--json"], &value)
        .ok();
    let revoked = json(&revoked);
    assert_eq!(revoked["status"], "revoked");
    // Again, by its identifier: the first time stays.
    let again = json(&binary.run(&format!("keys revoke {id} --json")).ok());
    assert_eq!(again["revoked_at"], revoked["revoked_at"]);

    let checked = binary.run_with(["keys", "check", "--json"], &value);
    checked.fails(1, &[]);
    assert_eq!(json(&checked.stdout)["status"], "revoked");
    let log = lines(&binary.run("log list --json").ok());
    assert_eq!(log.len(), 1);
    assert_eq!(log[0]["reason"], "manual");
    let actor = log[0]["actor"].as_str().expect("an actor");
    assert!(actor.starts_with("cli:"), "{actor}");

    // The value itself is nowhere in what was printed or kept, but for the first view.
    let written = walk(binary.folder());
    assert!(!written.is_empty());
    for (path, contents) in written {
        let found = memchr::memmem::find(&contents, value.as_bytes());
        assert!(found.is_none(), "{}", path.display());
    }
}

fn walk(folder: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push((path.clone(), std::fs::read(&path).expect("a file")));
        }
    }
    files
}

#[test]
fn a_rotated_key_overlaps_with_its_successor() {
    let binary = Binary::new();
    let old = create(&binary, "--team acme --description ci --project web");
    let id = list(&binary, "")[0]["id"].clone();
    let id = id.as_str().expect("an id");
    let new = binary.run(&format!("keys rotate {id} --overlap 24h")).ok();
    let new = new.trim();
    assert_ne!(old, new);
    for value in [&old, new] {
        binary.run_with(["keys", "check"], value).ok();
    }
    let keys = list(&binary, "--project web --team acme");
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[1]["replaced_by"], keys[0]["id"]);
    assert!(keys[1]["expires_at"].is_string() && keys[0]["expires_at"].is_null());
    let log = lines(&binary.run("log list --json").ok());
    assert_eq!(log[0]["action"], "rotated");

    binary.run(&format!("keys revoke {id}")).ok();
    let ran = binary.run(&format!("keys rotate {id} --overlap 1h"));
    ran.fails(2, &["is revoked", "create a new one"]);
}

#[test]
fn an_overlap_of_nothing_ends_the_old_key_at_once() {
    let binary = Binary::new();
    let old = create(&binary, "--user u --description x");
    let id = list(&binary, "")[0]["id"].clone();
    let id = id.as_str().expect("an id");
    binary.run(&format!("keys rotate {id} --overlap 0s")).ok();
    binary.run_with(["keys", "check"], &old).fails(1, &[]);
}

#[test]
fn lists_are_filtered_and_bounded() {
    let binary = Binary::new();
    create(&binary, "--user a --description one");
    create(&binary, "--user a --description two --public");
    create(&binary, "--team a --description three --project web");
    assert_eq!(list(&binary, "").len(), 3);
    let by_user = list(&binary, "--user a");
    let descriptions: Vec<_> = by_user
        .iter()
        .map(|key| key["description"].clone())
        .collect();
    assert_eq!(descriptions, ["two", "one"], "newest first");
    assert_eq!(list(&binary, "--team a").len(), 1);
    assert_eq!(list(&binary, "--project default").len(), 2);
    assert_eq!(list(&binary, "--format rescind_public").len(), 1);
    assert_eq!(list(&binary, "--user nobody").len(), 0);
    let limited = binary.run("keys list --json --limit 2");
    assert!(limited.stderr.contains("--limit"), "{limited:?}");
    assert_eq!(lines(&limited.ok()).len(), 2);
    // Into a pipe the same as tab-separated lines under a header.
    let tabs = binary.run("keys list --all").ok();
    let rows: Vec<Vec<&str>> = tabs
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{tabs}");
}

#[test]
fn public_keys_are_minted_in_the_public_format() {
    let binary = Binary::new();
    let value = create(&binary, "--user u --description browser --public");
    assert!(value.starts_with("rsc_pk_"), "{value}");
    assert_eq!(list(&binary, "")[0]["is_public"], true);
}

#[test]
fn what_editors_and_shells_put_around_a_key_does_not_matter() {
    let binary = Binary::new();
    let value = create(&binary, "--user u --description x");
    for input in [
        format!("\u{feff}{value}\r\n"),
        format!("\"{value}\"\n"),
        format!(" '{value}'"),
    ] {
        binary.run_with(["keys", "check"], &input).ok();
    }
    let marked = format!("\u{feff}{value}\r\n");
    binary
        .run_with(["keys", "revoke", "--value-stdin"], &marked)
        .ok();
    binary.run_with(["keys", "check"], &value).fails(1, &[]);
}

#[test]
fn what_is_no_key_of_ours_is_unknown() {
    let binary = Binary::new();
    create(&binary, "--user u --description x");
    let ran = binary.run_with(["keys", "check", "--json"], "rsc_sk_nobody");
    ran.fails(1, &[]);
    assert_eq!(json(&ran.stdout)["status"], "unknown");
    for (input, code) in [("", 2), ("two keys", 2), (&"x".repeat(10_000), 2)] {
        binary
            .run_with(["keys", "check"], input)
            .fails(code, &["one key"]);
    }
    let ran = binary.run_with(["keys", "revoke", "--value-stdin"], "rsc_sk_nobody");
    ran.fails(2, &["not a key of ours"]);
    let nobody = "0199c3a2-6b1e-7d3f-8a51-2f0c9b7e4d10";
    for line in ["keys show", "keys revoke", "tokens revoke"] {
        binary
            .run(&format!("{line} {nobody}"))
            .fails(2, &["there is no", nobody]);
    }
}

#[test]
fn a_value_that_several_projects_hold_is_shown_and_revoked_in_each() {
    let binary = Binary::new();
    let value = create(&binary, "--user u_1 --description own");
    let sha256 = rescind::keyformat::Sha256Digest::of(value.as_bytes()).to_hex();
    let row = serde_json::json!({ "sha256": sha256, "owner_type": "user", "owner_id": "u_2" });
    for (project, imported) in [
        ("web", "imported 1"),
        ("web", "already stored 1"),
        ("app", "imported 1"),
    ] {
        let ran = binary.run_with(
            ["keys", "import", "-", "--project", project],
            &row.to_string(),
        );
        assert!(ran.stderr.contains(imported), "{project}: {ran:?}");
        ran.ok();
    }
    let stream = |text: &str| -> Vec<Value> {
        let values = serde_json::Deserializer::from_str(text).into_iter();
        values.collect::<Result<_, _>>().expect("JSON")
    };
    let states = |text: &str| -> Vec<(String, String)> {
        let mut states: Vec<_> = stream(text)
            .iter()
            .map(|key| {
                [&key["project"], &key["status"]]
                    .map(|word| word.as_str().unwrap_or_default().to_owned())
            })
            .map(|[project, status]| (project, status))
            .collect();
        states.sort();
        states
    };
    let pair = |project: &str, status: &str| (project.to_owned(), status.to_owned());
    let checked = binary.run_with(["keys", "check", "--json"], &value);
    assert!(checked.stderr.contains("3 projects"), "{checked:?}");
    let all = [
        pair("app", "valid"),
        pair("default", "valid"),
        pair("web", "valid"),
    ];
    assert_eq!(states(&checked.ok()), all);

    let revoke = ["keys", "revoke", "--value-stdin", "--json"];
    let one = [&revoke[..], &["--project", "web"]].concat();
    assert_eq!(
        states(&binary.run_with(one, &value).ok()),
        [pair("web", "revoked")]
    );
    let in_web = binary.run_with(["keys", "check", "--json", "--project", "web"], &value);
    in_web.fails(1, &[]);
    // Valid in one of them is valid.
    binary.run_with(["keys", "check"], &value).ok();
    let nowhere = binary.run_with(
        ["keys", "revoke", "--value-stdin", "--project", "none"],
        &value,
    );
    nowhere.fails(2, &["not a key of ours"]);

    let revoked = [
        pair("app", "revoked"),
        pair("default", "revoked"),
        pair("web", "revoked"),
    ];
    assert_eq!(states(&binary.run_with(revoke, &value).ok()), revoked);
    binary.run_with(["keys", "check"], &value).fails(1, &[]);
    assert_eq!(lines(&binary.run("log list --json").ok()).len(), 3);
}

#[test]
fn descriptions_cannot_steer_a_terminal() {
    let binary = Binary::new();
    let sha256 = "ab".repeat(32);
    let row = serde_json::json!({
        "sha256": sha256, "owner_type": "user", "owner_id": "u", "description": "a\nb\tc"
    });
    binary
        .run_with(["keys", "import", "-"], &row.to_string())
        .ok();
    let tabs = binary.run("keys list").ok();
    assert_eq!(tabs.lines().count(), 2, "{tabs}");
    assert!(tabs.contains("a\\nb\\tc"), "{tabs}");
    // JSON keeps them as they are.
    assert_eq!(list(&binary, "")[0]["description"], "a\nb\tc");
}

#[test]
fn access_tokens_are_minted_listed_and_revoked() {
    let binary = Binary::new();
    for role in ["admin", "issuer", "operator", "viewer", "reporter"] {
        let token = binary
            .run(&format!("tokens create --role {role} --expires 1y"))
            .ok();
        assert!(
            token.starts_with("rsc_sk_") && token.lines().count() == 1,
            "{token}"
        );
    }
    let text = binary.run("tokens list --json").ok();
    let tokens = lines(&text);
    assert_eq!(tokens.len(), 5);
    assert_eq!(tokens[0]["role"], "reporter", "newest first");
    assert_eq!(tokens[0]["status"], "valid");
    let id = tokens[0]["id"].as_str().expect("an id");
    let revoked = json(&binary.run(&format!("tokens revoke {id} --json")).ok());
    assert_eq!(revoked["status"], "revoked");
    let again = json(&binary.run(&format!("tokens revoke {id} --json")).ok());
    assert_eq!(again["revoked_at"], revoked["revoked_at"]);
    assert_eq!(
        binary.run("tokens list --project web").ok().lines().count(),
        1
    );
}

#[test]
fn whatever_is_made_or_told_is_told_in_json_too() {
    let binary = Binary::new();
    let made = json(
        &binary
            .run("keys create --user u --description x --json")
            .ok(),
    );
    let (id, value) = (
        made["id"].as_str().unwrap(),
        made["value"].as_str().unwrap(),
    );
    assert!(value.starts_with("rsc_sk_"), "{made}");
    assert_eq!(
        (&made["status"], &made["owner_id"]),
        (&"valid".into(), &"u".into())
    );
    let checked = binary.run_with(["keys", "check", "--json"], value);
    assert_eq!(json(&checked.ok())["id"], made["id"]);

    let rotated = json(
        &binary
            .run(&format!("keys rotate {id} --overlap 1h --json"))
            .ok(),
    );
    assert_eq!(rotated["replaces"]["id"], made["id"]);
    let checked = binary.run_with(
        ["keys", "check", "--json"],
        rotated["value"].as_str().unwrap(),
    );
    assert_eq!(json(&checked.ok())["id"], rotated["id"]);

    let token = json(&binary.run("tokens create --role viewer --json").ok());
    assert_eq!(
        (&token["role"], &token["status"]),
        (&"viewer".into(), &"valid".into())
    );
    assert!(token["value"].as_str().unwrap().starts_with("rsc_sk_"));
    assert_eq!(
        lines(&binary.run("tokens list --json").ok())[0]["id"],
        token["id"]
    );

    let csv = format!("sha256,owner_type,owner_id\n{:064x},user,u\nx,user,u\n", 7);
    let imported = binary.run_with(["keys", "import", "--json", "-"], &csv);
    let counts = serde_json::json!({"imported": 1, "already_stored": 0, "refused": 1});
    assert_eq!((imported.code, json(&imported.stdout)), (1, counts));

    let verified = json(&binary.run("log verify --json").ok());
    assert_eq!(
        (&verified["valid"], &verified["entries"]),
        (&true.into(), &1.into())
    );
    let broken = binary.run_with(["log", "verify", "--json", "-"], "{}\n");
    assert_eq!(
        (broken.code, &json(&broken.stdout)["first_bad"]["position"]),
        (1, &1.into())
    );

    let shown = json(&binary.run("config show --json").ok());
    assert_eq!(shown["server"]["bind"], "127.0.0.1:8787");
    assert_eq!(json(&binary.run("migrate --json").ok())["applied"], 0);
}

/// Every command that prints a thing takes `--json`; an export has formats of its own.
#[test]
fn every_command_that_prints_takes_json() {
    let binary = Binary::new();
    let mut levels = vec![String::new()];
    while let Some(level) = levels.pop() {
        let help = binary.run(&format!("{level} --help")).ok();
        let below: Vec<String> = super::commands(&help)
            .map(|name| format!("{level} {name}"))
            .collect();
        let has_own = [" serve", " demo", " log export", " scan"].contains(&level.as_str());
        assert!(
            has_own || !below.is_empty() || help.contains("--json"),
            "{level}: {help}"
        );
        levels.extend(below);
    }
}

#[test]
fn an_end_that_is_far_away_is_never() {
    let binary = Binary::new();
    for never in ["9999-12-31T23:59:59Z", "9999-12-31", "8000y", "never"] {
        let line = format!("keys create --user u --description x --json --expires {never}");
        let key = json(&binary.run(&line).ok());
        assert!(
            key["expires_at"].is_null() && key["status"] == "valid",
            "{never}: {key}"
        );
    }
    let line = "tokens create --role viewer --json --expires 9999-12-31T23:59:59Z";
    assert!(json(&binary.run(line).ok())["expires_at"].is_null());
    let line = "keys create --user u --description x --json --expires 9998-12-31T23:59:59Z";
    assert_eq!(
        json(&binary.run(line).ok())["expires_at"],
        "9998-12-31T23:59:59Z"
    );
}
