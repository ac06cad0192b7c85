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

/// Mistakes in every section that a scan has no use for.
const MISTAKES: &str = r#"
[server]
port = 80
[partners.gitlab]
enabled = true
[issuer]
secret = 3
[webhooks.gitea]
clone_url = "https://git.example"
[[sources]]
kind = "gopher"
[policy]
on_leak = "ask"
[keys]
pepers = []
[work]
max_waiting = 0
"#;

#[test]
fn a_mistake_in_a_section_is_in_the_way_of_those_who_need_it_only() {
    let binary = Binary::new();
    binary.run("migrate").ok();
    binary.write("leak.txt", secret().expose());
    binary.write("config.toml", MISTAKES);
    let variable = "RESCIND__SERVER__BIND__X";
    let binary = binary.with(variable, "1");
    for (line, code) in [
        ("scan leak.txt", 1),
        ("formats list", 0),
        ("formats check", 0),
        ("log list", 0),
        ("migrate", 0),
    ] {
        let ran = binary.run(line);
        let said = ran.stderr.contains("config.toml") || ran.stderr.contains(variable);
        assert_eq!((ran.code, said), (code, false), "{line}: {ran:?}");
    }
    let status = binary.run("sources status");
    status.fails(2, &["sources[0].kind", "webhooks.gitea.secrets"]);
    let keys = binary.run("keys list");
    keys.fails(2, &["keys.pepers", "issuer.secret"]);
    for ran in [status, keys] {
        for other in ["server", "partners", "policy", "work"] {
            assert!(!ran.stderr.contains(other), "{other} in {ran:?}");
        }
    }
    for line in ["serve", "config show"] {
        let all = [
            "server.port",
            variable,
            "partners.gitlab.public_keys_url",
            "sources[0].kind",
            "policy.on_leak",
            "keys.pepers",
            "work.max_waiting",
        ];
        binary.run(line).fails(2, &all);
    }
    // A misspelled key of a file that was named, or of a variable, is none of another program.
    let named = binary.run("--config config.toml formats list");
    named.fails(2, &["server.port", "keys.pepers"]);
    assert!(!named.stderr.contains("policy.on_leak"), "{named:?}");
    let binary = binary.with("RESCIND__SERVER__BNID", "1");
    binary
        .run("formats list")
        .fails(2, &["RESCIND__SERVER__BNID"]);
    let binary = Binary::new();
    // What a scan needs.
    binary.write("config.toml", "[scan]\nencodings = 3\n");
    binary.run("scan leak.txt").fails(2, &["scan.encodings"]);
}

#[test]
fn what_is_not_set_is_shown_as_such_beside_everything_else() {
    let binary = Binary::new();
    let same_host = "token = { env = \"UNSET_TOKEN\" }\n[[sources]]\nname = \"b\"\nkind = \"github_events\"\ntoken = \"t\"\n";
    let text = format!(
        "[database]\nurl = {{ env = \"UNSET_URL\" }}\n[webhooks.gitea]\nsecrets = [\"set\", {{ env = \"UNSET_A\" }}, \
         {{ env = \"UNSET_B\" }}]\n{SECRETS_UNSET}{same_host}"
    );
    binary.write("config.toml", text);
    let shown = binary.run("config show");
    let unset = [
        "UNSET_URL",
        "UNSET_PEPPER",
        "no-such-token",
        "UNSET_WEBHOOK",
        "no-such-key.pem",
        "UNSET_TOKEN",
        "UNSET_A",
    ];
    shown.fails(2, &unset);
    for line in [
        "url = \"not set\"",
        "peppers = [\"not set\"]",
        "revocation_tokens = [\"not set\"]",
        "secrets = [\"********\", \"not set\", \"not set\"]",
        "private_key = \"not set\"",
        "tokens = [\"not set\"]",
        "token = \"not set\"",
        "hooks = [\"org:acme:9\"]",
        "bind = \"127.0.0.1:8787\"",
    ] {
        assert!(shown.stdout.contains(line), "{line} in {shown:?}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&binary.run("config show --json").stdout).expect("JSON");
    assert_eq!(json["keys"]["peppers"][0], "not set");
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

/// Other programs have sections of these names as well, and some files are templates, or no files.
#[test]
fn whatever_bears_the_name_of_the_configuration_is_in_the_way_of_no_scan() {
    let binary = Binary::new();
    binary.write("leak.txt", secret().expose());
    let of_others: [&[u8]; 5] = [
        b"[server]\nhost = \"0.0.0.0\"\nport = 80\n[database]\nurl = \"postgres://x\"\n[log]\nlevel = 1\n",
        b"[server]\nheadless = true\n[theme]\nbase = \"dark\"\n",
        b"[scan]\ndepth = 3\n[crawler]\na = 1\n",
        b"{% if x %}\nname = \"{{ cookiecutter.name }}\"\n",
        b"title = \"\xff\"\n",
    ];
    for text in of_others {
        binary.write("config.toml", text);
        let ran = binary.run("scan leak.txt");
        ran.fails(1, &["config.toml:", "left aside"]);
        assert_eq!(binary.run("log list").code, 2);
    }
    // One of ours that is half written.
    binary.write("config.toml", "[formats]\ndir = \"x\n");
    binary
        .run("scan leak.txt")
        .fails(2, &["config.toml:2", "not valid TOML"]);
    let file = binary.path("config.toml");
    std::fs::remove_file(&file).expect("the file");
    std::os::unix::fs::symlink("nowhere", &file).expect("a link");
    binary.run("scan leak.txt").fails(1, &["left aside"]);
    std::fs::remove_file(&file).expect("the link");
    std::fs::create_dir(&file).expect("a folder");
    binary.run("scan leak.txt").fails(1, &["left aside"]);
    assert_eq!(binary.run("log list").code, 2);
}

#[test]
fn a_file_that_names_a_section_of_ours_and_cannot_be_read_is_left_aside_by_nobody() {
    let binary = Binary::new();
    binary.write("leak.txt", secret().expose());
    let ours: [(&[u8], &str); 4] = [
        (b"# Schl\xfcssel\n[formats]\ndir = \"x\"\n", "not UTF-8"),
        (b"\xff\xfe[\0f\0o\0r\0m\0a\0t\0s\0]\0\n\0", "not UTF-8"),
        (b"formats.dir = \"x\" y\n", "not valid TOML"),
        (b"[\"formats\"]\ndir = \"x\" y\n", "not valid TOML"),
    ];
    for (text, said) in ours {
        binary.write("config.toml", text);
        binary
            .run("scan leak.txt")
            .fails(2, &["config.toml:", said]);
    }
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
