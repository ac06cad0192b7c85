//! Work in flight when the daemon is stopped, and servers that the configuration names.

use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rescind::forge::Forge;
use rescind::store::{NewWorkItem, Priority, Store, StoreOptions};
use serde_json::json;
use sqlx::Connection as _;
use tokio::time::timeout;

use super::work::{Dripping, end_leases, until};
use crate::cli::Binary;
use crate::serve;
use crate::source::Rig;
use crate::source::work::noise;
use crate::support::http::Ask as _;
use crate::support::world::{Home, World};
use crate::webhooks::sender::{SECRET, headers};

async fn deaths(url: &str) -> i64 {
    let mut connection = sqlx::SqliteConnection::connect(url).await.unwrap();
    let deaths = sqlx::query_scalar("SELECT deaths FROM work_items");
    deaths.fetch_one(&mut connection).await.unwrap()
}

/// A service manager loses patience: SIGTERM, and SIGKILL before the end. That is no fault of what was read.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_ends_with_sigkill_is_no_death_of_what_was_in_flight() {
    let world = World::new().await;
    let home = Home::new(|database| world.config(database));
    let hanging = Dripping::start(0).await;
    let mut daemon = home.serve();
    let path = home.folder.path().join("rescind.db");
    let url = format!("sqlite://{}", path.display());
    let store = Store::open(StoreOptions::new(url.clone())).await.unwrap();
    let rig = Rig::new(&store);
    let slow = NewWorkItem {
        clone_url: Some(format!("{}/acme/slow.git", hanging.url)),
        ..rig.push_to("slow.example", 1, Priority::Watched)
    };
    rig.add_items(&[slow]).await;
    // One more than it takes to put an item aside.
    for stop in 1..=4 {
        until("it is asked for", async || hanging.asked() == stop).await;
        let pid = daemon.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(asked.unwrap().success());
        until("it is excused", async || deaths(&url).await < 0).await;
        daemon.kill();
        end_leases(&url).await;
        daemon = home.serve();
    }
    until("it is asked for again", async || hanging.asked() == 5).await;
    assert_eq!(deaths(&url).await, 0);
    assert_eq!(store.work_counts().await.unwrap().dead, 0);
    daemon.kill();
}

/// Its contents are found nowhere else, and it is claimed already.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_in_the_middle_of_which_the_daemon_stops_is_read_by_the_next_one() {
    let world = World::new().await;
    let home = Home::new(|database| world.config(database));
    let created = home.rescind(&["keys", "create", "--user", "u", "--description", "leaks"]);
    let key = String::from_utf8(created.stdout).unwrap();
    let daemon = home.serve();
    let path = home.folder.path().join("rescind.db");
    let options = StoreOptions::new(format!("sqlite://{}", path.display()));
    let store = Store::open(options).await.unwrap();
    let mut files: Vec<_> = (0..16)
        .map(|file| {
            let encoded = STANDARD.encode(noise(file, 750_000));
            (format!("{file:02}.txt"), encoded.into_bytes())
        })
        .collect();
    files.push(("last.txt".to_owned(), key.into_bytes()));
    let files: Vec<_> = files
        .iter()
        .map(|(name, data)| (&**name, data.clone()))
        .collect();
    world.push(&files, "Much");
    let is_claimed = async || store.work_counts().await.unwrap().leased > 0;
    until("the push is claimed", is_claimed).await;
    let began = Instant::now();
    assert!(daemon.stop().success());
    // 25 s for what is in flight, and twice that on a busy machine.
    assert!(
        began.elapsed() < Duration::from_mins(1),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(store.work_counts().await.unwrap().dead, 0);
    let _daemon = home.serve();
    let is_revoked = async || store.log_after(0, 2).await.unwrap().len() == 1;
    until("the key is revoked", is_revoked).await;
}

/// Strangers have two places together. A server that `clone_hosts` names is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_clone_hosts_names_has_places_of_its_own() {
    let slow = Dripping::start(0).await;
    let binary = Binary::new().with("HOOK_SECRET", SECRET);
    let config = format!(
        "[webhooks.gitea]\nsecrets = [{{ env = \"HOOK_SECRET\" }}]\nclone_hosts = [\"{}\"]\n",
        slow.url
    );
    binary.write("config.toml", config);
    let daemon = serve::Daemon::start(&binary, &["serve"]);
    let http = crate::api::harness::http_client();
    for n in 0..6 {
        let body = json!({
            "ref": "refs/heads/main", "before": "1".repeat(40), "after": "2".repeat(40),
            "repository": {"id": n, "full_name": format!("acme/app-{n}"),
                "clone_url": format!("{}/acme/app-{n}.git", slow.url)},
        })
        .to_string();
        let mut request = http.post(format!("http://{}/webhooks/gitea", daemon.address));
        for (name, value) in headers(Forge::Gitea, "push", &format!("id-{n}"), body.as_bytes()) {
            request = request.header(name, value);
        }
        assert_eq!(request.body(body).ask().await.unwrap().status(), 202);
    }
    // Long before the first ones are cut off for being slow.
    let all = until("more places than strangers have", async || slow.asked() > 2);
    timeout(Duration::from_secs(10), all)
        .await
        .expect("in time");
}
