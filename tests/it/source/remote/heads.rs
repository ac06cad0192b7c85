//! `HEAD` where it leads to a commit that no branch and no tag has.

use rescind::fetch::ObjectId;
use rescind::store::{Key, NewWorkItem, WorkKind};

use super::*;

impl Shop {
    /// Checks a commit out, as a deployment does, so that no branch is that of `HEAD`.
    fn check_out(&self, commit: ObjectId) {
        let head = self.repository.bare().join("HEAD");
        std::fs::write(head, format!("{commit}\n")).unwrap();
    }

    fn head_is_main(&self) {
        let head = self.repository.bare().join("HEAD");
        std::fs::write(head, "ref: refs/heads/main\n").unwrap();
    }

    /// Commits a leak to which no branch of the server leads.
    async fn leak_beside_branches(&self, rig: &Rig, file: &str) -> (Key, ObjectId) {
        let (key, value) = rig.issue(false).await;
        let contents = value.expose().as_bytes();
        self.repository.write(file, contents).unwrap();
        self.repository.commit("Leak").unwrap();
        let commit = self.repository.resolve("HEAD").unwrap();
        self.repository.push_to("HEAD", "refs/hidden/it").unwrap();
        (key, commit)
    }
}

async fn kept(database: &TestDatabase, before: &str, after: ObjectId) -> i64 {
    let sql = format!(
        "SELECT COUNT(*) FROM work_items WHERE ref_name = 'HEAD' AND before_id = '{before}' AND after_id = '{after}'"
    );
    database.count(&sql).await
}

#[tokio::test]
async fn a_commit_that_only_a_detached_head_names_is_read_in_each_dialect() {
    for (is_old, is_wide) in [(false, false), (true, false), (false, true)] {
        let (database, rig) = sqlite().await;
        let shop = shop(is_old, is_wide).await;
        let main = shop.push(&[("file", b"contents".to_vec())]).after;
        let url = format!("{}/{}.git", shop.forge.url(), shop.repository.name());
        let remote = rig.remote(&url);
        assert_eq!(remote.poll_once().await.unwrap().items, 1);
        rig.work_off().await;
        // What is new since it was that of a branch.
        let (first, commit) = shop.leak_beside_branches(&rig, "first").await;
        shop.check_out(commit);
        assert_eq!(
            remote.poll_once().await.unwrap().items,
            1,
            "{is_old} {is_wide}"
        );
        assert_eq!(kept(&database, &main.to_string(), commit).await, 1);
        rig.work_off().await;
        assert!(rig.is_revoked(&first).await, "{is_old} {is_wide}");
        assert_eq!(remote.poll_once().await.unwrap().events, 0);
        // And since it was last seen.
        let (second, next) = shop.leak_beside_branches(&rig, "second").await;
        shop.check_out(next);
        assert_eq!(remote.poll_once().await.unwrap().items, 1);
        assert_eq!(kept(&database, &commit.to_string(), next).await, 1);
        rig.work_off().await;
        assert!(rig.is_revoked(&second).await, "{is_old} {is_wide}");
        // What a branch has is read once.
        shop.head_is_main();
        assert_eq!(remote.poll_once().await.unwrap().events, 0);
        let pushed = shop.push(&[("third", b"third".to_vec())]).after;
        shop.check_out(pushed);
        assert_eq!(remote.poll_once().await.unwrap().events, 1);
        assert_eq!(remote.poll_once().await.unwrap().events, 0);
        rig.work_off().await;
        assert_eq!(rig.counts().await.dead, 0);
    }
}

/// A server of version 0 may list it and nothing else.
#[tokio::test]
async fn a_repository_without_branches_is_read_by_its_head() {
    for is_old in [false, true] {
        let (database, rig) = sqlite().await;
        let shop = Shop::open().await;
        if is_old {
            shop.forge.speak_version_0();
        }
        let (key, commit) = shop.leak_beside_branches(&rig, "file").await;
        shop.check_out(commit);
        shop.repository
            .git(&[
                "push",
                "-q",
                shop.repository.bare().to_str().unwrap(),
                ":refs/heads/main",
            ])
            .unwrap();
        let polled = rig.remote(&address(&shop)).poll_once().await.unwrap();
        assert_eq!(polled.items, 1, "{is_old}");
        let new = ObjectId::null(commit.kind()).to_string();
        assert_eq!(kept(&database, &new, commit).await, 1);
        rig.work_off().await;
        assert!(rig.is_revoked(&key).await, "{is_old}");
    }
}

/// All of a repository is listed when it becomes public.
#[tokio::test]
async fn a_list_of_all_references_has_the_head_that_none_of_them_names() {
    for is_old in [false, true] {
        let (database, rig) = sqlite().await;
        let shop = Shop::open().await;
        if is_old {
            shop.forge.speak_version_0();
        }
        let main = shop.repository.resolve("HEAD").unwrap();
        let (key, commit) = shop.leak_beside_branches(&rig, "file").await;
        for (head, is_named) in [(main, false), (commit, true)] {
            shop.check_out(head);
            let list = NewWorkItem {
                kind: WorkKind::References,
                clone_url: Some(address(&shop)),
                host: "git.example".to_owned(),
                repository_id: "1".to_owned(),
                repository: "acme/shop".to_owned(),
                ref_name: String::new(),
                before: String::new(),
                after: head.to_string(),
                source: "feed".to_owned(),
                priority: Priority::Watched,
                event_at: rig.now(),
            };
            rig.add_items(&[list]).await;
            rig.worker(&shop.forge.url()).drain().await.unwrap();
            assert_eq!(rig.is_revoked(&key).await, is_named, "{is_old}");
        }
        let heads = "SELECT COUNT(*) FROM work_items WHERE ref_name = 'HEAD'";
        assert_eq!(database.count(heads).await, 1);
    }
}
