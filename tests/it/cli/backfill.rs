//! Archives and single repositories, read by hand with the real binary.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use rescind::sandbox::git_server::{GitServer, Pushed, Repository};
use serde_json::json;
use tempfile::TempDir;
use tokio_util::task::TaskTracker;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::Binary;

const PERIOD: &str = "--from 2026-01-01T05:00:00Z --to 2026-01-01T07:00:00Z";

struct World {
    forge: GitServer,
    repository: Repository,
    archive: MockServer,
    binary: Binary,
    _folder: TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let forge = GitServer::start(folder.path(), &TaskTracker::new())
            .await
            .unwrap();
        let repository = forge.create("acme/app").unwrap();
        repository.write("README", b"An app.").unwrap();
        repository.commit("Begin").unwrap();
        repository.push("main").unwrap();
        let archive = MockServer::start().await;
        let binary = Binary::new();
        let (url, base) = (forge.url(), archive.uri());
        binary.write(
            "config.toml",
            format!(
                "[[sources]]\nname = \"past\"\nkind = \"gharchive\"\nbase_url = \"{base}\"\nclone_url = \"{url}\"\n\
                 [[sources]]\nname = \"app\"\nkind = \"git\"\nurl = \"{url}/acme/app.git\"\n"
            ),
        );
        Self {
            forge,
            repository,
            archive,
            binary,
            _folder: folder,
        }
    }

    /// Mints a key and pushes it.
    fn leak(&self) -> (String, Pushed) {
        let key = self.binary.run("keys create --user u --description x").ok();
        let key = key.trim().to_owned();
        self.repository.write("settings", key.as_bytes()).unwrap();
        self.repository.commit("Settings").unwrap();
        (key, self.repository.push("main").unwrap())
    }

    fn is_revoked(&self, key: &str) -> bool {
        let ran = self.binary.run_with(["keys", "check"], key);
        format!("{ran:?}").contains("revoked")
    }

    async fn archive(&self, hour: &str, events: &str) {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(events.as_bytes()).unwrap();
        let answer = ResponseTemplate::new(200).set_body_bytes(gzip.finish().unwrap());
        let file = format!("/{hour}.json.gz");
        let mock = Mock::given(method("GET"))
            .and(path(file))
            .respond_with(answer);
        mock.expect(1).mount(&self.archive).await;
    }
}

fn event(pushed: &Pushed) -> String {
    json!({
        "id": "40000000001", "type": "PushEvent", "created_at": "2026-01-01T05:50:26Z",
        "repo": {"id": 7, "name": "acme/app"},
        "payload": {"repository_id": 7, "push_id": 1, "ref": pushed.reference,
            "head": pushed.after.to_string(), "before": pushed.before.to_string()},
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_period_of_an_archive_is_read_once_and_what_leaked_is_revoked() {
    let world = World::new().await;
    let (key, pushed) = world.leak();
    world.archive("2026-01-01-5", &event(&pushed)).await;
    world.archive("2026-01-01-6", &event(&pushed)).await;
    let line = format!("sources backfill past {PERIOD}");
    let told = world.binary.run(&line).ok();
    assert!(
        told.contains("hours          2") && told.contains("work items     1"),
        "{told}"
    );
    assert!(world.is_revoked(&key), "{told}");
    // Each hour was asked for once, as the archive's mocks expect.
    let again = world.binary.run(&line);
    assert!(
        format!("{again:?}").contains("was read before"),
        "{again:?}"
    );
    world.archive.verify().await;
}

/// What was found and not read is counted, and no success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_period_of_which_items_still_wait_is_no_success() {
    let world = World::new().await;
    let (_, pushed) = world.leak();
    let elsewhere = event(&pushed).replace("acme/app", "acme/not-there");
    world.archive("2026-01-01-5", &elsewhere).await;
    world.archive("2026-01-01-6", "").await;
    let line = format!("sources backfill past {PERIOD}");
    let ran = world.binary.run(&line);
    let said = [
        "work items of `past` that still wait: 1",
        "rescind sources status past",
        "--allow-incomplete",
    ];
    ran.fails(3, &said);
    assert!(ran.stdout.contains("items waiting  1"), "{ran:?}");
    let allowed = world.binary.run(&format!("{line} --allow-incomplete"));
    assert!(allowed.stderr.contains(said[0]), "{allowed:?}");
    allowed.ok();
    world.binary.run(&format!("{line} --no-scan")).ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_repository_is_polled_by_hand() {
    let world = World::new().await;
    let (key, _) = world.leak();
    let told = world.binary.run("sources poll app").ok();
    assert!(told.contains("items scanned  1"), "{told}");
    assert!(world.is_revoked(&key), "{told}");
    let asked = world.forge.requests();
    let again = world.binary.run("sources poll app").ok();
    assert!(again.contains("items scanned  0"), "{again}");
    assert_eq!(world.forge.requests(), asked + 1);
}

#[tokio::test]
async fn wrong_periods_and_names_are_refused_with_a_remedy() {
    let world = World::new().await;
    for (line, words) in [
        (
            "sources backfill past --from 2026-01-02 --to 2026-01-01",
            "begin before it ends",
        ),
        (
            "sources backfill past --from soon --to 2026-01-01",
            "2026-01-01T05:00:00Z",
        ),
        (
            "sources backfill past --from 2026-01-01 --to 2999-01-01",
            "not over yet",
        ),
        (
            "sources backfill pst --from 2026-01-01 --to 2026-01-02",
            "did you mean `past`",
        ),
        (
            "sources backfill app --from 2026-01-01 --to 2026-01-02",
            "`app` is a git source, which has no archive",
        ),
        (
            "sources backfill app --from 2026-01-01 --to 2026-01-02",
            "rescind sources poll app",
        ),
        ("sources backfill past --from 2026-01-01", "--to"),
    ] {
        world.binary.run(line).fails(2, &[words]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hours_that_are_not_there_are_counted_and_no_success() {
    let world = World::new().await;
    let line = format!("sources backfill past {PERIOD}");
    let ran = world.binary.run(&line);
    ran.fails(
        3,
        &[
            "0 of 2 hours read, 2 not there",
            "none of these hours",
            "base_url",
        ],
    );
    assert!(ran.stdout.contains("not there      2"), "{ran:?}");
    let again = world
        .binary
        .run(&format!("{line} --allow-incomplete --json"))
        .ok();
    let told: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!(told["missing"], json!(["2026-01-01-5", "2026-01-01-6"]));
    assert_eq!(
        (&told["was_finished"], &told["items_scanned"]),
        (&json!(true), &json!(0))
    );
    // Some of them there, and some not.
    let (_, pushed) = world.leak();
    world.archive("2026-01-01-6", &event(&pushed)).await;
    let ran = world.binary.run(&format!("{line} --force"));
    ran.fails(3, &["1 of 2 hours read, 1 not there", "--allow-incomplete"]);
}
