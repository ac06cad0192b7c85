//! Workers that run, and are stopped.

use std::time::Duration;

use rescind::store::Lane;
use rescind::work::WorkerOptions;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Rig, Shop, limits, made_up, sqlite};
use crate::support::databases::on_both_databases;
use crate::support::eventually::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_worker_takes_new_items_at_once_and_stops_when_told() {
    let (_database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let (key, value) = rig.issue(false).await;
    let options = WorkerOptions {
        idle: Duration::from_hours(1),
        ..WorkerOptions::default()
    };
    let worker = rig.worker_with(&shop.forge.url(), limits(), options, None);
    let token = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    let stopped = token.clone();
    tasks.spawn(async move { worker.run(&stopped).await });
    rig.add(&[shop.push(&[("a", value.expose().as_bytes().to_vec())])])
        .await;
    rig.wake.notify_one();
    while !rig.is_revoked(&key).await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    token.cancel();
    tasks.join_next().await.unwrap().unwrap();
    assert_eq!(rig.counts().await.done, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_worker_gives_back_what_it_could_not_end() {
    let (_database, rig) = sqlite().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    rig.add(&[made_up('b'), made_up('c')]).await;
    let options = WorkerOptions {
        patience: Duration::from_millis(50),
        ..WorkerOptions::default()
    };
    let worker = rig.worker_with(&url, limits(), options, None);
    let stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    let stopped = stop.clone();
    tasks.spawn(async move { worker.run(&stopped).await });
    // A server that takes requests and never answers.
    let (mut first, _) = listener.accept().await.unwrap();
    first.read_exact(&mut [0; 10]).await.unwrap();
    assert_eq!(rig.counts().await.leased, 2);
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap();
    let items = rig
        .store
        .claim(10, "another", Duration::from_mins(1))
        .await
        .unwrap();
    assert_eq!(items.len(), 2);
    assert!(items.iter().all(|item| item.tries == 1), "the try counted");
}

on_both_databases! {
    async fn a_replaced_worker_gives_back_what_it_has_not_begun(database) {
        let rig = Rig::new(&database.store().await);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        rig.add(&[made_up('b'), made_up('c')]).await;
        let options = WorkerOptions {
            concurrent: 1,
            patience: Duration::from_millis(50),
            ..WorkerOptions::default()
        };
        let worker = rig.worker_with(&url, limits(), options, None);
        let (replaced, stop) = (CancellationToken::new(), CancellationToken::new());
        let (until, stopped) = (replaced.clone(), stop.clone());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { worker.run_until_replaced(&until, &stopped).await });
        // A server that takes a request and never answers.
        let (mut first, _) = listener.accept().await.unwrap();
        first.read_exact(&mut [0; 10]).await.unwrap();
        eventually("another is claimed ahead", async || rig.counts().await.leased == 2).await;
        replaced.cancel();
        eventually("it is given back", async || rig.counts().await.leased == 1).await;
        let items = rig.store.claim(10, "another", Duration::from_mins(1)).await.unwrap();
        let as_it_was = items.iter().map(|item| (item.lane, item.tries, item.deaths));
        let as_it_was: Vec<_> = as_it_was.collect();
        // One that was begun and made room would be in another lane.
        assert_eq!(as_it_was, [(Lane::Ordinary, 1, 0)], "it was begun");
        // The one in flight goes on.
        assert_eq!(tasks.len(), 1);
        stop.cancel();
        tasks.join_next().await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_somebody_else_took_is_not_ended_twice() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let (key, value) = rig.issue(false).await;
    rig.add(&[shop.push(&[("a", value.expose().as_bytes().to_vec())])])
        .await;
    // The forge stands behind a server that holds the request until the item has changed hands.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let worker = rig.worker(&url);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { worker.drain().await });
    let (mut client, _) = listener.accept().await.unwrap();
    database
        .run("UPDATE work_items SET leased_by = 'another'")
        .await
        .unwrap();
    let forge = shop.forge.url();
    let mut server = tokio::net::TcpStream::connect(forge.trim_start_matches("http://"))
        .await
        .unwrap();
    tasks.spawn(async move {
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        Ok(0)
    });
    tasks.join_next().await.unwrap().unwrap().unwrap();
    let counts = rig.counts().await;
    assert_eq!((counts.done, counts.leased), (0, 1));
    // The sightings still count: the new owner of the lease may find the repository gone.
    assert!(rig.is_revoked(&key).await);
}
