//! Forms of the address of a PostgreSQL server.

use std::path::Path;

use rescind::store::{Store, StoreError, StoreOptions};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;

use super::{import, new_key};
use crate::support::databases::{Kind, TestDatabase};

/// Hands a connection on to the server of the tests.
async fn hand_on(mut client: impl AsyncRead + AsyncWrite + Unpin, server: String) {
    let mut server = TcpStream::connect(server).await.expect("the server");
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

/// Returns `USER`, `HOST:PORT` and `DATABASE` of a URL of the tests.
fn parts(url: &str) -> (String, String, String) {
    let rest = url.split_once("://").expect("a URL").1;
    let (user, rest) = rest.split_once('@').expect("a user");
    let (server, database) = rest.split_once('/').expect("a database");
    (user.to_owned(), server.to_owned(), database.to_owned())
}

async fn works(url: &str, number: u64) {
    let store = Store::open(StoreOptions::new(url.to_owned())).await;
    let store = store.unwrap_or_else(|error| panic!("{url}: {error}"));
    store.migrate().await.unwrap();
    import(&store, &[new_key(number)]).await;
    assert_eq!(store.count_keys().await.unwrap(), number);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_leads_to_the_database() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let (user, server, name) = parts(&database.url);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join(".s.PGSQL.5499");
    let listener = UnixListener::bind(socket).unwrap();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await.unwrap();
            connections.spawn(hand_on(client, server.clone()));
        }
    });
    let folder: &Path = folder.path();
    let shown = folder.display().to_string();
    works(
        &format!("postgres:///{name}?host={shown}&port=5499&user={user}"),
        1,
    )
    .await;
    works(
        &format!("postgres://{user}@/{name}?host={shown}&port=5499"),
        2,
    )
    .await;
    let encoded = shown.replace('/', "%2F");
    works(&format!("postgres://{user}@{encoded}:5499/{name}"), 3).await;
    drop(task);
    database.remove().await;
}

/// A machine without IPv6 says that there is no such address, and one with it that nothing listens there: neither looks
/// up a name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ipv6_address_leads_to_the_database() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let (user, server, name) = parts(&database.url);
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        let url = format!("postgres://{user}@[::1]:1/{name}");
        let error = Store::open(StoreOptions::new(url)).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert!(!error.to_string().contains("lookup"), "{error}");
        return;
    };
    let address = listener.local_addr().unwrap();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await.unwrap();
            connections.spawn(hand_on(client, server.clone()));
        }
    });
    works(&format!("postgres://{user}@{address}/{name}"), 1).await;
    drop(task);
    database.remove().await;
}
