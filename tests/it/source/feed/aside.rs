//! Events that name many keys of ours, beside others.

use std::time::Duration;

use rescind::keyformat::KeyValue;
use rescind::respond::LITTLE;
use rescind::source::Source as _;
use rescind::store::Key;
use serde_json::{Value, json};
use uuid::Uuid;
use wiremock::{MockServer, ResponseTemplate};

use super::{answer, page, poll, push, sqlite, swap};
use crate::source::Rig;
use crate::support::databases::on_both_databases;
use crate::support::eventually::eventually;

/// Number of keys of an event that names many.
const MANY: usize = 70;

impl Rig {
    async fn many(&self) -> Vec<(Key, KeyValue)> {
        let mut keys = Vec::new();
        for _ in 0..MANY {
            keys.push(self.issue(false).await);
        }
        keys
    }

    async fn revoked(&self, keys: &[(Key, KeyValue)]) -> usize {
        let mut revoked = 0;
        for (key, _) in keys {
            revoked += usize::from(self.is_revoked(key).await);
        }
        revoked
    }

    /// Returns the number of places at which a key was seen.
    async fn places_of(&self, key: &Key) -> usize {
        self.store.occurrences(key.id, 1_000).await.unwrap().len()
    }
}

fn event(id: usize, payload: &Value) -> Value {
    json!({
        "id": id.to_string(), "type": "IssueCommentEvent", "actor": {"id": 1, "login": "somebody"},
        "repo": {"id": 7, "name": "acme/app"}, "public": true, "created_at": "2026-11-22T07:50:26Z",
        "payload": payload,
    })
}

fn comment(id: usize, keys: &[(Key, KeyValue)]) -> Value {
    let keys: Vec<&str> = keys.iter().map(|(_, value)| value.expose()).collect();
    let link = format!("https://git.example/acme/app/issues/1#c{id}");
    let comment = json!({"body": keys.join(" "), "html_url": link});
    event(id, &json!({"action": "created", "comment": comment}))
}

/// Has the server answer the first request for the first page, and each later one with `then`. The last page, which is
/// read again without a request, is an empty one.
async fn once(server: &MockServer, first: ResponseTemplate, then: ResponseTemplate) {
    server.reset().await;
    let empty = first.clone().set_body_json(json!([]));
    let first = first.insert_header("link", "<https://git.example>; rel=\"next\"");
    page("1")
        .respond_with(first)
        .up_to_n_times(1)
        .mount(server)
        .await;
    page("1").respond_with(then).mount(server).await;
    page("2").respond_with(empty).mount(server).await;
}

async fn requests(server: &MockServer) -> usize {
    server.received_requests().await.unwrap().len()
}

