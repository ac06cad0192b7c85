//! Ranges that are read in parts, and references that a source did not name one by one.

use super::*;

/// Size of a file that does not compress.
pub(super) const FILE: usize = 100_000;

/// Limits by which a range of more than two files is read in parts.
fn tight() -> FetchLimits {
    FetchLimits {
        max_held_bytes: 250_000,
        ..limits()
    }
}

/// All references of the shop.
pub(super) fn all(rig: &Rig) -> NewWorkItem {
    NewWorkItem {
        kind: WorkKind::References,
        ref_name: String::new(),
        before: String::new(),
        after: "event-1".to_owned(),
        priority: Priority::Webhook,
        ..rig.item(&made_up('b'))
    }
}

impl Rig {
    /// Commits as many files with a key each.
    pub(super) async fn commit_keys(&self, shop: &Shop, files: u32) -> Vec<Key> {
        let mut keys = Vec::new();
        for n in 0..files {
            let (key, value) = self.issue(false).await;
            let mut contents = noise(n, FILE);
            contents.extend_from_slice(format!("\n{}\n", value.expose()).as_bytes());
            shop.repository.write(format!("f{n}"), &contents).unwrap();
            shop.repository.commit("Add").unwrap();
            keys.push(key);
        }
        keys
    }

    pub(super) async fn count_revoked(&self, keys: &[Key]) -> usize {
        let mut revoked = 0;
        for key in keys {
            revoked += usize::from(self.is_revoked(key).await);
        }
        revoked
    }

    pub(super) async fn read_in_parts(&self, shop: &Shop) {
        let url = shop.forge.url();
        let worker = self.worker_with(&url, tight(), WorkerOptions::default(), None);
        worker.drain().await.unwrap();
    }
}

on_both_databases! {
    /// Commits that grew beside a branch come before the merge, but not before the middle of the branch.
    async fn parts_of_a_merge_leave_out_what_the_push_leaves_out(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        shop.repository.git(&["branch", "long"]).unwrap();
        for n in 0..24 {
            shop.repository.write(format!("grown{n}"), &noise(100 + n, FILE)).unwrap();
            shop.repository.commit("Grow").unwrap();
        }
        let before = shop.repository.push("main").unwrap().after;
        shop.repository.git(&["checkout", "-q", "long"]).unwrap();
        let keys = rig.commit_keys(&shop, 8).await;
        shop.repository.git(&["checkout", "-q", "main"]).unwrap();
        shop.repository.git(&["merge", "-q", "--no-ff", "-m", "Merge", "long"]).unwrap();
        let pushed = Pushed { before, ..shop.repository.push("main").unwrap() };
        rig.add(&[pushed]).await;
        rig.read_in_parts(&shop).await;
        assert_eq!(rig.count_revoked(&keys).await, keys.len());
        // Halves of eight commits and their merge. With what grew beside them they would be some hundred.
        let parts = database.count("SELECT COUNT(*) FROM work_items WHERE part_of <> ''").await;
        assert!((2..=16).contains(&parts), "{parts}");
    }

    /// Each push has some of it read with a further budget.
    async fn a_branch_that_is_larger_than_the_budget_of_a_push_is_read_to_its_end_by_those_that_follow(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let keys = rig.commit_keys(&shop, 40).await;
        let small = FetchLimits { max_fetch_bytes: 120_000, ..limits() };
        let worker = rig.worker_with(&shop.forge.url(), small, WorkerOptions::default(), None);
        let push = |pushed: Pushed| NewWorkItem { priority: Priority::Webhook, ..rig.item(&pushed) };
        let pushed = shop.repository.push("main").unwrap();
        let before = ObjectId::null(pushed.after.kind());
        rig.add_items(&[push(Pushed { before, ..pushed })]).await;
        worker.drain().await.unwrap();
        let at_first = rig.count_revoked(&keys).await;
        assert!((1..keys.len()).contains(&at_first), "{at_first}");
        let mut more = 0;
        while rig.count_revoked(&keys).await < keys.len() {
            more += 1;
            assert!(more < 24, "{at_first}, then {}", rig.count_revoked(&keys).await);
            rig.add_items(&[push(shop.push(&[("small", vec![more])]))]).await;
            worker.drain().await.unwrap();
        }
        assert_eq!(database.count("SELECT COUNT(*) FROM work_items WHERE unread").await, 0);
    }

    async fn listed_references_are_read_as_far_as_pushed_ones(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let keys = rig.commit_keys(&shop, 24).await;
        shop.repository.push("main").unwrap();
        rig.add_items(&[all(&rig)]).await;
        rig.read_in_parts(&shop).await;
        assert_eq!(rig.count_revoked(&keys).await, keys.len());
    }

    async fn keys_in_names_of_listed_references_are_revoked_and_not_kept(database) {
        let rig = Rig::new(&database.store().await);
        let shop = Shop::open().await;
        let (branch, of_branch) = rig.issue(false).await;
        let (tag, of_tag) = rig.issue(false).await;
        let of_branch = format!("refs/heads/feature/{}", of_branch.expose());
        shop.repository.push_to("HEAD", &of_branch).unwrap();
        shop.repository.push_to("HEAD", &format!("refs/tags/v-{}", of_tag.expose())).unwrap();
        rig.add_items(&[all(&rig)]).await;
        rig.worker(&shop.forge.url()).drain().await.unwrap();
        for key in [&branch, &tag] {
            assert!(rig.is_revoked(key).await);
            let seen = rig.store.occurrences(key.id, 10).await.unwrap();
            let commit = shop.repository.resolve("HEAD").unwrap().to_string();
            assert_eq!(seen[0].place.commit.as_deref(), Some(commit.as_str()));
        }
        let names = format!("SELECT COUNT(*) FROM work_items WHERE ref_name = '{of_branch}'");
        assert_eq!(database.count(&names).await, 0);
        assert_eq!((rig.counts().await.dead, rig.counts().await.waiting), (0, 0));
    }
}
