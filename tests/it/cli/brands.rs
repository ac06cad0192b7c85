//! Another brand: keys of the former one are hunted, or it is said that they are not.

use super::Binary;
use crate::serve::Daemon;

const CREATE: &str = "keys create --user u --description x";

fn format(id: &str, prefix: &str, rest: &str) -> String {
    format!(
        "[[format]]\nid = \"{id}\"\nvisibility = \"secret\"\nprefix = \"{prefix}\"\n\
         body = {{ alphabet = \"base62\", length = 30 }}\n\
         checksum = {{ algorithm = \"crc32\", encoding = \"base62\", length = 6, over = \"body\" }}\n{rest}\n"
    )
}

const PUBLIC: &str = "[[format]]\nid = \"rescind_public\"\nvisibility = \"public\"\nprefix = \"acme_pk_\"\n\
    body = { alphabet = \"base62\", length = 30 }\n";

fn brand(binary: &Binary, formats: &str) {
    std::fs::create_dir_all(binary.path("patterns")).unwrap();
    binary.write("patterns/brand.toml", format!("{formats}{PUBLIC}"));
    binary.write(
        "config.toml",
        "[server]\nbind = \"127.0.0.1:0\"\n[formats]\ndir = \"patterns\"\n[issuer]\nsecret = \"acme\"\n",
    );
}

#[test]
fn keys_that_are_valid_and_not_hunted_are_told_everywhere() {
    let binary = Binary::new();
    for _ in 0..2 {
        binary.run(CREATE).ok();
    }
    binary.run("tokens create --role admin").ok();
    let revoked = binary.run(CREATE).ok();
    binary
        .run_with(["keys", "revoke", "--value-stdin"], &revoked)
        .ok();
    binary.run(&format!("{CREATE} --public")).ok();
    brand(&binary, &format("acme", "acme_sk_", ""));
    let keys = "2 valid keys of the format `rescind_secret` with the prefix `rsc_sk_`";
    let tokens = "1 valid access token with the prefix `rsc_sk_`";
    let checked = binary.run("formats check");
    assert_eq!(checked.code, 1, "{checked:?}");
    for said in [keys, tokens, "retired = true"] {
        assert!(checked.stderr.contains(said), "{said}: {checked:?}");
    }
    let json = binary.run("formats check --json").stdout;
    assert!(json.contains("not_hunted") && json.contains(keys), "{json}");
    let doctor = binary.run("doctor");
    let status = binary.run("sources status");
    for said in [keys, tokens] {
        assert!(doctor.stdout.contains(said), "{doctor:?}");
        assert!(status.stderr.contains(said), "{status:?}");
    }
    let mut daemon = Daemon::start(&binary, &["serve"]);
    daemon.wait_for(keys);

    // The remedy, without a restart.
    let former = format("rescind_secret", "rsc_sk_", "retired = true");
    brand(&binary, &(format("acme", "acme_sk_", "") + &former));
    assert_eq!(binary.run("formats check").code, 0);
    // It says that this daemon does not hunt them yet.
    let doctor = binary.run("doctor");
    assert!(
        doctor.stdout.contains("daemons hunt by other rules"),
        "{doctor:?}"
    );
    assert!(
        doctor.stdout.contains(&format!("process {}", daemon.id())),
        "{doctor:?}"
    );
    daemon.signal("HUP");
    let line = daemon.wait_for("is in force");
    assert!(line.contains("key formats"), "{line}");
    let is_told = || {
        let doctor = binary.run("doctor").stdout;
        let is_well = doctor.contains("every valid key of a known format is hunted");
        if is_well { Ok(()) } else { Err(doctor) }
    };
    crate::support::eventually::eventually_blocking("all hunt by the same rules", is_told);
    daemon.stop();
}

/// Returns the pattern file that a message advises.
fn advised(said: &str) -> &str {
    let (_, line) = said.split_once("rotate them: ").expect(said);
    line.lines().next().unwrap()
}