on_both_databases! {
    /// Ninety comments of a thousand keys each delayed the leak behind them by 16 s, and all pushes of the poll.
    async fn what_names_many_keys_is_written_after_all_else_and_survives_a_kill(database) {
        let rig = Rig::new(&database.store().await);
        let keys = rig.many().await;
        let leaked = [rig.issue(false).await];
        let mut events: Vec<Value> = (0..3).map(|id| comment(id, &keys)).collect();
        events.extend([comment(3, &leaked), push(4)]);
        let server = MockServer::start().await;
        once(&server, answer(&events), ResponseTemplate::new(502)).await;
        let outcome = poll(&rig.source(&server.uri())).await;
        assert_eq!((outcome.events, outcome.items, outcome.gap), (5, 1, false));
        // Of a repository no more than is little is written before that.
        assert_eq!((rig.revoked(&leaked).await, rig.revoked(&keys).await), (1, LITTLE));
        for (key, _) in &keys[..LITTLE] {
            assert_eq!(rig.places_of(key).await, 1);
        }
        assert_eq!((rig.state().await.items, rig.items().await.len()), (1, 1));

        // Another process goes on with them, below what is new.
        let new = [rig.issue(false).await];
        events.insert(0, comment(5, &new));
        swap(&server, &[("1", answer(&events))]).await;
        let outcome = poll(&rig.source(&server.uri())).await;
        assert_eq!((outcome.events, outcome.items, outcome.gap), (1, 0, false));
        assert_eq!((rig.revoked(&new).await, rig.revoked(&keys).await), (1, MANY));
        for (key, _) in &keys {
            assert_eq!(rig.places_of(key).await, 3);
        }
        let logged = async |key: &Key| rig.store.log_of_key(key.id, 1).await.unwrap()[0].seq;
        let after = logged(&new[0].0).await;
        for (key, _) in &keys[LITTLE..] {
            assert!(logged(key).await > after);
        }
        let state = rig.state().await;
        assert_eq!((state.texts, state.malformed, state.gaps, state.unseen), (5, 0, 0, None));
        // Nothing is left to be done.
        let before = requests(&server).await;
        assert_eq!(poll(&rig.source(&server.uri())).await.events, 0);
        assert_eq!(requests(&server).await, before + 1);
    }

    /// A log that is pasted into a comment may have the same key on each line, and an issue many that are revoked.
    async fn what_leaked_is_revoked_wherever_it_stands_among_many(database) {
        let rig = Rig::new(&database.store().await);
        let keys = rig.many().await;
        let revoked: Vec<Uuid> = keys.iter().map(|(key, _)| key.id).collect();
        rig.responder.revoke_all(&revoked, "cli").await.unwrap();
        let [often, beside] = [rig.issue(false).await, rig.issue(false).await];
        let times: Vec<_> = (0..2 * LITTLE).map(|_| (often.0.clone(), often.1.clone())).collect();
        let mut among = keys.clone();
        among.push((beside.0.clone(), beside.1.clone()));
        let server = MockServer::start().await;
        let events = [comment(0, &times), comment(1, &among)];
        once(&server, answer(&events), ResponseTemplate::new(502)).await;
        poll(&rig.source(&server.uri())).await;
        assert_eq!(rig.revoked(&[often, beside]).await, 2);
        assert_eq!(rig.places_of(&keys[0].0).await, 0, "it is put aside");
    }

    /// Each is little, and there may be hundreds of them.
    async fn what_a_repository_names_in_many_events_is_written_after_all_else(database) {
        let rig = Rig::new(&database.store().await);
        let keys = rig.many().await;
        let server = MockServer::start().await;
        let events: Vec<Value> = (0..6).map(|id| comment(id, &keys[..LITTLE / 2])).collect();
        once(&server, answer(&events), ResponseTemplate::new(502)).await;
        poll(&rig.source(&server.uri())).await;
        assert_eq!(rig.revoked(&keys).await, LITTLE / 2);
        // As many again are first places of keys that were not revoked then.
        assert_eq!(rig.places_of(&keys[0].0).await, 4);
        swap(&server, &[("1", answer(&events))]).await;
        poll(&rig.source(&server.uri())).await;
        assert_eq!(rig.places_of(&keys[0].0).await, 6);
    }

    /// Else it is held for as long as a server trickles, for each of many sources, and what leaked waits as well.
    async fn what_a_page_brought_is_committed_before_the_next_one_is_there(database) {
        let rig = Rig::new(&database.store().await);
        let leaked = [rig.issue(false).await];
        let events = [comment(2, &leaked), push(1)];
        let first = answer(&events).insert_header("link", "<https://git.example>; rel=\"next\"");
        let server = MockServer::start().await;
        let never = ResponseTemplate::new(200).set_delay(Duration::from_mins(10));
        swap(&server, &[("1", first), ("2", never)]).await;
        let source = rig.source(&server.uri());
        let committed = eventually("the page is committed", async || {
            rig.revoked(&leaked).await == 1 && rig.items().await.len() == 1
        });
        tokio::select! {
            outcome = source.poll_once() => panic!("the poll ended: {outcome:?}"),
            () = committed => {}
        }
        // The poll was aborted: the page is read again, and counts once.
        swap(&server, &[("1", answer(&events))]).await;
        let outcome = poll(&source).await;
        assert_eq!((outcome.events, outcome.items), (2, 0));
        assert_eq!(rig.places_of(&leaked[0].0).await, 1);
    }
}

