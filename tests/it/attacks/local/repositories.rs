//! A repository's configuration is as much somebody else's as its contents: nothing that it names is run.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::scan::{commit, folder, git, program, repository, run, secret, text, try_git, write};

/// A repository in which everything that can name a program names one that leaves a mark.
struct Trap {
    repository: TempDir,
    /// Folder for the marks, and for the programs that leave them.
    marks: TempDir,
    key: String,
}

impl Trap {
    fn new() -> Self {
        let (repository, marks) = (repository(), folder());
        let root = repository.path();
        let key = secret();
        write(root, "base.txt", "nothing\n");
        write(root, "lost.txt", "to be lost\n");
        commit(root, "Begin");
        write(root, "history.env", format!("KEY={}\n", key.expose()));
        write(root, "lost-later.txt", "to be lost as well\n");
        commit(root, "Add");
        write(root, "staged.env", format!("\nKEY={}\n", key.expose()));
        write(root, "lost-staged.txt", "to be lost, too\n");
        git(root, &["add", "--all"]);
        let trap = Self {
            key: key.expose().to_owned(),
            repository,
            marks,
        };
        trap.replace("HEAD:history.env");
        trap.plant();
        // A partial clone lacks objects, and git would fetch them from wherever the configuration says.
        for name in ["HEAD:lost.txt", "HEAD:lost-later.txt", ":lost-staged.txt"] {
            trap.lose(name);
        }
        trap.forget_marks();
        trap
    }

    fn root(&self) -> &Path {
        self.repository.path()
    }

    /// A program that leaves a mark of this name, and does nothing else well.
    fn leaves(&self, mark: &str) -> String {
        let path = self.marks.path().join(format!("leave-{mark}"));
        let mark = self.marks.path().join(format!("mark-{mark}"));
        executable(&path, &format!("#!/bin/sh\ntouch '{}'\n", mark.display()));
        path.display().to_string()
    }

