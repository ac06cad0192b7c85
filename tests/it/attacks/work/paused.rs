//! Many items of a host that is paused.

use super::*;

on_both_databases! {
    async fn many_items_of_a_paused_host_hide_nobody(database) {
        many_of_a_paused_host(database, 10_000).await;
    }
}

async fn many_of_a_paused_host(database: &TestDatabase, count: u32) {
    let rig = Rig::new(&database.store().await);
    let shop = Shop::open().await;
    let busy = wiremock::MockServer::start().await;
    let later = wiremock::ResponseTemplate::new(429).insert_header("retry-after", "600");
    wiremock::Mock::given(wiremock::matchers::any())
        .respond_with(later)
        .mount(&busy)
        .await;
    let first = rig.push_to("busy.example", 0, Priority::Webhook);
    rig.add_items(&[first]).await;
    let numbers = match database.kind {
        Kind::Sqlite => format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
        ),
        Kind::Postgres => format!("WITH n (i) AS (SELECT generate_series(1, {count}))"),
    };
    let zeros = "0".repeat(28);
    // Each of a repository of its own, or two of them.
    let insert = format!(
        "INSERT INTO work_items (id, kind, host, repository_id, remote, repository, ref_name, before_id, after_id,
            source, priority, event_at, created_at, state, ready_at, tries, truncated, bytes, blobs)
        {numbers} SELECT '00000000-0000-7000-8000-' || (100000000000 + i), 'range', 'busy.example',
            CAST(i / 2 AS TEXT), CAST(i / 2 AS TEXT), 'acme/shop', 'refs/heads/main', before_id, '{zeros}' || (100000000000 + i), source, priority,
            event_at - i, created_at, 'waiting', 0, 0, truncated, 0, 0 FROM work_items, n"
    );
    database.run(&insert).await.unwrap();
    let (key, leak) = rig.leak(&shop).await;
    // Less urgent, and later than all of them.
    rig.add_items(&[NewWorkItem {
        priority: Priority::Watched,
        ..leak
    }])
    .await;
    let origins = [
        origin("git.example", &shop.forge.url()),
        origin("busy.example", &busy.uri()),
    ];
    let worker = rig.worker_of(origins, FetchLimits::default(), WorkerOptions::default());
    let begun = Instant::now();
    timeout(Duration::from_mins(1), worker.drain())
        .await
        .expect("an end")
        .unwrap();
    assert!(rig.is_revoked(&key).await);
    let (taken, asked) = (
        begun.elapsed(),
        busy.received_requests().await.unwrap().len(),
    );
    let places = WorkerOptions::default().concurrent;
    // Some of one owner's repositories have to ask for it before the host is asked less often.
    assert!(asked <= 2 * places, "{asked}");
    // A claim that reads what is in front takes seconds for all its turns; this one, milliseconds.
    assert!(taken < PROMISED, "{taken:?}");
    let begun = Instant::now();
    let paused = ["busy.example".to_owned()];
    for _ in 0..20 {
        assert_eq!(
            rig.store
                .claim_except(8, "w", LEASE, &paused)
                .await
                .unwrap(),
            []
        );
    }
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: ./test.sh --long"]
async fn a_hundred_thousand_items_of_a_paused_host_hide_nobody() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let database = TestDatabase::new(kind).await;
        many_of_a_paused_host(&database, 100_000).await;
        database.remove().await;
    }
}
