//! A repository whose references move all the time.

use std::collections::HashSet;

use super::*;

/// References of the server, all of which move with each poll.
const REFERENCES: usize = 2_500;

/// Lists all references, each at another commit every time.
struct Moving(AtomicUsize);

impl wiremock::Respond for Moving {
    fn respond(&self, _: &wiremock::Request) -> wiremock::ResponseTemplate {
        let poll = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        let mut body = Vec::new();
        for n in 0..REFERENCES {
            let id = format!("{:040x}", poll * REFERENCES + n);
            body.extend(line(format!("{id} refs/heads/b{n:05}\n").as_bytes()));
        }
        body.extend(b"0000");
        wiremock::ResponseTemplate::new(200)
            .set_body_raw(body, "application/x-git-upload-pack-result")
    }
}

#[tokio::test]
async fn references_that_always_move_do_not_hide_the_others() {
    let (_database, house) = sqlite().await;
    let server = wiremock::MockServer::start().await;
    wiremock::Mock::given(wiremock::matchers::any())
        .respond_with(Moving(AtomicUsize::new(0)))
        .mount(&server)
        .await;
    let options = GitRemoteOptions {
        name: "docs".to_owned(),
        url: format!("{}/acme/shop.git", server.uri()).parse().unwrap(),
        token: None,
    };
    let fetcher = GitFetcher::new(http_client().unwrap(), FetchLimits::default());
    let remote = GitRemote::new(options, house.parts(), fetcher).unwrap();
    for poll in 1..=3 {
        let outcome = remote.poll_once().await.unwrap();
        assert_eq!((outcome.events, outcome.items), (1_000, 1_000), "{poll}");
    }
    let items = house.store.claim(4_000, "test", LEASE).await.unwrap();
    let seen: HashSet<_> = items.iter().map(|item| &item.range.ref_name).collect();
    assert_eq!(seen.len(), REFERENCES, "each within three polls");
    // Only what was there before the first poll is a backfill.
    for item in &items {
        let is_known = item.range.before.contains(|c| c != '0');
        let expected = if is_known {
            Priority::Watched
        } else {
            Priority::Backfill
        };
        assert_eq!(item.range.priority, expected);
    }
    let known = items
        .iter()
        .filter(|item| item.range.priority == Priority::Watched);
    assert_eq!(known.count(), 500);
}
