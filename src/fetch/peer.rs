//! Requests to a repository on a server.

use gix_hash::Kind as HashKind;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue,
};
use reqwest::{Client, RequestBuilder, Response, Url};

use super::FetchError;
use super::fetcher::GitFetcher;
use super::http::{check_status, read_chunk, send};
use super::long_list::LongList;
use super::pace::Pace;
use super::patience::Patience;
use super::protocol::{self, Dialect, Features, List, Request, Version};
use super::token::Token;

/// Size of the largest list of references that does not need the lane of long lists, in bytes.
const SHORT_LIST: usize = 512 << 10;

/// Content type of an answer.
const RESULT: &str = "application/x-git-upload-pack-result";

/// Content type of what a server says of itself, and in version 0 of a list of references.
const GREETING: &str = "application/x-git-upload-pack-advertisement";

/// Number of bytes within which a server names its capabilities.
const CAPABILITIES: usize = 8 << 10;

/// A repository on a server.
#[derive(Clone, Copy)]
pub(super) struct Peer<'f> {
    fetcher: &'f GitFetcher,
    clone_url: &'f Url,
    token: Option<&'f Token>,
    /// Dialect in which it is asked.
    dialect: Dialect,
}

impl<'f> Peer<'f> {
    /// Creates a peer that is asked in the dialect that is known of it, or the usual one.
    pub(super) fn new(
        fetcher: &'f GitFetcher,
        clone_url: &'f Url,
        token: Option<&'f Token>,
    ) -> Self {
        Self {
            fetcher,
            clone_url,
            token,
            dialect: fetcher.dialects.of(clone_url),
        }
    }

    /// Returns the same peer, whose objects have names of this kind.
    pub(super) fn named_by(self, hash: HashKind) -> Self {
        let dialect = Dialect {
            hash,
            ..self.dialect
        };
        Self { dialect, ..self }
    }

    /// Returns whether the objects of the repository have names of this kind, as far as is known.
    pub(super) fn has_names_of(&self, hash: HashKind) -> bool {
        self.dialect.hash == hash
    }

    pub(super) fn version(&self) -> Version {
        self.dialect.version
    }

    /// Returns whether the server gives nothing but what it lists.
    pub(super) fn gives_listed_only(&self) -> bool {
        self.dialect.gives_listed_only()
    }

    /// Records that the server was understood.
    pub(super) fn understood(&self) {
        let version = self.version();
        self.fetcher.dialects.understood(self.clone_url, version);
    }

    /// Returns whether a request failed because the server speaks another dialect, in which it is asked from now on.
    pub(super) async fn speaks_otherwise(
        &mut self,
        error: &FetchError,
        patience: &mut Patience,
    ) -> Result<bool, FetchError> {
        let dialects = &self.fetcher.dialects;
        let is_likely = match error {
            FetchError::Empty => true,
            // Git's words where it says why it has no answer: "mismatched object format".
            FetchError::Refused(said) if said.contains("object format") => true,
            // A server of which that is known has other reasons.
            FetchError::Protocol(_) | FetchError::Refused(_) => {
                !dialects.speaks_version_2(self.clone_url)
            }
            FetchError::Server { status } => {
                !matches!(status, 502..=504) && !dialects.speaks_version_2(self.clone_url)
            }
            _ => false,
        };
        if !is_likely {
            return Ok(false);
        }
        let told = self.told(patience).await?;
        let found = told.as_deref().and_then(Dialect::of);
        let Some(found) = found.filter(|found| *found != self.dialect) else {
            return Ok(false);
        };
        dialects.note(self.clone_url, found);
        self.dialect = found;
        Ok(true)
    }

    /// Requests a list of references and passes it to `feed`, at most `limit` bytes.
    ///
    /// `feed` returns the number of bytes that are held of the list, or `None` if it needs no more of it: there is only
    /// one long list at a time, for as long as the place that is returned is held.
    pub(super) async fn list(
        &self,
        list: List,
        limit: usize,
        patience: &mut Patience,
        mut long: LongList,
        mut feed: impl FnMut(&[u8]) -> Result<Option<usize>, FetchError>,
    ) -> Result<LongList, FetchError> {
        let mut response = long.wait(patience.wait(self.ask_for(list))).await???;
        let mut pace = Pace::new(self.fetcher.limits.pace_after(patience.waited()));
        let mut read = 0;
        while let Some(chunk) = long
            .wait(patience.wait(pace.chunk(&mut response)))
            .await???
        {
            patience.received(chunk.len())?;
            long.count(chunk.len());
            long.check()?;
            // What is wanted may be at the beginning of a chunk that goes beyond the limit.
            let within = chunk.len().min(limit.saturating_sub(read));
            read += chunk.len();
            let Some(held) = feed(&chunk[..within])? else {
                break;
            };
            if read > limit {
                return Err(FetchError::Protocol("its list of references is too long"));
            }
            if held > SHORT_LIST {
                let budget = &self.fetcher.budget;
                let taken = long.take(&budget.long_lists, self.fetcher.limits.stall);
                patience.wait(taken).await??;
            }
        }
        if read == 0 {
            return Err(FetchError::Empty);
        }
        Ok(long)
    }

