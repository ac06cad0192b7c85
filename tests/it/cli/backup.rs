//! Backups are made while the daemon works, and put back while it does not.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::Binary;
use crate::serve::Daemon;
use crate::support::databases::{Kind, TestDatabase};
use crate::support::eventually::eventually_blocking;

const CREATE: &str = "keys create --user u --description x";

fn binary() -> Binary {
    Binary::new().with("RESCIND__SERVER__BIND", "127.0.0.1:0")
}

fn ids(binary: &Binary) -> Vec<String> {
    let keys = binary.run("keys list --json").ok();
    let keys = keys
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    keys.map(|key| key["id"].as_str().unwrap().to_owned())
        .collect()
}

fn is_valid(binary: &Binary, value: &str) -> bool {
    binary.run_with(["keys", "check"], value).code == 0
}

#[test]
fn a_backup_of_a_running_daemon_is_whole_and_examined() {
    let binary = binary();
    let key = binary.run(CREATE).ok();
    let daemon = Daemon::start(&binary, &["serve"]);
    let token = fs::read_to_string(binary.path("data/rescind.db.admin-token")).unwrap();
    let body = r#"{"user_id":"v","description":"x","expires_at_millis":null}"#;
    // Only in the write-ahead log.
    let (status, said) = daemon.post("/api/v1/user-api-keys", Some(token.trim()), body);
    assert_eq!(status, 200, "{said}");
    let said = binary.run("backup copy.db").ok();
    assert!(
        said.contains("2 keys") && said.contains("is sound"),
        "{said}"
    );
    let mode = fs::metadata(binary.path("copy.db")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let before = fs::read(binary.path("copy.db")).unwrap();
    binary
        .run("backup copy.db")
        .fails(2, &["copy.db exists", "--force"]);
    assert_eq!(fs::read(binary.path("copy.db")).unwrap(), before);
    binary.run("backup --force copy.db").ok();
    binary
        .run("backup --force data/rescind.db")
        .fails(2, &["the database itself"]);
    binary
        .run("backup nowhere/copy.db")
        .fails(2, &["cannot write nowhere/copy.db"]);
    assert_eq!(daemon.stop().code, Some(0));
    let left = fs::read_dir(binary.folder()).unwrap();
    let left: BTreeSet<String> = left
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, ["copy.db", "data"].map(str::to_owned).into());

    // Elsewhere it is the same store.
    let other = self::binary();
    other
        .run(&format!("restore {}", binary.path("copy.db").display()))
        .ok();
    assert!(is_valid(&other, &key));
    assert_eq!(ids(&other).len(), 2);
}

#[test]
fn what_was_revoked_since_is_told_and_revoked_again() {
    for applied in [false, true] {
        let binary = binary();
        let keys: Vec<String> = (0..3).map(|_| binary.run(CREATE).ok()).collect();
        let all = ids(&binary);
        let token = binary.run("tokens create --role viewer").ok();
        let tokens = binary.run("tokens list --json").ok();
        let token_id: Value = serde_json::from_str(tokens.lines().next().unwrap()).unwrap();
        let token_id = token_id["id"].as_str().unwrap();
        // Revoked before the backup, and not to be told.
        binary.run(&format!("keys revoke {}", all[0])).ok();
        binary.run("backup copy.db").ok();
        binary.run(&format!("keys revoke {}", all[1])).ok();
        binary
            .run(&format!("keys rotate {} --overlap 0s", all[2]))
            .ok();
        binary.run(&format!("tokens revoke {token_id}")).ok();

        // The successor of the rotated key is not in the backup.
        let line = if applied {
            "restore --force --apply copy.db"
        } else {
            "restore --force copy.db"
        };
        let ran = binary.run(line);
        for said in [
            "rescind.db.replaced-1",
            "VALID AGAIN",
            "revocations-not-in-the-backup-",
        ] {
            assert!(ran.stderr.contains(said), "{said}: {ran:?}");
        }
        let rotated = format!("rescind keys rotate {} --overlap 0s", all[2]);
        let mut commands = vec![rotated];
        if !applied {
            commands.push(format!("rescind keys revoke {}", all[1]));
            commands.push(format!("rescind tokens revoke {token_id}"));
        }
        let told: BTreeSet<String> = ran
            .ok()
            .lines()
            .map(|line| line.split("  #").next().unwrap().to_owned())
            .collect();
        assert_eq!(told, commands.into_iter().collect());
        let newer = fs::read_dir(binary.path("data"))
            .unwrap()
            .map(|file| file.unwrap().path());
        let newer: Vec<_> = newer
            .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
            .collect();
        let entries = fs::read_to_string(&newer[0]).unwrap();
        assert_eq!((newer.len(), entries.lines().count()), (1, 2), "{entries}");
        let valid: Vec<bool> = keys.iter().map(|key| is_valid(&binary, key)).collect();
        // The newest is listed first.
        let of = |id: usize| keys.len() - 1 - id;
        assert!(!valid[of(0)] && valid[of(2)]);
        assert_eq!(valid[of(1)], !applied);
        let listed = binary.run("tokens list --json").ok();
        assert_eq!(listed.contains("revoked_at"), applied, "{listed} {token}");
        binary.run("log verify").ok();
        // The replaced one is whole, and can be put back in turn.
        binary
            .run("restore --force data/rescind.db.replaced-1")
            .ok();
        assert!(!is_valid(&binary, &keys[of(1)]));
    }
}

