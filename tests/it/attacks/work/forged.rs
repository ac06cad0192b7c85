//! Announcements of somebody else's push, signed by whoever has one of the secrets, that name another place to read it
//! from. They are known by what they name, so the genuine one is another push and is read.

use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::slow::{How, Slow};
use super::*;

/// The same push of the same repository, but not read from where that is.
fn forged(genuine: &NewWorkItem, clone_url: String) -> NewWorkItem {
    NewWorkItem {
        clone_url: Some(clone_url),
        ..genuine.clone()
    }
}

/// The same push, of another repository that calls itself the same.
fn renamed(genuine: &NewWorkItem) -> NewWorkItem {
    NewWorkItem {
        repository: "mallory/none".to_owned(),
        ..genuine.clone()
    }
}

fn start(rig: &Rig, shop: &Shop) -> Running {
    let origins = [origin("git.example", &shop.forge.url())];
    Running::start(rig.worker_of(origins, FetchLimits::default(), hasty()))
}

/// A server that gives this answer to everything.
async fn answering(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(answer).mount(&server).await;
    server
}

on_both_databases! {
    async fn a_forged_announcement_does_not_stand_for_the_genuine_one(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let running = start(&rig, &shop);
        let (key, genuine) = rig.leak(&shop).await;
        let nowhere = forged(&genuine, format!("{}/mallory/none.git", shop.forge.url()));
        rig.add_items(&[renamed(&genuine), nowhere]).await;
        let denied = "SELECT COUNT(*) FROM work_items WHERE denials > 0";
        until("there is nothing to read of the forged ones", async || database.count(denied).await == 2).await;
        // A feed tells of it as well, and once is enough.
        let seen = NewWorkItem { priority: Priority::Firehose, source: "feed".to_owned(), ..genuine.clone() };
        rig.add_items(&[seen]).await;
        rig.add_items(&[genuine]).await;
        rig.wait_until_revoked(&key).await;
        until("it is read", async || rig.counts().await.done == 1).await;
        assert_eq!(rig.counts().await.waiting, 2);
        running.stop().await;
    }

    async fn one_that_waits_or_was_given_up_does_not_either(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        for state in ["waiting", "dead", "shed", "done"] {
            let (key, genuine) = rig.leak(&shop).await;
            rig.add_items(&[renamed(&genuine)]).await;
            let kept = format!("UPDATE work_items SET state = '{state}', ready_at = 9000000000000000 WHERE state = 'waiting'");
            database.run(&kept).await.unwrap();
            rig.add_items(&[genuine]).await;
            let running = start(&rig, &shop);
            rig.wait_until_revoked(&key).await;
            running.stop().await;
        }
    }

    async fn what_a_forged_ones_server_asks_for_is_no_pause_of_the_genuine_repository(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let throttled = ResponseTemplate::new(429).insert_header("retry-after", "3600");
        let throttling = answering(throttled).await;
        let running = start(&rig, &shop);
        let (key, genuine) = rig.leak(&shop).await;
        rig.add_items(&[forged(&genuine, format!("{}/acme/shop.git", throttling.uri()))]).await;
        let put_off = "SELECT COUNT(*) FROM work_items WHERE last_error IS NOT NULL";
        until("the forged one waits", async || database.count(put_off).await == 1).await;
        rig.add_items(&[genuine]).await;
        rig.wait_until_revoked(&key).await;
        running.stop().await;
    }

    /// They fill the places of a repository and those of a slow owner, and count as slow.
    async fn forged_ones_of_a_slow_server_take_no_share_of_the_genuine_owner(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let silent = Slow::start(How::Silent).await;
        let (key, genuine) = rig.leak(&shop).await;
        let many: Vec<_> = (0..80).map(|n| NewWorkItem {
            repository_id: if n % 4 == 0 { genuine.repository_id.clone() } else { format!("of-it-{n}") },
            after: format!("{n:040x}"),
            ..forged(&genuine, format!("{}/mallory/{}.git", silent.url, n % 12))
        }).collect();
        rig.add_items(&many).await;
        let running = start(&rig, &shop);
        until("many are known to be slow", async || silent.asked() >= 20).await;
        rig.add_items(&[genuine]).await;
        rig.wait_until_revoked(&key).await;
        running.stop().await;
    }
}
