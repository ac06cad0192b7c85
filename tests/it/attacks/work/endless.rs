//! Pushes that are always too large, each part of which has parts.

use super::*;

/// Makes packs without end: some new commits, and more contents than anybody takes.
fn endless_pack(n: usize) -> Vec<u8> {
    let mut pack = b"PACK\0\0\0\x02\0\0\x10\0".to_vec();
    let mut parent = String::new();
    for generation in 0..6 {
        let tree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
        let who = "A <a@example.com> 1780000000 +0000";
        let commit =
            format!("tree {tree}\n{parent}author {who}\ncommitter {who}\n\n{n} {generation}\n");
        let whole = [
            format!("commit {}\0", commit.len()).as_bytes(),
            commit.as_bytes(),
        ]
        .concat();
        let mut hasher = gix_hash::hasher(gix_hash::Kind::Sha1);
        hasher.update(&whole);
        parent = format!("parent {}\n", hasher.try_finalize().unwrap());
        entry(&mut pack, 1, commit.as_bytes());
    }
    entry(&mut pack, 3, &noise(1, 40_000));
    pack
}

/// A forge for which every range is too large, and has a middle.
async fn bottomless() -> (String, JoinSet<()>) {
    let count = Arc::new(AtomicUsize::new(0));
    let answer = axum::routing::post(move || {
        let n = count.fetch_add(1, Ordering::Relaxed);
        async move {
            let mut body = line(b"packfile\n");
            for piece in endless_pack(n).chunks(60_000) {
                body.extend(line(&[&[1], piece].concat()));
            }
            body.extend(b"0000");
            (
                [("content-type", "application/x-git-upload-pack-result")],
                body,
            )
        }
    });
    let app = axum::Router::new().fallback(answer);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, tasks)
}

on_both_databases! {
    async fn a_push_that_is_always_too_large_has_an_end(database) {
        let rig = Rig::new(&database.store().await);
        let (url, _tasks) = bottomless().await;
        let limits = FetchLimits { max_fetch_bytes: 20_000, ..FetchLimits::default() };
        let worker = rig.worker_of([origin("git.example", &url)], limits, WorkerOptions::default());
        let pushed = NewWorkItem { priority: Priority::Webhook, ..rig.item(&unheard_of(7)) };
        rig.add_items(&[pushed]).await;
        timeout(Duration::from_mins(1), worker.drain()).await.expect("an end").unwrap();
        let counts = rig.counts().await;
        assert_eq!((counts.waiting, counts.leased, counts.dead), (0, 0, 0));
        assert!((3..=255).contains(&counts.done), "{counts:?}");
        assert_eq!(counts.truncated, counts.done, "what was not read is counted");
        assert!(database.count("SELECT MAX(generation) FROM work_items").await <= 12);
        let origins = "SELECT COUNT(DISTINCT origin) FROM work_items";
        assert_eq!(database.count(origins).await, 1);
    }
}
