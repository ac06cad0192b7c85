//! Requests to a repository on a server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue,
};
use reqwest::{Client, RequestBuilder, Response, Url};
use secrecy::{ExposeSecret, SecretString};

use super::FetchError;
use super::fetcher::GitFetcher;
use super::http::{check_status, read_chunk, send};
use super::long_list::LongList;
use super::pace::Pace;
use super::patience::Patience;
use super::protocol::{self, Features};

/// Size of the largest list of references that does not need the lane of long lists, in bytes.
const SHORT_LIST: usize = 512 << 10;

/// Content type of an answer.
const RESULT: &str = "application/x-git-upload-pack-result";

/// Number of bytes within which a server names its capabilities.
const CAPABILITIES: usize = 4 << 10;

/// A repository on a server.
#[derive(Clone, Copy)]
pub(super) struct Peer<'f> {
    pub(super) fetcher: &'f GitFetcher,
    pub(super) clone_url: &'f Url,
    pub(super) token: Option<&'f SecretString>,
}

impl Peer<'_> {
    /// Requests a list of references and passes it to `feed`, at most `limit` bytes.
    ///
    /// `feed` returns the number of bytes that are held of the list, or `None` if it needs no more of it: there is only
    /// one long list at a time, for as long as the place that is returned is held.
    pub(super) async fn list(
        &self,
        body: Vec<u8>,
        limit: usize,
        patience: &mut Patience,
        mut long: LongList,
        mut feed: impl FnMut(&[u8]) -> Result<Option<usize>, FetchError>,
    ) -> Result<LongList, FetchError> {
        let mut response = long.wait(patience.wait(self.post(body))).await???;
        let mut pace = Pace::new(self.fetcher.limits.pace_after(patience.waited()));
        let mut read = 0;
        while let Some(chunk) = long
            .wait(patience.wait(pace.chunk(&mut response)))
            .await???
        {
            patience.received(chunk.len())?;
            long.count(chunk.len());
            long.check()?;
            read += chunk.len();
            if read > limit {
                return Err(FetchError::Protocol("its list of references is too long"));
            }
            let Some(held) = feed(&chunk)? else {
                break;
            };
            if held > SHORT_LIST {
                let budget = &self.fetcher.budget;
                let taken = long.take(&budget.long_lists, self.fetcher.limits.stall);
                patience.wait(taken).await??;
            }
        }
        if read == 0 {
            self.explain_nothing(patience).await?;
        }
        Ok(long)
    }

    /// Asks the server for its capabilities after an answer without a single byte.
    ///
    /// # Errors
    /// Returns the reason for that answer, if the capabilities tell.
    pub(super) async fn explain_nothing(&self, patience: &mut Patience) -> Result<(), FetchError> {
        let told = tokio::time::timeout(self.fetcher.limits.stall, self.capabilities());
        let told = patience.wait(told).await?;
        // Without capabilities it remains an answer that is cut short.
        let Ok(Ok(told)) = told else {
            return Ok(());
        };
        protocol::reason_for_nothing(&told).map_or(Ok(()), Err)
    }

    /// Returns what the server takes, if it says.
    pub(super) async fn features(
        &self,
        patience: &mut Patience,
    ) -> Result<Option<Features>, FetchError> {
        let told = tokio::time::timeout(self.fetcher.limits.stall, self.capabilities());
        let told = patience.wait(told).await?;
        let told = told.ok().and_then(Result::ok);
        Ok(told.and_then(|told| protocol::features(&told)))
    }

    /// Returns the beginning of what the server says of itself, at least [`CAPABILITIES`] if it is that long.
    async fn capabilities(&self) -> Result<Vec<u8>, FetchError> {
        let mut response = self
            .send(&["info", "refs"], |client, mut url| {
                url.set_query(Some("service=git-upload-pack"));
                client.get(url)
            })
            .await?;
        let mut told = Vec::new();
        while told.len() < CAPABILITIES
            && let Some(chunk) = read_chunk(&mut response, self.fetcher.limits.stall).await?
        {
            told.extend_from_slice(&chunk);
        }
        Ok(told)
    }

    pub(super) async fn post(&self, body: Vec<u8>) -> Result<Response, FetchError> {
        let response = self
            .send(&["git-upload-pack"], |client, url| {
                client
                    .post(url)
                    .header(CONTENT_TYPE, "application/x-git-upload-pack-request")
                    .header(ACCEPT, RESULT)
                    .body(body.clone())
            })
            .await?;
        let kind = response.headers().get(CONTENT_TYPE);
        if !kind.is_some_and(is_result) {
            return Err(FetchError::Protocol(
                "its answer is not from git-upload-pack",
            ));
        }
        Ok(response)
    }

    /// Sends a request to a path of the repository.
    async fn send(
        &self,
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
        let authorization = self.token.map(basic).transpose()?;
        let client = &self.fetcher.client;
        let response = send(&url, self.fetcher.limits.stall, |url| {
            let request = request(client, url)
                .header("Git-Protocol", "version=2")
                .header(ACCEPT_ENCODING, "identity");
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

/// Returns whether a content type is that of an answer. Proxies add parameters, and case makes no difference (RFC 9110,
/// section 8.3.1).
fn is_result(kind: &HeaderValue) -> bool {
    let essence = kind.as_bytes().split(|byte| *byte == b';').next();
    let essence = essence.unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(RESULT.as_bytes())
}

/// Returns the value of `Authorization: Basic` with the token as the password, which GitHub and GitLab
/// accept for git over HTTP.
fn basic(token: &SecretString) -> Result<HeaderValue, FetchError> {
    let pair = format!("x-access-token:{}", token.expose_secret());
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64.encode(pair)))
        .map_err(|_| FetchError::BadRequest("the source's token cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}
