//! Senders that recently proved to be genuine.

use rescind::store::ProvedSender;

use crate::support::databases::on_both_databases;

fn sender(number: u8, hour: i64) -> ProvedSender {
    ProvedSender {
        sender: [number; 32],
        network: [number / 2; 32],
        hour,
    }
}

on_both_databases! {
    async fn the_key_of_senders_is_made_once(database) {
        let store = database.store().await;
        assert_eq!(store.sender_key([1; 32]).await.unwrap(), [1; 32]);
        assert_eq!(store.sender_key([2; 32]).await.unwrap(), [1; 32]);
    }

    async fn senders_are_kept_for_hours_and_few_of_them(database) {
        let store = database.store().await;
        let senders = (0..200).map(|number| sender(number, i64::from(number / 100)));
        store.add_proved_senders(senders.collect()).await.unwrap();
        // Again, later, and twice in one transaction.
        let again = vec![sender(7, 2), sender(7, 2), sender(250, 2)];
        store.add_proved_senders(again).await.unwrap();
        store.add_proved_senders(Vec::new()).await.unwrap();
        let newest = store.proved_senders(2, 10).await.unwrap();
        let mut newest: Vec<u8> = newest.into_iter().map(|of| of.sender[0]).collect();
        newest.sort_unstable();
        assert_eq!(newest, [7, 250]);
        assert_eq!(store.proved_senders(0, 1000).await.unwrap().len(), 201);
        assert_eq!(store.proved_senders(0, 50).await.unwrap().len(), 50);

        assert_eq!(store.forget_proved_senders(1, 1000).await.unwrap(), 99);
        assert_eq!(store.forget_proved_senders(1, 60).await.unwrap(), 42);
        let left = store.proved_senders(0, 1000).await.unwrap();
        assert_eq!(left.len(), 60);
        assert!(left.contains(&sender(7, 2)) && left.contains(&sender(250, 2)));
    }
}
