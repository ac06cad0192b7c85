//! Incidents: listed by every filter.

use rescind::issuer::IssueRequest;
use rescind::keyformat::KeyValue;
use rescind::respond::Sighting;
use rescind::store::{Incident, IncidentFilter, IncidentStatus, Owner, PageRequest, Reason, Store};

use crate::support::databases::{Kind, TestDatabase, on_both_databases};
use crate::support::eventually::eventually;
use crate::support::responder::{issuer, request, responder, sighting};

async fn list(store: &Store, filter: IncidentFilter) -> Vec<String> {
    let page = store
        .list_incidents(&filter, &PageRequest::first())
        .await
        .unwrap();
    page.items
        .into_iter()
        .map(|incident: Incident| incident.key.description)
        .collect()
}

/// Number of occurrences of an incident that a filter looks at.
const LOOKED_AT: i64 = 500;

on_both_databases! {
    async fn incidents_are_listed_by_every_filter(database) {
        let store = database.store().await;
        let (responder, clock) = responder(&store);
        let start = responder.clock().now();
        let leak = async |request: IssueRequest, place: fn(&mut Sighting)| -> KeyValue {
            let (_, value) = issuer(&responder).issue(request).await.unwrap();
            let mut seen = sighting(&responder, &value, 1);
            place(&mut seen);
            responder.report(vec![seen], Reason::Leaked, "test").await.unwrap();
            clock.advance(jiff::SignedDuration::from_secs(10));
            value
        };
        let alpha = leak(request("Alpha 100%"), |_| {}).await;
        leak(IssueRequest { owner: Owner::team("Team_Blue"), ..request("beta") }, |seen| {
            "partner:github".clone_into(&mut seen.place.source);
            seen.place.repository = Some("Octo/Cat".to_owned());
        })
        .await;
        leak(IssueRequest { project: "other".to_owned(), ..request("gamma") }, |_| {}).await;
        let any = IncidentFilter::default;
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(list(&store, any()).await, ["gamma", "beta", "Alpha 100%"]);
        for (filter, expected) in [
            (IncidentFilter { project: text("other"), ..any() }, vec!["gamma"]),
            (IncidentFilter { status: Some(IncidentStatus::Open), format: text("rescind_secret"), ..any() },
                vec!["gamma", "beta", "Alpha 100%"]),
            (IncidentFilter { format: text("rescind_public"), ..any() }, vec![]),
            (IncidentFilter { source: text("partner:github"), ..any() }, vec!["beta"]),
            (IncidentFilter { owner: text("Team_Blue"), ..any() }, vec!["beta"]),
            (IncidentFilter { q: text("ALPHA"), ..any() }, vec!["Alpha 100%"]),
            (IncidentFilter { q: text("0%"), ..any() }, vec!["Alpha 100%"]),
            (IncidentFilter { q: text("m_b"), ..any() }, vec!["beta"]),
            (IncidentFilter { q: text("%"), ..any() }, vec!["Alpha 100%"]),
            (IncidentFilter { q: text("octo/"), ..any() }, vec!["beta"]),
            (IncidentFilter { q: text(alpha.last_four()), ..any() }, vec!["Alpha 100%"]),
            (IncidentFilter { since: Some(start + jiff::SignedDuration::from_secs(10)), ..any() }, vec!["gamma", "beta"]),
            (IncidentFilter { until: Some(start + jiff::SignedDuration::from_secs(10)), ..any() }, vec!["Alpha 100%"]),
        ] {
            assert_eq!(list(&store, filter.clone()).await, expected, "{filter:?}");
        }
        let page = store.list_incidents(&any(), &PageRequest::new(2, None)).await.unwrap();
        let rest = PageRequest::new(2, page.next_cursor.clone());
        let rest = store.list_incidents(&any(), &rest).await.unwrap();
        assert_eq!((page.items.len(), rest.items.len(), rest.next_cursor), (2, 1, None));
        let one = &page.items[0];
        assert_eq!(store.incident(one.id).await.unwrap().as_ref(), Some(one));
    }

    /// Whoever holds a leaked key can report it at ever new places, each with a name of its own.
    async fn a_filter_looks_at_the_first_places_of_each_incident(database) {
        let store = database.store().await;
        let (responder, _) = responder(&store);
        let (key, value) = issuer(&responder).issue(request("alpha")).await.unwrap();
        let places = (1..=LOOKED_AT + 1).map(|number| {
            let mut seen = sighting(&responder, &value, number.unsigned_abs());
            seen.place.repository = Some(format!("acme/app-{number}-"));
            seen.place.source = format!("source-{number}-");
            seen.detected_at += jiff::SignedDuration::from_secs(number);
            seen
        });
        responder.report(places.collect(), Reason::Leaked, "test").await.unwrap();
        let incident = store.incident_of_key(key.id).await.unwrap().unwrap();
        assert_eq!(incident.occurrences, (LOOKED_AT + 1).unsigned_abs());
        for (number, found) in [(1, 1), (LOOKED_AT, 1), (LOOKED_AT + 1, 0)] {
            let q = Some(format!("APP-{number}-"));
            let source = Some(format!("source-{number}-"));
            for filter in [
                IncidentFilter { q, ..IncidentFilter::default() },
                IncidentFilter { source, ..IncidentFilter::default() },
            ] {
                assert_eq!(list(&store, filter.clone()).await.len(), found, "{filter:?}");
            }
        }
    }
}

