//! Tests of cli.

mod backfill;
mod backup;
mod binary;
mod brands;
mod closed;
mod configuration;
mod database;
mod doctor;
mod files;
mod identity;
mod import;
mod keys;
mod log;
mod peppers;
mod sources;

pub(crate) use binary::{Binary, Ran};

#[test]
fn help_on_every_level_ends_well_and_shows_an_example() {
    let binary = Binary::new();
    let mut levels = vec![String::new()];
    let mut seen = 0;
    while let Some(level) = levels.pop() {
        let help = binary.run(&format!("{level} --help")).ok();
        let examples = help.split_once("Example").map_or("", |(_, after)| after);
        // Other options may stand between the program and the command.
        let shows = |line: &str| {
            let command = line.split_once("rescind").map_or("", |(_, after)| after);
            !command.is_empty() && level.split(' ').all(|word| command.contains(word))
        };
        let any = examples.lines().any(shows);
        assert!(any, "no example of `rescind{level}` in {help}");
        if let Some((_, codes)) = help.split_once("Exit codes:") {
            let codes = codes.split_once("\n\n").map_or(codes, |(codes, _)| codes);
            let all = ["0 ", "3 "].iter().all(|code| codes.contains(code));
            assert!(all, "rescind{level}: {codes}");
        }
        levels.extend(commands(&help).map(|command| format!("{level} {command}")));
        seen += 1;
    }
    assert!(seen > 20, "only {seen} levels were found");
    // None of it touched anything.
    let left = std::fs::read_dir(binary.folder()).expect("the folder");
    assert_eq!(left.count(), 0);
}

/// The commands that a help text lists, without clap's own.
fn commands(help: &str) -> impl Iterator<Item = &str> {
    let list = help.split_once("Commands:\n").map_or("", |(_, list)| list);
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help")
}

#[test]
fn wrong_usage_is_2_and_says_so_on_standard_error() {
    let binary = Binary::new();
    for line in [
        "",
        "frobnicate",
        "keys",
        "keys create --description x",
        "keys create --user u --team t --description x",
        "keys create --user u",
        "keys create --user u --description x --expires tomorrow",
        "keys create --user u --description \u{200b}",
        "tokens create --role viewer --description \u{200b}",
        "log list --action burned",
        "log list --reason boredom",
        "log list --since yesterday",
        "scan --staged a b",
        "keys create --user u --description x --expires 2020-01-01",
        "keys create --user u --description x --policy notify",
        "keys create --user u --description x --project a/b",
        "keys show 17",
        "keys revoke",
        "keys rotate 0199c3a2-6b1e-7d3f-8a51-2f0c9b7e4d10",
        "keys rotate 0199c3a2-6b1e-7d3f-8a51-2f0c9b7e4d10 --overlap 2y",
        "tokens create",
        "tokens create --role king",
        "log export --format xml",
        "sources",
        "sources poll",
        "sources poll nobody",
        "sources requeue",
        "sources requeue 17",
        "sources requeue 0199c3a2-6b1e-7d3f-8a51-2f0c9b7e4d10 --all x",
        "keys import no-such-file.csv",
        "log verify no-such-file.jsonl",
        "--config no-such-file.toml config show",
        "--log xml config show",
    ] {
        let ran = binary.run(line);
        ran.fails(2, &[]);
        assert!(
            ran.stdout.is_empty() && !ran.stderr.is_empty(),
            "{line}: {ran:?}"
        );
    }
    Binary::new()
        .with("RESCIND_LOG", "loud")
        .run("config show")
        .fails(2, &["RESCIND_LOG", "off, error, warn"]);
}

#[test]
fn the_defaults_are_shown_as_they_would_stand_in_the_file() {
    insta::assert_snapshot!(Binary::new().run("config show").ok());
}

