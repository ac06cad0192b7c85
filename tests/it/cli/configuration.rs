//! Commands read of the configuration what they need, from wherever they are run.

use std::fs;

use super::Binary;
use crate::scan::secret;

const SHIPPED: &str = include_str!("../../../config.toml");

/// As Hugo has it, with a section whose name is one of ours.
const OF_ANOTHER: &str = "baseURL = 'https://example.org/'\nlanguageCode = 'en-us'\ntheme = ['ananke']\n\
                          [params]\ndescription = 'x'\n[server]\n[[server.headers]]\nfor = '/**'\n";

/// Secrets in every place that has any, none of which can be looked up.
const SECRETS_UNSET: &str = r#"
[keys]
peppers = [{ env = "UNSET_PEPPER" }]
[partners.gitlab]
revocation_tokens = [{ file = "no-such-token" }]
[webhooks.github]
secrets = [{ env = "UNSET_WEBHOOK" }]
[webhooks.github.redelivery]
hooks = ["org:acme:9"]
app = { id = 1, private_key = { file = "no-such-key.pem" }, installation = 2 }
[[sources]]
name = "feed"
kind = "github_events"
scope = "org:acme"
tokens = [{ env = "UNSET_TOKEN" }]
"#;

#[test]
fn a_secret_that_is_not_set_is_in_the_way_of_those_who_need_it_only() {
    let binary = Binary::new();
    binary.run("migrate").ok();
    binary.write("leak.txt", secret().expose());
    let unset_database = format!("{SECRETS_UNSET}[database]\nurl = {{ env = \"UNSET_URL\" }}\n");
    binary.write("config.toml", &unset_database);
    for (line, code) in [
        ("scan leak.txt", 1),
        ("scan config.toml", 0),
        ("formats list", 0),
        ("formats check", 0),
        ("formats test x", 1),
    ] {
        let ran = binary.run(line);
        assert_eq!(
            (ran.code, ran.stderr.contains("UNSET")),
            (code, false),
            "{line}: {ran:?}"
        );
    }
    binary
        .run("log list")
        .fails(2, &["config.toml:17:7: database.url", "UNSET_URL"]);

    binary.write("config.toml", SECRETS_UNSET);
    for line in [
        "log list",
        "log verify",
        "log export",
        "sources status",
        "sources dead",
        "migrate",
    ] {
        let ran = binary.run(line);
        assert_eq!(
            (ran.code, ran.stderr.contains("UNSET")),
            (0, false),
            "{line}: {ran:?}"
        );
    }
    let status = binary.run("sources status --json").ok();
    for name in ["\"feed\"", "webhook:github\"", "webhook:github:redelivery"] {
        assert!(status.contains(name), "{name} in {status}");
    }
    let keys = binary.run("keys list");
    keys.fails(2, &["keys.peppers[0]", "UNSET_PEPPER"]);
    assert!(!keys.stderr.contains("UNSET_WEBHOOK"), "{keys:?}");
    let poll = binary.run("sources poll feed");
    poll.fails(2, &["UNSET_PEPPER", "UNSET_TOKEN"]);
    assert!(!poll.stderr.contains("UNSET_WEBHOOK"), "{poll:?}");
    binary
        .run("sources poll webhook:github:redelivery")
        .fails(2, &["UNSET_PEPPER", "no-such-key.pem"]);
    for line in ["serve", "config show"] {
        let all = [
            "UNSET_PEPPER",
            "UNSET_WEBHOOK",
            "UNSET_TOKEN",
            "no-such-key.pem",
        ];
        binary.run(line).fails(2, &all);
    }
}