    /// Returns what the server takes, if it says.
    pub(super) async fn features(
        &self,
        patience: &mut Patience,
    ) -> Result<Option<Features>, FetchError> {
        if let Version::Old(offers) = self.version() {
            return Ok(Some(Features {
                filter: offers.has("filter"),
                shallow: offers.has("shallow"),
            }));
        }
        let told = self.told(patience).await?;
        Ok(told.and_then(|told| protocol::features(&told)))
    }

    /// Returns the beginning of what the server says of itself, if it says anything.
    async fn told(&self, patience: &mut Patience) -> Result<Option<Vec<u8>>, FetchError> {
        let told = tokio::time::timeout(self.fetcher.limits.stall, self.capabilities());
        Ok(patience.wait(told).await?.ok().and_then(Result::ok))
    }

    /// Returns the beginning of what the server says of itself, at least [`CAPABILITIES`] if it is that long.
    async fn capabilities(&self) -> Result<Vec<u8>, FetchError> {
        let mut response = self.greeting(Version::Two).await?;
        let mut told = Vec::new();
        while told.len() < CAPABILITIES
            && let Some(chunk) = read_chunk(&mut response, self.fetcher.limits.stall).await?
        {
            told.extend_from_slice(&chunk);
        }
        Ok(told)
    }

    /// Asks for what the server says of itself. In version 0 that is also the list of references.
    async fn greeting(&self, version: Version) -> Result<Response, FetchError> {
        self.send(version, &["info", "refs"], |client, mut url| {
            url.set_query(Some("service=git-upload-pack"));
            client.get(url)
        })
        .await
    }

    async fn ask_for(&self, list: List) -> Result<Response, FetchError> {
        let version = self.version();
        if version == Version::Two {
            return self.post_body(list.body(self.dialect.hash)).await;
        }
        let greeting = self.greeting(version).await?;
        check_kind(&greeting, GREETING)?;
        Ok(greeting)
    }

    pub(super) async fn post(&self, request: &Request) -> Result<Response, FetchError> {
        self.post_body(request.body(self.dialect)).await
    }

    async fn post_body(&self, body: Vec<u8>) -> Result<Response, FetchError> {
        let response = self
            .send(self.version(), &["git-upload-pack"], |client, url| {
                client
                    .post(url)
                    .header(CONTENT_TYPE, "application/x-git-upload-pack-request")
                    .header(ACCEPT, RESULT)
                    .body(body.clone())
            })
            .await?;
        check_kind(&response, RESULT)?;
        Ok(response)
    }

    /// Sends a request to a path of the repository.
    async fn send(
        &self,
        version: Version,
        path: &[&str],
        request: impl Fn(&Client, Url) -> RequestBuilder,
    ) -> Result<Response, FetchError> {
        let guard = &self.fetcher.guard;
        let checked = guard.check(self.clone_url);
        checked.map_err(|refused| FetchError::NotAdmitted(refused.to_string()))?;
        let mut url = self.clone_url.clone();
        url.path_segments_mut()
            .map_err(|()| FetchError::BadRequest("the clone address cannot carry a path"))?
            .extend(path);
        let authorization = self.token.map(Token::authorization).transpose();
        let authorization = authorization
            .map_err(|_| FetchError::BadRequest("the source's token cannot be sent"))?;
        let client = &self.fetcher.client;
        let response = send(&url, self.fetcher.limits.stall, |url| {
            let mut request = request(client, url).header(ACCEPT_ENCODING, "identity");
            if version == Version::Two {
                request = request.header("Git-Protocol", "version=2");
            }
            match &authorization {
                Some(value) => request.header(AUTHORIZATION, value.clone()),
                None => request,
            }
        })
        .await?;
        check_status(&response)?;
        let encoding = response.headers().get(CONTENT_ENCODING);
        if !encoding.is_none_or(is_identity) {
            return Err(FetchError::Protocol(
                "its answer is compressed, which nobody asked for",
            ));
        }
        Ok(response)
    }
}

/// Returns whether an encoding is none, whatever its case (RFC 9110, section 8.4.1).
fn is_identity(encoding: &HeaderValue) -> bool {
    let encoding = encoding.as_bytes().trim_ascii();
    encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity")
}

/// Checks the content type of an answer. Proxies add parameters, and case makes no difference (RFC 9110, section 8.3.1).
fn check_kind(response: &Response, expected: &str) -> Result<(), FetchError> {
    let is_expected = |kind: &HeaderValue| {
        let essence = kind.as_bytes().split(|byte| *byte == b';').next();
        let essence = essence.unwrap_or_default().trim_ascii();
        essence.eq_ignore_ascii_case(expected.as_bytes())
    };
    let kind = response.headers().get(CONTENT_TYPE);
    if kind.is_some_and(is_expected) {
        return Ok(());
    }
    Err(FetchError::Protocol(
        "its answer is not from git-upload-pack",
    ))
}
