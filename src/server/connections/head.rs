//! Memory kept for the heads of requests, and its budget.
//!
//! A head is kept while its body is awaited, which may take long and happen on every connection at once. Before
//! anything waits, a head is therefore reduced to the few headers that are used, copied out of the buffer that they
//! arrived in. Heads that are large even then share a budget; no legitimate request has one.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::error::{ApiError, ApiResult};
use crate::memory;

/// Maximum size of a head in bytes, and maximum number of headers. Forges send less than 4 KiB and 40 headers.
pub(in crate::server) const MAX_HEAD: usize = 8 << 10;
pub(in crate::server) const MAX_HEADERS: usize = 64;

/// Maximum number of bytes that a head may keep without a share of the budget.
const ORDINARY: usize = 2 << 10;

/// Maximum number of bytes kept of larger heads at a time: from any client, and in addition from clients that proved
/// themselves.
const OF_ANYBODY: usize = memory::HEADS_OF_ANYBODY;
const OF_KNOWN: usize = memory::HEADS_OF_KNOWN;

/// Value of `Retry-After` when there is no room for a head.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Headers that are used, besides those that are read while the head is received and those of partners, which are
/// configured.
const KEPT: [&str; 28] = [
    "authorization",
    "content-length",
    "content-type",
    "idempotency-key",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
    "x-event-key",
    "x-forgejo-delivery",
    "x-forgejo-event",
    "x-forgejo-signature",
    "x-gitea-delivery",
    "x-gitea-event",
    "x-gitea-signature",
    "x-github-delivery",
    "x-github-event",
    "x-gitlab-event",
    "x-gitlab-event-uuid",
    "x-gitlab-token",
    "x-gogs-delivery",
    "x-gogs-event",
    "x-gogs-signature",
    "x-hexclave-secret-server-key",
    "x-hub-signature",
    "x-hub-signature-256",
    "x-request-id",
    "x-request-uuid",
    "x-stack-secret-server-key",
];

/// Reduces the headers to those that are used, `configured` ones among them: the first value of each name, copied so
/// that it shares no buffer with the rest.
pub(in crate::server) fn shrink<'c>(
    all: &mut HeaderMap,
    configured: impl Iterator<Item = &'c str>,
) {
    let names = KEPT.iter().copied().map(HeaderName::from_static);
    let configured = configured.filter_map(|name| HeaderName::try_from(name).ok());
    let kept = names.chain(configured).filter_map(|name| {
        let value = all.get(&name)?;
        let copy = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        Some((name, copy))
    });
    let kept: Vec<_> = kept.collect();
    let mut headers = HeaderMap::with_capacity(kept.len());
    for (name, value) in kept {
        headers.insert(name, value);
    }
    *all = headers;
}

/// Copies the URI of a request out of the buffer that it arrived in, before any part of it is kept, and drops the empty
/// segments of its path: forges and clients are often told an address with a slash at its end, and append a path to it
/// or not. A redirect would lose the bodies of their requests.
pub(in crate::server) fn detach(address: &mut Uri) {
    let text = address.to_string();
    let (before, query) = text.split_at(text.find('?').unwrap_or(text.len()));
    let path = address.path();
    let server = before.strip_suffix(path).unwrap_or_default();
    let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    // `*` has no segments, nor has the server of a CONNECT.
    let path = if path.starts_with('/') {
        format!("/{}", segments.join("/"))
    } else {
        path.to_owned()
    };
    if let Ok(copy) = Uri::try_from([server, &path, query].concat()) {
        *address = copy;
    }
}

/// Budget shared by all heads.
#[derive(Debug)]
pub(in crate::server) struct Heads {
    of_anybody: Arc<Semaphore>,
    of_known: Arc<Semaphore>,
}

impl Heads {
    pub(in crate::server) fn new() -> Self {
        Self {
            of_anybody: Arc::new(Semaphore::new(OF_ANYBODY)),
            of_known: Arc::new(Semaphore::new(OF_KNOWN)),
        }
    }