#[test]
fn only_sound_backups_are_put_back_and_only_while_nobody_uses_the_database() {
    let binary = binary();
    let key = binary.run(CREATE).ok();
    binary.run("backup copy.db").ok();
    let daemon = Daemon::start(&binary, &["serve"]);
    let process = format!("process {}", daemon.id());
    binary
        .run("restore copy.db")
        .fails(3, &[&process, "stop it", "nothing was changed"]);
    assert_eq!(daemon.get("/readyz", None).0, 200);
    daemon.stop();

    let whole = fs::read(binary.path("copy.db")).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle..].fill(0x5a);
    binary.write("damaged.db", &damaged);
    binary.write("text.db", "milk, eggs, bread\n".repeat(1000));
    binary.write("empty.db", "");
    for (file, said) in [
        ("damaged.db", "damaged"),
        ("text.db", "no database"),
        ("empty.db", "missing or empty"),
        ("nowhere.db", "missing or empty"),
        ("data/rescind.db", "the database itself"),
    ] {
        binary
            .run(&format!("restore {file}"))
            .fails(2, &[file, said]);
    }
    // One that a newer program migrated.
    let sql = |file: &str, sql: &str| {
        let ran = std::process::Command::new("sqlite3")
            .arg(binary.path(file))
            .arg(sql)
            .status();
        assert!(ran.expect("sqlite3 runs").success());
    };
    binary.write("newer.db", &whole);
    sql(
        "newer.db",
        "INSERT INTO _sqlx_migrations VALUES (9999, 'future', '2030-01-01', 1, x'00', 0)",
    );
    binary.run("restore newer.db").fails(2, &["9999", "newer"]);
    // One that was copied without its log.
    binary.write("torn.db", &whole);
    sql("torn.db", "DROP TABLE log_head");
    binary
        .run("restore torn.db")
        .fails(2, &["without its -wal"]);
    // One of another store.
    let other = self::binary();
    other.run(CREATE).ok();
    let id = ids(&other).remove(0);
    other.run(&format!("keys revoke {id}")).ok();
    other.run("backup copy.db").ok();
    let foreign = other.path("copy.db").display().to_string();
    binary
        .run(&format!("restore {foreign}"))
        .fails(2, &["no former state", "--force"]);
    assert!(is_valid(&binary, &key), "nothing was changed");
    let files = fs::read_dir(binary.path("data")).unwrap().count();
    assert_eq!(files, 3, "the database, its identity and the first token");
    binary.run(&format!("restore --force {foreign}")).ok();
    assert_eq!(ids(&binary), [id]);
}

