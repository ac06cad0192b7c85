//! Clients that hang up at any byte of a request.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::crash::{export, mint, report, signed_report};
use crate::support::eventually::eventually;
use crate::support::world::{Daemon, Home, World};

/// Number of clients that hang up.
const RESETS: usize = 4_000;
/// Number of clients that are connected at a time.
const AT_ONCE: usize = 32;

#[tokio::test(flavor = "multi_thread")]
async fn four_thousand_clients_that_hang_up_cost_nothing_and_revoke_once() {
    let world = World::new().await;
    let home = Home::new(|database| world.config(database));
    let daemon = home.serve();
    let client = rescind::fetch::http_client().expect("an HTTP client");
    let token = daemon.token.clone().expect("the first start's token");
    let key = mint(&client, &daemon.url, &token, "leaks", false).await;
    let keys = [key.value.clone()];
    let request = raw(&daemon, &world, &keys);
    let before = descriptors(&daemon);

    let address: SocketAddr = daemon.url["http://".len()..].parse().expect("an address");
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let clients = TaskTracker::new();
    for number in 0..RESETS {
        let place = Arc::clone(&places).acquire_owned().await.expect("a place");
        // From nothing at all to the whole request, whose answer is not waited for.
        let end = number * (request.len() + 1) / RESETS;
        let sent = request[..end].to_vec();
        clients.spawn(async move {
            if let Ok(mut stream) = TcpStream::connect(address).await {
                let _ = stream.write_all(&sent).await;
                let _ = stream.set_zero_linger();
            }
            drop(place);
        });
    }
    clients.close();
    clients.wait().await;

    assert!(report(&client, &world, &daemon.url, &keys).await);
    let what = format!("there are about {before} descriptors again");
    eventually(&what, async || {
        let after = descriptors(&daemon);
        (after <= before + AT_ONCE).then_some(()).ok_or(after)
    })
    .await;
    assert!(daemon.stop().success());
    let entries = export(&home);
    let of_key = |entry: &&Value| entry["key_id"] == key.id.as_str();
    assert_eq!(entries.iter().filter(of_key).count(), 1);
    assert!(home.rescind(&["log", "verify"]).status.success());
}

/// A signed report as it goes over the wire.
fn raw(daemon: &Daemon, world: &World, keys: &[String]) -> Vec<u8> {
    let (body, signature) = signed_report(world, keys);
    let head = format!(
        "POST /webhooks/github/secret-scanning HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         github-public-key-identifier: {}\r\ngithub-public-key-signature: {signature}\r\n\
         content-length: {}\r\n\r\n",
        &daemon.url["http://".len()..],
        world.partner.identifier(),
        body.len()
    );
    [head.into_bytes(), body].concat()
}

/// Returns the number of open files and sockets of the daemon.
fn descriptors(daemon: &Daemon) -> usize {
    let folder = format!("/proc/{}/fd", daemon.id());
    std::fs::read_dir(folder).expect("its descriptors").count()
}
