//! One request to a server: whether it answers, and what its clock says.

use std::borrow::Cow;

use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{AGE, DATE, HeaderMap};
use reqwest::{RequestBuilder, Response, Url};

use super::check::PATIENCE;
use super::{Check, in_time};
use crate::clock::{Clock as _, SystemClock};
use crate::fetch::{FetchError, read_chunk, send};

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
pub(super) fn compare(clocks: &[OtherClock]) -> Option<Check> {
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
