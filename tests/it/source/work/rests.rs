//! Branches that count as read when a new one is read.

use super::parts::{FILE, all};
use super::*;

/// A time that does not come.
const NEVER: i64 = 4_000_000_000_000_000;

impl Shop {
    fn head_is(&self, branch: &str) {
        let head = format!("ref: refs/heads/{branch}\n");
        std::fs::write(self.repository.bare().join("HEAD"), head).unwrap();
    }

    /// Has the server send commits without what is in them to whoever asks for that.
    fn take_filters(&self) {
        let config = self.repository.bare().join("config");
        let mut told = std::fs::read_to_string(&config).unwrap();
        told.push_str("[uploadpack]\n\tallowFilter = true\n");
        std::fs::write(config, told).unwrap();
    }

    /// Commits a leak, and then that it is removed.
    async fn leak(&self, rig: &Rig, file: &str) -> Key {
        let (key, value) = rig.issue(false).await;
        self.repository
            .write(file, value.expose().as_bytes())
            .unwrap();
        self.repository.commit("Leak").unwrap();
        self.repository.write(file, b"none").unwrap();
        self.repository.commit("Remove").unwrap();
        key
    }

    /// Pushes what is there to a branch, as if it were new.
    fn new_branch(&self, branch: &str) -> Pushed {
        let pushed = self.repository.push(branch).unwrap();
        let before = ObjectId::null(pushed.after.kind());
        Pushed { before, ..pushed }
    }
}

impl Rig {
    /// Adds what a webhook told of, which tells of every branch.
    async fn tell(&self, pushes: &[Pushed]) {
        let items = pushes.iter().map(|pushed| NewWorkItem {
            priority: Priority::Webhook,
            ..self.item(pushed)
        });
        self.add_items(&items.collect::<Vec<_>>()).await;
    }

    async fn read(&self, shop: &Shop, pushes: &[Pushed]) {
        self.tell(pushes).await;
        self.worker(&shop.forge.url()).drain().await.unwrap();
    }

    async fn reads_as_much_as_its_server_has(&self, database: &TestDatabase, is_old: bool) {
        let (rig, shop) = (self, Shop::open().await);
        if is_old {
            shop.forge.speak_version_0();
        }
        let cut = |commit: &str| {
            let cut = shop.repository.resolve(commit).unwrap();
            std::fs::write(shop.repository.bare().join("shallow"), format!("{cut}\n")).unwrap();
        };
        let change = |n: u8| shop.push(&[("file", vec![n])]);
        let pushes: Vec<Pushed> = (0..12).map(change).collect();
        // What is read does not lead back to what the server lacks.
        cut("HEAD~10");
        rig.read(&shop, &pushes[6..7]).await;
        assert_eq!(
            (rig.counts().await.done, rig.counts().await.truncated),
            (1, 0)
        );
        // Nor do as many commits as are read of a branch that was merged.
        let of_feed = |branch: &str| NewWorkItem {
            priority: Priority::Firehose,
            ..rig.item(&shop.new_branch(branch))
        };
        rig.add_items(&[of_feed("old")]).await;
        rig.read(&shop, &[]).await;
        assert_eq!(
            (rig.counts().await.done, rig.counts().await.truncated),
            (2, 0)
        );
        cut("HEAD~3");
        let one = if is_old {
            // It gives nothing but what it lists, and what is cut of that is between these.
            Pushed {
                before: pushes[2].after,
                ..pushes[11].clone()
            }
        } else {
            pushes[7].clone()
        };
        let cuts = u64::from(is_old);
        rig.read(&shop, &[one]).await;
        rig.read(&shop, &[shop.new_branch("main")]).await;
        assert_eq!(
            (rig.counts().await.done, rig.counts().await.truncated),
            (4, 2 + cuts)
        );
        // The branch of `HEAD` was not read.
        rig.read(&shop, &[shop.new_branch("feature")]).await;
        assert_eq!(
            (rig.counts().await.done, rig.counts().await.truncated),
            (5, 3 + cuts)
        );
        database.run("DELETE FROM work_items").await.unwrap();
        for (n, filters) in [false, true].into_iter().enumerate() {
            if filters {
                shop.take_filters();
            }
            rig.add_items(&[of_feed(&format!("feed{n}"))]).await;
            rig.read(&shop, &[]).await;
            let truncated = rig.counts().await.truncated;
            assert_eq!(
                (rig.counts().await.dead, truncated),
                (0, n as u64 + 1),
                "{filters}"
            );
        }
    }
}

