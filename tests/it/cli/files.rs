//! Files that commands write.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Binary, Ran};
use crate::scan::secret;
use crate::support::eventually::eventually_blocking;

/// A database with an entry in its log, a leak, and the commands that write a file about them.
fn with_commands() -> (Binary, [&'static str; 3]) {
    let binary = Binary::new();
    let value = binary.run("keys create --user u --description x").ok();
    binary
        .run_with(["keys", "revoke", "--value-stdin"], &value)
        .ok();
    fs::create_dir(binary.path("leaks")).expect("a folder");
    binary.write("leaks/leak.txt", secret().expose());
    let commands = [
        "log export --output",
        "scan leaks --report sarif --output",
        "scan leaks --report jsonl -o",
    ];
    (binary, commands)
}

/// Runs a command that writes to `path`, and returns what it writes to standard output otherwise.
#[track_caller]
fn written(binary: &Binary, command: &str, path: &str) -> String {
    let code = i32::from(command.starts_with("scan"));
    let ran = binary.run(&format!("{command} {path}"));
    assert_eq!((ran.code, ran.stdout.as_str()), (code, ""), "{ran:?}");
    let (without, _) = command.rsplit_once(' ').expect("an option");
    binary.run(without).stdout
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").mode() & 0o7777
}

#[test]
fn a_file_is_replaced_with_its_mode_also_behind_a_link() {
    let (binary, commands) = with_commands();
    for command in commands {
        let file = binary.write("out.txt", "before");
        fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("a mode");
        let expected = written(&binary, command, "out.txt");
        assert!(expected.len() > 100, "{expected}");
        assert_eq!(fs::read_to_string(&file).expect("text"), expected);
        assert_eq!(mode(&file), 0o644);

        fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("a mode");
        let _ = fs::remove_file(binary.path("link"));
        symlink("out.txt", binary.path("link")).expect("a link");
        written(&binary, command, "link");
        let link = fs::symlink_metadata(binary.path("link")).expect("a link");
        assert!(link.is_symlink());
        assert_eq!(
            (fs::read_to_string(&file).expect("text"), mode(&file)),
            (expected, 0o640)
        );

        // A link to what is not there yet, and a new file, whose mode is that of any other.
        let _ = fs::remove_file(&file);
        written(&binary, command, "link");
        let any = binary.write("any", "");
        assert_eq!(mode(&file), mode(&any));
        assert!(binary.path("link").is_symlink());
    }
    let names = fs::read_dir(binary.folder()).expect("the folder").count();
    assert_eq!(
        names, 5,
        "data, leaks, out.txt, link and any: nothing is left behind"
    );
}

#[test]
fn a_pipe_is_written_to() {
    let (binary, commands) = with_commands();
    let pipe = binary.path("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    for command in commands {
        let path = pipe.clone();
        let reader = std::thread::spawn(move || fs::read_to_string(path).expect("text"));
        let expected = written(&binary, command, "pipe");
        let kind = fs::metadata(&pipe).expect("the pipe").file_type();
        assert!(kind.is_fifo(), "{kind:?}");
        assert_eq!(reader.join().expect("a reader"), expected);
    }
}

#[test]
fn a_device_is_written_to_and_stays_one() {
    let (binary, commands) = with_commands();
    let is_device = |path: &str| {
        let kind = fs::symlink_metadata(path).expect("the device").file_type();
        kind.is_char_device()
    };
    symlink("/dev/null", binary.path("null")).expect("a link");
    for command in commands {
        // Through a link first: what replaces things replaces the link and spares the device.
        written(&binary, command, "null");
        assert!(binary.path("null").is_symlink());
        written(&binary, command, "/dev/null");
        assert!(is_device("/dev/null"));
        let full = binary.run(&format!("{command} /dev/full"));
        full.fails(3, &["cannot write /dev/full", "No space left"]);
        assert!(
            is_device("/dev/full") && !full.stderr.contains("standard output"),
            "{full:?}"
        );
        let shown = binary.run(&format!("{command} /dev/stdout"));
        let (without, _) = command.rsplit_once(' ').expect("an option");
        assert_eq!(shown.stdout, binary.run(without).stdout);
    }
}

#[test]
fn what_cannot_be_written_is_named_and_left_as_it_was() {
    let (binary, commands) = with_commands();
    for command in commands {
        for path in ["nowhere/out.txt", "leaks", "/proc/rescind.txt"] {
            let ran = binary.run(&format!("{command} {path}"));
            ran.fails(2, &["cannot write", path]);
        }
    }
    let before = binary.write("out.txt", "before");
    // A scan that fails has a report that says so; an export that fails leaves what was there.
    binary.write("config.toml", "[database]\nurl = \"sqlite://gone.db\"\n");
    binary
        .run("log export --output out.txt")
        .fails(3, &["gone.db"]);
    assert_eq!(fs::read_to_string(before).expect("text"), "before");
}

#[test]
fn in_a_folder_that_is_read_only_nothing_is_made_and_a_file_is_written_to() {
    let (binary, commands) = with_commands();
    let folder = binary.path("closed");
    fs::create_dir(&folder).expect("a folder");
    let file = binary.write("closed/there.txt", "before");
    let own = fs::metadata(&file).expect("a file");
    // Root may write anywhere, so that the binary is run as somebody else.
    let other = (own.uid() == 0).then_some(65_534);
    let everything = Command::new("chmod")
        .args(["-R", "a+rwX"])
        .arg(binary.folder())
        .status();
    assert!(everything.expect("chmod").success());
    fs::set_permissions(&folder, Permissions::from_mode(0o555)).expect("a mode");
    for command in commands {
        let run = |path: &str| {
            let line = format!("{command} {path}");
            let mut command = binary.command(line.split(' '));
            if let Some(other) = other {
                command.uid(other).gid(other);
            }
            Ran::from(command.output().expect("the binary runs"))
        };
        run("closed/new.txt").fails(2, &["cannot write closed/new.txt", "Permission denied"]);
        let code = i32::from(command.starts_with("scan"));
        fs::write(&file, "before".repeat(10_000)).expect("written");
        run("closed/there.txt").fails(code, &[]);
        let (without, _) = command.rsplit_once(' ').expect("an option");
        assert_eq!(
            fs::read_to_string(&file).expect("text"),
            binary.run(without).stdout
        );
        let now = fs::metadata(&file).expect("a file");
        assert_eq!(
            (now.ino(), now.uid(), mode(&file)),
            (own.ino(), own.uid(), 0o666)
        );
    }
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("a mode");
}

/// Whoever runs the export as the daemon's user may write all of them.
#[test]
fn no_output_takes_the_place_of_the_key_store_or_its_configuration() {
    let (binary, commands) = with_commands();
    binary.write("config.toml", "[server]\nbind = \"127.0.0.1:0\"\n");
    symlink("data/rescind.db", binary.path("link")).expect("a link");
    fs::hard_link(binary.path("data/rescind.db"), binary.path("other-name")).expect("a link");
    let kept = ["config.toml", "data/rescind.db", "data/rescind.db.id"];
    let contents = || kept.map(|name| fs::read(binary.path(name)).expect("a file"));
    let before = contents();
    for command in commands.into_iter().chain(["backup --force"]) {
        for (path, what) in [
            ("config.toml", "the configuration file"),
            ("data/rescind.db", "the database itself"),
            ("link", "the database itself"),
            ("other-name", "the database itself"),
            ("leaks/../data/rescind.db", "the database itself"),
            ("data/rescind.db-wal", "the write-ahead log"),
            ("leaks/../data/rescind.db-shm", "the shared memory"),
            ("data/rescind.db-journal", "the journal"),
            ("data/rescind.db.id", "the identity"),
            ("data/rescind.db.admin-token", "the first access token"),
        ] {
            let ran = binary.run(&format!("{command} {path}"));
            ran.fails(2, &["cannot write", path, what]);
        }
    }
    assert!(contents() == before);
    // Of a store that is elsewhere, by a file that is elsewhere.
    binary.write(
        "other.toml",
        "[database]\nurl = \"sqlite://elsewhere.db\"\n",
    );
    for (path, what) in [
        ("elsewhere.db", "the database"),
        ("other.toml", "the configuration"),
    ] {
        let line = format!("--config other.toml scan leaks --output {path}");
        binary.run(&line).fails(2, &[path, what]);
    }
    binary
        .run("--config other.toml scan leaks --output config.toml")
        .fails(1, &[]);
}

#[test]
fn standard_output_is_written_through_to_whatever_it_is() {
    let (binary, commands) = with_commands();
    for command in commands {
        let (without, _) = command.rsplit_once(' ').expect("an option");
        let expected = binary.run(without).stdout;
        assert_eq!(binary.run(&format!("{command} -")).stdout, expected);
        assert!(!binary.path("-").exists());
        for path in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
            let file = binary.write("out.txt", "before\n");
            let inode = fs::metadata(&file).expect("a file").ino();
            let mut to = fs::OpenOptions::new()
                .append(true)
                .open(&file)
                .expect("a file");
            let line = format!("{command} {path}");
            let mut command = binary.command(line.split(' '));
            let ran = command.stdout(to.try_clone().expect("a file")).output();
            let code = i32::from(line.starts_with("scan"));
            assert_eq!(
                ran.expect("the binary runs").status.code(),
                Some(code),
                "{line}"
            );
            std::io::Write::write_all(&mut to, b"after\n").expect("written");
            let text = fs::read_to_string(&file).expect("text");
            assert_eq!(text, format!("before\n{expected}after\n"), "{line}");
            assert_eq!(fs::metadata(&file).expect("a file").ino(), inode);
        }
    }
}