/// One search would otherwise read the places of all projects for each of its incidents.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_reads_no_places_of_other_projects() {
    let database = TestDatabase::new(Kind::Postgres).await;
    let store = database.store().await;
    database
        .run("ALTER TABLE occurrences SET (autovacuum_enabled = off)")
        .await
        .unwrap();
    let (responder, _) = responder(&store);
    for number in 0..20 {
        let project = if number < 10 { "default" } else { "other" };
        let new = IssueRequest {
            project: project.to_owned(),
            ..request(&format!("key {number}"))
        };
        let (_, value) = issuer(&responder).issue(new).await.unwrap();
        let seen = vec![sighting(&responder, &value, 1)];
        responder
            .report(seen, Reason::Leaked, "test")
            .await
            .unwrap();
    }
    let many = "INSERT INTO occurrences (id, fingerprint, key_id, incident_id, source, url, repository, commit_id, path,
            line, detected_at, last_seen_at, sightings)
        SELECT gen_random_uuid()::text, decode(md5(k.id || g) || md5(g || k.id), 'hex'), k.id, i.id, 'partner:github',
            'https://github.com/acme/app/blob/' || md5(g::text), 'acme/app-' || g, md5(g::text), 'docs/' || g, g,
            g, g, 1
        FROM keys k JOIN incidents i ON i.key_id = k.id, generate_series(1, 2000) g WHERE k.project = 'other'";
    assert_eq!(database.run(many).await.unwrap(), 20_000);
    // With these statistics, reading the whole table seems cheaper than the index, as long as nothing limits the
    // places.
    database.run("ANALYZE").await.unwrap();
    let read = async |column: &str| {
        let sql = format!(
            "SELECT {column}::bigint FROM pg_stat_user_tables WHERE relname = 'occurrences'"
        );
        database.count(&sql).await
    };
    // What these sessions read is counted when they end at the latest.
    store.close().await;
    eventually("all sessions have ended", async || {
        let sessions = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'rescind'";
        database.count(sessions).await == 0
    })
    .await;
    let store = database.store().await;
    let before = read("seq_scan").await;
    for text in ["q", "source"] {
        let looked_up = read("idx_scan").await;
        let mut filter = IncidentFilter {
            project: Some("default".to_owned()),
            ..IncidentFilter::default()
        };
        match text {
            "q" => filter.q = Some("zzzz".to_owned()),
            _ => filter.source = Some("zzzz".to_owned()),
        }
        assert!(list(&store, filter).await.is_empty());
        // The server counts when the session is idle.
        eventually(
            "each incident's places are looked up in the index",
            async || {
                let looked_up = read("idx_scan").await - looked_up;
                (looked_up >= 10).then_some(()).ok_or(looked_up)
            },
        )
        .await;
    }
    assert_eq!(read("seq_scan").await, before);
    store.close().await;
    database.remove().await;
}
