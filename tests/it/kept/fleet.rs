//! Several daemons on one database, and a database that goes away under its daemon.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Client;

use crate::crash::{Minted, export, mint, report};
use crate::support::cluster::Cluster;
use crate::support::eventually::eventually;
use crate::support::world::{Daemon, Home, World};

/// Two daemons get the same reports at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_on_one_file_revoke_each_key_once() {
    let world = World::new().await;
    let home = Home::new(|database| world.config(database));
    let daemons = [home.serve(), home.serve()];
    let client = rescind::fetch::http_client().expect("an HTTP client");
    let token = daemons[0].token.clone().expect("the first start's token");
    let mut keys = Vec::new();
    for number in 0..60 {
        let url = &daemons[number % 2].url;
        keys.push(mint(&client, url, &token, "leaks", false).await);
    }
    let batches = keys.chunks(6).map(values).collect::<Vec<_>>();
    let reports = batches
        .iter()
        .flat_map(|batch| daemons.iter().map(move |daemon| (daemon, batch)));
    let reports = reports.map(|(daemon, batch)| until_taken(&client, &world, daemon, batch));
    join_all(reports).await;
    for daemon in daemons {
        assert!(daemon.stop().success());
    }
    assert_each_revoked_once(&home, &keys);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_survive_a_database_that_restarts_once() {
    survive_restarts(1, 60).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: ./test.sh --long"]
async fn twelve_hundred_reports_survive_a_database_that_restarts_five_times() {
    survive_restarts(5, 1_200).await;
}

/// Each key is reported alone, again and again until the report is taken, while the database crashes.
async fn survive_restarts(restarts: usize, reports: usize) {
    let world = World::new().await;
    let cluster = Cluster::start();
    let home = Home::new(|_| world.config(&cluster.url()));
    let daemon = home.serve();
    let client = rescind::fetch::http_client().expect("an HTTP client");
    let token = daemon.token.clone().expect("the first start's token");
    let mut keys = Vec::new();
    for _ in 0..reports {
        keys.push(mint(&client, &daemon.url, &token, "leaks", false).await);
    }
    let reporting = async {
        for batch in keys.chunks(20) {
            let single = batch
                .iter()
                .map(|key| vec![key.value.clone()])
                .collect::<Vec<_>>();
            let sent = single
                .iter()
                .map(|key| until_taken(&client, &world, &daemon, key));
            join_all(sent).await;
        }
    };
    let restarting = async {
        for _ in 0..restarts {
            tokio::time::sleep(Duration::from_millis(200)).await;
            tokio::task::block_in_place(|| cluster.restart());
        }
    };
    tokio::join!(reporting, restarting);
    assert!(daemon.stop().success());
    assert_each_revoked_once(&home, &keys);
}

/// Reports keys until the report is answered with 200, as partners do.
async fn until_taken(client: &Client, world: &World, daemon: &Daemon, keys: &[String]) {
    eventually("a report is taken", async || {
        report(client, world, &daemon.url, keys).await
    })
    .await;
}

fn values(keys: &[Minted]) -> Vec<String> {
    keys.iter().map(|key| key.value.clone()).collect()
}

fn assert_each_revoked_once(home: &Home, keys: &[Minted]) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for entry in export(home) {
        let key = entry["key_id"].as_str().expect("a key").to_owned();
        *counts.entry(key).or_default() += 1;
    }
    assert_eq!(counts.len(), keys.len());
    for key in keys {
        assert_eq!(counts.get(&key.id), Some(&1), "entries of a key");
    }
    let verified = home.rescind(&["log", "verify"]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
}