#[test]
fn what_an_interrupted_command_has_written_goes_at_once_or_with_the_next() {
    let binary = Binary::new();
    let hidden = || {
        let names = fs::read_dir(binary.folder()).expect("the folder");
        let mut names = names.map(|entry| {
            entry
                .expect("a file")
                .file_name()
                .into_string()
                .expect("UTF-8")
        });
        names.find(|name| name.starts_with(".out.txt.") && name.ends_with(".rescind-tmp"))
    };
    binary.write("out.txt", "before");
    let interrupted = |signal: &str| {
        // It waits for more of its input.
        let child = binary
            .command(["scan", "--output", "out.txt", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.expect("the binary starts");
        let input = child.stdin.take();
        eventually_blocking("the file is being written", hidden);
        let kill = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(kill.expect("kill runs").success());
        let ended = child.wait_with_output().expect("it ends");
        drop(input);
        Ran::from(ended)
    };
    for signal in ["-TERM", "-INT"] {
        interrupted(signal).fails(3, &["interrupted", "not written"]);
        assert_eq!(hidden(), None);
    }
    interrupted("-KILL");
    assert!(hidden().is_some());
    let text = || fs::read_to_string(binary.path("out.txt")).expect("text");
    assert_eq!(text(), "before");
    binary
        .run_with(["scan", "--output", "out.txt", "-"], "nothing")
        .ok();
    assert_eq!(hidden(), None);
    assert_ne!(text(), "before");
}
