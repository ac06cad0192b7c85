//! A repository whose references move all the time, and long lists of references.

use std::collections::HashSet;

use rescind::fetch::{GitFetcher, http_client};
use rescind::source::{GitRemote, GitRemoteOptions, Source as _};
use rescind::store::WorkKind;
use wiremock::matchers::body_string_contains;

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
    let (_database, rig) = sqlite().await;
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
    let remote = GitRemote::new(options, rig.parts(), fetcher).unwrap();
    for poll in 1..=3 {
        let outcome = remote.poll_once().await.unwrap();
        assert_eq!((outcome.events, outcome.items), (1_000, 1_000), "{poll}");
    }
    let items = rig.store.claim(4_000, "test", LEASE).await.unwrap();
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

/// A pack without objects.
const EMPTY_PACK: &[u8] =
    b"PACK\0\0\0\x02\0\0\0\0\x02\x9d\x08\x82;\xd8\xa8\xea\xb5\x10\xadj\xc7\\\x82<\xfd>\xd3\x1e";

/// A server of a repository with many references, of which nothing comes.
async fn listing(references: usize) -> wiremock::MockServer {
    let server = wiremock::MockServer::start().await;
    let mut body = Vec::new();
    for n in 0..references {
        body.extend(line(
            format!("{:040x} refs/heads/b{n:05}\n", n + 1).as_bytes(),
        ));
    }
    body.extend(b"0000");
    let answer = wiremock::ResponseTemplate::new(200);
    wiremock::Mock::given(body_string_contains("ref-prefix refs/tags/"))
        .respond_with(answer.set_body_raw(body, "application/x-git-upload-pack-result"))
        .mount(&server)
        .await;
    // There is no default branch, and nothing new in any other.
    let mut nothing = line(b"packfile\n");
    nothing.extend(line(&[b"\x01".as_slice(), EMPTY_PACK].concat()));
    nothing.extend(b"0000");
    for (command, body) in [("ls-refs", b"0000".to_vec()), ("fetch", nothing)] {
        let answer = wiremock::ResponseTemplate::new(200);
        wiremock::Mock::given(body_string_contains(format!("command={command}")))
            .respond_with(answer.set_body_raw(body, "application/x-git-upload-pack-result"))
            .mount(&server)
            .await;
    }
    server
}

/// The references of a repository that became public.
fn references(rig: &Rig) -> NewWorkItem {
    NewWorkItem {
        kind: WorkKind::References,
        ref_name: String::new(),
        before: String::new(),
        after: "event-1".to_owned(),
        ..rig.push_to("git.example", 1, Priority::Webhook)
    }
}

on_both_databases! {
    async fn a_long_list_is_added_in_pieces_behind_what_is_pushed(database) {
        let rig = Rig::new(&database.store().await);
        let server = listing(1_300).await;
        rig.add_items(&[references(&rig)]).await;
        rig.worker_of([origin("git.example", &server.uri())], FetchLimits::default(), hasty()).drain().await.unwrap();
        let count = async |what: &str| {
            database.count(&format!("SELECT COUNT(*) FROM work_items WHERE state = 'done' AND {what}")).await
        };
        assert_eq!(count("kind = 'range'").await, 1_300, "nothing is lost");
        assert_eq!(count("kind = 'range' AND priority = 2").await, 64);
        assert_eq!(count("kind = 'range' AND priority = 4").await, 1_300 - 64);
        // The list itself, and three pieces of at most 500.
        assert_eq!(count("kind = 'references' AND priority = 1 AND NOT truncated").await, 1);
        assert_eq!(count("kind = 'references' AND priority = 4 AND NOT truncated").await, 3);
        assert_eq!(rig.counts().await.waiting, 0);
    }

    async fn what_is_left_of_a_list_waits_until_there_is_room_for_it(database) {
        let rig = Rig::new(&database.store().await);
        let server = listing(600).await;
        let list = references(&rig);
        let waiting: Vec<_> = (0..500)
            .map(|n| NewWorkItem {
                after: format!("{:040x}", n + 1_000_000),
                ..rig.push_to("git.example", 1, Priority::Backfill)
            })
            .collect();
        rig.add_items(&waiting).await;
        // They are not read before the list.
        database.run("UPDATE work_items SET ready_at = 9000000000000000").await.unwrap();
        rig.add_items(std::slice::from_ref(&list)).await;
        assert!(!rig.store.has_room_for_rest(&list).await.unwrap());
        let worker = rig.worker_of([origin("git.example", &server.uri())], FetchLimits::default(), hasty());
        worker.drain().await.unwrap();
        let ranges = "SELECT COUNT(*) FROM work_items WHERE kind = 'range' AND state = 'done' AND NOT dropped";
        assert_eq!(database.count(ranges).await, 64);
        let rest = "SELECT COUNT(*) FROM work_items WHERE kind = 'references' AND state = 'waiting' AND tries = 0";
        assert_eq!(database.count(rest).await, 1, "it waits, and no try counts");
        database.run("UPDATE work_items SET ready_at = 0").await.unwrap();
        worker.drain().await.unwrap();
        database.run("UPDATE work_items SET ready_at = 0").await.unwrap();
        worker.drain().await.unwrap();
        assert_eq!(database.count(ranges).await, 600 + 500);
    }
}

/// A git server that lists more branches than one poll takes.
#[tokio::test]
async fn more_references_than_one_poll_takes_are_left_for_the_next() {
    let (_database, rig) = sqlite().await;
    let mut body = Vec::new();
    for n in 0..1_500 {
        body.extend(line(format!("{n:040x} refs/heads/b{n:05}\n").as_bytes()));
    }
    body.extend(b"0000");
    let server = wiremock::MockServer::start().await;
    let answer = wiremock::ResponseTemplate::new(200)
        .set_body_raw(body, "application/x-git-upload-pack-result");
    wiremock::Mock::given(wiremock::matchers::any())
        .respond_with(answer)
        .mount(&server)
        .await;
    let options = GitRemoteOptions {
        name: "docs".to_owned(),
        url: format!("{}/acme/shop.git", server.uri()).parse().unwrap(),
        token: None,
    };
    let fetcher = GitFetcher::new(http_client().unwrap(), FetchLimits::default());
    let remote = GitRemote::new(options, rig.parts(), fetcher).unwrap();
    let polls = [1_000, 500, 0];
    for expected in polls {
        let outcome = remote.poll_once().await.unwrap();
        // The first of these names points to no commit.
        assert!(outcome.events.abs_diff(expected) <= 1, "{outcome:?}");
    }
}
