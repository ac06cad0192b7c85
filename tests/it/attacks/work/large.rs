//! Pushes that only the one large place is large enough for, and servers that pace them.

use super::slow::{How, Slow};
use super::*;

/// More than a medium place holds.
const SIZE: usize = 17 << 20;

/// Large files are only ballast here: unoptimized builds take too long to scan them.
fn limits() -> FetchLimits {
    FetchLimits {
        max_blob_bytes: 32 << 10,
        ..FetchLimits::default()
    }
}

impl Rig {
    /// A push of a key beside a large file.
    async fn leak_beside(&self, shop: &Shop, seed: u32) -> (Key, NewWorkItem) {
        self.leak_beside_so_much(shop, seed, SIZE).await
    }

    async fn leak_beside_so_much(&self, shop: &Shop, seed: u32, size: usize) -> (Key, NewWorkItem) {
        let (key, value) = self.issue(false).await;
        let pushed = shop.push(&[
            (&format!("large-{seed}"), noise(seed, size)),
            (
                &format!("leak-{seed}.env"),
                value.expose().as_bytes().to_vec(),
            ),
        ]);
        let item = NewWorkItem {
            repository_id: format!("large-{seed}"),
            priority: Priority::Webhook,
            ..self.item(&pushed)
        };
        (key, item)
    }
}

/// The promised time, plus what an unoptimized build needs for the push itself.
const IN_TIME: Duration = if cfg!(debug_assertions) {
    Duration::from_secs(25)
} else {
    PROMISED
};

/// So much of what is slow to scan takes an unoptimized build a minute and more. An optimized one is through in a
/// moment.
const SLOW_BYTES: usize = 31 << 20;

/// They send so fast that they are no slow servers, and so slowly that their pushes take minutes.
async fn paced() -> Slow {
    Slow::start(How::Streams(SIZE, 2 << 20)).await
}

const HELD: &str = "SELECT COUNT(*) FROM work_items WHERE lane = 1 AND leased_by IS NOT NULL";

