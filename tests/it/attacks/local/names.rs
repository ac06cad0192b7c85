//! Names of files: they may hold anything but a slash and a zero byte, and what is printed of them must neither
//! fool who reads it nor say a key.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::scan::{commit, folder, git, repository, scan, secret, text};

/// Names as they are, and as the text report shows them.
const NAMES: [(&[u8], &str); 13] = [
    (b"line\nbreak", "line\\nbreak"),
    (b"line\n", "line\\n"),
    (b"\nfirst", "\\nfirst"),
    (b"line", "line"),
    (b" blanks around ", " blanks around "),
    (b"return\r", "return\\r"),
    (b"tab\tin \"quotes\"", "tab\\tin \"quotes\""),
    ("safe\u{202e}fdp.exe".as_bytes(), "safe\\u{202e}fdp.exe"),
    (
        "\u{2066}\u{200b}\u{200f}\u{61c}\u{feff}".as_bytes(),
        "\\u{2066}\\u{200b}\\u{200f}\\u{61c}\\u{feff}",
    ),
    (
        "two\u{2028}lines\u{2029}".as_bytes(),
        "two\\u{2028}lines\\u{2029}",
    ),
    (
        b"\x1b[2J\x1b]0;title\x07",
        "\\u{1b}[2J\\u{1b}]0;title\\u{7}",
    ),
    ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
    (b"odd-\xff\xfe", "odd-\\xff\\xfe"),
];

/// The ways to scan what [`planted`] made.
const WAYS: [&[&str]; 4] = [
    &["."],
    &["--git", "."],
    &["--staged"],
    &["--since", "HEAD~2"],
];

/// A repository with a key in a file of each name, as commits, in the index and in the folder.
fn planted(root: &Path, names: &[&[u8]]) {
    std::fs::write(root.join("empty"), "").expect("a file");
    commit(root, "Begin");
    for name in names {
        let contents = format!("{}\n", secret().expose());
        std::fs::write(root.join(OsStr::from_bytes(name)), contents).expect("a file");
    }
    commit(root, "Add");
    for name in names {
        let contents = format!("{}\n", secret().expose());
        std::fs::write(root.join(OsStr::from_bytes(name)), contents).expect("a file");
    }
    commit(root, "Change");
    for name in names {
        let contents = format!("{}\n", secret().expose());
        std::fs::write(root.join(OsStr::from_bytes(name)), contents).expect("a file");
    }
    git(root, &["add", "--all"]);
}

/// Returns whether a report must escape a character.
fn steers(c: char) -> bool {
    let is_format = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{61c}' | '\u{feff}');
    is_format || c.is_control() && c != '\n'
}

fn shows_nothing_that_steers(output: &Output, what: &str) {
    let said = text(output);
    let odd: Vec<char> = said.chars().filter(|c| steers(*c)).collect();
    assert!(odd.is_empty(), "{what}: {odd:?} in {said:?}");
}

fn paths(output: &Output) -> Vec<Vec<u8>> {
    let rows = String::from_utf8_lossy(&output.stdout).into_owned();
    let rows = rows
        .lines()
        .map(|row| serde_json::from_str::<Value>(row).expect("JSON"));
    rows.map(|row| {
        let path = match row.get("path_base64") {
            Some(path) => STANDARD
                .decode(path.as_str().expect("a text"))
                .expect("base64"),
            None => row["path"].as_str().expect("a path").as_bytes().to_vec(),
        };
        path.strip_prefix(b"./").map(<[u8]>::to_vec).unwrap_or(path)
    })
    .collect()
}

