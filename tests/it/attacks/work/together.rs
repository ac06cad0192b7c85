//! New branches that are read together, of which some are heavy.

use super::*;

/// The pack of nothing.
const NO_PACK: &[u8] = b"PACK\0\0\0\x02\0\0\0\0\x02\x9d\x08\x82\x3b\xd8\xa8\xea\xb5\x10\xad\x6a\xc7\x5c\x82\x3c\xfd\x3e\xd3\x1e";

/// A server that sends one branch at once, and several never.
struct Heavy {
    url: String,
    together: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Heavy {
    async fn start() -> Self {
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
                connections.spawn(async move { answer(stream, &count).await });
            }
        });
        Self {
            url,
            together,
            _tasks: tasks,
        }
    }
}

async fn answer(mut stream: TcpStream, together: &AtomicUsize) -> std::io::Result<()> {
    let Some(request) = git::request(&mut stream).await? else {
        return Ok(());
    };
    let request = String::from_utf8_lossy(&request).into_owned();
    let body = match request.matches("want ").count() {
        0 => b"0000".to_vec(),
        1 => {
            let pack = [b"\x01", NO_PACK].concat();
            [line(b"packfile\n"), line(&pack), b"0000".to_vec()].concat()
        }
        _ => {
            together.fetch_add(1, Ordering::Relaxed);
            // Until the client hangs up.
            let mut rest = Vec::new();
            return tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest)
                .await
                .map(drop);
        }
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-git-upload-pack-result\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await
}

/// Each further try with fewer of them would take as long, with all others waiting for its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branches_that_had_to_give_way_together_are_read_singly() {
    let (database, rig) = sqlite().await;
    let server = Heavy::start().await;
    let branches: Vec<_> = (0..24)
        .map(|n| NewWorkItem {
            repository_id: "shop".to_owned(),
            ref_name: format!("refs/heads/b{n}"),
            before: "0".repeat(40),
            ..rig.push_to("git.example", n, Priority::Watched)
        })
        .collect();
    rig.add_items(&branches).await;
    let origins = [origin("git.example", &server.url)];
    let worker = rig.worker_of(origins, FetchLimits::default(), WorkerOptions::default());
    let running = Running::start(worker);
    let done = "SELECT COUNT(*) FROM work_items WHERE state = 'done' AND NOT gone AND lane = 0";
    until("all are read", async || database.count(done).await == 24).await;
    assert_eq!(server.together.load(Ordering::Relaxed), 1);
    running.stop().await;
}