#[test]
fn keys_of_a_definition_that_was_changed_in_place_are_told_everywhere() {
    let binary = Binary::new();
    let sound = format("acme", "acme_sk_", "");
    brand(&binary, &sound);
    let old = binary.run(CREATE).ok();
    binary.run(CREATE).ok();
    // Of an imported one it is not known by which definition it was minted.
    let imported = format!(
        "sha256,owner_type,owner_id,description,format\n{},user,u,x,acme\n",
        "ab".repeat(32)
    );
    binary.write("keys.csv", imported);
    binary.run("keys import keys.csv").ok();
    assert_eq!(binary.run("formats check").code, 0);
    let daemon = Daemon::start(&binary, &["serve"]);

    for (from, to) in [
        ("length = 30", "length = 32"),
        ("\"base62\", length = 30", "\"base58\", length = 40"),
        ("acme_sk_", "acme_key_"),
    ] {
        brand(&binary, &sound.replace(from, to));
        let checked = binary.run("formats check");
        assert_eq!(checked.code, 1, "{to}: {checked:?}");
        let told = "2 valid keys of the format `acme` with the prefix `acme_sk_`, minted by a former definition";
        assert!(checked.stderr.contains(told), "{to}: {checked:?}");
        assert!(binary.run("doctor").stdout.contains(told), "{to}");
        let matched = binary.run_with(["scan", "--match", "-"], "nothing");
        assert!(matched.stderr.contains(told), "{to}: {matched:?}");
        // What is advised has them hunted again.
        binary.write("patterns/former.toml", advised(&checked.stderr));
        let checked = binary.run("formats check");
        assert_eq!(checked.code, 0, "{to}: {checked:?}");
        let found = binary.run_with(["scan", "--match", "-"], &old);
        assert!(found.stdout.contains("acme_sk_…"), "{to}: {found:?}");
        assert!(!found.stderr.contains("not hunted"), "{to}: {found:?}");
        std::fs::remove_file(binary.path("patterns/former.toml")).unwrap();
    }

    // Two that differ by their checksum only cannot stand beside each other.
    brand(&binary, &sound.replace("\"body\"", "\"preceding\""));
    let checked = binary.run("formats check");
    for said in [
        "minted by a former definition",
        "cannot stand beside `acme`",
        "put it back",
    ] {
        assert!(checked.stderr.contains(said), "{said}: {checked:?}");
    }
    daemon.signal("HUP");
    let mut daemon = daemon;
    daemon.wait_for("minted by a former definition");
    daemon.stop();
    let mut daemon = Daemon::start(&binary, &["serve"]);
    daemon.wait_for("minted by a former definition");
    daemon.stop();
}

#[test]
fn a_retired_format_is_hunted_and_checked_and_not_minted() {
    let binary = Binary::new();
    let old = binary.run(CREATE).ok();
    let former = format("rescind_secret", "rsc_sk_", "retired = true");
    brand(&binary, &(format("acme", "acme_sk_", "") + &former));
    let new = binary.run(CREATE).ok();
    assert!(new.starts_with("acme_sk_"), "{new}");
    binary.run_with(["keys", "check"], &old).ok();
    // A scan finds both.
    binary.write("leak.txt", format!("{old}\n{new}\n"));
    let found = binary.run("scan leak.txt --report jsonl");
    assert_eq!(found.code, 1, "{found:?}");
    for id in ["\"rescind_secret\"", "\"acme\""] {
        assert!(found.stdout.contains(id), "{found:?}");
    }
    // What replaces a key of a former brand has the current one.
    let keys = binary.run("keys list --json").ok();
    let oldest: serde_json::Value = serde_json::from_str(keys.lines().last().unwrap()).unwrap();
    let rotated = binary.run(&format!(
        "keys rotate {} --overlap 1h",
        oldest["id"].as_str().unwrap()
    ));
    assert!(rotated.ok().starts_with("acme_sk_"));
    let daemon = Daemon::start(&binary, &["serve"]);
    let path = "/api/v1/integrations/credential-scanning/revoke";
    let report = format!(r#"{{"api_key":"{}"}}"#, old.trim());
    assert_eq!(daemon.post(path, None, &report).0, 200);
    daemon.stop();
    binary.run_with(["keys", "check"], &old).fails(1, &[]);
    let listed = binary.run("formats list").ok();
    let line = listed
        .lines()
        .find(|line| line.contains("rescind_secret"))
        .unwrap();
    assert!(line.contains("retired"), "{listed}");
    let json = binary.run("formats list --json").ok();
    let retired: Vec<bool> = json
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["retired"] == true)
        .collect();
    assert_eq!(retired, [false, true, false]);

    binary.write("config.toml", "[formats]\ndir = \"patterns\"\n");
    for line in [
        "keys create --user u --description x",
        "serve",
        "doctor",
        "config show",
    ] {
        let ran = binary.run(line);
        assert_eq!(ran.code, 2, "{ran:?}");
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(
            said.contains("issuer.secret") && said.contains("is retired"),
            "{ran:?}"
        );
    }
    binary.write(
        "patterns/odd.toml",
        format("odd", "odd_sk_", "retired = \"yes\""),
    );
    binary
        .run("formats check")
        .fails(2, &["odd.toml:7", "`retired`", "true or false"]);
}
