//! Commands whose reader has seen enough, as behind `| head`.

use std::process::Stdio;

use super::{Binary, Ran};
use crate::scan::secret;

/// Runs a command whose standard output is a pipe that nobody reads.
fn unread(binary: &Binary, line: &str) -> Ran {
    let (reader, gone) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = binary.command(line.split_whitespace());
    let ran = command.stdin(Stdio::null()).stdout(gone).output();
    Ran::from(ran.expect("the binary runs"))
}

#[test]
fn the_exit_code_of_a_scan_is_that_of_what_is_there() {
    let binary = Binary::new();
    let found = |count: usize| {
        let lines: Vec<String> = (0..count).map(|_| secret().expose().to_owned()).collect();
        lines.join("\n")
    };
    binary.write("one.txt", found(1));
    binary.write("many.txt", found(500));
    binary.write("clean.txt", "nothing");
    for form in ["text", "json", "jsonl", "sarif"] {
        for (name, code) in [("one.txt", 1), ("many.txt", 1), ("clean.txt", 0)] {
            let ran = unread(&binary, &format!("scan --report {form} {name}"));
            assert_eq!(ran.code, code, "{form} {name}: {ran:?}");
            assert!(!ran.stderr.contains("cannot write"), "{ran:?}");
        }
    }
    let lacks = unread(&binary, "scan clean.txt no-such-file");
    lacks.fails(2, &["no-such-file"]);
}

#[test]
fn the_exit_code_of_a_command_is_that_of_its_result() {
    let binary = Binary::new();
    binary.run("keys create --user u --description x").ok();
    binary.write("broken.jsonl", "{}\n");
    std::fs::create_dir(binary.path("bad")).expect("a folder");
    binary.write("bad/a.toml", "[[format]]\n");
    for (line, code) in [
        ("--help", 0),
        ("keys list", 0),
        ("keys list --json", 0),
        ("tokens list", 0),
        ("log list", 0),
        ("log export", 0),
        ("log verify", 0),
        ("log verify --json", 0),
        ("log verify broken.jsonl", 1),
        ("log verify broken.jsonl --json", 1),
        ("formats list", 0),
        ("formats check", 0),
        ("formats check --json bad", 2),
        ("formats test x", 1),
        ("formats test --json x", 1),
        ("config show", 0),
        ("config show --json", 0),
        ("migrate", 0),
        ("sources status", 0),
        ("sources dead", 0),
    ] {
        let ran = unread(&binary, line);
        assert_eq!(ran.code, code, "{line}: {ran:?}");
        assert!(!ran.stderr.contains("panicked"), "{line}: {ran:?}");
    }
    let mut check = binary.command(["keys", "check"]);
    let (reader, gone) = std::io::pipe().expect("a pipe");
    drop(reader);
    let stdin = std::fs::File::open(binary.write("key.txt", secret().expose())).expect("a key");
    let ran = check.stdin(stdin).stdout(gone).output().map(Ran::from);
    assert_eq!(ran.expect("the binary runs").code, 1);
}

/// Whoever redirects a page of help to a file wants to know that it is not there.
#[test]
fn what_cannot_be_written_to_standard_output_is_3() {
    let binary = Binary::new();
    let value = binary.run("keys create --user u --description x").ok();
    let revoked = binary.run_with(["keys", "revoke", "--value-stdin"], &value);
    revoked.ok();
    binary.write("leak.txt", secret().expose());
    for line in [
        "--help",
        "keys --help",
        "keys create --help",
        "help",
        "--version",
        "keys list",
        "keys list --json",
        "tokens list",
        "log list",
        "log export",
        "log export --format csv",
        "log verify",
        "log verify --json",
        "formats list",
        "formats check",
        "formats check --json",
        "formats test x",
        "config show",
        "config show --json",
        "sources status",
        "sources dead",
        "scan leak.txt",
        "scan --report json leak.txt",
        "doctor",
        "doctor --json",
        "backup copy.db",
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let mut command = binary.command(line.split(' '));
        let ran = command
            .stdin(Stdio::null())
            .stdout(full.expect("the device"))
            .output();
        let ran = Ran::from(ran.expect("the binary runs"));
        assert_eq!(ran.code, 3, "{line}: {ran:?}");
        assert!(ran.stderr.contains("standard output"), "{line}: {ran:?}");
    }
}