async fn blobs(database: &TestDatabase, branch: &str) -> i64 {
    let sum = format!(
        "SELECT CAST(SUM(blobs) AS BIGINT) FROM work_items WHERE ref_name = 'refs/heads/{branch}'"
    );
    database.count(&sum).await
}

async fn put_off(database: &TestDatabase, branch: &str, until: i64) {
    let sql = format!(
        "UPDATE work_items SET ready_at = {until}, wait = {until} WHERE ref_name = 'refs/heads/{branch}'"
    );
    database.run(&sql).await.unwrap();
}

on_both_databases! {
    async fn of_two_new_branches_one_is_read_whole_whatever_the_default_branch_is(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let key = shop.leak(&rig, "key").await;
        let [main, dev] = ["main", "dev"].map(|branch| shop.new_branch(branch));
        shop.head_is("dev");
        rig.read(&shop, &[main]).await;
        shop.head_is("main");
        rig.read(&shop, &[dev]).await;
        assert!(rig.is_revoked(&key).await);
        assert_eq!((rig.counts().await.done, rig.counts().await.truncated), (2, 0));
    }

    async fn a_branch_that_waited_does_not_rest_on_one_that_rests_on_it(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let key = shop.leak(&rig, "key").await;
        let [main, dev, next] = ["main", "dev", "next"].map(|branch| shop.new_branch(branch));
        rig.tell(&[dev, next]).await;
        put_off(database, "dev", NEVER).await;
        put_off(database, "next", NEVER).await;
        shop.head_is("dev");
        rig.read(&shop, &[main]).await;
        shop.head_is("main");
        put_off(database, "next", 0).await;
        rig.read(&shop, &[]).await;
        assert!(!rig.is_revoked(&key).await, "dev is still to be read");
        // It rests on `main`, and that on `dev`.
        shop.head_is("next");
        put_off(database, "dev", 0).await;
        rig.read(&shop, &[]).await;
        assert!(rig.is_revoked(&key).await);
        assert_eq!((rig.counts().await.done, rig.counts().await.waiting), (3, 0));
    }

    /// A sample may show the branch and not the merge.
    async fn a_new_branch_of_a_public_feed_is_read_though_it_is_merged(database) {
        let rig = Rig::new(&database.store().await);
        for (filters, is_read, priority) in [
            (false, true, Priority::Firehose),
            (true, true, Priority::Firehose),
            (true, true, Priority::Backfill),
            (true, false, Priority::Webhook),
        ] {
            let shop = Shop::open().await;
            if filters {
                shop.take_filters();
            }
            let old = shop.leak(&rig, "old").await;
            for n in 0..8 {
                shop.repository.write("file", format!("{filters} {priority:?} {n}").as_bytes()).unwrap();
                shop.repository.commit("Change").unwrap();
            }
            shop.repository.push("main").unwrap();
            let key = shop.leak(&rig, "key").await;
            let feature = shop.new_branch("feature");
            shop.repository.push("main").unwrap();
            let repository_id = format!("{filters} {priority:?}");
            rig.add_items(&[NewWorkItem { priority, repository_id, ..rig.item(&feature) }]).await;
            rig.worker(&shop.forge.url()).drain().await.unwrap();
            assert_eq!(rig.is_revoked(&key).await, is_read, "{filters} {priority:?}");
            assert!(!rig.is_revoked(&old).await, "{filters} {priority:?}");
        }
        assert_eq!((rig.counts().await.done, rig.counts().await.truncated), (4, 0));
    }

    /// A mirror may lack what is old.
    async fn a_history_that_its_server_cut_is_truncated(database) {
        let rig = Rig::new(&database.store().await);
        for is_old in [false, true] {
            rig.reads_as_much_as_its_server_has(database, is_old).await;
            database.run("DELETE FROM work_items").await.unwrap();
        }
    }

    async fn a_new_branch_of_an_old_repository_costs_its_own_commits(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let old = shop.leak(&rig, "old").await;
        shop.repository.push("main").unwrap();
        let own = shop.leak(&rig, "own").await;
        rig.read(&shop, &[shop.new_branch("feature")]).await;
        assert!(rig.is_revoked(&own).await);
        assert!(!rig.is_revoked(&old).await);
        assert_eq!(blobs(database, "feature").await, 1);
    }

    async fn a_new_branch_beside_one_that_was_read_or_will_be_costs_its_own_commits(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let key = shop.leak(&rig, "key").await;
        rig.tell(&[shop.new_branch("main")]).await;
        put_off(database, "main", NEVER).await;
        shop.repository.write("first", b"first").unwrap();
        shop.repository.commit("First").unwrap();
        rig.read(&shop, &[shop.new_branch("first")]).await;
        assert_eq!((blobs(database, "first").await, rig.is_revoked(&key).await), (1, false));
        put_off(database, "main", 0).await;
        rig.read(&shop, &[]).await;
        assert!(rig.is_revoked(&key).await);
        assert_eq!(blobs(database, "main").await, 3);
        shop.repository.write("second", b"second").unwrap();
        shop.repository.commit("Second").unwrap();
        rig.read(&shop, &[shop.new_branch("second")]).await;
        assert_eq!(blobs(database, "second").await, 2);
    }

    async fn a_new_branch_beside_one_that_could_not_be_read_is_read_whole(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        shop.leak(&rig, "key").await;
        rig.read(&shop, &[shop.new_branch("main")]).await;
        for (n, state) in ["'dead'", "'shed'", "'done', gone = TRUE", "'done', gone = FALSE, truncated = TRUE"].iter().enumerate() {
            let set = format!("UPDATE work_items SET state = {state} WHERE ref_name = 'refs/heads/main'");
            database.run(&set).await.unwrap();
            let branch = format!("branch-{n}");
            rig.read(&shop, &[shop.new_branch(&branch)]).await;
            assert_eq!(blobs(database, &branch).await, 3, "{state}");
        }
    }

    async fn parts_rest_on_what_their_branch_may_rest_on(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let old = rig.commit_keys(&shop, 1).await;
        shop.repository.push("main").unwrap();
        for n in 0..8 {
            let (key, value) = rig.issue(false).await;
            let contents = [noise(n, FILE), format!("\n{}\n", value.expose()).into_bytes()].concat();
            shop.repository.write(format!("own{n}"), &contents).unwrap();
            shop.repository.commit("Add").unwrap();
            if n == 7 {
                rig.tell(&[shop.new_branch("feature")]).await;
                rig.read_in_parts(&shop).await;
                assert!(rig.is_revoked(&key).await);
            }
        }
        assert!(database.count("SELECT COUNT(*) FROM work_items WHERE part_of <> ''").await > 1);
        assert_eq!(rig.count_revoked(&old).await, 0);
        let rests = "SELECT COUNT(*) FROM work_items WHERE ref_name = 'refs/heads/feature' AND rested_on <> 'refs/heads/main'";
        assert_eq!(database.count(rests).await, 0);
    }

    async fn parts_do_not_rest_on_a_branch_that_rests_on_theirs(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let keys = rig.commit_keys(&shop, 8).await;
        rig.tell(&[shop.new_branch("main")]).await;
        put_off(database, "main", NEVER).await;
        shop.repository.commit("Develop").unwrap();
        rig.tell(&[shop.new_branch("dev")]).await;
        rig.read_in_parts(&shop).await;
        assert_eq!(rig.count_revoked(&keys).await, 0);
        shop.head_is("dev");
        put_off(database, "main", 0).await;
        rig.read_in_parts(&shop).await;
        assert!(database.count("SELECT COUNT(*) FROM work_items WHERE part_of <> ''").await > 1);
        assert_eq!(rig.count_revoked(&keys).await, keys.len());
    }

    async fn a_repository_that_becomes_public_is_read_whole_whatever_was_announced(database) {
        let rig = Rig::new(&database.store().await);
        for is_deleted in [false, true] {
            let shop = Shop::open().await;
            let key = shop.leak(&rig, "key").await;
            shop.repository.push("dev").unwrap();
            shop.head_is("dev");
            let of = |item: NewWorkItem| NewWorkItem {
                repository_id: format!("{is_deleted}"),
                priority: Priority::Webhook,
                ..item
            };
            rig.add_items(&[of(rig.item(&shop.new_branch("main")))]).await;
            rig.read(&shop, &[]).await;
            assert!(!rig.is_revoked(&key).await, "dev is from before");
            shop.head_is("main");
            if is_deleted {
                shop.repository.push_to("", "refs/heads/dev").unwrap();
            }
            assert_eq!(rig.add_items(&[of(all(&rig))]).await, 1);
            rig.read(&shop, &[]).await;
            assert!(rig.is_revoked(&key).await);
            let before = database.count("SELECT COUNT(*) FROM work_items").await;
            assert_eq!(rig.add_items(&[of(all(&rig))]).await, 0);
            assert_eq!((database.count("SELECT COUNT(*) FROM work_items").await, rig.counts().await.waiting), (before, 0));
        }
    }

    async fn what_rested_on_a_branch_that_is_gone_or_truncated_is_read_again(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        shop.repository.git(&["checkout", "-q", "--orphan", "single"]).unwrap();
        for n in 0..4 {
            shop.repository.write(format!("f{n}"), &noise(n, FILE)).unwrap();
        }
        let (key, value) = rig.issue(false).await;
        shop.repository.write("key", value.expose().as_bytes()).unwrap();
        shop.repository.commit("Leak").unwrap();
        shop.head_is("dev");
        let small = FetchLimits { max_fetch_bytes: 150_000, ..limits() };
        let gone = format!("denials = 99, after_id = '{}'", "b".repeat(40));
        for (n, (limits, changed)) in [(limits(), &*gone), (small, "denials = 0")].into_iter().enumerate() {
            let of = |branch: &str| NewWorkItem {
                repository_id: n.to_string(),
                priority: Priority::Watched,
                ..rig.item(&shop.new_branch(branch))
            };
            rig.add_items(&[of("dev"), of("main")]).await;
            put_off(database, "dev", NEVER).await;
            rig.read(&shop, &[]).await;
            let rests = "SELECT COUNT(*) FROM work_items WHERE state = 'done' AND rested_on = 'refs/heads/dev'";
            assert_eq!((database.count(rests).await, rig.is_revoked(&key).await), (1, n > 0));
            let ready = format!("UPDATE work_items SET ready_at = 0, {changed} WHERE state = 'waiting'");
            database.run(&ready).await.unwrap();
            let worker = rig.worker_with(&shop.forge.url(), limits, WorkerOptions::default(), None);
            worker.drain().await.unwrap();
            assert_eq!((database.count(rests).await, rig.counts().await.waiting), (0, 0), "{n}");
            assert!(rig.is_revoked(&key).await);
        }
        assert_eq!(rig.counts().await.truncated, 2);
    }

    /// A merge that nobody was told of may be undone before anybody is.
    async fn what_the_default_branch_got_since_it_was_announced_is_read_of_a_new_branch(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        rig.read(&shop, &[shop.new_branch("main")]).await;
        let key = shop.leak(&rig, "key").await;
        let feature = shop.new_branch("feature");
        shop.repository.push("main").unwrap();
        rig.add_items(&[NewWorkItem { priority: Priority::Watched, ..rig.item(&feature) }]).await;
        rig.read(&shop, &[]).await;
        assert!(rig.is_revoked(&key).await);
        assert_eq!(blobs(database, "feature").await, 2);
    }
}