/// Whatever the stranger has in common with the healthy one: nothing, or the host.
async fn are_not_held_up(host: &str, count: u32) {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let slow = paced().await;
    let mut leaks = Vec::new();
    for seed in 1..=count {
        leaks.push(rig.leak_beside(&shop, seed).await);
    }
    let origins = [
        origin("git.example", &shop.forge.url()),
        origin("slow.example", &slow.url),
    ];
    let worker = rig.worker_of(origins, limits(), hasty());
    let hostile: Vec<_> = (0..4)
        .map(|n| slow.push_of(&rig, host, &format!("mallory/shop-{n}"), n))
        .collect();
    rig.add_items(&hostile).await;
    let running = Running::start(worker);
    for (key, large) in leaks {
        until("the place is taken", async || {
            database.count(HELD).await == 1
        })
        .await;
        // They had their first turns, or not.
        rig.add_items(&[large]).await;
        let revoked = until("it is revoked", async || rig.is_revoked(&key).await);
        timeout(IN_TIME, revoked).await.expect("revoked in time");
        if count > 1 {
            // They go on, and have had their first turns when the next one comes.
            sleep(Duration::from_secs(4)).await;
        }
    }
    assert_eq!(rig.counts().await.dead, 0);
    running.stop().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paced_large_pushes_do_not_hold_up_one_of_another_host() {
    are_not_held_up("slow.example", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ./test.sh --long"]
async fn paced_large_pushes_do_not_hold_up_those_of_other_owners() {
    are_not_held_up("git.example", 3).await;
}

/// A push that gives way loses what was received, but has a longer turn the next time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ./test.sh --long"]
async fn large_pushes_of_slow_servers_end_though_they_give_way() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let sends = How::Passes(shop.forge.url(), Duration::ZERO, 3 << 20);
    let slow = Slow::start(sends).await;
    let mut keys = Vec::new();
    for seed in 1..=3 {
        let (key, item) = rig.leak_beside(&shop, seed).await;
        let host = "slow.example".to_owned();
        rig.add_items(&[NewWorkItem { host, ..item }]).await;
        keys.push(key);
    }
    let origins = [origin("slow.example", &slow.url)];
    let worker = rig.worker_of(origins, limits(), hasty());
    let running = Running::start(worker);
    timeout(Duration::from_mins(4), async {
        for key in &keys {
            while !rig.is_revoked(key).await {
                sleep(Duration::from_millis(100)).await;
            }
        }
    })
    .await
    .expect("an end");
    running.stop().await;
    let tries = "SELECT MAX(tries) FROM work_items";
    assert_eq!(database.count(tries).await, 1);
    database.remove().await;
}

/// One new push after the other has its first turn in the large place. That is one host's time, and none of another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ever_new_large_pushes_do_not_hold_up_one_of_another_host() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let slow = paced().await;
    // Longer than a first turn.
    let sends = How::Passes(shop.forge.url(), Duration::ZERO, 4 << 20);
    let healthy = Slow::start(sends).await;
    let (key, large) = rig.leak_beside(&shop, 1).await;
    let origins = [
        origin("healthy.example", &healthy.url),
        origin("slow.example", &slow.url),
    ];
    let worker = rig.worker_of(origins, limits(), hasty());
    let running = Running::start(worker);
    let attack = async {
        for n in 0.. {
            let repository = format!("mallory/shop-{n}");
            let hostile = slow.push_of(&rig, "slow.example", &repository, n);
            rig.add_items(&[hostile]).await;
            sleep(Duration::from_secs(2)).await;
        }
    };
    let revoked = async {
        until("the place is taken", async || {
            database.count(HELD).await == 1
        })
        .await;
        sleep(Duration::from_secs(4)).await;
        let host = "healthy.example".to_owned();
        rig.add_items(&[NewWorkItem { host, ..large }]).await;
        let begun = Instant::now();
        while !rig.is_revoked(&key).await {
            assert!(begun.elapsed() < IN_TIME * 2, "not revoked in time");
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = attack => {}
        () = revoked => {}
    }
    assert_eq!(rig.counts().await.dead, 0);
    running.stop().await;
    database.remove().await;
}

/// Has as many owners as there are pushes keep the places, none of whom had anything of them before, when somebody else
/// of their host pushes so many bytes.
async fn many_owners_do_not_hold_up_another(how: How, count: usize, size: usize) {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let slow = Slow::start(how).await;
    let (key, medium) = rig.leak_beside_so_much(&shop, 1, size).await;
    let origins = [origin("git.example", &shop.forge.url())];
    let worker = rig.worker_of(origins, limits(), hasty());
    let hostile = (0..count).map(|n| slow.push(&rig, "git.example", n));
    rig.add_items(&hostile.collect::<Vec<_>>()).await;
    let running = Running::start(worker);
    let waiting = "SELECT COUNT(*) FROM work_items WHERE lane IN (1, 3)";
    until("some wait for a larger place", async || {
        database.count(waiting).await >= 6
    })
    .await;
    rig.add_items(&[medium]).await;
    let revoked = until("it is revoked", async || rig.is_revoked(&key).await);
    timeout(IN_TIME, revoked).await.expect("revoked in time");
    running.stop().await;
    database.remove().await;
}

/// Nobody knows how large a push is before it has come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_pushes_of_many_owners_do_not_hold_up_a_medium_one_of_their_host() {
    many_owners_do_not_hold_up_another(How::Streams(9 << 20, 3 << 19), 32, 3 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ./test.sh --long"]
async fn large_pushes_of_slow_servers_do_not_hold_up_a_medium_one_of_their_host() {
    many_owners_do_not_hold_up_another(How::Streams(0, 3 << 20), 80, 6 << 20).await;
}

/// Whoever says that it packs is as slow as whoever says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ./test.sh --long"]
async fn slow_pushes_of_many_owners_do_not_hold_up_a_medium_one_of_their_host() {
    for how in [How::Packs, How::Silent] {
        many_owners_do_not_hold_up_another(how, 60, 3 << 20).await;
    }
}

/// A single file may take longer to scan than others can be kept waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_slow_to_scan_does_not_hold_up_a_heavy_push_of_another_host() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let (key, value) = rig.issue(false).await;
    let leak = shop.push(&[
        ("large", noise(3, 2 << 20)),
        ("leak.env", value.expose().as_bytes().to_vec()),
    ]);
    // The beginning of a key in base64, again and again: each is looked at.
    let hits = b"eDU3NGNrNHU3aHh4".repeat(SLOW_BYTES / 16);
    let hostile = shop.push(&[("slow", hits)]);
    let origins = ["slow.example", "git.example"].map(|host| origin(host, &shop.forge.url()));
    let worker = rig.worker_of(origins, FetchLimits::default(), hasty());
    let of = |host: &str, pushed| NewWorkItem {
        host: host.to_owned(),
        repository_id: host.to_owned(),
        priority: Priority::Webhook,
        ..rig.item(pushed)
    };
    rig.add_items(&[of("slow.example", &hostile)]).await;
    let running = Running::start(worker);
    sleep(Duration::from_secs(2)).await;
    rig.add_items(&[of("git.example", &leak)]).await;
    until("it is revoked", async || rig.is_revoked(&key).await).await;
    // It was not waited for. The other one may be revoked before its push was read to the end.
    if cfg!(debug_assertions) {
        assert!(rig.counts().await.done <= 1, "the slow one goes on");
    }
    running.stop().await;
    database.remove().await;
}

/// None of them is slow: their servers send what an ordinary line carries, and it is not known how large they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_pushes_of_an_owners_repositories_do_not_hold_up_a_smaller_one_of_his() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let (key, item) = rig.leak_beside_so_much(&shop, 1, 2 << 20).await;
    let rate = 3 << 19;
    let large = Slow::start(How::Streams(0, rate)).await;
    let medium = Slow::start(How::Passes(shop.forge.url(), Duration::ZERO, rate)).await;
    let many: Vec<_> = (0..40)
        .map(|n| large.push_of(&rig, "git.example", &format!("acme/app-{n}"), n))
        .collect();
    rig.add_items(&many).await;
    let origins = [origin("git.example", &shop.forge.url())];
    let running = Running::start(rig.worker_of(origins, limits(), hasty()));
    let ordinary = "SELECT COUNT(*) FROM work_items WHERE lane = 0";
    until("they all wait elsewhere", async || {
        database.count(ordinary).await == 0
    })
    .await;
    let item = NewWorkItem {
        clone_url: Some(format!("{}/acme/shop.git", medium.url)),
        ..item
    };
    assert_eq!(item.owner(), many[0].owner());
    rig.add_items(&[item]).await;
    let revoked = until("it is revoked", async || rig.is_revoked(&key).await);
    timeout(IN_TIME, revoked).await.expect("revoked in time");
    running.stop().await;
    database.remove().await;
}
