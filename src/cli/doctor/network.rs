//! Checks over the network: sources, clone addresses and partners' public keys, and from their answers the clock.

use std::borrow::Cow;
use std::collections::BTreeSet;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{AGE, DATE, HeaderMap};
use reqwest::{Client, RequestBuilder, Response, Url};
use serde::Deserialize;

use super::check::PATIENCE;
use super::{Check, in_time, sources};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Config, without_slash};
use crate::fetch::{FetchError, read_chunk, send};
use crate::intake::PartnerName;

/// Size in bytes beyond which no more of an answer is read.
const MAX_ANSWER: usize = 1 << 20;

/// Maximum difference between two clocks that is reported as fine.
const MAX_SKEW: SignedDuration = SignedDuration::from_mins(2);

/// Check of a server, and its clock if it told the time.
pub(super) struct Probe {
    pub(super) check: Check,
    pub(super) clock: Option<OtherClock>,
}

/// Clock of a server, compared with this machine's.
pub(super) struct OtherClock {
    host: String,
    /// Time by which this machine's clock is ahead. Negative if it is behind.
    ahead: SignedDuration,
}

/// Response of a server, with its body if that was requested.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) clock: Option<OtherClock>,
}

impl Probe {
    pub(super) fn new(check: Check, clock: Option<OtherClock>) -> Self {
        Self { check, clock }
    }
}

/// Queries every server that the configuration names, all concurrently.
pub(super) async fn probes(config: &Config, http: &Client) -> Vec<Check> {
    let mut all: Vec<BoxFuture<'_, Vec<Probe>>> = Vec::new();
    for source in &config.sources {
        all.push(sources::probes(source, http).boxed());
    }
    for url in clone_urls(config) {
        all.push(clone_url(url, http).map(|probe| vec![probe]).boxed());
    }
    for (name, _, url) in config.partners.accepting() {
        let probe = public_keys(name, url, http);
        all.push(probe.map(|probe| vec![probe]).boxed());
    }
    let mut checks = Vec::new();
    let mut clocks = Vec::new();
    for Probe { check, clock } in join_all(all).await.into_iter().flatten() {
        checks.push(check);
        clocks.extend(clock);
    }
    checks.extend(compare(&clocks));
    checks
}

/// Returns every configured clone address once.
fn clone_urls(config: &Config) -> BTreeSet<&Url> {
    let sources = config.sources.iter().map(|source| &source.clone_url);
    let webhooks = config.webhooks.each().into_iter();
    let webhooks = webhooks.filter_map(|(_, webhook)| webhook.clone_url.as_ref());
    sources.chain(webhooks).collect()
}

/// Checks that a clone address answers. Any status below 500 will do, since the address itself is no repository.
async fn clone_url(url: &Url, http: &Client) -> Probe {
    let name = format!("clone_url {}", without_slash(url));
    let mend =
        "check clone_url, and that this machine may reach it: DNS, proxy, firewall, certificates";
    let request = |url| http.get(url);
    match ask(url, false, request).await {
        Ok(answer) if answer.status < 500 => Probe::new(Check::ok(name, "reachable"), answer.clock),
        Ok(answer) => {
            let message = format!("it answers HTTP {}", answer.status);
            Probe::new(Check::failed(name, message, mend), answer.clock)
        }
        Err(why) => Probe::new(Check::failed(name, why, mend), None),
    }
}

/// Response that lists a partner's public keys.
#[derive(Deserialize)]
struct PublicKeyList {
    public_keys: Vec<serde::de::IgnoredAny>,
}

async fn public_keys(partner: PartnerName, url: &Url, http: &Client) -> Probe {
    let partner = partner.name();
    let name = format!("partner {partner}");
    let mend = format!(
        "its reports are answered 503 until then: check partners.{partner}.public_keys_url and that this machine may reach it"
    );
    let request = |url| http.get(url);
    let answer = match ask(url, true, request).await {
        Ok(answer) => answer,
        Err(why) => return Probe::new(Check::failed(name, why, mend), None),
    };
    let list = serde_json::from_slice::<PublicKeyList>(&answer.body);
    let check = match (answer.status, list) {
        (200, Ok(list)) if !list.public_keys.is_empty() => {
            let count = list.public_keys.len();
            Check::ok(name, format!("{count} public keys"))
        }
        (200, _) => Check::failed(name, "what is there is no list of public keys", mend),
        (status, _) => {
            let message = format!("{} answers HTTP {status}", without_slash(url));
            Check::failed(name, message, mend)
        }
    };
    Probe::new(check, answer.clock)
}

/// Sends a GET request. Reads the body only if `read` is set.
///
/// # Errors
/// Returns a phrase that says why there is no answer.
pub(super) async fn ask(
    url: &Url,
    read: bool,
    request: impl Fn(Url) -> RequestBuilder,
) -> Result<Answer, Cow<'static, str>> {
    let asked = async {
        let mut response = send(url, PATIENCE, request).await?;
        let clock = other_clock(url, response.headers());
        let body = if read {
            read_body(&mut response).await?
        } else {
            Vec::new()
        };
        Ok::<_, FetchError>(Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body,
            clock,
        })
    };
    match in_time(asked).await {
        Some(answer) => answer.map_err(|error| error.to_string().into()),
        None => Err("no answer within 10 s".into()),
    }
}

async fn read_body(response: &mut Response) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    while let Some(chunk) = read_chunk(response, PATIENCE).await? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            break;
        }
    }
    Ok(body)
}

fn other_clock(url: &Url, headers: &HeaderMap) -> Option<OtherClock> {
    let text = |name| headers.get(name)?.to_str().ok();
    let sent = rfc2822::DateTimeParser::new()
        .parse_timestamp(text(DATE)?)
        .ok()?;
    // A cached response is as old as its `Age` header says.
    let age = text(AGE).and_then(|age| age.trim().parse().ok());
    let now: Timestamp = SystemClock.now();
    Some(OtherClock {
        host: url.host_str()?.to_owned(),
        ahead: now.duration_since(sent) - SignedDuration::from_secs(age.unwrap_or(0)),
    })
}

/// Compares this machine's clock with the one that differs most. Returns `None` if no server told the time.
fn compare(clocks: &[OtherClock]) -> Option<Check> {
    let worst = clocks.iter().max_by_key(|clock| clock.ahead.abs())?;
    let seconds = worst.ahead.abs().as_secs();
    let direction = if worst.ahead.is_negative() {
        "behind"
    } else {
        "ahead of"
    };
    let message = format!(
        "this machine's clock is {seconds} s {direction} that of {}",
        worst.host
    );
    if worst.ahead.abs() <= MAX_SKEW {
        return Some(Check::ok("clock", message));
    }
    let mend = "synchronize the clock (NTP): rate limits, times in the log and expiry depend on it";
    Some(Check::warning("clock", message, mend))
}