    fn marks(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.marks.path()).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("mark-")).collect()
    }

    fn forget_marks(&self) {
        for mark in self.marks() {
            fs::remove_file(self.marks.path().join(mark)).expect("a mark");
        }
    }

    /// Has git show something harmless in place of an object.
    fn replace(&self, name: &str) {
        git(self.root(), &["replace", name, "HEAD:base.txt"]);
        let commit = id(self.root(), "HEAD");
        let grafts = self.root().join(".git/info/grafts");
        fs::create_dir_all(grafts.parent().expect("a parent")).expect("a folder");
        fs::write(grafts, format!("{commit}\n")).expect("a file");
    }

    fn lose(&self, name: &str) {
        let id = id(self.root(), name);
        let object = self.root().join(".git/objects").join(&id[..2]);
        fs::remove_file(object.join(&id[2..])).expect("a loose object");
    }

    fn plant(&self) {
        let root = self.root();
        let attributes = "* filter=trap diff=trap merge=trap text eol=crlf\n";
        write(root, ".gitattributes", attributes);
        write(root, ".git/info/attributes", attributes);
        write(self.marks.path(), "attributes", attributes);
        for hook in [
            "pre-commit",
            "post-checkout",
            "post-index-change",
            "reference-transaction",
            "pre-auto-gc",
            "fsmonitor-watchman",
            "post-rewrite",
            "prepare-commit-msg",
        ] {
            for folder in [root.join(".git/hooks"), self.marks.path().join("hooks")] {
                fs::create_dir_all(&folder).expect("a folder");
                let leaves = fs::read(self.leaves(&format!("hook-{hook}"))).expect("a program");
                executable(&folder.join(hook), &String::from_utf8_lossy(&leaves));
            }
        }
        // A program of git's name in the folder that is scanned, for search paths that begin there.
        let leaves = fs::read_to_string(self.leaves("git-here")).expect("a program");
        executable(&root.join("git"), &leaves);
        // A bare repository among the files, with a configuration of its own.
        git(root, &["init", "--quiet", "--bare", "embedded"]);
        write(root, "embedded/config", self.configuration("embedded"));
        let config = fs::read_to_string(root.join(".git/config")).expect("a configuration");
        let included = self.marks.path().join("included");
        fs::write(&included, self.configuration("included")).expect("a file");
        let own = format!(
            "{config}\n{}[include]\n\tpath = {included}\n[includeIf \"gitdir:**\"]\n\tpath = {included}\n",
            self.configuration("own"),
            included = included.display()
        );
        write(root, ".git/config", own);
    }

    fn configuration(&self, by: &str) -> String {
        let leaves = |what: &str| self.leaves(&format!("{by}-{what}"));
        let marks = self.marks.path().display().to_string();
        let mut text = format!(
            "[core]\n\trepositoryFormatVersion = 1\n\tfsmonitor = {}\n\thooksPath = {marks}/hooks\n\tpager = {}\n\
             \teditor = {}\n\tsshCommand = {}\n\tgitProxy = {}\n\taskPass = {}\n\tattributesFile = {marks}/attributes\n\
             \talternateRefsCommand = {}\n\tuntrackedCache = true\n\tpreloadIndex = true\n\tquotePath = true\n",
            leaves("fsmonitor"),
            leaves("pager"),
            leaves("editor"),
            leaves("ssh"),
            leaves("proxy"),
            leaves("askpass"),
            leaves("alternates"),
        );
        text += "[extensions]\n\tpartialClone = ext\n";
        for command in [
            "rev-parse",
            "rev-list",
            "cat-file",
            "diff-index",
            "diff-tree",
            "ls-files",
            "hash-object",
        ] {
            let _ = write!(text, "[pager]\n\t{command} = {}\n", leaves("pager-of"));
            let _ = write!(text, "[alias]\n\t{command} = !{}\n", leaves("alias"));
        }
        let _ = write!(
            text,
            "[diff]\n\texternal = {}\n\trelative = true\n\trenames = copies\n\tsubmodule = diff\n\
             [diff \"trap\"]\n\tcommand = {}\n\ttextconv = {}\n\tcachetextconv = true\n\
             [filter \"trap\"]\n\tclean = {}\n\tsmudge = {}\n\tprocess = {}\n\trequired = true\n\
             [merge \"trap\"]\n\tdriver = {}\n[interactive]\n\tdiffFilter = {}\n",
            leaves("external"),
            leaves("command"),
            leaves("textconv"),
            leaves("clean"),
            leaves("smudge"),
            leaves("process"),
            leaves("driver"),
            leaves("diff-filter"),
        );
        let _ = write!(
            text,
            "[gpg]\n\tprogram = {}\n[gpg \"ssh\"]\n\tprogram = {}\n[log]\n\tshowSignature = true\n\
             [credential]\n\thelper = !{}\n[uploadpack]\n\tpackObjectsHook = {}\n[sequence]\n\teditor = {}\n\
             [submodule \"trap\"]\n\turl = ext::{}\n\tupdate = !{}\n\tactive = true\n[submodule]\n\trecurse = true\n\
             [trace2]\n\tnormalTarget = {marks}/mark-{by}-trace\n\teventTarget = {marks}/mark-{by}-trace\n\
             [gc]\n\tauto = 1\n\trecentObjectsHook = {}\n[maintenance]\n\tauto = true\n[safe]\n\tbareRepository = all\n",
            leaves("gpg"),
            leaves("gpg-ssh"),
            leaves("credential"),
            leaves("pack-objects"),
            leaves("sequence"),
            leaves("submodule-url"),
            leaves("submodule"),
            leaves("recent"),
        );
        // Several ways to a remote that has what is missing.
        for (name, url) in [
            ("ext", format!("ext::{}", leaves("ext"))),
            ("local", self.root().display().to_string()),
            ("file", format!("file://{}", self.root().display())),
            ("ssh", "ssh://trap.invalid/x".to_owned()),
            ("git", "git://trap.invalid/x".to_owned()),
            ("http", "http://127.0.0.1:1/x".to_owned()),
        ] {
            let _ = write!(
                text,
                "[remote \"{name}\"]\n\turl = {url}\n\tpromisor = true\n\tpartialCloneFilter = blob:none\n\
                 \tuploadpack = {}\n\tproxy = 127.0.0.1:1\n",
                leaves(&format!("uploadpack-{name}"))
            );
        }
        text += "[remote \"vcs\"]\n\tvcs = trap\n\turl = trap\n\tpromisor = true\n";
        for protocol in ["ext", "file", "ssh", "git", "http", "https", "trap"] {
            let _ = write!(text, "[protocol \"{protocol}\"]\n\tallow = always\n");
        }
        text + "[protocol]\n\tallow = always\n"
    }
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).expect("a program");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("an executable program");
}