#[test]
fn configuration_errors_are_2_and_name_file_and_line() {
    let binary = Binary::new();
    binary.write("config.toml", "[database]\nurll = \"x\"\n");
    for line in ["config show", "keys list", "migrate", "serve"] {
        binary.run(line).fails(
            2,
            &["config.toml:2:1: database.urll", "did you mean `url`?"],
        );
    }
    // A file that is named wins over the one in the folder; the variable names one too.
    let other = binary.write("other.toml", "[server]\nbind = \"127.0.0.1:1\"\n");
    let shown = binary.run("--config other.toml config show").ok();
    assert!(shown.contains("127.0.0.1:1"), "{shown}");
    let by_variable = binary
        .command(["config", "show"])
        .env("RESCIND_CONFIG", &other)
        .output()
        .map(Ran::from);
    assert!(
        by_variable
            .expect("the binary runs")
            .ok()
            .contains("127.0.0.1:1")
    );
    binary.write("other.toml", "[formats]\ndir = \"nowhere\"\n");
    binary
        .run("--config other.toml config show")
        .fails(2, &["nowhere"]);
    binary.write("other.toml", "[issuer]\nsecret = \"rescind_public\"\n");
    binary
        .run("--config other.toml config show")
        .fails(2, &["other.toml:2:10: issuer.secret"]);
}