#[test]
fn names_are_told_whole_and_cannot_steer_a_terminal() {
    let folder = repository();
    let root = folder.path();
    planted(root, &NAMES.map(|(name, _)| name));
    for way in WAYS {
        let output = scan(root, &[way, &["--report", "jsonl"]].concat());
        assert_eq!(output.status.code(), Some(1), "{way:?}: {}", text(&output));
        shows_nothing_that_steers(&output, "JSON Lines");
        let found = paths(&output);
        for (name, _) in NAMES {
            let count = found.iter().filter(|path| path.as_slice() == name).count();
            assert!(count >= 1, "{way:?}: {name:?} in {found:?}");
        }
        let known = |path: &Vec<u8>| NAMES.iter().any(|(name, _)| name == path);
        assert!(found.iter().all(known), "{way:?}: {found:?}");
        let output = scan(root, way);
        shows_nothing_that_steers(&output, "text");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        for (_, shown) in NAMES {
            let is_told = said.lines().any(|line| {
                let line = line.strip_prefix("./").unwrap_or(line);
                line.starts_with(&format!("{shown}:1:1: rsc_sk_…"))
            });
            assert!(is_told, "{way:?}: {shown} in {said}");
        }
        for form in ["json", "sarif"] {
            let output = scan(root, &[way, &["--report", form]].concat());
            shows_nothing_that_steers(&output, form);
            let _: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        }
    }
}

#[test]
fn names_that_cannot_be_scanned_cannot_steer_a_terminal_either() {
    let folder = folder();
    let root = folder.path();
    for (name, _) in NAMES {
        let target = Path::new("nowhere");
        std::os::unix::fs::symlink(target, root.join(OsStr::from_bytes(name))).expect("a link");
        let pipe = [name, b"-pipe"].concat();
        let made = std::process::Command::new("mkfifo")
            .arg(root.join(OsStr::from_bytes(&pipe)))
            .status();
        assert!(made.expect("mkfifo runs").success());
    }
    let output = scan(root, &["."]);
    shows_nothing_that_steers(&output, "standard error");
    let missing = "no\u{202e}such\u{1b}[2J";
    for arguments in [
        &["scan", missing][..],
        &["scan", "--git", missing],
        &["--config", missing, "keys", "list"],
        &["log", "verify", missing],
        &["keys", "import", missing],
    ] {
        let mut command = crate::scan::program();
        let output = crate::scan::run(command.args(arguments).current_dir(root), b"");
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        shows_nothing_that_steers(&output, "an error");
        assert!(
            text(&output).contains("no\\u{202e}such"),
            "{}",
            text(&output)
        );
    }
}

#[test]
fn keys_in_names_are_redacted_however_they_are_written() {
    let folder = repository();
    let root = folder.path();
    let keys: Vec<_> = (0..4).map(|_| secret()).collect();
    let percent = hex::encode_upper(keys[3].expose());
    let digits = percent.as_bytes().chunks(2).map(String::from_utf8_lossy);
    let percent: String = digits.flat_map(|digits| ["%".into(), digits]).collect();
    let mut odd = b"odd-\xff-".to_vec();
    odd.extend(
        URL_SAFE_NO_PAD
            .encode(format!("ab{}", keys[2].expose()))
            .bytes(),
    );
    let written = [
        keys[0].expose().as_bytes().to_vec(),
        URL_SAFE_NO_PAD.encode(keys[1].expose()).into_bytes(),
        odd,
        percent.into_bytes(),
    ];
    planted(root, &[&written[0], &written[1], &written[2], &written[3]]);
    for way in WAYS {
        for form in ["text", "json", "jsonl", "sarif"] {
            let output = scan(root, &[way, &["--report", form]].concat());
            let said = text(&output);
            for (key, written) in keys.iter().zip(&written) {
                let middle = &written[written.len() - 30..written.len() - 8];
                let middle = String::from_utf8_lossy(middle).into_owned();
                let shown = format!("…{}", key.last_four());
                let encoded = shown.replace('…', "%E2%80%A6");
                assert!(!said.contains(&middle), "{way:?} {form}: {said}");
                assert!(
                    said.contains(&shown) || said.contains(&encoded),
                    "{way:?} {form}: {said}"
                );
                // The bytes of an odd name must not say it either.
                let rows = said
                    .lines()
                    .filter_map(|line| serde_json::from_str::<Value>(line).ok());
                for row in rows {
                    let bytes = row
                        .get("path_base64")
                        .and_then(Value::as_str)
                        .unwrap_or_default();
                    let bytes = STANDARD.decode(bytes).expect("base64");
                    assert!(
                        memchr::memmem::find(&bytes, middle.as_bytes()).is_none(),
                        "{row}"
                    );
                }
            }
        }
    }
}
