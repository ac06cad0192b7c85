use sqlx::postgres::PgConnectOptions;
use sqlx::{Postgres, Sqlite};

use super::*;

fn manners(size: u32, may_die: bool) -> Manners {
    Manners {
        size,
        set_up: None,
        too_many: None,
        may_die,
        keeps_place: !may_die,
        lifetime: None,
        files: None,
        damage: Damage::new("x".to_owned()),
        writes: false,
    }
}

#[tokio::test]
async fn the_whole_deadline_is_named() {
    // Takes connections, and says nothing.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port();
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port);
    let pool = Pool::<Postgres>::new(options, manners(1, true));
    let place = pool.0.gate.enter(Urgency::Work).await.unwrap();
    let until = Instant::now() + Duration::from_millis(400);
    let leave = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(place);
    };
    let (held, ()) = tokio::join!(pool.acquire(Urgency::Work, until), leave);
    let error = held.err().expect("nobody answers").to_string();
    assert!(
        error.contains("within 399 ms") || error.contains("within 400 ms"),
        "{error}"
    );
    assert!(
        silence(Duration::from_secs(7))
            .to_string()
            .contains("within 7 s")
    );
}

/// A connection that has served its time makes way for another, unless there is none.
#[tokio::test]
async fn a_connection_is_kept_until_there_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true);
    let pool = Pool::<Sqlite>::new(options, manners(1, false));
    let wait = Duration::from_secs(10);
    let acquire = || pool.acquire(Urgency::Work, Instant::now() + wait);
    let mut held = acquire().await.unwrap();
    // Temporary tables are a connection's own.
    held.run(wait, "CREATE TEMP TABLE mine (x)").await.unwrap();
    let known = "SELECT COUNT(*) FROM sqlite_temp_master";
    let away = folder.path().with_extension("away");
    for (can_open, expected) in [(false, 1), (true, 0)] {
        if !can_open {
            std::fs::rename(folder.path(), &away).unwrap();
        }
        held.serve_until(Instant::now());
        drop(held);
        held = acquire().await.unwrap();
        assert_eq!(held.value::<i64>(wait, known).await.unwrap(), expected);
        if !can_open {
            std::fs::rename(&away, folder.path()).unwrap();
        }
    }
}
