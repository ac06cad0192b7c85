//! Incidents: listed by every filter.

use rescind::issuer::IssueRequest;
use rescind::keyformat::KeyValue;
use rescind::respond::Sighting;
use rescind::store::{Incident, IncidentFilter, IncidentStatus, Owner, PageRequest, Reason, Store};

use crate::support::databases::on_both_databases;
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
}