#[test]
fn a_key_among_the_arguments_is_not_repeated() {
    let binary = Binary::new();
    let key = binary
        .run("keys create --user u --description x")
        .ok()
        .trim()
        .to_owned();
    for arguments in [
        vec!["keys", "check", &key],
        vec!["keys", "show", &key],
        vec!["keys", "revoke", &key],
        vec!["keys", "create", "--user", &key, "--description", "x"],
        vec!["keys", "create", "--user", "u", "--description", &key],
        vec!["tokens", "create", "--role", &key],
        vec!["tokens", "create", "--role", "admin", "--description", &key],
        vec!["keys", "list", "--limit", &key],
        vec!["keys", "import", &key],
        vec!["log", "verify", &key],
        vec!["--config", &key, "config", "show"],
        vec![&key],
    ] {
        let ran = binary.run_with(&arguments, "");
        ran.fails(2, &[]);
        assert!(!ran.stderr.contains(&key), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let binary = Binary::new();
    let lines = (0..3000).map(|n| format!("{n:064x},user,u{n}\n"));
    let csv = format!("sha256,owner_type,owner_id\n{}", lines.collect::<String>());
    binary.run_with(["keys", "import", "-"], &csv).ok();
    let mut child = binary
        .command(["keys", "list", "--all"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().expect("the binary ends"));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

#[test]
fn an_error_of_the_daemon_is_a_log_line_in_json() {
    let binary = Binary::new().with("RESCIND__SERVER__BIND", "192.0.2.1:1");
    let ran = binary.run("--log json serve");
    ran.fails(3, &["192.0.2.1:1", "server.bind"]);
    let line: serde_json::Value = serde_json::from_str(&ran.stderr).expect("one JSON line");
    assert_eq!(line["level"], "ERROR");
}

#[test]
fn a_value_that_cannot_be_printed_is_lost_with_a_remedy() {
    let binary = Binary::new();
    let id = binary
        .run("keys create --user u --description x --expires never")
        .ok();
    assert!(!id.is_empty());
    let listed = binary.run("keys list --json").ok();
    let key: serde_json::Value = serde_json::from_str(listed.trim()).expect("one key");
    let rotate = format!("keys rotate {} --overlap 1h", key["id"].as_str().unwrap());
    for (line, remedy) in [
        (
            "keys create --user v --description x",
            "rescind keys revoke ",
        ),
        (&rotate, "rescind keys revoke "),
        ("tokens create --role viewer", "rescind tokens revoke "),
    ] {
        let full = std::fs::File::create("/dev/full").expect("the device");
        // A reader that went away is no better here.
        let (reader, gone) = std::io::pipe().expect("a pipe");
        drop(reader);
        for stdout in [std::process::Stdio::from(full), gone.into()] {
            let ran = binary.command(line.split(' ')).stdout(stdout).output();
            let ran = Ran::from(ran.expect("the binary runs"));
            ran.fails(3, &["standard output", "the value is lost", remedy]);
            let (_, rest) = ran.stderr.split_once(remedy).expect("the remedy");
            let id = rest.split('`').next().unwrap_or_default();
            if remedy.contains("keys") {
                assert!(ran.stderr.contains(&format!("created key {id}")), "{ran:?}");
            }
            let revoke = remedy.trim_start_matches("rescind ");
            binary.run(&format!("{revoke}{id}")).ok();
            if line == rotate {
                // The old key is replaced only once.
                break;
            }
        }
    }
}

/// A program that is started without standard output is given the null device in its stead.
#[test]
fn a_value_that_nobody_would_see_is_not_made() {
    let binary = Binary::new();
    binary.run("keys create --user u --description x").ok();
    let listed = binary.run("keys list --json").ok();
    let key: serde_json::Value = serde_json::from_str(listed.trim()).expect("one key");
    let rotate = format!("keys rotate {} --overlap 1h", key["id"].as_str().unwrap());
    for line in [
        "keys create --user v --description x",
        "tokens create --role viewer",
        &rotate,
    ] {
        for nowhere in [">&-", ">/dev/null"] {
            let ran = std::process::Command::new("/bin/sh")
                .args(["-c", &format!("exec \"$0\" \"$@\" {nowhere}")])
                .arg(binary.command(["-"]).get_program())
                .args(line.split(' '))
                .current_dir(binary.folder())
                .env_clear()
                .output();
            let ran = Ran::from(ran.expect("a shell"));
            ran.fails(3, &["standard output is closed", "nothing was changed"]);
        }
    }
    assert_eq!(binary.run("keys list --json").ok(), listed);
    assert_eq!(binary.run("tokens list --json").ok(), "");
}

#[test]
fn a_configuration_that_is_not_utf8_is_named_with_its_line() {
    let binary = Binary::new();
    let secret = "hunter2-hunter2";
    let text = [
        b"[server]\n# \xc3\xa4\n\xc3\xa4 = \"".as_slice(),
        secret.as_bytes(),
        b"\xff\"\n",
    ];
    binary.write("config.toml", text.concat());
    let ran = binary.run("config show");
    ran.fails(2, &["config.toml:3:21: this is not UTF-8", "hint: save"]);
    assert_eq!(
        ran.stderr.matches("UTF-8").count(),
        2,
        "problem and hint: {ran:?}"
    );
    assert!(!ran.stderr.contains(secret), "{ran:?}");
}

#[test]
fn a_full_disk_behind_standard_output_is_named() {
    let binary = Binary::new();
    let full = std::fs::File::create("/dev/full").expect("the device");
    let ran = binary.command(["config", "show"]).stdout(full).output();
    Ran::from(ran.expect("the binary runs")).fails(3, &["standard output", "No space left"]);
}

/// On a terminal, which `script` makes.
#[test]
fn log_lines_have_colors_for_those_who_did_not_refuse_them() {
    let binary = Binary::new();
    std::fs::create_dir(binary.path("patterns")).expect("a folder");
    let builtin = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/patterns/rescind.toml"
    ));
    binary.write("patterns/a.toml", builtin.expect("the shipped formats"));
    let program = binary.command(["-"]).get_program().to_owned();
    let program = program.to_str().expect("UTF-8");
    let shown = |variables: &[(&str, &str)]| {
        let ran = std::process::Command::new("script")
            .args(["-qec", &format!("{program} formats check"), "/dev/null"])
            .current_dir(binary.folder())
            .stdin(std::process::Stdio::null())
            .env_remove("NO_COLOR")
            .env("TERM", "xterm")
            .envs(variables.iter().copied())
            .output();
        let shown = Ran::from(ran.expect("script runs")).stdout;
        assert!(
            shown.contains("the built-in formats are in force"),
            "{shown}"
        );
        shown.contains('\u{1b}')
    };
    assert!(shown(&[]) && shown(&[("NO_COLOR", "")]));
    assert!(!shown(&[("NO_COLOR", "1")]) && !shown(&[("TERM", "dumb")]));
}