/// SQLite takes what it finds in a log that is left over for changes of the copy.
#[test]
fn what_a_killed_daemon_left_goes_with_the_replaced_database() {
    let binary = binary();
    let key = binary.run(CREATE).ok();
    binary.run("backup copy.db").ok();
    let daemon = Daemon::start(&binary, &["serve"]);
    let report = format!(r#"{{"api_key":"{}"}}"#, key.trim());
    let path = "/api/v1/integrations/credential-scanning/revoke";
    assert_eq!(daemon.post(path, None, &report).0, 200);
    daemon.signal("KILL");
    daemon.wait();
    // Damaged, so that nothing can be read of it.
    let file = binary.path("data/rescind.db");
    let size = fs::metadata(&file).unwrap().len();
    fs::write(&file, vec![0x5a; usize::try_from(size).unwrap()]).unwrap();
    let ran = binary.run("restore copy.db");
    assert!(ran.stderr.contains("cannot be read"), "{ran:?}");
    ran.ok();
    assert!(is_valid(&binary, &key));
    binary.run("log verify").ok();
    assert!(binary.path("data/rescind.db.replaced-1").exists());
}

#[test]
fn what_lay_beside_the_place_of_a_database_that_is_gone_is_kept_and_named() {
    let binary = binary();
    binary.run(CREATE).ok();
    binary.run("backup copy.db").ok();
    for file in ["rescind.db", "rescind.db-wal", "rescind.db-shm"] {
        let _ = fs::remove_file(binary.path(&format!("data/{file}")));
    }
    binary.write("data/rescind.db-wal", "what is left");
    let ran = binary.run("restore copy.db");
    assert!(
        ran.stderr.contains("there was no database")
            && ran.stderr.contains("rescind.db.replaced-1-wal")
            && !ran.stderr.contains("replaced database"),
        "{ran:?}"
    );
    ran.ok();
    assert!(binary.path("data/rescind.db.replaced-1-wal").exists());
    assert!(!binary.path("data/rescind.db.replaced-1").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_on_a_server_has_tools_of_its_own() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let binary = binary().with("RESCIND__DATABASE__URL", &database.url);
    binary.run("migrate").ok();
    let name = database.url.rsplit('/').next().unwrap();
    binary
        .run("backup copy.dump")
        .fails(2, &["pg_dump --format=custom --file='copy.dump'", name]);
    binary
        .run("restore copy.dump")
        .fails(2, &["pg_restore --single-transaction", name]);
    database.remove().await;
}

/// Run by the superuser, it would otherwise replace a device that everybody uses.
#[test]
fn what_is_no_regular_file_is_not_replaced_and_a_link_is_followed() {
    let binary = Binary::new();
    binary.run("migrate").ok();
    fs::create_dir(binary.path("folder")).expect("a folder");
    for (name, said) in [
        ("folder", "directory"),
        ("/dev/null", "no regular file"),
        ("/dev/stdout", "no regular file"),
    ] {
        let ran = binary.run(&format!("backup --force {name}"));
        ran.fails(2, &["cannot write", name, said]);
    }
    binary.run("backup -").fails(2, &["standard output"]);
    binary.write("file", "replaced");
    std::os::unix::fs::symlink("file", binary.path("link")).expect("a link");
    binary.run("backup link").fails(2, &["link exists"]);
    binary.run("backup --force link").ok();
    let link = fs::symlink_metadata(binary.path("link")).expect("the link");
    assert!(link.is_symlink());
    let file = fs::read(binary.path("file")).expect("the file");
    assert!(file.starts_with(b"SQLite format 3"));
}

#[test]
fn a_backup_that_replaces_another_file_keeps_its_owner_and_mode_but_for_everybody() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let binary = Binary::new();
    binary.run("migrate").ok();
    for (before, after) in [(0o640, 0o640), (0o644, 0o640), (0o400, 0o400)] {
        let file = binary.write("file", "replaced");
        fs::set_permissions(&file, fs::Permissions::from_mode(before)).expect("a mode");
        // Only the superuser may give a file away.
        let is_given = chown(&file, Some(4321), Some(1234)).is_ok();
        let was = fs::metadata(&file).expect("a file");
        let ran = binary.run("backup --force file");
        assert_eq!(
            (ran.code, ran.stderr.contains("yours now")),
            (0, false),
            "{ran:?}"
        );
        let is = fs::metadata(&file).expect("a file");
        assert_eq!(is.mode() & 0o777, after, "{before:o}");
        assert_eq!((is.uid(), is.gid()), (was.uid(), was.gid()), "{is_given}");
        fs::remove_file(&file).expect("a file");
    }
}

/// SQLite takes a log that lies beside a file for a part of it, whatever it is of.
#[test]
fn what_lies_beside_a_backup_is_never_taken_for_a_part_of_it() {
    let binary = binary();
    let daemon = Daemon::start(&binary, &["serve"]);
    let keys: Vec<String> = (0..3).map(|_| binary.run(CREATE).ok()).collect();
    fs::copy(binary.path("data/rescind.db"), binary.path("copy.db")).unwrap();
    let stale = fs::read(binary.path("data/rescind.db-wal")).unwrap();
    assert!(!stale.is_empty());
    binary.write("copy.db-wal", &stale);
    binary
        .run_with(["keys", "revoke", "--value-stdin"], &keys[0])
        .ok();

    // A copy by hand, of which both files are a part.
    let both = binary.run("backup --force copy.db");
    both.fails(2, &["copy.db-wal", "cannot be replaced at once"]);
    assert_eq!(fs::read(binary.path("copy.db-wal")).unwrap(), stale);
    fs::remove_file(binary.path("copy.db")).unwrap();
    for end in ["-wal", "-shm", "-journal"] {
        let left = format!("copy.db{end}");
        binary.write(&left, &stale);
        binary.run("backup copy.db").fails(2, &[&left, "--force"]);
        assert!(!binary.path("copy.db").exists());
        binary.run("backup --force copy.db").ok();
        assert!(!binary.path(&left).exists());
        fs::remove_file(binary.path("copy.db")).unwrap();
    }

    binary.run("backup copy.db").ok();
    daemon.stop();
    // Written there later, by whatever.
    binary.write("copy.db-wal", &stale);
    let other = self::binary();
    let ran = other.run(&format!("restore {}", binary.path("copy.db").display()));
    assert!(ran.stderr.contains("left aside"), "{ran:?}");
    ran.ok();
    assert_eq!(ids(&other).len(), 3);
    let valid: Vec<bool> = keys.iter().map(|key| is_valid(&other, key)).collect();
    assert_eq!(valid, [false, true, true], "revoked before the backup");
    other.run("log verify").ok();
}

#[test]
fn a_copy_by_hand_is_put_back_with_its_log() {
    let binary = binary();
    let daemon = Daemon::start(&binary, &["serve"]);
    let key = binary.run(CREATE).ok();
    for end in ["", "-wal"] {
        let from = binary.path(&format!("data/rescind.db{end}"));
        fs::copy(from, binary.path(&format!("copy.db{end}"))).unwrap();
    }
    daemon.stop();
    let other = self::binary();
    let ran = other.run(&format!("restore {}", binary.path("copy.db").display()));
    assert!(!ran.stderr.contains("left aside"), "{ran:?}");
    ran.ok();
    assert!(is_valid(&other, &key));
}

/// Nobody would notice their leak.
#[test]
fn keys_that_were_issued_since_are_named_and_not_forgotten_by_mistake() {
    let binary = binary();
    binary.run(CREATE).ok();
    let old = ids(&binary).remove(0);
    binary.run("backup copy.db").ok();
    let values: Vec<String> = (0..22).map(|_| binary.run(CREATE).ok()).collect();
    binary.run("tokens create --role viewer").ok();
    let newest = &ids(&binary)[..22];
    let before = fs::read(binary.path("data/rescind.db")).unwrap();
    let refused = binary.run("restore copy.db");
    let value = values[0].trim();
    let first = format!("{} (…{})", newest[21], &value[value.len() - 4..]);
    let said = [
        "lacks",
        "22 keys",
        &first,
        &newest[2],
        "and 2 more",
        "1 access tokens",
        "reaches until 2",
        "--force",
        "nothing was changed",
    ];
    refused.fails(2, &said);
    for unsaid in [&newest[0], &newest[1], &old] {
        assert!(!refused.stderr.contains(unsaid.as_str()), "{refused:?}");
    }
    assert_eq!(
        fs::read(binary.path("data/rescind.db")).unwrap(),
        before,
        "nothing was changed"
    );
    assert!(!binary.path("data/rescind.db.replaced-1").exists());

    let told = binary.run("restore --force --json copy.db");
    told.fails(0, &["not known any more", &first]);
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    let forgotten = &told["forgotten"];
    assert_eq!(
        (&forgotten["keys"], &forgotten["tokens"]),
        (&22.into(), &1.into())
    );
    assert_eq!(forgotten["first_keys"].as_array().unwrap().len(), 20);
    assert_eq!(forgotten["first_keys"][0]["id"], newest[21].as_str());
    assert_eq!(ids(&binary), [old]);

    // There is nothing to compare with: until when it reaches is what can be told.
    let other = self::binary();
    let told = other.run(&format!(
        "restore --json {}",
        binary.path("copy.db").display()
    ));
    told.fails(0, &["the backup reaches until 2"]);
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told["forgotten"], Value::Null);
    let reaches = &told["reaches"];
    assert!(reaches["newest_key_at"].is_string(), "{told}");
    assert_eq!(reaches["last_log_entry_at"], Value::Null, "{told}");
}

