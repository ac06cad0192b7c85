//! New branches that are read together, of which some are heavy.

use super::*;

/// The pack of nothing.
const NO_PACK: &[u8] = b"PACK\0\0\0\x02\0\0\0\0\x02\x9d\x08\x82\x3b\xd8\xa8\xea\xb5\x10\xad\x6a\xc7\x5c\x82\x3c\xfd\x3e\xd3\x1e";

/// Returns the answer to a request. An empty one keeps its sender waiting.
type Answers = fn(&str) -> Vec<u8>;

/// A server that counts the requests for several branches.
struct Server {
    url: String,
    together: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let together = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&together);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let count = Arc::clone(&count);
                connections.spawn(async move { answer(stream, &count, answers).await });
            }
        });
        Self {
            url,
            together,
            _tasks: tasks,
        }
    }
}

async fn answer(
    mut stream: TcpStream,
    together: &AtomicUsize,
    answers: Answers,
) -> std::io::Result<()> {
    let Some(request) = git::request(&mut stream).await? else {
        return Ok(());
    };
    let request = String::from_utf8_lossy(&request).into_owned();
    if request.matches("want ").count() > 1 {
        together.fetch_add(1, Ordering::Relaxed);
    }
    let body = answers(&request);
    if body.is_empty() {
        // Until the client hangs up.
        let mut rest = Vec::new();
        return tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest)
            .await
            .map(drop);
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-git-upload-pack-result\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await
}

fn no_pack() -> Vec<u8> {
    let pack = [b"\x01", NO_PACK].concat();
    [line(b"packfile\n"), line(&pack), b"0000".to_vec()].concat()
}

/// Sends one branch at once, and several never.
fn one_by_one(request: &str) -> Vec<u8> {
    match request.matches("want ").count() {
        0 => b"0000".to_vec(),
        1 => no_pack(),
        _ => Vec::new(),
    }
}

/// Has every branch but each fourth one, the first among them, and names those that it has.
fn without_some(request: &str) -> Vec<u8> {
    let commit = |n: usize| unheard_of(n).after;
    let is_wanted = |n: usize| request.contains(&format!("want {}", commit(n)));
    let mut branches = 0..BRANCHES;
    if request.contains("command=ls-refs") {
        let there = branches.filter(|n| !is_gone(*n));
        let named = |n| line(format!("{} refs/heads/b{n}\n", commit(n)).as_bytes());
        return [there.flat_map(named).collect(), b"0000".to_vec()].concat();
    }
    match branches.find(|n| is_gone(*n) && is_wanted(*n)) {
        Some(n) => line(format!("ERR upload-pack: not our ref {}", commit(n)).as_bytes()),
        None => no_pack(),
    }
}

const BRANCHES: usize = 64;

fn is_gone(n: usize) -> bool {
    n.is_multiple_of(4)
}

fn branches(rig: &Rig, count: usize) -> Vec<NewWorkItem> {
    let branch = |n| NewWorkItem {
        repository_id: "shop".to_owned(),
        ref_name: format!("refs/heads/b{n}"),
        before: "0".repeat(40),
        ..rig.push_to("git.example", n, Priority::Watched)
    };
    (0..count).map(branch).collect()
}

/// Each further try with fewer of them would take as long, with all others waiting for its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branches_that_had_to_give_way_together_are_read_singly() {
    let (database, rig) = sqlite().await;
    let server = Server::start(one_by_one).await;
    rig.add_items(&branches(&rig, 24)).await;
    let origins = [origin("git.example", &server.url)];
    let worker = rig.worker_of(origins, FetchLimits::default(), WorkerOptions::default());
    let running = Running::start(worker);
    let done = "SELECT COUNT(*) FROM work_items WHERE state = 'done' AND NOT gone AND lane = 0";
    until("all are read", async || database.count(done).await == 24).await;
    assert_eq!(server.together.load(Ordering::Relaxed), 1);
    running.stop().await;
}

/// Otherwise, each branch that was deleted since it was listed would have all others read anew, and fewer at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branches_that_are_gone_do_not_part_the_others() {
    let (database, rig) = sqlite().await;
    let server = Server::start(without_some).await;
    rig.add_items(&branches(&rig, BRANCHES)).await;
    let origins = [origin("git.example", &server.url)];
    let worker = rig.worker_of(origins, FetchLimits::default(), WorkerOptions::default());
    let running = Running::start(worker);
    let done = "SELECT COUNT(*) FROM work_items WHERE state = 'done' AND NOT gone";
    let there = (0..BRANCHES).filter(|n| !is_gone(*n)).count();
    until("all are read", async || {
        usize::try_from(database.count(done).await).unwrap() == there
    })
    .await;
    assert_eq!(server.together.load(Ordering::Relaxed), 2);
    running.stop().await;
}
