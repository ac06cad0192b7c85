//! One owner with as many repositories as he likes.

use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;

/// Each of a repository of its own, on the same host, and each takes its time: together much longer than what is
/// promised to the others of that host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_repositories_of_one_owner_do_not_hold_up_another_owners() {
    let (database, house) = sqlite().await;
    let shop = Shop::open().await;
    let slow = MockServer::start().await;
    let answer = ResponseTemplate::new(404).set_delay(Duration::from_secs(1));
    Mock::given(any()).respond_with(answer).mount(&slow).await;
    let many: Vec<_> = (0..200)
        .map(|n| NewWorkItem {
            repository: format!("loud/app-{n}"),
            clone_url: Some(format!("{}/loud/app-{n}.git", slow.uri())),
            ..house.push_to("git.example", n, Priority::Webhook)
        })
        .collect();
    house.add_items(&many).await;
    let origins = [
        origin("git.example", &shop.forge.url()),
        origin("slow.example", &slow.uri()),
    ];
    let running = Running::start(house.worker_of(origins, FetchLimits::default(), hasty()));
    until("some are done", async || house.counts().await.done >= 8).await;
    let (key, tiny) = house.leak(&shop).await;
    house.add_items(&[tiny]).await;
    house.wait_until_revoked(&key).await;
    assert!(
        house.counts().await.waiting > 50,
        "they all were read before"
    );
    running.stop().await;
    database.remove().await;
}
