//! Tests of formats: `rescind formats`, run as people run it.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rescind::keyformat::FormatSet;
use serde_json::Value;
use tempfile::TempDir;

/// Exit code and output of a run.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// `rescind formats` in a folder of its own, so that no configuration is found but the one put there.
fn formats(dir: &Path, arguments: &[&str], stdin: &[u8]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rescind"))
        .arg("formats")
        .args(arguments)
        .current_dir(dir)
        .env_remove("RESCIND_CONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without reading all of it.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap().into()
}

fn json_lines(run: &Run) -> Vec<Value> {
    run.stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn minted(id: &str) -> String {
    let formats = FormatSet::builtin();
    formats.get(id).unwrap().mint().unwrap().expose().to_owned()
}

const SOUND: &str = r#"[[format]]
id = "acme_secret"
visibility = "secret"
prefix = "acme_sk_"
body = { alphabet = "base58", length = 24 }
"#;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

#[test]
fn lists_the_formats_in_force() {
    let dir = folder(&[]);
    let run = formats(dir.path(), &["list"], b"");
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    insta::assert_snapshot!("list", run.stdout);
    let run = formats(dir.path(), &["list", "--json"], b"");
    insta::assert_snapshot!("list_json", run.stdout);
}

#[test]
fn changing_the_prefix_is_one_edit() {
    let dir = folder(&[("config.toml", "[formats]\ndir = \"patterns\"\n")]);
    fs::create_dir(dir.path().join("patterns")).unwrap();
    let branded = include_str!("../../patterns/rescind.toml").replace("rsc_", "acme_");
    fs::write(dir.path().join("patterns/acme.toml"), &branded).unwrap();
    let list = json_lines(&formats(dir.path(), &["list", "--json"], b""));
    assert_eq!(list[0]["prefix"], "acme_sk_");

    let own = FormatSet::parse(&[("acme.toml", &branded)]).unwrap();
    let key = own.get("rescind_secret").unwrap().mint().unwrap();
    let run = formats(dir.path(), &["test", "-"], key.expose().as_bytes());
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    let old = minted("rescind_secret");
    assert_eq!(
        formats(dir.path(), &["test", "-"], old.as_bytes()).code,
        Some(1)
    );
}

#[test]
fn check_says_that_all_is_well() {
    let dir = folder(&[("a.toml", SOUND)]);
    let run = formats(dir.path(), &["check", "."], b"");
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert_eq!(run.stdout, ".: 1 format, 1 of them secret: all is well\n");
    let run = formats(dir.path(), &["check"], b"");
    assert_eq!(run.code, Some(0));
    assert!(
        run.stdout.starts_with("built in: 4 formats"),
        "{}",
        run.stdout
    );
    assert_eq!(run.stderr, "");
}

#[test]
fn check_lists_everything_that_is_wrong_with_file_and_line() {
    let short = SOUND
        .replace("acme_sk_", "ac")
        .replace("secret\"\np", "secrt\"\np");
    let twice = SOUND.replace("acme_sk_", "acme_s2_");
    let same = SOUND
        .replace("acme_secret", "acme_other")
        .replace("base58", "base62");
    let regex = "[[format]]\nid = \"r\"\nvisibility = \"secret\"\nanchor = \"abcd\"\nregex = 'abcd[0-9]+'\n";
    let dir = folder(&[
        ("a.toml", SOUND),
        ("b.toml", &short),
        ("c.toml", &twice),
        ("d.toml", &same),
        ("e.toml", regex),
        (
            "f.toml",
            &regex
                .replace("abcd[0-9]+", "abce[0-9]{20}")
                .replace("\"r\"", "\"s\""),
        ),
        (
            "g.toml",
            &SOUND.replace("acme_", "weak_").replace("24", "21"),
        ),
        ("h.toml", "[[format]\n"),
    ]);
    let run = formats(dir.path(), &["check", "."], b"");
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""));
    let expected = [
        "./b.toml:2: acme_secret: the id is used twice: ./a.toml:2 has it too; ",
        "./b.toml:3: acme_secret: `visibility` is \"secrt\"; ",
        "./b.toml:4: acme_secret: `prefix` is \"ac\", a literal under 3 characters; ",
        "./c.toml:2: acme_secret: the id is used twice: ./a.toml:2 has it too; ",
        "./d.toml:4: acme_other: it could claim the same string as `acme_secret` (./a.toml:4); ",
        "./e.toml:5: r: `regex` is unbounded: ",
        "./f.toml:5: s: `regex` matches no string that contains the anchor `abcd`; ",
        "./g.toml:5: weak_secret: 21 characters of base58 have 123 bits of entropy, under 128; ",
        "./h.toml:1: not TOML: ",
        "error: .: 9 problems to mend",
    ];
    let lines: Vec<_> = run.stderr.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{}", run.stderr);
    for (line, expected) in lines.iter().zip(expected) {
        assert!(
            line.starts_with(expected),
            "said:     {line}\nexpected: {expected}"
        );
    }

    let run = formats(dir.path(), &["check", ".", "--json"], b"");
    assert_eq!(run.code, Some(2));
    let json: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["problems"].as_array().unwrap().len(), 9);
    assert_eq!(json["problems"][1]["file"], "./b.toml");
    assert_eq!(json["problems"][1]["line"], 3);
    assert_eq!(json["problems"][1]["format"], "acme_secret");
}

