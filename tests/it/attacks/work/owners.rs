//! One owner with as many repositories as he likes, and as many owners as he likes.

use rescind::fetch::http_client;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::slow::{How, Slow};
use super::*;
use crate::support::http::Ask as _;

/// A server that answers each request after a second, which is longer than anything else takes.
async fn leisurely() -> MockServer {
    let slow = MockServer::start().await;
    let answer = ResponseTemplate::new(404).set_delay(Duration::from_secs(1));
    Mock::given(any()).respond_with(answer).mount(&slow).await;
    slow
}

async fn asked(server: &MockServer) -> usize {
    server.received_requests().await.unwrap().len()
}

impl Rig {
    /// Pushes to a host, each of a repository and an owner of its own, for which some server is asked.
    fn crowd(&self, host: &str, server: &MockServer, priority: Priority) -> Vec<NewWorkItem> {
        let one = |n| NewWorkItem {
            repository: format!("loud-{n}/app"),
            clone_url: Some(format!("{}/loud-{n}/app.git", server.uri())),
            ..self.push_to(host, n, priority)
        };
        (0..300).map(one).collect()
    }
}

/// Each of a repository of its own, on the same host, and each takes its time: together much longer than what is
/// promised to the others of that host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_repositories_of_one_owner_do_not_hold_up_another_owners() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let slow = leisurely().await;
    let many: Vec<_> = (0..200)
        .map(|n| NewWorkItem {
            repository: format!("loud/app-{n}"),
            clone_url: Some(format!("{}/loud/app-{n}.git", slow.uri())),
            ..rig.push_to("git.example", n, Priority::Webhook)
        })
        .collect();
    rig.add_items(&many).await;
    let origins = [
        origin("git.example", &shop.forge.url()),
        origin("slow.example", &slow.uri()),
    ];
    let running = Running::start(rig.worker_of(origins, FetchLimits::default(), hasty()));
    until("some are asked for", async || asked(&slow).await >= 8).await;
    let (key, tiny) = rig.leak(&shop).await;
    rig.add_items(&[tiny]).await;
    rig.wait_until_revoked(&key).await;
    assert!(asked(&slow).await < 150, "they all were asked for before");
    running.stop().await;
    database.remove().await;
}

/// Checks that a crowd of invented owners delays only items of the same urgency at the same host.
async fn a_crowd_holds_up_nobody(host: &str, priority: Priority) {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let slow = leisurely().await;
    let crowd = rig.crowd(host, &slow, priority);
    rig.add_items(&crowd).await;
    let origins = [
        origin("git.example", &shop.forge.url()),
        origin("slow.example", &slow.uri()),
    ];
    let running = Running::start(rig.worker_of(origins, FetchLimits::default(), hasty()));
    for round in 1..=2 {
        until("some are asked for", async || {
            asked(&slow).await >= 8 * round
        })
        .await;
        let (key, tiny) = rig.leak(&shop).await;
        rig.add_items(&[tiny]).await;
        // All others together take much longer.
        rig.wait_until_revoked(&key).await;
    }
    assert!(asked(&slow).await < 200, "they all were asked for before");
    running.stop().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_owners_at_one_host_do_not_hold_up_another_host() {
    a_crowd_holds_up_nobody("slow.example", Priority::Webhook).await;
}

/// Whoever signs what he tells goes before what anybody can push in public.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_owners_in_a_public_feed_do_not_hold_up_a_webhook_of_their_host() {
    a_crowd_holds_up_nobody("git.example", Priority::Firehose).await;
}

/// None of which was known to be slow before, nor the healthy one to be healthy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owners_many_silent_repositories_do_not_hold_up_his_healthy_one() {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let silent = Slow::start(How::Silent).await;
    let many: Vec<_> = (0..80)
        .map(|n| silent.push_of(&rig, "git.example", &format!("acme/app-{n}"), n))
        .collect();
    rig.add_items(&many).await;
    let origins = [origin("git.example", &shop.forge.url())];
    let running = Running::start(rig.worker_of(origins, FetchLimits::default(), hasty()));
    until("many are known to be slow", async || silent.asked() >= 20).await;
    let (key, tiny) = rig.leak(&shop).await;
    let tiny = at_its_address(tiny, &shop);
    assert_eq!(tiny.owner(), many[0].owner());
    rig.add_items(&[tiny]).await;
    rig.wait_until_revoked(&key).await;
    running.stop().await;
    database.remove().await;
}

/// Starts a server that answers each request for a push as the shop does, but a second later.
async fn a_second_later(shop: &Shop, pushed: &Pushed) -> MockServer {
    let lines = [
        line(b"command=fetch\n"),
        b"0001".to_vec(),
        line(b"ofs-delta\n"),
        line(format!("want {}\n", pushed.after).as_bytes()),
        line(format!("have {}\n", pushed.before).as_bytes()),
        b"0000".to_vec(),
    ];
    let asked = http_client()
        .unwrap()
        .post(format!(
            "{}/acme/shop.git/git-upload-pack",
            shop.forge.url()
        ))
        .header("git-protocol", "version=2")
        .body(lines.concat());
    let answer = asked.ask().await.unwrap().bytes().await.unwrap();
    let kind = "application/x-git-upload-pack-result";
    let answer = ResponseTemplate::new(200)
        .set_body_raw(answer.to_vec(), kind)
        .set_delay(Duration::from_secs(1));
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(answer).mount(&server).await;
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_of_one_host_do_not_hold_up_a_polled_repository_of_another() {
    webhooks_do_not_hold_up_a_polled_repository("slow.example").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_of_a_host_do_not_hold_up_a_polled_repository_of_the_same() {
    webhooks_do_not_hold_up_a_polled_repository("git.example").await;
}

/// Each takes less time than after which others that wait for the place are served, and webhooks go before polls.
async fn webhooks_do_not_hold_up_a_polled_repository(host: &str) {
    let (database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let pushed = shop.push(&[("file", b"none".to_vec())]);
    let server = a_second_later(&shop, &pushed).await;
    let many: Vec<_> = (0..400)
        .map(|n| NewWorkItem {
            host: host.to_owned(),
            repository: format!("o{}/r{n}", n % 60),
            repository_id: n.to_string(),
            clone_url: Some(format!("{}/o{}/r{n}.git", server.uri(), n % 60)),
            priority: Priority::Webhook,
            ..rig.item(&pushed)
        })
        .collect();
    rig.add_items(&many).await;
    let origins = [
        origin("git.example", &shop.forge.url()),
        origin("slow.example", &server.uri()),
    ];
    let running = Running::start(rig.worker_of(origins, FetchLimits::default(), hasty()));
    until("some are read", async || rig.counts().await.done >= 8).await;
    for priority in [Priority::Watched, Priority::Backfill] {
        let (key, tiny) = rig.leak(&shop).await;
        rig.add_items(&[NewWorkItem { priority, ..tiny }]).await;
        rig.wait_until_revoked(&key).await;
    }
    assert!(
        rig.counts().await.waiting > 100,
        "they all were read before"
    );
    running.stop().await;
    database.remove().await;
}