/// Events are read one at a time, as much of each as there is room for, and no part is left out. A page is not
/// requested for each, unless the answers of others need its memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_names_more_than_is_held_is_read_in_parts() {
    let (_database, rig) = sqlite().await;
    let keys = rig.many().await;
    let long = "some.words,".repeat(180);
    let texts: Vec<Value> = (0..700)
        .map(|n| {
            let link = format!("https://git.example/{n}/{long}");
            json!({"html_url": link, "body": keys[n % MANY].1.expose()})
        })
        .collect();
    let server = MockServer::start().await;
    let events = [event(1, &json!({ "texts": texts })), comment(2, &keys)];
    swap(&server, &[("1", answer(&events))]).await;
    poll(&rig.source(&server.uri())).await;
    assert_eq!(rig.revoked(&keys).await, MANY);
    for (key, _) in &keys {
        assert_eq!(rig.places_of(key).await, 700 / MANY + 1);
    }
    assert!(requests(&server).await < 5);
    assert_eq!(rig.state().await.texts, 2);
}

/// Else what leaks meanwhile waits for all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_names_many_keys_makes_the_next_poll_no_later() {
    let (_database, rig) = sqlite().await;
    let (one, other) = (rig.many().await, rig.many().await);
    let events = [comment(1, &one), comment(2, &other)];
    let answer = answer(&events).insert_header("x-poll-interval", "1");
    let server = MockServer::start().await;
    let source = rig.source(&server.uri());
    let late = answer.clone().set_delay(Duration::from_millis(1_500));
    once(&server, answer.clone(), late).await;
    assert_eq!(poll(&source).await.next_after, Duration::ZERO);
    let revoked = async || rig.revoked(&one).await + rig.revoked(&other).await;
    assert_eq!(revoked().await, MANY);
    swap(&server, &[("1", answer)]).await;
    poll(&source).await;
    assert_eq!(revoked().await, 2 * MANY);
    assert_eq!(poll(&source).await.next_after, Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_names_many_keys_and_is_gone_is_told_and_read_if_it_comes_again() {
    let (_database, rig) = sqlite().await;
    let keys = rig.many().await;
    let events = [push(3), comment(2, &keys), push(1)];
    let gone = [push(3), push(1)];
    let server = MockServer::start().await;
    once(&server, answer(&events), answer(&gone)).await;
    let source = rig.source(&server.uri());
    let outcome = poll(&source).await;
    assert_eq!((outcome.items, outcome.gap), (2, true));
    let state = rig.state().await;
    assert_eq!((state.gaps, rig.revoked(&keys).await), (1, LITTLE));
    assert!(state.unseen.unwrap().contains("1 events that name many"));
    swap(&server, &[("1", answer(&events))]).await;
    let outcome = poll(&source).await;
    assert_eq!((outcome.events, outcome.gap), (1, false));
    assert_eq!(rig.revoked(&keys).await, MANY);
}

/// Sixty comments used up the 60 requests an hour of a feed without a token, which was blind until there were more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_names_many_keys_leaves_the_requests_that_polls_need() {
    let (_database, rig) = sqlite().await;
    let keys = rig.many().await;
    let resets_at = (rig.now().as_second() + 3_600).to_string();
    let limited = |answer: ResponseTemplate, left: &str| {
        answer
            .insert_header("x-ratelimit-limit", "60")
            .insert_header("x-ratelimit-remaining", left)
            .insert_header("x-ratelimit-reset", &*resets_at)
    };
    let many =
        |ids: std::ops::Range<usize>| -> Vec<Value> { ids.map(|id| comment(id, &keys)).collect() };
    let (old, new) = (many(0..3), many(3..6));
    let server = MockServer::start().await;
    let source = rig.source(&server.uri());
    // A poll a minute needs all that are left.
    let page = limited(answer(&old), "59");
    once(&server, page.clone(), page).await;
    assert_eq!(poll(&source).await.events, 3);
    assert_eq!(
        (requests(&server).await, rig.revoked(&keys).await),
        (2, LITTLE)
    );

    // What is on the last page is read all the same, without a request.
    let events = [new, old].concat();
    swap(&server, &[("1", limited(answer(&events), "58"))]).await;
    let mut polls = 0;
    while rig.places_of(&keys[0].0).await < 6 {
        assert!(polls < 6, "each poll reads one at least");
        polls += 1;
        poll(&source).await;
    }
    assert_eq!(requests(&server).await, polls);
    assert_eq!(
        (rig.revoked(&keys).await, rig.state().await.gaps),
        (MANY, 0)
    );

    // A request that no poll needs is made.
    let page = limited(answer(&many(6..7)), "70");
    once(&server, page.clone(), page).await;
    poll(&source).await;
    assert_eq!(rig.places_of(&keys[0].0).await, 6 + 1);
}