fn id(root: &Path, name: &str) -> String {
    let output = try_git(root, &["rev-parse", name]);
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Every git on this machine, and each as if it were older than 2.45 and did not know `GIT_NO_LAZY_FETCH`.
fn gits() -> Vec<(String, TempDir)> {
    let path = std::env::var_os("PATH").expect("a search path");
    let mut found: Vec<PathBuf> = std::env::split_paths(&path)
        .map(|folder| folder.join("git"))
        .filter_map(|git| git.is_file().then_some(git)?.canonicalize().ok())
        .collect();
    found.sort();
    found.dedup();
    assert!(!found.is_empty(), "git is installed");
    let mut gits = Vec::new();
    for git in found {
        let (new, old) = (folder(), folder());
        symlink(&git, new.path().join("git")).expect("a link");
        let forgetful = format!(
            "#!/bin/sh\nunset GIT_NO_LAZY_FETCH\nexec '{}' \"$@\"\n",
            git.display()
        );
        executable(&old.path().join("git"), &forgetful);
        gits.push((git.display().to_string(), new));
        gits.push((format!("{}, as an old one", git.display()), old));
    }
    gits
}

/// Arguments of each way to scan a repository, and the finding that it must report.
const WAYS: [(&[&str], &str); 3] = [
    (&["--git", "."], "history.env:1:5: rsc_sk_…"),
    (&["--staged"], "staged.env:2:5: rsc_sk_…"),
    (&["--since", "HEAD~1"], "history.env:1:5: rsc_sk_…"),
];

#[test]
fn no_program_that_a_repository_names_is_run() {
    let trap = Trap::new();
    // The traps are live: git itself walks into some of them.
    for arguments in [
        &["status"][..],
        &["log", "--patch"],
        &["cat-file", "-p", "HEAD:lost.txt"],
    ] {
        try_git(trap.root(), arguments);
    }
    let marks = trap.marks();
    for live in ["fsmonitor", "process", "own-ext", "uploadpack-local"] {
        let is_live = marks.iter().any(|mark| mark.ends_with(live));
        assert!(is_live, "{live} in {marks:?}");
    }
    trap.forget_marks();
    for (name, git) in gits() {
        let folders = [Path::new("."), git.path(), Path::new("")].map(Path::to_owned);
        let here = std::env::split_paths(&std::env::var_os("PATH").expect("a search path"))
            .collect::<Vec<_>>();
        let search = std::env::join_paths(folders.into_iter().chain(here)).expect("a search path");
        for (arguments, found) in WAYS {
            let mut command = program();
            command
                .arg("scan")
                .args(arguments)
                .current_dir(trap.root())
                .env("PATH", &search);
            inherit(&mut command, &trap);
            let output = run(&mut command, b"");
            let said = text(&output);
            assert!(said.contains(found), "{name} {arguments:?}: {said}");
            assert!(
                said.contains("the repository lacks this object"),
                "{name} {arguments:?}: {said}"
            );
            assert!(!said.contains(&trap.key));
            assert_eq!(
                output.status.code(),
                Some(1),
                "{name} {arguments:?}: {said}"
            );
            assert_eq!(
                trap.marks(),
                BTreeSet::new(),
                "{name} {arguments:?}: {said}"
            );
        }
    }
}

/// Sets variables that the environment of a hook, or of a careless shell, may contain.
fn inherit(command: &mut Command, trap: &Trap) {
    for name in [
        "GIT_EXTERNAL_DIFF",
        "GIT_PAGER",
        "GIT_SSH",
        "GIT_SSH_COMMAND",
        "GIT_EDITOR",
        "GIT_SEQUENCE_EDITOR",
        "GIT_ASKPASS",
        "GIT_PROXY_COMMAND",
        "GIT_EXEC_PATH_PROGRAM",
    ] {
        command.env(name, trap.leaves(&format!("environment-{name}")));
    }
    let marks = trap.marks.path().display();
    for name in [
        "GIT_TRACE",
        "GIT_TRACE2",
        "GIT_TRACE2_EVENT",
        "GIT_TRACE_SETUP",
    ] {
        command.env(name, format!("{marks}/mark-environment-trace"));
    }
    command
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "core.fsmonitor")
        .env("GIT_CONFIG_VALUE_0", trap.leaves("environment-config"))
        .env("GIT_CONFIG_PARAMETERS", "'protocol.allow'='always'")
        .env("GIT_ALLOW_PROTOCOL", "ext:file:ssh")
        .env("GIT_EXEC_PATH", trap.marks.path());
}

#[test]
fn a_repository_whose_files_are_elsewhere_is_scanned_where_it_is() {
    let trap = Trap::new();
    let elsewhere = folder();
    write(elsewhere.path(), "innocent", secret().expose());
    git(
        trap.root(),
        &[
            "config",
            "core.worktree",
            &elsewhere.path().display().to_string(),
        ],
    );
    trap.forget_marks();
    for (arguments, found) in WAYS {
        let mut command = program();
        let output = run(
            command.arg("scan").args(arguments).current_dir(trap.root()),
            b"",
        );
        assert!(
            text(&output).contains(found),
            "{arguments:?}: {}",
            text(&output)
        );
        assert_eq!(trap.marks(), BTreeSet::new());
    }
}

#[test]
fn a_bare_repository_among_files_is_read_and_not_obeyed() {
    let trap = Trap::new();
    let embedded = trap.root().join("embedded");
    for arguments in [&["--git", "."][..], &["--staged"], &["--since", "HEAD"]] {
        let mut command = program();
        let output = run(
            command.arg("scan").args(arguments).current_dir(&embedded),
            b"",
        );
        assert_ne!(output.status.code(), Some(1), "{}", text(&output));
        assert_eq!(
            trap.marks(),
            BTreeSet::new(),
            "{arguments:?}: {}",
            text(&output)
        );
    }
}
