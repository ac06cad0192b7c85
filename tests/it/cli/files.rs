//! Files that commands write.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use super::{Binary, Ran};
use crate::scan::secret;

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
