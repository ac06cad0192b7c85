//! Items that wait: for a host that cannot be read, for another process, or for what is not there yet.

use jiff::SignedDuration;
use rescind::fetch::{Guard, guarded_client};
use rescind::store::{Descendant, Fetched, Lineage, Part};

use super::*;

const TRIES: &str = "SELECT MAX(tries) FROM work_items";

/// Ends the waits of all items.
async fn now(database: &TestDatabase) {
    let sql = "UPDATE work_items SET ready_at = 0";
    database.run(sql).await.unwrap();
}

impl Rig {
    /// Creates a worker that may connect to public addresses only.
    fn worker_outside(&self) -> Worker {
        let guard = Guard::public_only();
        let client = guarded_client(&guard).unwrap();
        let parts = WorkerParts {
            store: self.store.clone(),
            responder: self.responder.clone(),
            engine: Arc::clone(&self.engine),
            fetcher: GitFetcher::new(client, limits()).guarded_by(guard),
            clock: shared(&self.clock),
            wake: Arc::clone(&self.wake),
        };
        Worker::new(parts, [], WorkerOptions::default())
    }

    /// Adds a part of a push that was read, of a commit that is not there.
    async fn add_part_of(&self, whole: &NewWorkItem) {
        self.add_items(std::slice::from_ref(whole)).await;
        let lease = Duration::from_mins(1);
        let held = self.store.claim(1, "w", lease).await.unwrap().remove(0);
        let part = Descendant {
            parent: held.id,
            range: NewWorkItem {
                after: made_up('c').after.to_string(),
                priority: Priority::Backfill,
                ..whole.clone()
            },
            part: Some(Part::default()),
            lineage: Lineage {
                origin: held.id,
                generation: 1,
                parts_left: 4,
                bytes_left: 1 << 20,
            },
        };
        let mut tx = self.store.begin().await.unwrap();
        let fetched = Fetched {
            truncated: true,
            ..Fetched::default()
        };
        assert!(tx.finish(held.id, "w", fetched).await.unwrap());
        tx.add_descendants(&[part], self.now()).await.unwrap();
        tx.commit().await.unwrap();
    }
}

on_both_databases! {
    async fn a_clock_that_is_put_forward_ends_no_patience_with_a_host(database) {
        let rig = Rig::new(&database.store().await);
        let server = MockServer::start().await;
        let down = ResponseTemplate::new(503);
        Mock::given(any()).respond_with(down).mount(&server).await;
        let pushes = ['b', 'c', 'd', 'e'].map(|digit| NewWorkItem {
            repository: format!("acme/{digit}"),
            ..rig.item(&made_up(digit))
        });
        rig.add_items(&pushes).await;
        rig.clock.advance(SignedDuration::from_hours(48));
        assert!(rig.worker(&server.uri()).drain().await.unwrap() > 0);
        assert_eq!(database.count(TRIES).await, 0);
        assert_eq!(rig.counts().await.waiting, 4);
    }

    async fn what_another_process_can_read_costs_no_try_and_waits_for_nothing(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let (key, value) = rig.issue(false).await;
        rig.add(&[shop.push(&[("a", value.expose().as_bytes().to_vec())])]).await;
        for _ in 0..9 {
            let elsewhere = origin("other.example", &shop.forge.url());
            let other = rig.worker_of([elsewhere], limits(), WorkerOptions::default());
            assert_eq!(other.drain().await.unwrap(), 1);
            assert_eq!(other.drain().await.unwrap(), 0, "it leaves the host alone for a while");
        }
        assert_eq!(database.count(TRIES).await, 0);
        let wait = rig.store.source_work().await.unwrap().remove(0).waits_for.unwrap();
        assert!(wait.host == "git.example" && wait.why.contains("no source is configured"), "{wait}");
        assert_eq!(rig.worker(&shop.forge.url()).drain().await.unwrap(), 1);
        assert!(rig.is_revoked(&key).await);
    }

    async fn so_does_what_is_at_an_address_that_only_another_configuration_names(database) {
        let rig = Rig::new(&database.store().await);
        for (digit, server) in [('b', "http://localhost:9"), ('c', "http://127.0.0.1:9")] {
            let inside = NewWorkItem {
                clone_url: Some(format!("{server}/acme/shop.git")),
                host: format!("{digit}.example"),
                ..rig.item(&made_up(digit))
            };
            rig.add_items(&[inside]).await;
        }
        for _ in 0..2 {
            assert_eq!(rig.worker_outside().drain().await.unwrap(), 2);
        }
        assert_eq!(database.count(TRIES).await, 0);
        let ready = "SELECT COUNT(*) FROM work_items WHERE last_error LIKE '%only hosts that the configuration names%'";
        assert_eq!(database.count(ready).await, 2);
    }

    async fn a_part_of_a_push_is_asked_for_as_long_as_the_push_and_again_with_it(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let whole = NewWorkItem { priority: Priority::Webhook, ..rig.item(&made_up('b')) };
        rig.add_part_of(&whole).await;
        // Read when nothing else waits, too, and likely to be there: a `git` source listed it.
        let first = NewWorkItem {
            clone_url: Some(format!("{}/acme/shop.git", shop.forge.url())),
            priority: Priority::Backfill,
            ..rig.item(&made_up('d'))
        };
        rig.add_items(&[first]).await;
        let worker = rig.worker(&shop.forge.url());
        for time in 1..=6 {
            worker.drain().await.unwrap();
            assert_eq!(rig.counts().await.waiting, 2, "{time}");
            now(database).await;
        }
        worker.drain().await.unwrap();
        assert_eq!((rig.counts().await.waiting, rig.counts().await.done), (0, 3));
        // Feeds repeat themselves.
        rig.add_items(&[NewWorkItem { priority: Priority::Firehose, ..whole.clone() }]).await;
        assert_eq!(rig.counts().await.waiting, 0);
        rig.add_items(&[whole]).await;
        assert_eq!((rig.counts().await.waiting, rig.counts().await.done), (1, 2));
    }
}
