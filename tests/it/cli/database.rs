//! Databases that cannot be used, on the command line.

use std::os::unix::fs::PermissionsExt as _;

use super::Binary;
use crate::support::databases::TestDatabase;

#[test]
fn reading_commands_do_not_make_a_database() {
    let binary = Binary::new();
    for line in [
        "keys list",
        "log list",
        "log verify",
        "tokens list",
        "log export",
    ] {
        binary
            .run(line)
            .fails(3, &["data/rescind.db", "rescind migrate"]);
        assert!(!binary.path("data").exists(), "{line}");
    }
    let made = binary.run("migrate").ok();
    assert!(made.contains("applied"), "{made}");
    let again = binary.run("migrate").ok();
    assert!(again.contains("up to date"), "{again}");
    binary.run("keys list").ok();
}

#[tokio::test]
async fn a_database_newer_than_the_binary_is_left_alone() {
    use sqlx::Connection as _;
    let binary = Binary::new().with("RESCIND__SERVER__BIND", "127.0.0.1:0");
    binary.run("migrate").ok();
    let url = format!("sqlite://{}", binary.path("data/rescind.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&url)
        .await
        .expect("the file");
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time)
         VALUES (9999, 'future', '2030-01-01', 1, x'00', 0)",
    )
    .execute(&mut connection)
    .await
    .expect("a migration of the future");
    connection.close().await.expect("closed");
    for line in [
        "migrate",
        "keys list",
        "keys create --user u --description x",
        "serve",
    ] {
        binary
            .run(line)
            .fails(3, &["data/rescind.db", "9999", "newer"]);
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let binary = Binary::new();
    let folder = binary.path("locked");
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o500)).expect("locked");
    if std::fs::write(folder.join("probe"), "").is_ok() {
        // Nothing is locked for this user (root): a path below a file cannot be made by anybody.
        std::fs::remove_dir_all(&folder).expect("removed");
        std::fs::write(&folder, "").expect("a file");
    }
    let binary = binary
        .with("RESCIND__DATABASE__URL", "sqlite://locked/rescind.db")
        .with("RESCIND__SERVER__BIND", "127.0.0.1:0");
    for line in ["migrate", "tokens create --role admin", "serve"] {
        binary
            .run(line)
            .fails(3, &["locked/rescind.db", "permissions"]);
    }
}

#[test]
fn what_is_no_database_is_refused() {
    let binary = Binary::new().with("RESCIND__DATABASE__URL", "sqlite://notes.txt");
    binary.write("notes.txt", "milk, eggs, bread\n".repeat(1000));
    for line in ["migrate", "keys list"] {
        binary.run(line).fails(3, &["notes.txt"]);
    }
    let unreachable = "postgres://me:hunter2@127.0.0.1:1/db";
    let ran = Binary::new()
        .with("RESCIND__DATABASE__URL", unreachable)
        .run("keys list");
    ran.fails(3, &["127.0.0.1:1", "database.url"]);
    assert!(!ran.stderr.contains("hunter2"), "{ran:?}");
}

/// A character that the database cannot store would undo every revocation of the report that names it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_database_that_does_not_store_every_character_is_refused() {
    for encoding in ["LATIN1", "SQL_ASCII", "EUC_JP"] {
        let clauses =
            format!("ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
        let database = TestDatabase::postgres_with(&clauses).await;
        let binary = Binary::new()
            .with("RESCIND__DATABASE__URL", &database.url)
            .with("RESCIND__SERVER__BIND", "127.0.0.1:0");
        for line in [
            "migrate",
            "keys list",
            "tokens create --role admin",
            "serve",
        ] {
            let told = [
                "database.url",
                encoding,
                "ENCODING 'UTF8' TEMPLATE template0",
            ];
            binary.run(line).fails(2, &told);
        }
        let doctor = binary.run("doctor");
        assert_eq!(doctor.code, 2, "{doctor:?}");
        assert!(doctor.stdout.contains(encoding), "{doctor:?}");
        let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
        assert_eq!(database.count(tables).await, 0, "{encoding}");
        database.remove().await;
    }
}

/// A database created in the wrong folder by mistake is noticed at once.
#[test]
fn a_new_database_is_announced_with_its_absolute_path() {
    let import = Binary::new();
    import.write("keys.csv", "");
    for (binary, line) in [
        (Binary::new(), "keys create --user u --description x"),
        (Binary::new(), "tokens create --role admin"),
        (import, "keys import keys.csv"),
    ] {
        let first = binary.run(line);
        let file = binary.folder().canonicalize().expect("a folder");
        let file = file.join("data/rescind.db").display().to_string();
        let said = |text: &str| text.contains("a new database was made") && text.contains(&file);
        assert!(said(&first.stderr), "{first:?}");
        assert!(!said(&first.stdout), "{first:?}");
        let second = binary.run(line);
        assert!(!second.stderr.contains("new database"), "{second:?}");
    }
    let binary = Binary::new();
    let mut daemon = crate::serve::Daemon::begin(&binary);
    let line = daemon.wait_for("a new database was made");
    let file = binary.folder().canonicalize().expect("a folder");
    let file = file.join("data/rescind.db").display().to_string();
    assert!(line.contains(&file), "{line}");
    daemon.wait_until_it_listens();
    daemon.stop();
}
