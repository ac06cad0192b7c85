use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::{Held, Ignored, LINES_MAX, Reader, Refusal, SIZE_MAX, Verdict};

/// Returns the decision of an ignore file with this text on a path.
fn decide(text: &str, path: &str, is_folder: bool) -> Option<bool> {
    let held = Held::default();
    let reader = Reader {
        held: &held,
        tell: &mut |_, why| panic!("{why}"),
    };
    let list = reader.parse(Path::new("/top"), text.as_bytes());
    let list = list.expect("small enough")?;
    let steps = &mut super::Steps::new(u32::MAX);
    let path = format!("/top/{path}");
    let decided = list.decide(Path::new(&path), is_folder, steps);
    decided.expect("few steps")
}

#[test]
fn patterns_mean_what_git_says() {
    for (pattern, path, is_listed) in [
        ("target", "target", true),
        ("target", "deep/target", true),
        ("target/", "target", false),
        ("/target", "deep/target", false),
        ("deep/target", "deep/target", true),
        ("deep/target", "more/deep/target", false),
        ("*.env", "a/b.env", true),
        ("*.env", "b.env.txt", false),
        ("a*c?e", "abbbcde", true),
        ("a*c?e", "abbbce", false),
        ("/*.env", "a/b.env", false),
        ("a/*/c", "a/b/c", true),
        ("a/*/c", "a/b/b/c", false),
        ("a/**/c", "a/c", true),
        ("a/**/c", "a/b/b/c", true),
        ("**/c", "a/b/c", true),
        ("a/**", "a", false),
        ("a/**", "a/b/c", true),
        ("a/**/b/**/c", "a/b/x/b/c", true),
        ("[a-c]x", "bx", true),
        ("[!a-c]x", "bx", false),
        ("[^a-c]x", "dx", true),
        ("[]x]", "]", true),
        ("[a-]", "-", true),
        ("[z-a]", "z", false),
        ("[ab", "[ab", true),
        ("[\\]]", "]", true),
        ("a[b/c]d", "a[b/c]d", true),
        ("\\*", "*", true),
        ("\\*", "a", false),
        ("\\!x", "!x", true),
        ("\\#x", "#x", true),
        ("#x", "#x", false),
        ("x\\", "x", false),
        ("x  ", "x", true),
        ("x\\ ", "x ", true),
        ("x\r", "x", true),
        ("/****/a", "a", true),
        ("/***/a", "b/b/a", true),
        ("a/****", "a/b", true),
        // As in git, and unlike other tools.
        ("{a,b}", "a", false),
        ("{a,b}", "{a,b}", true),
    ] {
        let decided = decide(pattern, path, false) == Some(true);
        assert_eq!(decided, is_listed, "{pattern:?} and {path:?}");
    }
    assert_eq!(decide("target/", "target", true), Some(true));
    assert_eq!(decide("*.env\n!kept.env", "kept.env", false), Some(false));
    assert_eq!(decide("!kept.env\n*.env", "kept.env", false), Some(true));
    assert_eq!(decide("\u{feff}x", "x", false), Some(true));
}

/// Returns whether git itself ignores each of `paths`, none of which is a folder.
fn left_out_by_git(folder: &Path, paths: &[String]) -> Vec<bool> {
    let list = folder.join("paths");
    fs::write(&list, paths.join("\n") + "\n").unwrap();
    let output = Command::new("git")
        .args(["-C".as_ref(), folder.as_os_str()])
        .args([
            "check-ignore",
            "--no-index",
            "--verbose",
            "--non-matching",
            "--stdin",
        ])
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdin(fs::File::open(list).unwrap())
        .output();
    // Format of its lines: `file:line:pattern`, a tab, the path. Without a matching pattern, only colons come
    // before the tab.
    let output = String::from_utf8(output.unwrap().stdout).unwrap();
    let decided = output.lines().map(|line| {
        let pattern = line.split('\t').next().unwrap().splitn(3, ':').nth(2);
        !matches!(pattern, Some("")) && !pattern.unwrap().starts_with('!')
    });
    decided.collect()
}

