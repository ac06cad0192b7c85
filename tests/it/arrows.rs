//! The rooms of the house, and the files in them, depend on each other in one direction only.

mod files;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules that each module may use. `docs/architecture.md` shows the same picture.
const MAY_USE: &[(&str, &[&str])] = &[
    ("backoff", &[]),
    ("clock", &[]),
    ("fair", &[]),
    ("memory", &[]),
    ("schedule", &[]),
    ("offload", &[]),
    ("regular", &[]),
    ("temporary", &[]),
    ("keyformat", &["regular"]),
    ("scan", &["keyformat"]),
    ("tree", &["regular", "scan"]),
    ("store", &["backoff", "memory", "temporary", "keyformat"]),
    ("fetch", &["memory"]),
    ("github", &["backoff", "clock", "memory", "fetch"]),
    (
        "respond",
        &["clock", "fair", "offload", "keyformat", "scan", "store"],
    ),
    (
        "issuer",
        &["clock", "offload", "keyformat", "scan", "store", "respond"],
    ),
    ("forge", &["keyformat", "scan", "store", "fetch", "respond"]),
    (
        "intake",
        &[
            "backoff",
            "clock",
            "offload",
            "keyformat",
            "scan",
            "store",
            "fetch",
            "respond",
            "forge",
        ],
    ),
    (
        "work",
        &[
            "backoff",
            "clock",
            "offload",
            "keyformat",
            "scan",
            "store",
            "fetch",
            "github",
            "respond",
            "forge",
        ],
    ),
    (
        "source",
        &[
            "backoff",
            "clock",
            "schedule",
            "offload",
            "memory",
            "keyformat",
            "scan",
            "store",
            "fetch",
            "github",
            "respond",
            "forge",
        ],
    ),
    (
        "config",
        &[
            "schedule",
            "regular",
            "keyformat",
            "scan",
            "github",
            "issuer",
            "forge",
            "intake",
            "source",
        ],
    ),
    (
        "server",
        &[
            "clock",
            "fair",
            "memory",
            "keyformat",
            "scan",
            "store",
            "respond",
            "issuer",
            "forge",
            "intake",
            "source",
            "config",
        ],
    ),
    (
        "daemon",
        &[
            "backoff",
            "clock",
            "schedule",
            "keyformat",
            "scan",
            "store",
            "fetch",
            "github",
            "respond",
            "issuer",
            "forge",
            "intake",
            "source",
            "work",
            "config",
            "server",
        ],
    ),
    ("sandbox", &["fetch"]),
];

#[test]
fn dependencies_run_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rooms: BTreeSet<&str> = MAY_USE
        .iter()
        .map(|(room, _)| *room)
        .chain(["cli"])
        .collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (room, allowed) in MAY_USE {
        for file in sources_of(&src, room) {
            let text = fs::read_to_string(&file).expect("a source file is readable");
            for (number, line) in text
                .lines()
                .enumerate()
                .filter(|(_, line)| !is_comment(line))
            {
                for used in rooms
                    .iter()
                    .filter(|used| line.contains(&format!("crate::{used}")))
                {
                    seen += 1;
                    if used != room && !allowed.contains(used) {
                        wrong.push(format!(
                            "{}:{}: {room} uses {used}",
                            file.display(),
                            number + 1
                        ));
                    }
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "against the direction:\n{}",
        wrong.join("\n")
    );
    assert!(
        seen > 20,
        "only {seen} uses were found: does the test still read the sources?"
    );
}

/// Two files that need each other are one, or need a third for what both use.
#[test]
fn no_files_use_each_other_in_a_circle_but_a_module_and_its_own_parts() {
    let uses = files::uses(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let arrows: usize = uses.values().map(BTreeSet::len).sum();
    assert!(
        arrows > 1_000,
        "only {arrows} uses were found: does the test still read the sources?"
    );
    let mut new = Vec::new();
    for circle in files::circles(&uses) {
        for file in &circle {
            let others = uses[file].iter().filter(|other| circle.contains(other));
            let others: Vec<&str> = others.map(String::as_str).collect();
            new.push(format!("{file} uses {}", others.join(", ")));
        }
        new.push(String::new());
    }
    assert!(new.is_empty(), "in a circle:\n{}", new.join("\n"));
}

#[test]
fn key_formats_scanner_and_trees_know_no_runtime_no_database_and_no_network() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for room in ["keyformat", "scan", "tree"] {
        for file in sources_of(&src, room) {
            let text = fs::read_to_string(&file).expect("a source file is readable");
            for (number, line) in text
                .lines()
                .enumerate()
                .filter(|(_, line)| !is_comment(line))
            {
                for foreign in ["tokio::", "sqlx::", "axum::", "reqwest::", "hyper::"] {
                    assert!(
                        !line.contains(foreign),
                        "{}:{}: {room} uses {foreign}",
                        file.display(),
                        number + 1
                    );
                }
            }
        }
    }
}

/// So that nobody has to look up how a delay is capped, and whether it deviates at random.
#[test]
fn delays_are_doubled_in_one_place_only() {
    only_in("backoff.rs", &["saturating_mul(1 <<"], &[]);
}

/// So that a value is ours or nobody's whoever reports it. The command line tells whose keys are, and reports nothing.
#[test]
fn what_was_seen_is_looked_up_in_one_place_only() {
    only_in(
        "respond/known.rs",
        &[".find_keys(", ".known_keys(", ".find_tokens("],
        &["store"],
    );
}

/// Asserts that no other file of the rooms, but for those of some, has any of these texts.
fn only_in(only: &str, texts: &[&str], but: &[&str]) {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rooms = MAY_USE.iter().filter(|(room, _)| !but.contains(room));
    for file in rooms.flat_map(|(room, _)| sources_of(&src, room)) {
        let source = fs::read_to_string(&file).expect("a source file is readable");
        for (number, line) in source.lines().enumerate() {
            assert!(
                file.ends_with(only) || !texts.iter().any(|text| line.contains(text)),
                "{}:{}: this is done in {only}",
                file.display(),
                number + 1
            );
        }
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// The files of a room: `src/room.rs` or everything below `src/room/`.
fn sources_of(src: &Path, room: &str) -> Vec<PathBuf> {
    let mut files = sources_below(&src.join(room));
    let single = src.join(format!("{room}.rs"));
    if single.exists() {
        files.push(single);
    }
    assert!(!files.is_empty(), "no sources for {room}");
    files
}

fn sources_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("a folder entry is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                files.push(path);
            }
        }
    }
    files
}
