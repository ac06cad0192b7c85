//! Files that are too large to be held, and what is pushed with them.

use std::fmt::Write as _;
use std::sync::Arc;

use rescind::fetch::FetchLimits;
use rescind::sandbox::git_server::Pushed;
use rescind::work::WorkerOptions;
use tokio::io::{AsyncReadExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Rig, Shop, limits, noise};
use crate::support::databases::on_both_databases;
use crate::support::eventually::eventually;

/// Lines that are like no others.
fn table(seed: u32, length: usize) -> Vec<u8> {
    let mut text = String::new();
    for (n, word) in noise(seed, length / 10).chunks(4).enumerate() {
        writeln!(text, "{n:08} {} and some more words", hex::encode(word)).unwrap();
    }
    text.into_bytes()
}

/// Packs everything anew, with as many deltas as there can be, and returns the number of blobs that are deltas.
fn repack(shop: &Shop) -> usize {
    let bare = shop.repository.bare().to_string_lossy().into_owned();
    let git = |arguments: &[&str]| {
        shop.repository
            .git(&[&["--git-dir", &bare], arguments].concat())
            .unwrap()
    };
    git(&["repack", "-adfq", "--window=50"]);
    let pack = std::fs::read_dir(shop.repository.bare().join("objects/pack")).unwrap();
    let index = pack
        .map(|file| file.unwrap().path())
        .find(|path| path.extension().is_some_and(|is| is == "idx"));
    let listed = git(&["verify-pack", "-v", &index.unwrap().to_string_lossy()]);
    let is_delta = |line: &&str| line.contains(" blob ") && line.split_whitespace().count() == 7;
    listed.lines().filter(is_delta).count()
}

