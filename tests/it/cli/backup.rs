//! Backups are made while the daemon works, and put back while it does not.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::Binary;
use crate::serve::Daemon;
use crate::support::databases::{Kind, TestDatabase};

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
        .fails(3, &["nowhere/copy.db"]);
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

        let line = if applied {
            "restore --apply copy.db"
        } else {
            "restore copy.db"
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
fn what_is_no_regular_file_is_not_replaced() {
    let binary = Binary::new();
    binary.run("migrate").ok();
    std::fs::create_dir(binary.path("folder")).expect("a folder");
    std::fs::write(binary.path("file"), "kept").expect("a file");
    std::os::unix::fs::symlink("file", binary.path("link")).expect("a link");
    for name in ["folder", "link"] {
        let ran = binary.run(&format!("backup --force {name}"));
        ran.fails(2, &["is no regular file"]);
    }
    let link = std::fs::symlink_metadata(binary.path("link")).expect("the link");
    assert!(link.is_symlink());
    assert_eq!(
        std::fs::read_to_string(binary.path("file")).expect("the file"),
        "kept"
    );
}
