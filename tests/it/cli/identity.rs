//! A store that was there and is not any more: nothing makes a new one in its place.

use std::fs;

use super::Binary;
use crate::support::databases::{Kind, TestDatabase};

const CREATE: &str = "keys create --user u --description x";

/// Commands that make a store where there is none.
const MAKING: [&str; 5] = [
    CREATE,
    "tokens create --role admin",
    "keys import keys.csv",
    "migrate",
    "serve",
];

/// Commands that only read.
const READING: [&str; 3] = ["keys list", "log verify", "sources status"];

fn binary() -> Binary {
    let binary = Binary::new().with("RESCIND__SERVER__BIND", "127.0.0.1:0");
    binary.write("keys.csv", "sha256,owner_type,owner_id\n");
    binary
}

/// A folder with a store that has a key.
fn with_a_store() -> Binary {
    let binary = binary();
    binary.run(CREATE).ok();
    assert!(binary.path("data/rescind.db.id").exists());
    binary
}

#[track_caller]
fn is_refused(binary: &Binary, said: &[&str]) {
    let folder = binary.folder().canonicalize().expect("a folder");
    let file = folder.join("data/rescind.db").display().to_string();
    for line in MAKING.iter().chain(&READING) {
        let ran = binary.run(line);
        let said = [&[file.as_str(), "nothing was changed"], said].concat();
        ran.fails(3, &said);
        assert_eq!(ran.stdout, "", "{line}");
    }
    let doctor = binary.run("doctor");
    assert_ne!(doctor.code, 0, "{doctor:?}");
    assert!(doctor.stdout.contains(said[0]), "{doctor:?}");
}

#[test]
fn a_database_that_went_away_is_not_made_anew() {
    let binary = with_a_store();
    fs::remove_file(binary.path("data/rescind.db")).unwrap();
    is_refused(
        &binary,
        &[
            "rescind.db.id says that there was one",
            "--init",
            "rescind restore",
        ],
    );
    assert!(!binary.path("data/rescind.db").exists());
    // Emptied is as good as gone.
    fs::write(binary.path("data/rescind.db"), "").unwrap();
    is_refused(&binary, &["rescind.db.id says that there was one"]);
    let again = binary.run("keys create --user u --description x --init");
    assert!(
        again.stderr.contains("a new database was made"),
        "{again:?}"
    );
    again.ok();
    assert_eq!(binary.run("keys list --json").ok().lines().count(), 1);
    binary.run(CREATE).ok();
}

#[test]
fn files_of_a_database_without_it_are_not_taken_for_a_new_one() {
    for end in ["-wal", "-shm"] {
        let binary = binary();
        fs::create_dir(binary.path("data")).unwrap();
        let left = binary.path(&format!("data/rescind.db{end}"));
        fs::write(&left, "what was written last").unwrap();
        let name = format!("rescind.db{end}");
        is_refused(&binary, &[&name, "would be lost", "--init"]);
        assert_eq!(fs::read_to_string(&left).unwrap(), "what was written last");
        binary.run("migrate --init").ok();
        let aside = binary.path(&format!("data/rescind.db{end}.replaced-1"));
        assert_eq!(fs::read_to_string(aside).unwrap(), "what was written last");
    }
}

/// Everything may still be in the write-ahead log.
#[test]
fn a_copy_without_its_log_is_no_empty_store() {
    let whole = binary();
    let mut daemon = crate::serve::Daemon::begin(&whole);
    daemon.wait_until_it_listens();
    let file = whole.path("data/rescind.db");
    let copied = fs::read(&file).unwrap();
    assert!(
        fs::metadata(whole.path("data/rescind.db-wal"))
            .unwrap()
            .len()
            > copied.len() as u64
    );
    // Elsewhere, where nothing says that there was a store.
    let elsewhere = binary();
    fs::create_dir(elsewhere.path("data")).unwrap();
    fs::write(elsewhere.path("data/rescind.db"), &copied).unwrap();
    is_refused(&elsewhere, &["holds no tables", "-wal", "--init"]);
    elsewhere.run("migrate --init").ok();
    elsewhere.run(CREATE).ok();
    // In its own place.
    daemon.signal("KILL");
    daemon.wait();
    for end in ["-wal", "-shm"] {
        fs::remove_file(whole.path(&format!("data/rescind.db{end}"))).unwrap();
    }
    is_refused(&whole, &["holds no tables", "-wal", "--init"]);
}

#[test]
fn another_store_in_the_place_of_one_is_noticed() {
    let (one, other) = (with_a_store(), with_a_store());
    let file = |binary: &Binary| binary.path("data/rescind.db");
    fs::copy(file(&other), file(&one)).unwrap();
    is_refused(
        &one,
        &[
            "another database was put in its place",
            "rescind.db.id away",
        ],
    );
    fs::remove_file(one.path("data/rescind.db.id")).unwrap();
    one.run("keys list").ok();
    let ids = [&one, &other].map(|binary| fs::read(binary.path("data/rescind.db.id")).unwrap());
    assert_eq!(ids[0], ids[1]);
    // A copy of the same store, an older state of it, goes with what is noted.
    let kept = fs::read(file(&one)).unwrap();
    one.run(CREATE).ok();
    fs::write(file(&one), kept).unwrap();
    assert_eq!(one.run("keys list --json").ok().lines().count(), 1);
}

#[test]
fn an_empty_file_without_a_note_is_a_new_store() {
    let binary = binary();
    fs::create_dir(binary.path("data")).unwrap();
    fs::write(binary.path("data/rescind.db"), "").unwrap();
    // Somebody looks before anything is made.
    binary.run("keys list").fails(3, &["rescind migrate"]);
    let made = binary.run(CREATE);
    assert!(made.stderr.contains("a new database was made"), "{made:?}");
    made.ok();
    assert_eq!(binary.run("keys list --json").ok().lines().count(), 1);
}

#[test]
fn a_new_store_on_a_server_is_announced_without_the_password() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(TestDatabase::new(Kind::Postgres));
    let binary = binary().with("RESCIND__DATABASE__URL", &database.url);
    let name = database.url.rsplit('/').next().unwrap();
    let made = binary.run("migrate");
    assert!(made.stderr.contains("a new database was made"), "{made:?}");
    assert!(made.stderr.contains(name), "{made:?}");
    made.ok();
    assert!(!binary.run(CREATE).stderr.contains("new database"));
    // Its first token is in the folder of data, or where the service manager says.
    let mut command = binary.command(["serve"]);
    command.env("STATE_DIRECTORY", binary.path("state"));
    runtime.block_on(async { database.run("DELETE FROM tokens").await.unwrap() });
    let ended = crate::serve::Daemon::start_as(command).stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let token = fs::read_to_string(binary.path("state/rescind.admin-token")).unwrap();
    assert!(token.starts_with("rsc_sk_"), "{token}");
    runtime.block_on(database.remove());
}