#[test]
fn a_backup_or_restore_that_is_interrupted_leaves_no_copy() {
    let binary = binary();
    binary.run(CREATE).ok();
    let made = std::process::Command::new("sqlite3")
        .arg(binary.path("data/rescind.db"))
        .arg("CREATE TABLE ballast (x); WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 96)
            INSERT INTO ballast SELECT randomblob(1000000) FROM n;")
        .status();
    assert!(made.expect("sqlite3 runs").success());
    let names = |folder: &str| {
        let names = fs::read_dir(binary.path(folder)).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<BTreeSet<String>>()
    };
    binary.run("backup whole.db").ok();
    fs::create_dir(binary.path("backups")).unwrap();
    let before = names("data");
    for (line, folder, signal) in [
        ("backup backups/copy.db", "backups", "TERM"),
        ("backup backups/copy.db", "backups", "INT"),
        ("restore whole.db", "data", "TERM"),
    ] {
        let mut command = binary.command(line.split(' '));
        let command = command
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null());
        let child = command.spawn().expect("the binary starts");
        let copy = eventually_blocking("the copy is being made", || {
            names(folder)
                .into_iter()
                .find(|name| name.ends_with(".rescind-tmp"))
        });
        assert!(copy.starts_with(if folder == "data" {
            ".rescind.db."
        } else {
            ".copy.db."
        }));
        let kill = std::process::Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(child.id().to_string())
            .status();
        assert!(kill.expect("kill runs").success());
        let ended = super::Ran::from(child.wait_with_output().expect("it ends"));
        ended.fails(3, &["interrupted"]);
        let left = names(folder);
        assert!(
            !left.iter().any(|name| name.contains("rescind-tmp")),
            "{line}: {left:?}"
        );
    }
    assert_eq!(names("backups"), BTreeSet::new());
    let left = names("data");
    assert!(before.is_subset(&left), "{left:?}");
    assert_eq!(ids(&binary).len(), 1);
}