fn left_out(text: &str, path: &str) -> bool {
    let folders = path.match_indices('/').map(|(at, _)| &path[..at]);
    let mut folders = folders.map(|folder| decide(text, folder, true));
    folders.any(|decided| decided == Some(true)) || decide(text, path, false) == Some(true)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn patterns_mean_what_git_does(
        lines in prop::collection::vec("!?/?(a|b|\\*|\\?|\\[a\\]|\\[!a\\]|\\[a-b\\]|\\\\a|/|\\*\\*/|/\\*\\*|\\.){1,6}/? ?", 1..4),
        paths in prop::collection::vec("(a|b|ab|aa|b\\.a)(/(a|b|ab|ba|b\\.b)){0,4}", 50),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new("git").args(["init", "--quiet"]).arg(folder.path()).status();
        prop_assert!(made.unwrap().success());
        let text = lines.join("\n");
        fs::write(folder.path().join(".gitignore"), &text).unwrap();
        let decided = left_out_by_git(folder.path(), &paths);
        prop_assert_eq!(decided.len(), paths.len());
        for (path, decided) in paths.iter().zip(decided) {
            prop_assert_eq!(left_out(&text, path), decided, "{:?} and {:?}", text, path);
        }
    }
}

fn ignored(folder: &Path, held: &Held) -> (Option<std::sync::Arc<Ignored>>, Vec<Refusal>) {
    let mut told = Vec::new();
    let mut reader = Reader {
        held,
        tell: &mut |_, why| told.push(why),
    };
    let ignored = reader.within(folder, folder, &|_| true, None);
    (ignored, told)
}

#[test]
fn what_is_too_large_is_not_obeyed_and_what_is_just_not_is() {
    let folder = tempfile::tempdir().unwrap();
    let held = Held::default();
    let path = folder.path().join(".gitignore");
    let lines = |count: usize| "listed\n".repeat(count);
    fs::write(&path, lines(LINES_MAX)).unwrap();
    let (obeyed, told) = ignored(folder.path(), &held);
    let verdict = obeyed
        .expect("obeyed")
        .verdict(&folder.path().join("listed"), false);
    assert_eq!((verdict, told.len()), (Verdict::Listed, 0));
    fs::write(&path, lines(LINES_MAX + 1)).unwrap();
    let (obeyed, told) = ignored(folder.path(), &held);
    assert!(
        obeyed.is_none() && matches!(told[..], [Refusal::TooManyLines]),
        "{told:?}"
    );
    fs::write(&path, "#".repeat(SIZE_MAX + 1)).unwrap();
    let (obeyed, told) = ignored(folder.path(), &held);
    assert!(
        obeyed.is_none() && matches!(told[..], [Refusal::TooLarge]),
        "{told:?}"
    );
}

#[test]
fn the_patterns_that_are_held_at_a_time_have_a_budget() {
    let folder = tempfile::tempdir().unwrap();
    let held = Held::default();
    fs::write(folder.path().join(".gitignore"), "x".repeat(SIZE_MAX)).unwrap();
    let mut kept = Vec::new();
    loop {
        let (obeyed, told) = ignored(folder.path(), &held);
        if let Some(obeyed) = obeyed {
            kept.push(obeyed);
            assert!(kept.len() < 100, "no budget");
            continue;
        }
        assert!(matches!(told[..], [Refusal::TooMuch]), "{told:?}");
        break;
    }
    assert!(kept.len() > 2, "only {}", kept.len());
    // Patterns that were released no longer count.
    drop(kept);
    assert!(ignored(folder.path(), &held).0.is_some());
}

#[test]
fn telling_whether_a_path_is_listed_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::new();
    for _ in 0..2_000 {
        writeln!(text, "{}b", "*a".repeat(100)).unwrap();
    }
    fs::write(folder.path().join(".gitignore"), text).unwrap();
    let (obeyed, _) = ignored(folder.path(), &Held::default());
    let verdict = obeyed
        .expect("obeyed")
        .verdict(&folder.path().join("a".repeat(250)), false);
    assert_eq!(verdict, Verdict::Unclear);
}
