//! Instants that a clock set which was ahead.

use std::time::Duration;

use rescind::store::Priority;

use super::work::{add, item};
use crate::support::databases::on_both_databases;

const LEASE: Duration = Duration::from_secs(8);

on_both_databases! {
    async fn what_is_to_wait_for_longer_than_anything_does_is_taken_now(database) {
        let store = database.store().await;
        add(&store, &[item(1, Priority::Webhook), item(2, Priority::Webhook), item(3, Priority::Webhook)]).await;
        let held = store.claim(3, "dies", LEASE).await.unwrap();
        store.retry(held[0].id, "dies", "failed once").await.unwrap();
        store.postpone(held[1].id, "dies", Duration::from_hours(24), "429").await.unwrap();
        assert_eq!(store.mend_times(LEASE).await.unwrap(), 0);
        // As if the clock had been ahead by 30 days for the first and the last of them.
        let ahead = Duration::from_hours(24 * 30).as_micros();
        for (repository, times) in [(1, 1), (3, 1), (2, 0)] {
            let sql = format!("UPDATE work_items SET ready_at = ready_at + {times} * {ahead} WHERE repository_id = '{repository}'");
            assert_eq!(database.run(&sql).await.unwrap(), 1);
        }
        assert!(store.claim(3, "lives", LEASE).await.unwrap().is_empty());
        assert_eq!(store.mend_times(Duration::ZERO).await.unwrap(), 2);
        let claimed = store.claim(3, "lives", LEASE).await.unwrap();
        let mut names: Vec<_> = claimed.iter().map(|item| (&*item.range.repository_id, item.deaths)).collect();
        names.sort_unstable();
        assert_eq!(names, [("1", 0), ("3", 1)], "the lease of the dead one has ended, the other wait has not");
    }

    async fn no_clock_that_goes_back_keeps_an_item_waiting_for_longer_than_it_should(database) {
        let store = database.store().await;
        let items: Vec<_> = (1..=5).map(|n| item(n, Priority::Webhook)).collect();
        add(&store, &items).await;
        let held = store.claim(5, "dies", LEASE).await.unwrap();
        store.retry(held[0].id, "dies", "failed once").await.unwrap();
        for (n, wait) in [(1, 3), (2, 7_200)] {
            store.postpone(held[n].id, "dies", Duration::from_secs(wait), "HTTP 502").await.unwrap();
        }
        store.heartbeat(&[held[3].id], "dies", LEASE).await.unwrap();
        assert_eq!(store.mend_times(LEASE).await.unwrap(), 0);
        // As if the clock went back by five minutes, which is less than two hours.
        let back = Duration::from_mins(5).as_micros();
        database.run(&format!("UPDATE work_items SET ready_at = ready_at + {back}")).await.unwrap();
        assert!(store.claim(5, "lives", LEASE).await.unwrap().is_empty());
        assert_eq!(store.mend_times(Duration::ZERO).await.unwrap(), 5);
        assert_eq!(store.mend_times(Duration::ZERO).await.unwrap(), 0);
        assert_eq!(store.claim(5, "lives", LEASE).await.unwrap().len(), 5);
    }
}
