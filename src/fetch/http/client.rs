//! The HTTP clients.

use std::sync::Once;
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Client, ClientBuilder, Url, redirect};
use thiserror::Error as ThisError;

use super::describe;
use crate::fetch::{Guard, threads};

/// Maximum number of idle connections to a server that are kept.
const IDLE: usize = 8;

/// Error returned when the HTTP client could not be set up.
#[derive(Debug, ThisError)]
#[error("cannot set up the HTTP client: {0}")]
pub struct HttpClientError(String);

/// Creates an HTTP client for requests whose hosts the operator named: a [`guarded_client`] with
/// [`Guard::operator`].
///
/// # Errors
/// Fails if the operating system prevents the setup.
pub fn http_client() -> Result<Client, HttpClientError> {
    guarded_client(&Guard::operator())
}

/// Creates the HTTP client for APIs, which connects only to addresses that `guard` admits, and takes compressed
/// responses.
///
/// It uses HTTP/1.1, TLS by rustls with ring, a connect timeout, and a user agent of the program's name and
/// version. It follows no redirect by itself: a redirected POST would lose its body, and a redirect to
/// another host would send a request where it was never meant to go.
///
/// On a system without root certificates the client still reaches servers over plain HTTP, which is all
/// that a demo or a forge on the same machine needs; every HTTPS server is rejected, and a warning says
/// what to install.
///
/// # Errors
/// Fails if the operating system prevents the setup.
pub fn guarded_client(guard: &Guard) -> Result<Client, HttpClientError> {
    client(&guard.and(proxies()), true, ClientBuilder::build)
}

/// Creates an HTTP client for servers of this program's own on this machine, which no proxy reaches: those that the
/// environment names are ignored.
///
/// # Errors
/// Fails if the operating system prevents the setup.
pub(crate) fn direct_client() -> Result<Client, HttpClientError> {
    client(&Guard::operator(), true, |builder| {
        builder.no_proxy().build()
    })
}

/// Creates an HTTP client like [`guarded_client`] for git servers, which takes responses as they are: a pack is
/// compressed already, and of what is compressed again a thousandth of the bytes makes the same work.
///
/// # Errors
/// Fails if the operating system prevents the setup.
pub fn verbatim_client(guard: &Guard) -> Result<Client, HttpClientError> {
    client(&guard.and(proxies()), false, ClientBuilder::build)
}

/// Taken once it was told that no HTTPS server can be trusted.
static UNTRUSTING: Once = Once::new();

fn client(
    guard: &Guard,
    gzip: bool,
    build: impl Fn(ClientBuilder) -> reqwest::Result<Client>,
) -> Result<Client, HttpClientError> {
    threads::start().map_err(HttpClientError)?;
    // Only the first call installs a provider. Later calls find the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = build(builder(guard, gzip)).or_else(|error| {
        // All clients have the same trouble.
        UNTRUSTING.call_once(|| {
            let error = describe(&error);
            tracing::warn!(%error, "no HTTPS server can be trusted; install the package ca-certificates");
        });
        build(builder(guard, gzip).tls_certs_only([]))
    });
    client.map_err(|error| HttpClientError(describe(&error)))
}

/// Returns the hosts of the proxies in the environment, which are the operator's.
fn proxies() -> Vec<String> {
    let matcher = Matcher::from_env();
    let asked = ["http://host.invalid/", "https://host.invalid/"].map(Uri::from_static);
    let proxies = asked.iter().filter_map(|uri| matcher.intercept(uri));
    proxies
        .filter_map(|proxy| proxy.uri().host().map(str::to_owned))
        .collect()
}

/// Returns the host and the port of the proxy in the environment through which a server is asked, if there is one. Its
/// address may hold a password, which is left out.
pub(super) fn proxy_of(url: &Url) -> Option<String> {
    let proxy = Matcher::from_env().intercept(&url.as_str().parse().ok()?)?;
    let uri = proxy.uri();
    let host = uri.host()?;
    Some(
        uri.port_u16()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
    )
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where a client is made, with the guard"
)]
fn builder(guard: &Guard, gzip: bool) -> ClientBuilder {
    Client::builder()
        .dns_resolver(guard.clone())
        .gzip(gzip)
        .user_agent(concat!("rescind/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(10))
        .pool_idle_timeout(Duration::from_mins(1))
        .pool_max_idle_per_host(IDLE)
        .redirect(redirect::Policy::none())
        .referer(false)
}