#[test]
fn check_looks_into_the_usual_folder_without_configuration() {
    let dir = folder(&[]);
    fs::create_dir(dir.path().join("patterns")).unwrap();
    fs::write(dir.path().join("patterns/a.toml"), SOUND.replace("24", "2")).unwrap();
    let run = formats(dir.path(), &["check"], b"");
    assert_eq!(run.code, Some(2));
    assert!(
        run.stderr
            .contains("patterns/a.toml:5: acme_secret: 2 characters of base58")
    );
    assert!(
        run.stderr.contains("the built-in formats are in force"),
        "{}",
        run.stderr
    );
}

#[test]
fn check_of_a_folder_that_is_not_there() {
    let dir = folder(&[]);
    let run = formats(dir.path(), &["check", "nowhere"], b"");
    assert_eq!(run.code, Some(2));
    assert!(
        run.stderr
            .starts_with("nowhere: the folder of pattern files cannot be read: ")
    );
}

#[test]
fn test_explains_a_candidate() {
    let dir = folder(&[]);
    let key = minted("rescind_secret");
    for run in [
        formats(dir.path(), &["test", "-"], format!("{key}\r\n").as_bytes()),
        formats(dir.path(), &["test", &key], b""),
    ] {
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
        let last_four = &key[key.len() - 4..];
        let checksum = &key[key.len() - 6..];
        assert_eq!(
            run.stdout,
            format!(
                "rescind_secret (secret)\n\
                 \x20 ok  prefix    it starts with `rsc_sk_`\n\
                 \x20 ok  length    43 characters\n\
                 \x20 ok  body      the 30 characters after the prefix are all base62\n\
                 \x20 ok  checksum  `{checksum}` is right\n\
                 a candidate of rescind_secret: rsc_sk_…{last_four}\n"
            )
        );
    }
}

#[test]
fn test_explains_what_is_no_candidate() {
    let dir = folder(&[]);
    let key = minted("rescind_secret");
    let wrong = format!("{}{}", &key[..37], "zzzzzz");
    let right = &key[37..];
    let cases = [
        (wrong.clone(), format!("  no  checksum  expected `{right}`, found `zzzzzz`\nnot a candidate\n")),
        (key[..42].to_owned(), "  no  length    42 characters; a key of this format has 43\n".to_owned()),
        (key.replacen("sk_", "sk_-", 1), "  no  body      character 8 is '-', which is not base62\n".to_owned()),
        (format!("x{}", &key[..10]), "  no  prefix    `rsc_sk_` stands at character 2, not at the start\n".to_owned()),
        ("hello".to_owned(), "no format's literal stands in it: rsc_sk_, rsc_pk_, 574ck4u7h\n".to_owned()),
        ("sk_abc0574ck4u7h".to_owned(), "  no  shape     it is only the beginning".to_owned()),
        (String::new(), "not a candidate\n".to_owned()),
        (
            format!("KEY={key}"),
            "not a candidate as a whole, but a candidate of rescind_secret stands in it at byte 5: rsc_sk_…".to_owned(),
        ),
        (format!(" {key}"), "note: there is white space around it, which belongs to no key\n".to_owned()),
    ];
    for (string, expected) in cases {
        let run = formats(dir.path(), &["test", "-"], string.as_bytes());
        assert_eq!((run.code, run.stderr.as_str()), (Some(1), ""));
        assert!(
            run.stdout.contains(&expected),
            "{}\nexpected: {expected}",
            run.stdout
        );
        assert!(
            !run.stdout.contains(&key[7..37]),
            "the key is shown: {}",
            run.stdout
        );
    }
}

#[test]
fn a_public_key_is_known_but_no_candidate() {
    let dir = folder(&[]);
    let key = minted("rescind_public");
    let run = formats(dir.path(), &["test", "-", "--json"], key.as_bytes());
    assert_eq!(run.code, Some(1));
    let json: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(json["candidate"], false);
    assert_eq!(json["format"], "rescind_public");
    assert_eq!(json["formats"][0]["steps"][3]["ok"], true);
    let verdict = json["verdict"].as_str().unwrap();
    assert!(verdict.ends_with("is a key of rescind_public, which is public and never scanned for"));
    assert!(!run.stdout.contains(&key));
}

#[test]
fn test_refuses_what_is_no_string() {
    let dir = folder(&[]);
    let run = formats(dir.path(), &["test", "-"], &vec![b'a'; 70_000]);
    assert_eq!(run.code, Some(2));
    assert!(
        run.stderr
            .contains("longer than 65536 bytes; use `rescind scan -`"),
        "{}",
        run.stderr
    );
    let run = formats(dir.path(), &["test", "-"], b"\xff\xfe");
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("not UTF-8 text"), "{}", run.stderr);
}

#[test]
fn help_shows_an_example_on_every_level() {
    let dir = folder(&[]);
    for level in [
        &["--help"][..],
        &["list", "--help"],
        &["check", "--help"],
        &["test", "--help"],
    ] {
        let run = formats(dir.path(), level, b"");
        assert_eq!(run.code, Some(0));
        assert!(run.stdout.contains("Example"), "{level:?}: {}", run.stdout);
        assert!(
            run.stdout.contains("\n  rescind formats "),
            "{level:?}: {}",
            run.stdout
        );
    }
}
