//! Texts that were written to be costly to search for keys: in the places of a report, and in the descriptions of an
//! owner's keys. Everybody else goes on meanwhile, and no transaction waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rescind::keyformat::{FormatSet, KeyValue};
use rescind::respond::{Answer, Outcome, Responder};
use rescind::store::{NewKey, Owner, Reason, Store};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::databases::on_both_databases;
use crate::support::responder::{issuer, request, responder, sighting};

/// Characters that each may be the beginning of another encoding.
const COSTLY: &str = r"\%2B%25a\25%2B410x41,41=5C0x41,%26amp;=41a";

/// Number of keys that one owner leaks at once: more than are revoked in one transaction.
const KEYS: usize = 600;

/// Longest time for which others may be kept waiting.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs `work` as a task, and returns its result and the longest time for which a small task was not run meanwhile.
async fn beside<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> (T, Duration) {
    let ended = Arc::new(AtomicBool::new(false));
    let tick = |ended: Arc<AtomicBool>| async move {
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        while !ended.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        longest
    };
    let (mut ticking, mut working) = (JoinSet::new(), JoinSet::new());
    ticking.spawn(tick(Arc::clone(&ended)));
    working.spawn(work);
    let done = working.join_next().await.unwrap().unwrap();
    ended.store(true, Ordering::Relaxed);
    (done, ticking.join_next().await.unwrap().unwrap())
}

/// Stores keys whose descriptions are as costly as the API accepts.
async fn stored(store: &Store, responder: &Responder) -> Vec<KeyValue> {
    let formats = FormatSet::builtin();
    let format = formats.get("rescind_secret").unwrap();
    let mut tx = store.begin().await.unwrap();
    let mut values = Vec::new();
    for _ in 0..KEYS {
        let value = format.mint().unwrap();
        let key = NewKey {
            id: Uuid::now_v7(),
            project: "default".to_owned(),
            digest: value.sha256(),
            format: format.id().to_owned(),
            owner: Owner::user("u"),
            description: COSTLY.repeat(24),
            is_public: false,
            prefix: format.display_prefix().to_owned(),
            last_four: value.last_four().to_owned(),
            policy: None,
            notify_emails: Vec::new(),
            created_at: responder.clock().now(),
            expires_at: None,
            definition: None,
        };
        tx.insert_key(key).await.unwrap();
        values.push(value);
    }
    tx.commit().await.unwrap();
    values
}

fn revoked(answers: &[Answer]) -> usize {
    let outcomes = answers.iter().flat_map(|answer| &answer.outcomes);
    outcomes
        .filter(|outcome| matches!(outcome, Outcome::Revoked(_)))
        .count()
}

on_both_databases! {
    /// The threads that serve requests are as many as there are reports.
    async fn links_are_read_in_turns(database) {
        let store = database.store().await;
        let (responder, _) = responder(&store);
        let mut reports = JoinSet::new();
        for report in 0..2 {
            let (_, value) = issuer(&responder).issue(request("leaked")).await.unwrap();
            let rows = (0..12).map(|row| {
                let mut seen = sighting(&responder, &value, row);
                let link = format!("https://x.example/{report}/{row}/{}", COSTLY.repeat(46));
                seen.place.url = Some(link[..1_900].to_owned());
                seen
            });
            let (rows, responder) = (rows.collect::<Vec<_>>(), responder.clone());
            reports.spawn(async move {
                let actor = "partner:github";
                let reported = responder.report_from_outside(rows, |_| {}, Reason::Leaked, actor);
                reported.await.unwrap()
            });
        }
        let (answers, longest) = beside(reports.join_all()).await;
        assert!(longest < PATIENCE, "{longest:?}");
        for answers in answers {
            assert_eq!((answers.len(), revoked(&answers)), (12, 1));
        }
    }

    async fn descriptions_cost_nothing_where_keys_are_locked(database) {
        let store = database.store().await;
        let (responder, _) = responder(&store);
        let values = stored(&store, &responder).await;
        let seen: Vec<_> = values.iter().map(|value| sighting(&responder, value, 1)).collect();
        for expected in [KEYS, 0] {
            let (responder, seen) = (responder.clone(), seen.clone());
            let reported =
                async move { responder.report(seen, Reason::Leaked, "test").await.unwrap() };
            let (answers, longest) = beside(reported).await;
            assert!(longest < PATIENCE, "{longest:?}");
            assert_eq!((answers.len(), revoked(&answers)), (KEYS, expected));
            assert!(answers.iter().all(Answer::is_secret));
        }
        let entries = store.log_after(0, 2 * u32::try_from(KEYS).unwrap()).await.unwrap();
        assert_eq!(entries.len(), KEYS);
    }
}