#[test]
fn a_configuration_of_another_program_is_left_aside_where_none_is_needed() {
    let binary = Binary::new();
    let file = binary.write("config.toml", OF_ANOTHER);
    binary.write("leak.txt", secret().expose());
    for (line, code) in [
        ("scan", 1),
        ("scan leak.txt", 1),
        ("formats list", 0),
        ("formats check", 0),
    ] {
        let ran = binary.run(line);
        ran.fails(code, &["config.toml:1:1", "another program", "left aside"]);
        assert_eq!(ran.stderr.matches("left aside").count(), 1, "{ran:?}");
    }
    for line in [
        "keys list",
        "serve",
        "log list",
        "migrate",
        "config show",
        "scan --match .",
    ] {
        binary.run(line).fails(
            2,
            &["config.toml:1:1: baseURL", "another program", "--config"],
        );
    }
    assert!(!binary.path("data").exists());
    // A file that is named is meant.
    binary
        .run("--config config.toml scan leak.txt")
        .fails(2, &["config.toml:1:1: baseURL", "no such section"]);
    let by_variable = Binary::new().with("RESCIND_CONFIG", &file.display().to_string());
    by_variable.run("formats list").fails(2, &["baseURL"]);
}

#[test]
fn a_mistake_in_a_file_of_ours_is_one_for_every_command() {
    let binary = Binary::new();
    for text in [
        "[fromats]\ndir = \"x\"\n",
        "[server]\n[fromats]\ndir = \"x\"\n",
    ] {
        binary.write("config.toml", text);
        for line in ["scan", "formats list", "keys list"] {
            binary
                .run(line)
                .fails(2, &["fromats", "config.toml:", "did you mean `formats`?"]);
        }
    }
}

#[test]
fn the_shipped_file_works_from_any_folder() {
    let shipped = Binary::new();
    let file = shipped.write("config.toml", SHIPPED);
    let elsewhere = Binary::new();
    elsewhere.write("leak.txt", secret().expose());
    let named = format!("--config {}", file.display());
    elsewhere
        .run(&format!("{named} scan leak.txt"))
        .fails(1, &[]);
    elsewhere.run(&format!("{named} formats list")).ok();
    elsewhere
        .run(&format!("{named} keys create --user u --description x"))
        .ok();
    shipped.run("scan config.toml").ok();
    shipped.run("keys create --user u --description x").ok();
}

#[test]
fn the_folder_of_formats_is_the_one_beside_the_file() {
    let binary = Binary::new();
    let folder = binary.path("etc");
    let formats = "[[format]]\nid = \"acme\"\nvisibility = \"secret\"\nprefix = \"acme_\"\n\
                   body = { alphabet = \"base62\", length = 30 }\n\
                   checksum = { algorithm = \"crc32\", encoding = \"base62\", length = 6, over = \"body\" }\n";
    for name in ["mine", "patterns"] {
        fs::create_dir_all(folder.join(name)).expect("a folder");
        let formats = formats.replace("acme", &format!("acme{name}"));
        fs::write(folder.join(name).join("a.toml"), formats).expect("a file");
    }
    let list = |config: &str| {
        fs::write(folder.join("config.toml"), config).expect("a file");
        binary.run("--config etc/config.toml formats list")
    };
    assert!(
        list("[formats]\ndir = \"mine\"\n")
            .ok()
            .contains("acmemine_")
    );
    assert!(list("").ok().contains("acmepatterns_"), "the default");
    list("[formats]\ndir = \"gone\"\n").fails(2, &["etc/gone"]);
    fs::remove_dir_all(folder.join("patterns")).expect("removed");
    assert!(list("").ok().contains("rsc_sk_"), "those built in");
    list("[formats]\ndir = \"patterns\"\n").fails(2, &["etc/patterns"]);
    // A variable means the current folder, as whoever sets it does.
    fs::create_dir_all(binary.path("here")).expect("a folder");
    fs::write(
        binary.path("here/a.toml"),
        formats.replace("acme", "acmehere"),
    )
    .expect("a file");
    let here = binary.with("RESCIND__FORMATS__DIR", "here");
    let listed = here.run("--config etc/config.toml formats list").ok();
    assert!(listed.contains("acmehere_"), "{listed}");
}