/// Else nothing but the replaced database says which leaked keys are valid again.
#[test]
fn a_restore_that_is_interrupted_once_the_database_is_replaced_still_tells_what_is_valid_again() {
    // More lines than a pipe holds that nobody reads yet.
    const KEYS: usize = 2_000;
    let binary = binary();
    let rows: Vec<String> = (0..KEYS)
        .map(|n| format!("{n:064x},user,u{n},imported"))
        .collect();
    let head = "sha256,owner_type,owner_id,description";
    binary.write("keys.csv", format!("{head}\n{}\n", rows.join("\n")));
    binary.run("keys import keys.csv").ok();
    binary.run("backup copy.db").ok();
    let revoked = std::process::Command::new("sqlite3")
        .arg(binary.path("data/rescind.db"))
        .arg("UPDATE keys SET revoked_at = created_at + 1")
        .status();
    assert!(revoked.expect("sqlite3 runs").success());
    let child = binary
        .command(["restore", "copy.db"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let mut child = child.expect("the binary starts");
    let said = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut said = said.lines().map(|line| line.expect("UTF-8"));
    assert!(said.any(|line| line.contains("VALID AGAIN")));
    for signal in ["-TERM", "-INT"] {
        let kill = std::process::Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(kill.expect("kill runs").success());
    }
    let mut told = String::new();
    let mut output = child.stdout.take().expect("a pipe");
    output.read_to_string(&mut told).expect("UTF-8");
    assert_eq!(told.lines().count(), KEYS);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}
