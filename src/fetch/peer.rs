//! Requests to a repository on a server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue,
};
use reqwest::{Response, Url};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::OwnedSemaphorePermit;

use super::FetchError;
use super::fetcher::GitFetcher;
use super::http::{check_status, send};
use super::pace::Pace;
use super::patience::Patience;

/// Size of the largest list of references that does not need the lane of long lists, in bytes.
const SHORT_LIST: usize = 512 << 10;

/// Permit to hold a long list of references. Short ones need none.
#[derive(Debug)]
pub struct LongList {
    _permit: Option<OwnedSemaphorePermit>,
}

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
    /// `feed` returns the number of bytes that are held of the list: there is only one long list at a
    /// time, for as long as the permit that is returned is held.
    pub(super) async fn list(
        &self,
        body: Vec<u8>,
        limit: usize,
        patience: &mut Patience,
        mut feed: impl FnMut(&[u8]) -> Result<usize, FetchError>,
    ) -> Result<LongList, FetchError> {
        let mut response = patience.wait(self.post(body)).await??;
        let mut pace = Pace::new(self.fetcher.limits.pace_after(patience.waited()));
        let mut read = 0;
        let mut lane = None;
        while let Some(chunk) = patience.wait(pace.chunk(&mut response)).await?? {
            patience.received(chunk.len())?;
            read += chunk.len();
            if read > limit {
                return Err(FetchError::Protocol("its list of references is too long"));
            }
            if feed(&chunk)? > SHORT_LIST && lane.is_none() {
                let taken = patience.wait(self.fetcher.budget.long_list());
                let taken = tokio::time::timeout(self.fetcher.limits.stall, taken).await;
                lane = Some(taken.map_err(|_| FetchError::Busy)???);
            }
        }
        Ok(LongList { _permit: lane })
    }

    pub(super) async fn post(&self, body: Vec<u8>) -> Result<Response, FetchError> {
        let refused = "the clone address is in a network that only the configuration may name";
        let guard = &self.fetcher.guard;
        guard
            .check(self.clone_url)
            .map_err(|_| FetchError::BadRequest(refused))?;
        let mut url = self.clone_url.clone();
        url.path_segments_mut()
            .map_err(|()| FetchError::BadRequest("the clone address cannot carry a path"))?
            .push("git-upload-pack");
        let authorization = self.token.map(basic).transpose()?;
        let client = &self.fetcher.client;
        let response = send(&url, self.fetcher.limits.stall, |url| {
            let request = client
                .post(url)
                .header("Git-Protocol", "version=2")
                .header(CONTENT_TYPE, "application/x-git-upload-pack-request")
                .header(ACCEPT, "application/x-git-upload-pack-result")
                .header(ACCEPT_ENCODING, "identity")
                .body(body.clone());
            match &authorization {
                Some(value) => request.header(AUTHORIZATION, value.clone()),
                None => request,
            }
        })
        .await?;
        check_status(&response)?;
        let kind = response.headers().get(CONTENT_TYPE);
        if kind.is_none_or(|kind| kind != "application/x-git-upload-pack-result") {
            return Err(FetchError::Protocol(
                "its answer is not from git-upload-pack",
            ));
        }
        let encoding = response.headers().get(CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| encoding != "identity") {
            return Err(FetchError::Protocol(
                "its answer is compressed, which nobody asked for",
            ));
        }
        Ok(response)
    }
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
