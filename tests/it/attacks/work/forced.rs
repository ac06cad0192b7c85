//! Forced pushes, with servers that do not have what they dropped, or do not come with it; and slow pushes beside others
//! of the same repository.

use std::sync::Mutex;

use memchr::memmem;

use super::slow::{HEAD, pass_on};
use super::*;

/// Answer to a request for some commits.
#[derive(Clone, Copy)]
enum Then {
    /// These lines.
    Says(&'static [&'static [u8]]),
    /// Signs of life without end, as git sends them while it puts a pack together.
    Packs,
}

/// A server that passes requests on, but for those for some commits.
struct Picky {
    url: String,
    /// Commits that it answers otherwise.
    picked: Arc<Mutex<Vec<ObjectId>>>,
    _tasks: JoinSet<()>,
}

impl Picky {
    async fn start(good: String, then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let picked = Arc::new(Mutex::new(Vec::new()));
        let (mut tasks, list) = (JoinSet::new(), Arc::clone(&picked));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (good, list) = (good.clone(), Arc::clone(&list));
                connections.spawn(async move { answer(stream, &good, &list, then).await.ok() });
            }
        });
        Self {
            url,
            picked,
            _tasks: tasks,
        }
    }

    fn pick(&self, commit: ObjectId) {
        self.picked.lock().unwrap().push(commit);
    }
}

async fn answer(
    mut stream: TcpStream,
    good: &str,
    picked: &Mutex<Vec<ObjectId>>,
    then: Then,
) -> std::io::Result<()> {
    let Some(request) = git::request(&mut stream).await? else {
        return Ok(());
    };
    let is_for = |id: &ObjectId| memmem::find(&request, format!("want {id}").as_bytes()).is_some();
    if !picked.lock().unwrap().iter().any(is_for) {
        return pass_on(stream, &request, good, Duration::ZERO, 10 << 20).await;
    }
    stream.write_all(HEAD).await?;
    match then {
        Then::Says(lines) => {
            for text in lines {
                stream.write_all(&line(text)).await?;
            }
            stream.write_all(b"0000").await
        }
        Then::Packs => {
            stream.write_all(&line(b"packfile\n")).await?;
            loop {
                stream.write_all(b"0005\x02").await?;
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

impl Rig {
    /// A push as a webhook tells of it.
    fn hooked(&self, pushed: &Pushed) -> NewWorkItem {
        NewWorkItem {
            priority: Priority::Webhook,
            ..self.item(pushed)
        }
    }

    /// Replaces the last commit by one with a key.
    async fn amend(&self, shop: &Shop) -> (Key, Pushed) {
        let (key, value) = self.issue(false).await;
        let path = format!("{}.env", key.id);
        let repository = &shop.repository;
        repository.write(path, value.expose().as_bytes()).unwrap();
        repository.git(&["add", "--all"]).unwrap();
        repository
            .git(&["commit", "-q", "--amend", "-m", "Amend"])
            .unwrap();
        (key, repository.push("main").unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_forced_push_dropped_holds_up_nothing_that_it_brought() {
    let gone = Then::Says(&[b"ERR want 0123 not valid"]);
    let corrupt = Then::Says(&[
        b"packfile\n",
        b"\x03aborting due to possible repository corruption on the remote side.",
    ]);
    for then in [gone, corrupt, Then::Packs] {
        let (_database, rig) = sqlite().await;
        let shop = Shop::open().await;
        let server = Picky::start(shop.forge.url(), then).await;
        let origins = [origin("git.example", &server.url)];
        let running = Running::start(rig.worker_of(origins, FetchLimits::default(), hasty()));
        shop.push(&[("old.txt", b"old".to_vec())]);
        for _ in 0..4 {
            let (key, pushed) = rig.amend(&shop).await;
            server.pick(pushed.before);
            rig.add_items(&[rig.hooked(&pushed)]).await;
            rig.wait_until_revoked(&key).await;
        }
        let (key, leak) = rig.leak(&shop).await;
        rig.add_items(&[leak]).await;
        rig.wait_until_revoked(&key).await;
        running.stop().await;
    }
}

/// Commits that are gone are gone, and no error of the repository.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_were_dropped_may_be_gone_in_any_words() {
    let answers: [&'static [u8]; 2] = [b"ERR want 0123 not valid", b"ERR words of its own"];
    for answer in answers {
        let (database, rig) = sqlite().await;
        let shop = Shop::open().await;
        let lines: &'static [&'static [u8]] = Box::leak(Box::new([answer]));
        let server = Picky::start(shop.forge.url(), Then::Says(lines)).await;
        let origins = [origin("git.example", &server.url)];
        let worker = rig.worker_of(origins, FetchLimits::default(), hasty());
        shop.push(&[("old.txt", b"old".to_vec())]);
        let (key, pushed) = rig.amend(&shop).await;
        server.pick(pushed.before);
        rig.add_items(&[rig.hooked(&pushed)]).await;
        for _ in 0..8 {
            worker.drain().await.unwrap();
            database
                .run("UPDATE work_items SET ready_at = 0")
                .await
                .unwrap();
        }
        assert!(rig.is_revoked(&key).await);
        let counts = rig.counts().await;
        assert_eq!((counts.done, counts.waiting, counts.dead), (2, 0, 0));
        let gone = "SELECT COUNT(*) FROM work_items WHERE gone AND dropped";
        assert_eq!(database.count(gone).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_pushes_make_room_for_others_of_their_repository() {
    let (_database, rig) = sqlite().await;
    let shop = Shop::open().await;
    let server = Picky::start(shop.forge.url(), Then::Packs).await;
    let origins = [origin("git.example", &server.url)];
    for n in 0..2 {
        let pushed = shop.push(&[(&format!("slow{n}"), b"slow".to_vec())]);
        server.pick(pushed.after);
        rig.add_items(&[rig.hooked(&pushed)]).await;
    }
    let running = Running::start(rig.worker_of(origins, FetchLimits::default(), hasty()));
    sleep(Duration::from_secs(1)).await;
    for _ in 0..2 {
        let (key, leak) = rig.leak(&shop).await;
        rig.add_items(&[leak]).await;
        rig.wait_until_revoked(&key).await;
    }
    running.stop().await;
}
