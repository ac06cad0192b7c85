//! Tests of several files together, and of folders of files.

use std::fs;

use super::FormatSet;
use super::refusals::{SOUND, SOUND_REGEX};

#[test]
fn sound_files_load() {
    let formats = FormatSet::parse(&[("a.toml", SOUND), ("b.toml", SOUND_REGEX)]).unwrap();
    assert_eq!(
        formats.iter().map(super::KeyFormat::id).collect::<Vec<_>>(),
        ["acme", "other"]
    );
    assert_eq!(formats.get("acme").unwrap().description(), "acme");
    assert_eq!(formats.get("other").unwrap().display_prefix(), "k_");
    assert_eq!(formats.get("third").map(super::KeyFormat::id), None);
}

#[test]
fn all_problems_of_all_files_are_said_at_once() {
    let broken = SOUND
        .replace("acme_sk_", "ac")
        .replace("length = 6", "length = 5");
    let error = FormatSet::parse(&[
        ("a.toml", &broken),
        ("b.toml", "x = 1"),
        ("c.toml", &SOUND_REGEX.replace("{20}", "*")),
    ])
    .unwrap_err();
    let places: Vec<_> = error
        .problems
        .iter()
        .map(|problem| (problem.file.as_str(), problem.line))
        .collect();
    assert_eq!(
        places,
        [
            ("a.toml", Some(4)),
            ("a.toml", Some(6)),
            ("b.toml", Some(1)),
            ("c.toml", Some(5))
        ]
    );
}

#[test]
fn an_id_used_twice() {
    let again = SOUND_REGEX.replace("\"other\"", "\"acme\"");
    let error = FormatSet::parse(&[("a.toml", SOUND), ("b.toml", &again)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "b.toml:2: acme: the id is used twice: a.toml:2 has it too; give each format an id of its own"
    );
}

#[test]
fn files_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let said = |what: &str| {
        let said = FormatSet::load_dir(dir.path()).expect_err(what).to_string();
        said.replace(&format!("{}/", dir.path().display()), "")
            .replace(&dir.path().display().to_string(), "DIR")
    };
    assert_eq!(
        said("it is empty"),
        "DIR: there is no format in it; add a [[format]] to a file *.toml; docs/key-formats.md shows one"
    );
    fs::write(dir.path().join("a.toml"), b"# caf\xe9\n").unwrap();
    fs::write(dir.path().join("b.toml"), b"#\n# \xff\n").unwrap();
    fs::create_dir(dir.path().join("c.toml")).unwrap();
    fs::write(dir.path().join("d.toml"), "#\n".repeat(600_000)).unwrap();
    fs::write(dir.path().join("e.txt"), b"\xff").unwrap();
    assert_eq!(
        said("files are broken"),
        "a.toml:1: is not UTF-8 text; save it as UTF-8\n\
         b.toml:2: is not UTF-8 text; save it as UTF-8\n\
         c.toml: is not a regular file; remove or rename it\n\
         d.toml: is larger than 1 MiB; is it a pattern file? split it"
    );
    let missing = FormatSet::load_dir(&dir.path().join("none"))
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("/none: the folder of pattern files cannot be read: "),
        "{missing}"
    );
    assert!(
        missing.ends_with("create it, or point `formats.dir` to where it is"),
        "{missing}"
    );
}

#[test]
fn a_folder_loads_in_the_order_of_names() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("2.toml"), SOUND).unwrap();
    fs::write(dir.path().join("1.toml"), SOUND_REGEX).unwrap();
    let formats = FormatSet::load_dir(dir.path()).unwrap();
    assert_eq!(
        formats.iter().map(super::KeyFormat::id).collect::<Vec<_>>(),
        ["other", "acme"]
    );
    let positions: Vec<_> = formats
        .secret()
        .map(|(at, format)| (at, format.id()))
        .collect();
    assert_eq!(positions, [(0, "other"), (1, "acme")]);
}
