//! Fetching pushed ranges: from real repositories, and from servers that misbehave.

mod dialects;
mod ranges;
mod servers;

use std::time::Duration;

use reqwest::Url;
use rescind::fetch::{
    FetchLimits, FetchedPack, GitFetcher, LeftOut, RangeRequest, RepositoryName, TextKind,
    http_client,
};
use rescind::sandbox::git_server::{GitServer, Pushed, Repository};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

/// A forge in a folder of its own.
struct Place {
    forge: GitServer,
    _folder: TempDir,
}

impl Place {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let forge = GitServer::start(folder.path(), &TaskTracker::new())
            .await
            .unwrap();
        Self {
            forge,
            _folder: folder,
        }
    }

    fn repository(&self) -> Repository {
        self.forge.create("acme/shop").unwrap()
    }

    fn request(&self, pushed: &Pushed) -> RangeRequest {
        range(&self.forge.url(), pushed)
    }

    async fn fetch(&self, pushed: &Pushed) -> Shown {
        let fetched = fetcher(limits()).fetch(&self.request(pushed)).await;
        shown(fetched.unwrap())
    }

    /// Fetches what a forced push brought, and then what it dropped.
    async fn fetch_both(&self, pushed: &Pushed) -> Shown {
        let mut shown = self.fetch(pushed).await.whole();
        assert!(shown.dropped);
        let dropped = Pushed {
            reference: pushed.reference.clone(),
            before: pushed.after,
            after: pushed.before,
        };
        shown.texts.extend(self.fetch(&dropped).await.whole().texts);
        shown
    }
}

fn range(base: &str, pushed: &Pushed) -> RangeRequest {
    let name = RepositoryName::parse("acme/shop").unwrap();
    RangeRequest {
        clone_url: name.clone_url(&Url::parse(base).unwrap()).unwrap(),
        token: None,
        reference: pushed.reference.clone(),
        before: pushed.before,
        after: pushed.after,
        others: Vec::new(),
        haves: Vec::new(),
        is_sampled: false,
    }
}

fn limits() -> FetchLimits {
    FetchLimits {
        stall: Duration::from_secs(20),
        total: Duration::from_mins(1),
        ..FetchLimits::default()
    }
}

fn fetcher(limits: FetchLimits) -> GitFetcher {
    GitFetcher::new(http_client().unwrap(), limits)
}

/// One text that was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    kind: TextKind,
    commit: Option<String>,
    path: Option<Vec<u8>>,
    data: Vec<u8>,
}

#[derive(Debug)]
struct Shown {
    texts: Vec<Seen>,
    left_out: LeftOut,
    dropped: bool,
}

fn shown(fetched: FetchedPack) -> Shown {
    let mut texts = Vec::new();
    let visited = fetched
        .visit(|text| {
            texts.push(Seen {
                kind: text.kind,
                commit: text.commit.map(|id| id.to_string()),
                path: text.path.map(<[u8]>::to_vec),
                data: text.data.to_vec(),
            });
        })
        .unwrap();
    Shown {
        texts,
        left_out: visited.left_out,
        dropped: visited.dropped,
    }
}

impl Shown {
    /// The blobs as `path: contents`, sorted.
    fn blobs(&self) -> Vec<String> {
        let mut blobs: Vec<_> = self
            .of(TextKind::Blob)
            .map(|blob| {
                let path = blob.path.as_deref().unwrap_or(b"?");
                let path = String::from_utf8_lossy(path);
                format!("{path}: {}", String::from_utf8_lossy(&blob.data))
            })
            .collect();
        blobs.sort();
        blobs
    }

    fn of(&self, kind: TextKind) -> impl Iterator<Item = &Seen> {
        self.texts.iter().filter(move |text| text.kind == kind)
    }

    fn whole(self) -> Self {
        assert!(self.left_out.is_nothing(), "{:?}", self.left_out);
        self
    }
}