    /// Reserves a head's share of the budget, to be held as long as the head. Returns `None` for a head that needs
    /// none.
    ///
    /// # Errors
    /// Returns 503 if the budget is used up by other heads.
    pub(in crate::server) fn share<B>(
        &self,
        request: &Request<B>,
        is_known: impl FnOnce() -> bool,
    ) -> ApiResult<Option<OwnedSemaphorePermit>> {
        let bytes = weight(request);
        if bytes <= ORDINARY {
            return Ok(None);
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let share = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_many_owned(bytes).ok();
        let share =
            share(&self.of_anybody).or_else(|| is_known().then(|| share(&self.of_known)).flatten());
        share.map(Some).ok_or_else(|| {
            let message = "Too many requests with large heads are in flight. Nothing was changed; send the request again later.";
            ApiError::unavailable(message, RETRY_AFTER).of_many()
        })
    }
}

/// Returns the number of bytes that a head keeps. The router copies parts of the URI, so the URI counts twice.
fn weight<B>(request: &Request<B>) -> usize {
    let headers = request.headers().iter();
    let headers: usize = headers
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    let uri = request.uri();
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let authority = uri.authority().map_or(0, |of| of.as_str().len());
    headers + 2 * (path + authority) + request.method().as_str().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: usize, length: usize) -> Request<()> {
        let mut request = Request::builder().uri("/webhooks/github?a=b");
        for number in 0..headers {
            request = request.header(format!("x-{number}"), "y".repeat(length));
        }
        request.body(()).unwrap()
    }

    #[test]
    fn a_head_shrinks_to_what_is_looked_at() {
        let (mut head, ()) = request(60, 100).into_parts();
        let event = HeaderValue::from_static("push");
        head.headers.append("x-github-event", event);
        head.headers
            .append("x-github-event", HeaderValue::from_static("issues"));
        shrink(&mut head.headers, ["X-7", "X-GitHub-Event"].into_iter());
        detach(&mut head.uri);
        assert_eq!(head.headers.len(), 2);
        assert_eq!(head.headers["x-7"].len(), 100);
        assert_eq!(head.headers["x-github-event"], "push");
        assert_eq!(head.uri, "/webhooks/github?a=b");
    }

    #[test]
    fn empty_segments_of_a_path_make_no_difference() {
        for (sent, kept) in [
            ("/webhooks/github/", "/webhooks/github"),
            ("/webhooks/github//?a=b/", "/webhooks/github?a=b/"),
            ("http://localhost/readyz/", "http://localhost/readyz"),
            ("//webhooks/github", "/webhooks/github"),
            ("//webhooks///github/?a=//b", "/webhooks/github?a=//b"),
            ("http://localhost//readyz", "http://localhost/readyz"),
            ("http://localhost//", "http://localhost/"),
            ("/a%2F%2Fb/./../c", "/a%2F%2Fb/./../c"),
            ("localhost:443", "localhost:443"),
            ("/", "/"),
            ("//", "/"),
            ("/?a=/", "/?a=/"),
            ("*", "*"),
        ] {
            let mut address: Uri = sent.parse().unwrap();
            detach(&mut address);
            assert_eq!(address, kept);
        }
    }

    /// Every header that a handler documents has to reach it.
    #[test]
    fn every_described_header_is_kept() {
        let document: serde_json::Value =
            serde_json::from_slice(&crate::server::document()).unwrap();
        let partners = crate::config::Partners::default();
        let partners = partners.each().into_iter();
        let headers = partners.flat_map(|(_, partner)| {
            let headers = [&partner.key_identifier_header, &partner.signature_header];
            headers.map(|header| header.to_lowercase())
        });
        let kept: Vec<_> = headers.chain(KEPT.map(str::to_owned)).collect();
        let mut described = 0;
        for operation in document["paths"].as_object().unwrap().values() {
            for operation in operation.as_object().unwrap().values() {
                let parameters = operation["parameters"].as_array();
                for parameter in parameters.into_iter().flatten() {
                    let name = parameter["name"].as_str().unwrap().to_lowercase();
                    // The client's address is determined before.
                    if parameter["in"] == "header" && name != "x-forwarded-for" {
                        assert!(kept.contains(&name), "{name}");
                        described += 1;
                    }
                }
            }
        }
        assert!(described > 10, "{described}");
    }

    #[test]
    fn large_heads_share_a_budget_and_ordinary_ones_need_none() {
        let heads = Heads::new();
        let large = request(30, 200);
        let mut shares = Vec::new();
        while let Ok(Some(share)) = heads.share(&large, || false) {
            shares.push(share);
            assert!(shares.len() * 6000 <= OF_ANYBODY, "{}", shares.len());
        }
        assert!(
            heads
                .share(&large, || true)
                .is_ok_and(|share| share.is_some())
        );
        assert!(
            heads
                .share(&request(10, 100), || false)
                .is_ok_and(|share| share.is_none())
        );
        shares.pop();
        assert!(heads.share(&large, || false).is_ok());
    }
}
