//! The file of SQLite by itself, as people copy it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::cli::Binary;
use crate::serve::Daemon;

/// A binary whose database is `data/rescind.db`.
fn in_data() -> Binary {
    let binary = Binary::new();
    let url = format!("sqlite://{}", binary.path("data/rescind.db").display());
    binary.with("RESCIND__DATABASE__URL", &url)
}

/// Another one, with a copy of the file alone.
fn copy_of(binary: &Binary) -> Binary {
    let copy = in_data();
    fs::create_dir(copy.path("data")).unwrap();
    let file = "data/rescind.db";
    fs::copy(binary.path(file), copy.path(file)).unwrap();
    copy
}

/// A request of a stranger whose body never comes.
fn unfinished(daemon: &Daemon) -> TcpStream {
    let mut stream = daemon.connect();
    let head = "POST /api/v1/integrations/credential-scanning/revoke HTTP/1.1\r\nhost: rescind\r\n\
        content-type: application/json\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    stream
}

#[test]
fn the_file_alone_holds_all_after_a_stop_that_did_not_wait() {
    let binary = in_data();
    let token = binary.run("tokens create --role admin").ok();
    let mut daemon = Daemon::start(&binary, &["serve"]);
    let new = r#"{"user_id":"u_kept","description":"x","expires_at_millis":null}"#;
    let made = daemon.post("/api/v1/user-api-keys", Some(token.trim()), new);
    assert_eq!(made.0, 200, "{}", made.1);
    let slow = [0; 3].map(|_| unfinished(&daemon));
    daemon.signal("TERM");
    daemon.wait_for("SIGTERM");
    // As after the time that a stop takes at most, without the wait. Within a second it would be the same stop.
    std::thread::sleep(Duration::from_millis(1_200));
    daemon.signal("TERM");
    daemon.wait_for("second signal");
    let ended = daemon.wait();
    drop(slow);
    assert_eq!(ended.code, Some(0), "{ended:?}");

    let keys = copy_of(&binary).run("keys list --json").ok();
    assert!(keys.contains("u_kept"), "{keys}");
}

#[test]
fn the_file_alone_holds_all_after_a_command() {
    for n in 0..5 {
        let binary = in_data();
        binary.run("keys create --user u_kept --description x").ok();
        let keys = copy_of(&binary).run("keys list --json").ok();
        assert!(keys.contains("u_kept"), "{n}: {keys}");
    }
}

#[test]
fn a_log_without_its_database_is_not_lost() {
    let binary = in_data();
    let daemon = Daemon::start(&binary, &["serve"]);
    assert_eq!(daemon.get("/readyz", None).0, 200);
    daemon.signal("KILL");
    daemon.wait();
    let (file, log) = (
        binary.path("data/rescind.db"),
        binary.path("data/rescind.db-wal"),
    );
    let before = fs::read(&log).unwrap();
    assert!(!before.is_empty());
    let away = binary.path("away.db");
    fs::rename(&file, &away).unwrap();
    let said = [file.display().to_string(), log.display().to_string()];
    let refused = binary.run("migrate");
    refused.fails(3, &[&said[0], &said[1], "put the database back"]);
    let refused = Daemon::begin(&binary).wait();
    assert_eq!(refused.code, Some(3), "{refused:?}");
    let told = refused.log.join("\n");
    assert!(told.contains(&said[1]), "{told}");
    assert_eq!(fs::read(&log).unwrap(), before);
    fs::rename(&away, &file).unwrap();
    let tokens = binary.run("tokens list --json").ok();
    assert_eq!(tokens.lines().count(), 1);
}

#[test]
fn no_new_database_is_made_in_a_file_that_was_there() {
    let binary = in_data();
    binary.run("migrate").ok();
    let file = binary.path("data/rescind.db");
    // Contents of the file of a database whose log was never checkpointed.
    let empty = "PRAGMA journal_mode = WAL";
    fs::remove_file(&file).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(async {
        use sqlx::{Connection as _, Executor as _};
        let options = sqlx::sqlite::SqliteConnectOptions::new();
        let options = options.filename(&file).create_if_missing(true);
        let mut connection = sqlx::SqliteConnection::connect_with(&options)
            .await
            .unwrap();
        connection.execute(empty).await.unwrap();
        connection.close().await.unwrap();
    });
    assert!(fs::metadata(&file).unwrap().len() > 0);
    let named = file.display().to_string();
    for line in [
        "migrate",
        "keys list",
        "keys create --user u --description x",
    ] {
        binary
            .run(line)
            .fails(3, &[&named, "holds no tables", "without its -wal"]);
    }
    let made = binary.run("migrate --init");
    assert!(made.stderr.contains("a new database"), "{made:?}");
    assert!(made.stderr.contains(&named), "{made:?}");
    made.ok();
}