on_both_databases! {
    async fn a_file_of_more_bytes_than_are_held_hides_no_other(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        for (held, largest) in [(100_000, 1 << 20), (100_000, 200_000), (100_000, 50_000)] {
            let (first, first_value) = rig.issue(false).await;
            let (last, last_value) = rig.issue(false).await;
            let pushed = shop.push(&[
                ("a.env", first_value.expose().as_bytes().to_vec()),
                ("model.bin", noise(largest, 400_000)),
                ("z.env", last_value.expose().as_bytes().to_vec()),
            ]);
            rig.add(&[pushed]).await;
            let limits = FetchLimits {
                max_held_bytes: held,
                max_blob_bytes: largest.into(),
                ..limits()
            };
            let worker = rig.worker_with(&shop.forge.url(), limits, WorkerOptions::default(), None);
            assert_eq!(worker.drain().await.unwrap(), 1);
            assert!(rig.is_revoked(&first).await && rig.is_revoked(&last).await, "{largest}");
            assert_eq!(rig.places(&last).await, ["z.env:1"]);
        }
        let counts = rig.counts().await;
        assert_eq!((counts.done, counts.truncated), (3, 3));
    }

    async fn a_file_that_is_stored_as_a_delta_to_one_that_is_too_large_is_read(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let (key, value) = rig.issue(false).await;
        let large = table(1, 100_000);
        let mut small = large[..large.len() / 3].to_vec();
        small.extend_from_slice(value.expose().as_bytes());
        let (limit, own) = (large.len() - 1, small.len());
        let pushed = shop.push(&[("old/a-long-name-of-a-table.txt", large), ("new/a-long-name-of-a-table.txt", small)]);
        assert_eq!(repack(&shop), 1);
        rig.add(&[pushed]).await;
        let limits = FetchLimits { max_blob_bytes: limit as u64, ..limits() };
        let worker = rig.worker_with(&shop.forge.url(), limits, WorkerOptions::default(), None);
        assert_eq!(worker.drain().await.unwrap(), 1);
        assert!(rig.is_revoked(&key).await, "{own}");
        let counts = rig.counts().await;
        assert_eq!((counts.done, counts.truncated), (1, 1), "the larger file was left out");
        let (what, _) = rig.store.source_work().await.unwrap().remove(0).last_unread.unwrap();
        assert!(what.ends_with("read in part: 1 objects are too large"), "{what}");
    }

    /// The base of the small one is a delta to another one that is too large, so both would have to be held.
    async fn a_delta_to_a_delta_that_is_too_large_is_read_with_the_half_of_the_range(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let before = shop.push(&[]).after;
        let (key, value) = rig.issue(false).await;
        let (first, second, third) = (table(1, 30_000), table(2, 40_000), table(3, 25_000));
        let limit = second.len() + third.len() - 1;
        shop.push(&[("data.txt", [&*first, &*second].concat())]);
        shop.push(&[("data.txt", [&*second, &*third].concat())]);
        let small = [&*third, value.expose().as_bytes()].concat();
        let pushed = Pushed { before, ..shop.push(&[("data.txt", small)]) };
        assert_eq!(repack(&shop), 2);
        rig.add(&[pushed]).await;
        let limits = FetchLimits { max_blob_bytes: limit as u64, ..limits() };
        let worker = rig.worker_with(&shop.forge.url(), limits, WorkerOptions::default(), None);
        worker.drain().await.unwrap();
        assert!(rig.is_revoked(&key).await);
        let counts = rig.counts().await;
        assert!(counts.done > 1 && counts.waiting == 0, "{counts:?}");
    }

    async fn a_key_is_revoked_before_the_rest_of_its_push_is_there(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let (first, first_value) = rig.issue(false).await;
        let (last, last_value) = rig.issue(false).await;
        let mut files = vec![
            ("a.env".to_owned(), first_value.expose().as_bytes().to_vec()),
            ("z.env".to_owned(), last_value.expose().as_bytes().to_vec()),
        ];
        files.extend((0..20).map(|n| (format!("f{n:02}"), noise(n, 20_000))));
        let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
        let pushed = shop.push(&files);
        rig.add(std::slice::from_ref(&pushed)).await;
        let gate = Arc::new(Notify::new());
        let (url, _tasks) = gated(&shop, 200_000, Arc::clone(&gate)).await;
        let limits = FetchLimits { max_held_bytes: 100_000, ..limits() };
        let options = WorkerOptions::default();
        let worker = rig.worker_with(&url, limits.clone(), options.clone(), None);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { worker.drain().await });
        eventually("the first key is revoked", async || rig.is_revoked(&first).await).await;
        assert!(!rig.is_revoked(&last).await);
        gate.notify_one();
        assert_eq!(tasks.join_next().await.unwrap().unwrap().unwrap(), 1);
        assert!(rig.is_revoked(&last).await);
        // As after a kill, all of it is read once more.
        let again = Pushed { reference: "refs/heads/again".to_owned(), ..pushed };
        rig.add(&[again]).await;
        gate.notify_one();
        assert_eq!(rig.worker_with(&url, limits, options, None).drain().await.unwrap(), 1);
        assert_eq!(rig.places(&first).await, ["a.env:1"]);
        assert_eq!(rig.places(&last).await, ["z.env:1"]);
        assert_eq!(rig.store.verify_log().await.unwrap().unwrap().entries, 2);
    }
}

/// Serves a forge through a connection on which no more than `first` bytes come before the gate opens. Returns its
/// address.
async fn gated(shop: &Shop, first: u64, gate: Arc<Notify>) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let forge = shop.forge.url().trim_start_matches("http://").to_owned();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(&forge).await.unwrap();
            let gate = Arc::clone(&gate);
            connections.spawn(async move {
                let (mut from_client, mut to_client) = client.split();
                let (mut from_server, mut to_server) = server.split();
                let answer = async {
                    copy(&mut (&mut from_server).take(first), &mut to_client).await?;
                    gate.notified().await;
                    copy(&mut from_server, &mut to_client).await
                };
                tokio::select! {
                    _ = copy(&mut from_client, &mut to_server) => {}
                    _ = answer => {}
                }
            });
        }
    });
    (url, tasks)
}
